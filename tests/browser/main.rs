//! The page of `migrate serve` in a real browser, on real servers: what it shows, what
//! can be done from it, by whom, and what it does when something is away.
//!
//! Pictures are written to target/browser.

#[path = "../support/mod.rs"]
mod support;

mod driver;
mod gate;
mod project;

use driver::{Browser, ENTER, TAB};
use gate::Gate;
use project::{Project, TOKEN};
use serde_json::json;
use std::time::Duration;
use support::Database;
use support::sql::sql;
use support::wait::until;

/// A table of so many rows, and a backfill of it that takes its time, in a migration
/// that is held when it is done.
const FILES: [(&str, &str); 3] = [
    ("001-first/up.sql", "CREATE TABLE first (id int PRIMARY KEY);"),
    (
        "002-one-more/migration.toml",
        "cleanup = \"hold\"\n\
         [[backfill]]\nname = \"one more\"\nbatch = 20\npause = \"30ms\"\n\
         postgres = { table = \"t\", set = \"n = n + 1\" }\n\
         [[invariant]]\nname = \"all have one\"\npostgres = \"SELECT count(*) FROM t WHERE n = 0\"\n",
    ),
    ("002-one-more/cleanup.sql", "ALTER TABLE t ALTER COLUMN n SET DEFAULT 1;"),
];

fn table(url: &str, rows: u32) {
    sql(
        url,
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL);
             INSERT INTO t SELECT g, 0 FROM generate_series(1, {rows}) AS g;"
        ),
    );
}

