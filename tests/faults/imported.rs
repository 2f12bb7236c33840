//! `import`, killed: the same command again ends where an undisturbed one ends, in both
//! histories and in the folder, and `up` runs only what was pending.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::count_up;
use crate::dump::{Dump, dump};
use crate::project::{Project, seeded};
use crate::support::sql::sql;
use crate::support::{Database, block_on};
use crate::time::leases_run_out_at;

/// golang-migrate's, of both stores: what is applied would show if it were run again.
const THEIRS: &[(&str, &str)] = &[
    ("000001_more.up.sql", "UPDATE people SET n = n + 1000;\n"),
    ("000001_more.down.sql", "UPDATE people SET n = n - 1000;\n"),
    (
        "000001_more.up.json",
        r#"[{ "update": "people", "updates": [{ "q": {}, "u": { "$inc": { "n": 1000 } }, "multi": true }] }]"#,
    ),
    ("000002_even_more.up.sql", "UPDATE people SET n = n + 1000;\n"),
    (
        "000003_mongo.up.json",
        r#"[{ "update": "people", "updates": [{ "q": {}, "u": { "$inc": { "n": 1000 } }, "multi": true }] }]"#,
    ),
    ("000004_pending.up.sql", "UPDATE people SET n = n + 1;\n"),
    (
        "000004_pending.up.json",
        r#"[{ "update": "people", "updates": [{ "q": {}, "u": { "$inc": { "n": 1 } }, "multi": true }] }]"#,
    ),
];

const IMPORT: [&str; 4] = ["import", "golang-migrate", "--from", "theirs"];

/// A project that golang-migrate has brought up to 3, in both stores.
fn theirs(name: &str) -> (Project, Database) {
    let project = Project::of(&[]);
    for (path, text) in THEIRS {
        project.write(&format!("theirs/{path}"), text);
    }
    let database = seeded(name);
    sql(
        &database.postgres_url,
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); \
         INSERT INTO schema_migrations VALUES (3, false)",
    );
    block_on(async || {
        let client = mongodb::Client::with_uri_str(&database.mongo_uri).await.expect("a valid URI");
        let here = client.default_database().expect("a URI with a database");
        let row = bson::doc! { "_id": 1, "version": 3_i64, "dirty": false };
        here.collection("schema_migrations").insert_one(row).await.expect("it is written");
        client.shutdown().immediate(true).await;
    });
    (project, database)
}

/// Everything below the folder of migrations, hidden or not.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).expect("a folder") {
            let path = entry.expect("readable").path();
            let name = path.strip_prefix(folder).expect("it is inside").display().to_string();
            if path.is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                folders.push(path);
            } else {
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

struct Undisturbed {
    files: BTreeMap<String, Vec<u8>>,
    import: Dump,
    up: Dump,
}

#[test]
fn import_killed_at_every_failpoint_goes_on_where_it_died() {
    let undisturbed = {
        let (project, database) = theirs("import");
        project.migrate(&database, &IMPORT).succeeds();
        let import = dump(&database);
        let files = files(&project.path("migrations"));
        project.migrate(&database, &["up"]).succeeds();
        Undisturbed { files, import, up: dump(&database) }
    };
    let count = undisturbed.files.keys().filter(|name| !name.ends_with('/')).count();
    assert_eq!(count, THEIRS.len(), "{:?}", undisturbed.files.keys());
    assert!(undisturbed.import.history.contains("baseline"), "{}", undisturbed.import.history);
    assert!(undisturbed.import.data.contains("people"), "there is something to compare");
    let trials = count_up(|failpoint| {
        let mut was_killed = true;
        // The same command again at once; and somebody who deploys first.
        for deployed in [false, true] {
            let (project, database) = theirs("import_killed");
            let died = project.migrate(&database, &IMPORT).dying_at(failpoint).run();
            was_killed = died.was_killed();
            if !was_killed {
                assert_eq!(died.code, Some(0), "at {failpoint}: {}", died.text);
                break;
            }
            leases_run_out_at(&database.postgres_url, &database.mongo_uri);
            // What is not hidden is whole.
            let there = files(&project.path("migrations"));
            for (name, bytes) in there.iter().filter(|(name, _)| !name.starts_with('.')) {
                assert_eq!(Some(bytes), undisturbed.files.get(name), "{name}: {}", died.text);
                let folder = name.split('/').next();
                let of = |files: &BTreeMap<String, Vec<u8>>| {
                    files.keys().filter(|name| name.split('/').next() == folder).count()
                };
                assert_eq!(of(&there), of(&undisturbed.files), "{name}: {}", died.text);
            }
            if deployed {
                let up = project.migrate(&database, &["up"]).run();
                let data = dump(&database).data;
                let is_known = data == undisturbed.import.data || data == undisturbed.up.data;
                assert!(is_known, "{}\n{}", died.text, up.text);
            }
            let again = project.migrate(&database, &IMPORT).succeeds();
            let after = format!("at {failpoint}: {}\n{}", died.text, again.text);
            assert_eq!(files(&project.path("migrations")), undisturbed.files, "{after}");
            if !deployed {
                let mut found = dump(&database);
                // With nothing left to record no lease is taken, and who died is told by
                // the next that takes it.
                if !again.text.contains("recorded as already there") {
                    found.left.clear();
                }
                found.is(&undisturbed.import, &after);
            }
            project.migrate(&database, &["up"]).succeeds();
            let mut found = dump(&database);
            found.left.clear();
            found.is(&undisturbed.up, &after);
            project.migrate(&database, &["verify"]).succeeds();
        }
        was_killed
    });
    eprintln!("import was killed at {trials} failpoints");
    assert!(trials > 28, "{trials} failpoints");
}