/// Texts that somebody cannot read on what is behind them: less than 4.5 to 1, or 3 to
/// 1 where they are large.
const FAINT: &str = r"
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\d.]+/g).map(Number).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const clear = (colour) => /rgba\(.*, 0\)|transparent/.test(colour);
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!clear(colour)) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    let looked = 0;
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node; (node = walk.nextNode());) {
        const element = node.parentElement;
        if (!node.data.trim() || !element.checkVisibility() || element.closest('script, .unseen, .skip')) continue;
        const style = getComputedStyle(element);
        const [one, other] = [light(element.closest('svg') ? style.fill : style.color), light(behind(element))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        const size = parseFloat(style.fontSize);
        const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
        looked += 1;
        if (ratio < wanted) faint.push(`${node.data.trim()}: ${ratio.toFixed(2)}`);
    }
    return looked > 20 ? faint : ['nothing was looked at'];";

/// Who cannot see, who has a small screen, and who has it dark or light.
fn check_look(browser: &Browser, name: &str) {
    for (scheme, width) in [("light", 1280), ("dark", 768), ("dark", 360), ("light", 360)] {
        browser.prefer(scheme);
        browser.resize(width, 900);
        let dark = browser.js("return matchMedia('(prefers-color-scheme: dark)').matches");
        assert_eq!(dark, scheme == "dark");
        let ground = browser.text("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground == "rgb(16, 19, 22)", scheme == "dark", "{ground}");
        let over = "return document.documentElement.scrollWidth - innerWidth";
        let over = browser.js(over).as_i64().expect("a number");
        assert!(over <= 0, "{name} is {over} px wider than {width}");
        assert_eq!(browser.js(FAINT), json!([]), "{name}, {scheme}, {width} px");
        browser.shoot(&format!("{name}-{width}-{scheme}"));
    }
    browser.resize(1280, 900);

    let announced = browser.announced();
    let count = |role: &str| announced.iter().filter(|(found, ..)| found == role).count();
    for landmark in ["banner", "main", "contentinfo"] {
        assert_eq!(count(landmark), 1, "{name}: {landmark} in {announced:?}");
    }
    let headings: Vec<i64> = announced
        .iter()
        .filter(|(role, ..)| role == "heading")
        .map(|(_, _, level)| *level)
        .collect();
    assert_eq!(headings.iter().filter(|level| **level == 1).count(), 1, "{headings:?}");
    assert!(headings.windows(2).all(|two| two[1] <= two[0] + 1), "{name}: {headings:?}");
    assert!(count("region") >= 3, "{name}: {announced:?}");
    assert!(count("button") >= 2, "{name}: {announced:?}");
    let named = ["button", "region", "link", "textbox", "spinbutton", "progressbar", "image"];
    let nameless = announced
        .iter()
        .filter(|(role, name, _)| named.contains(&role.as_str()) && name.trim().is_empty());
    assert_eq!(nameless.count(), 0, "{name}: {announced:?}");
}

/// Goes on with the Tab key until the focus is where a selector says.
#[track_caller]
fn tab_to(browser: &Browser, selector: &str) {
    let there = format!("return document.activeElement.matches({})", json!(selector));
    let mut passed = Vec::new();
    while browser.js(&there) != json!(true) {
        let at = "const { activeElement: it } = document;
                  return `${it.localName}: ${it.innerText.slice(0, 20)}`";
        passed.push(browser.text(at));
        assert!(passed.len() < 30, "{selector} is not reached: {passed:?}");
        browser.press(TAB);
    }
}

#[test]
fn a_backfill_is_seen_and_steered_with_nothing_but_keys() {
    let database = Database::new("browser");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    table(url, 40_000);
    let project = Project::new((url, mongo), &FILES);
    let served = project.serve("127.0.0.1:0", None, &["--allow-control"]);
    let browser = Browser::start();
    browser.resize(1280, 900);
    browser.open(&format!("http://{}/", served.address));
    browser.until_it_says("#verdict", "2 migrations are pending: 001-first and 002-one-more.");

    let run = project.start(&["up"]);
    browser.until_it_says("#verdict", "up is at work on 002-one-more (execute)");
    browser.until_it_says("#fills", "one more");
    browser.until_it_says("#migrations", "execute");
    until("its rate is drawn", || {
        browser.js("return !!document.querySelector('#fills .chart .curve')") == json!(true)
    });
    let passed = || {
        let text = browser.text("return document.querySelector('#fills dd').innerText");
        let digits = text.split(" of ").next().unwrap_or_default().replace(',', "");
        digits.parse::<u32>().unwrap_or_default()
    };
    let before = passed();
    until("it moves", || passed() > before);
    assert!(browser.says("#log", "running"));
    check_look(&browser, "running");

    // From the top of the page, without a mouse: over to what matters, and on.
    browser.js("document.activeElement.blur(); scrollTo(0, 0)");
    browser.press(TAB);
    assert_eq!(browser.text("return document.activeElement.className"), "skip");
    browser.press(ENTER);
    tab_to(&browser, "input[name=token]");
    browser.press("not-the-token-at-all");
    browser.press(ENTER);
    tab_to(&browser, "input[name=reason]");
    let reason = "<img src=x onerror=alert(1)> & <b>lunch</b>";
    browser.press(reason);
    browser.press(ENTER);
    browser.until_it_says(".steer output", "does not know this token");
    assert_eq!(sql(url, "SELECT paused FROM migration_control"), ["f"]);
    // That the browser notes an answer of 401 is its own.
    let refused = browser.errors();
    assert!(refused.iter().all(|error| error.contains("401")), "{refused:?}");

    tab_to(&browser, "input[name=token]");
    browser.press(TOKEN);
    browser.press(ENTER);
    tab_to(&browser, "input[name=reason]");
    browser.press(reason);
    browser.press(ENTER);
    browser.until_it_says("#verdict", &format!("Backfills are paused: {reason}"));
    let asked = "SELECT paused::text || ' ' || reason FROM migration_control";
    assert_eq!(sql(url, asked), [format!("true {reason}")]);
    browser.until_it_says("#log", reason);
    assert_eq!(browser.js("return document.querySelectorAll('img, main b b').length"), json!(0));
    let heard = browser.text("return document.querySelector('#live').textContent");
    assert!(heard.contains("aused"), "{heard}");
    until("it stands still", || {
        let before = sql(url, "SELECT count(*) FROM t WHERE n = 1");
        // Three batches would have been done.
        std::thread::park_timeout(Duration::from_millis(200));
        sql(url, "SELECT count(*) FROM t WHERE n = 1") == before
    });
    check_look(&browser, "paused");

    // The focus has gone on to the button that is there now.
    tab_to(&browser, "form[data-do=resume] button");
    browser.press(ENTER);
    browser.until_it_says("#fills", "at work");
    assert_eq!(sql(url, "SELECT paused FROM migration_control"), ["f"]);
    browser.click("button[data-factor='2']");
    browser.until_it_says("#fills", "speed 2 was asked for");
    assert_eq!(sql(url, "SELECT speed FROM migration_control"), ["2"]);
    project.run(&["backfill", "speed", "100"]);
    browser.until_it_says("#fills", "speed 100 was asked for");

    let said = run.succeeds();
    assert!(said.contains("held"), "{said}");
    browser.until_it_says("#verdict", "002-one-more is held: only the cleanup is left.");
    browser.until_it_says("#invariants", "holds");
    browser.click("button.name[data-version='2']");
    browser.until_it_says("#records-2", "execute/one-more");
    check_look(&browser, "held");

    // Nothing came from elsewhere, and all that came was in order.
    let origin = format!("http://{}/", served.address);
    let loaded = browser.js("return performance.getEntriesByType('resource').map((it) => it.name)");
    let loaded = loaded.as_array().expect("names").iter().filter_map(serde_json::Value::as_str);
    let (ours, others): (Vec<_>, Vec<_>) = loaded
        .filter(|name| !name.starts_with("data:"))
        .partition(|name| name.starts_with(&origin));
    assert!(ours.iter().any(|name| name.ends_with("/api/plan")), "{ours:?}");
    assert_eq!(others, Vec::<&str>::new());
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn what_is_away_is_told_and_looked_for_again() {
    let database = Database::new("away");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    let project = Project::new((url, mongo), &FILES[..1]);
    project.run(&["up"]);
    let (gate, by_gate) = Gate::before(url);
    let served = project.serve("127.0.0.1:0", Some(&by_gate), &[]);
    let address = served.address.clone();
    let browser = Browser::start();
    browser.resize(1280, 900);
    browser.open(&format!("http://{address}/"));
    let fine = "The one migration is completed in both stores.";
    browser.until_it_says("#verdict", fine);
    browser.until_it_says("footer", "read-only");
    assert_eq!(browser.js("return document.querySelectorAll('input').length"), json!(0));
    check_look(&browser, "completed");
    assert_eq!(browser.errors(), Vec::<String>::new());

    gate.close();
    browser.until_it_says("#verdict", "Postgres cannot be reached since");
    browser.until_it_says("#stores", "down");
    // What was known is still there, and it says from when.
    assert!(browser.says("#migrations", "001-first"));
    assert!(browser.says("#migrations", "as of"));
    assert!(!browser.says("main", "refuse"), "it is away, and has nothing against `up`");
    check_look(&browser, "store-down");
    gate.open();
    browser.until_it_says("#verdict", fine);
    assert!(!browser.says("#stores", "down"));

    served.terminate();
    browser.until_it_says("#verdict", "This page has lost its server");
    browser.until_it_says("#verdict", "It tries again");
    browser.until_it_says("#link", "server gone");
    assert!(browser.text("return document.title").starts_with('✕'));
    assert!(browser.says("#migrations", "001-first"));
    check_look(&browser, "server-gone");
    let _served = project.serve(&address, None, &[]);
    browser.until_it_says("#verdict", fine);
    let heard = browser.text("return document.querySelector('#live').textContent");
    assert!(!heard.is_empty(), "what changed is said");
}

#[test]
fn a_run_that_failed_is_said_first() {
    let database = Database::new("failed");
    let (url, mongo) = (&database.postgres_url, &database.mongo_uri);
    let broken = ("002-more/up.mongodb.js", "db.c.createIndex({ n: 1 }, { unique: true });\n");
    let good = ("002-more/up.sql", "CREATE TABLE more (id int);\n");
    let project = Project::new((url, mongo), &[FILES[0], good, broken]);
    project.run(&["up", "--to", "1"]);
    support::block_on(async || {
        let client = mongodb::Client::with_uri_str(mongo).await.expect("a valid URI");
        let all = client.default_database().expect("it is named").collection("c");
        let twice = [bson::doc! { "n": 1 }, bson::doc! { "n": 1 }];
        all.insert_many(twice).await.expect("MongoDB answers");
        client.shutdown().immediate(true).await;
    });
    project.start(&["up"]).fails();
    let served = project.serve("127.0.0.1:0", None, &[]);
    let browser = Browser::start();
    browser.resize(1280, 900);
    browser.open(&format!("http://{}/", served.address));
    browser.until_it_says("#verdict", "The last up failed");
    browser.until_it_says("#verdict", "002-more");
    assert!(browser.says("#verdict", "duplicate key"), "what the database said");
    browser.until_it_says("#log", "failed");
    browser.until_it_says("#migrations", "partial");
    check_look(&browser, "failed");

    // A person's choice beats the system's, and is kept.
    browser.prefer("light");
    let ground = || browser.text("return getComputedStyle(document.body).backgroundColor");
    let light = ground();
    browser.click("#theme");
    assert_ne!(ground(), light);
    browser.open(&format!("http://{}/", served.address));
    browser.until_it_says("#theme", "Light");
    assert_ne!(ground(), light);
    assert_eq!(browser.errors(), Vec::<String>::new());
}

#[test]
fn the_page_is_one_small_file() {
    let page = include_str!("../../src/serve/page.html");
    assert!(page.len() < 200_000, "{} bytes", page.len());
    // The policy of the server lets nothing of this through.
    for forbidden in [" style=", " onclick=", "innerHTML", "http://", "https://"] {
        let found = page.matches(forbidden).count();
        let expected = page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(found, if forbidden == "http://" { expected } else { 0 }, "{forbidden}");
    }
}
