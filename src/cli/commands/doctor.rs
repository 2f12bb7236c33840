//! `migrate doctor`: the check before a deployment. It changes nothing.

use crate::cli::args::Global;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project;
use crate::core::doctor::{self, Check, Finding, Level, MongoFacts, Needs, PostgresFacts, Verdict};
use crate::core::id::StoreName;
use crate::core::migration::MigrationSet;
use crate::core::status;
use crate::engine::SystemClock;
use crate::engine::lock::{self, Read};
use crate::report::human::{Look, wrap_after};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use crate::store::{Fate, StoreError, Stores};
use serde_json::{Value, json};

/// Runs the command. A database that cannot be reached is a finding: the other
/// one is checked all the same.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let config = project::configure(global)?;
    let (set, _) = project::read_unfilled(&config)?;
    let run_id = project::this_run("doctor").id;
    let (postgres, mongo) = futures_util::future::join(
        project::connect_postgres(&config, &run_id, global.wait),
        project::connect_mongo(&config, &run_id, global.wait),
    )
    .await;
    let mut findings = Vec::new();
    let postgres = reached(StoreName::Postgres, postgres, &mut findings)?.map(|(store, _)| store);
    let mongo = reached(StoreName::Mongo, mongo, &mut findings)?.map(|(store, _)| store);
    let stores = Stores { postgres, mongo };
    findings.extend(examine(stores, &set).await);
    findings.sort_by_key(|finding| (finding.store.is_none(), finding.store));

    let ok = findings.iter().all(|finding| finding.level != Level::Problem);
    output.object("doctor", &json!({ "ok": ok, "findings": objects(&findings) }));
    let look = output.result_look;
    // Of one store it is said by its name what is said of both together.
    let whole = match (&config.postgres, &config.mongo) {
        (Some(_), None) => StoreName::Postgres.title(),
        (None, Some(_)) => StoreName::Mongo.title(),
        _ => "both",
    };
    let mut lines: Vec<String> = findings.iter().map(|it| line(it, whole, look)).collect();
    lines.push(summary(&findings, look));
    output.result(&lines.join("\n"));
    Ok(match doctor::verdict(&findings) {
        Verdict::Fine => Exit::Ok,
        Verdict::Unreachable => Exit::Unreachable,
        Verdict::Unmet => Exit::Refused,
        Verdict::Problem => Exit::Failed,
    })
}

/// What cannot be reached becomes a finding; what cannot be understood (a wrong
/// URL) stays a failure.
fn reached<T>(
    store: StoreName,
    result: Result<Option<T>, Failure>,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>, Failure> {
    match result {
        Ok(reached) => Ok(reached),
        Err(failure) if failure.exit == Exit::Usage => Err(failure),
        Err(failure) => {
            let next = failure.next.unwrap_or_else(|| NO_ANSWER.to_owned());
            let finding =
                Finding::new(Check::Reachable, Some(store), Level::Problem, failure.message, next);
            findings.push(finding);
            Ok(None)
        }
    }
}

const NO_ANSWER: &str = "check that the database is up and the URL is right (`migrate -v status` shows it), then run `migrate doctor` again";

async fn examine(mut stores: Stores<Postgres, Mongo>, set: &MigrationSet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let read = histories(&mut stores, &mut findings).await;
    let lines = status::lines(set, &read.histories, &stores.configured());
    let needs = Needs::of(set, &lines);
    let clock = SystemClock;
    let (postgres, mongo) = futures_util::future::join(
        async {
            match &mut stores.postgres {
                Some(store) => Some(store.examine(&needs, &clock).await),
                None => None,
            }
        },
        async {
            match &stores.mongo {
                Some(store) => Some(store.examine(&clock).await),
                None => None,
            }
        },
    )
    .await;
    let postgres: Option<PostgresFacts> = answered(postgres, &mut findings);
    let mongo: Option<MongoFacts> = answered(mongo, &mut findings);
    findings.extend(postgres.iter().flat_map(|facts| doctor::postgres(facts, &needs)));
    findings.extend(mongo.iter().flat_map(|facts| doctor::mongo(facts, &needs)));
    findings.extend(doctor::ready(set, &lines));
    findings.extend(doctor::requires(set, &lines, postgres.as_ref(), mongo.as_ref()));
    findings.extend(doctor::clocks(postgres.as_ref(), mongo.as_ref()));
    findings
}

/// Both histories as far as they can be read; each store on its own, so that one
/// that refuses does not hide the other.
async fn histories(stores: &mut Stores<Postgres, Mongo>, findings: &mut Vec<Finding>) -> Read {
    let mut all = Read::default();
    let mut complete = true;
    let postgres = &mut Stores { postgres: stores.postgres.take(), mongo: None::<Mongo> };
    match lock::read(postgres).await {
        Ok(read) => {
            all.postgres_pair = read.postgres_pair;
            all.histories.postgres = read.histories.postgres;
        }
        Err(error) => {
            complete = false;
            findings.push(unreadable(&error));
        }
    }
    stores.postgres = postgres.postgres.take();
    let mongo = &mut Stores { postgres: None::<Postgres>, mongo: stores.mongo.take() };
    match lock::read(mongo).await {
        Ok(read) => {
            all.mongo_pair = read.mongo_pair;
            all.histories.mongo = read.histories.mongo;
        }
        Err(error) => {
            complete = false;
            findings.push(unreadable(&error));
        }
    }
    stores.mongo = mongo.mongo.take();
    if complete {
        findings.push(match lock::check_pair(stores, &all) {
            Ok(()) if all.is_virgin() => {
                Finding::ok(Check::History, None, "never migrated by migrate; nothing was created")
            }
            Ok(()) => Finding::ok(Check::History, None, "the histories can be read"),
            Err(error) => {
                let failure = Failure::from(error);
                let next = failure.next.unwrap_or_default();
                Finding::new(Check::History, None, Level::Problem, failure.message, next)
            }
        });
    }
    all
}

fn unreadable(error: &StoreError) -> Finding {
    let next = match error.fate {
        Fate::Corrupt => "was it changed by hand, or written by a newer release of migrate?",
        _ => "the privileges below say what this role lacks",
    };
    Finding::new(Check::History, Some(error.store), Level::Problem, error.to_string(), next)
}

fn answered<T>(answer: Option<Result<T, StoreError>>, findings: &mut Vec<Finding>) -> Option<T> {
    match answer? {
        Ok(facts) => Some(facts),
        Err(error) => {
            let check = match error.fate {
                Fate::Unreachable | Fate::Unknown => Check::Reachable,
                Fate::Refused | Fate::Fenced | Fate::Corrupt => Check::Privileges,
            };
            let (store, message) = (Some(error.store), error.to_string());
            findings.push(Finding::new(check, store, Level::Problem, message, NO_ANSWER));
            None
        }
    }
}

fn line(finding: &Finding, whole: &'static str, look: Look) -> String {
    let mark = |symbol: &'static str, word: &'static str| look.symbol(symbol, word);
    let mark = match finding.level {
        Level::Ok => look.good(mark("✓", "ok     ")),
        Level::Note => look.dim(mark("·", "note   ")),
        Level::Warning => look.warn(mark("!", "warning")),
        Level::Problem => look.bad(mark("✗", "problem")),
    };
    let store = finding.store.map_or(whole, StoreName::title);
    // A pipe gets lines that can be searched.
    let fit = |text: &str, before: usize, margin: usize| match look.terminal {
        true => wrap_after(before, text, look.width, margin),
        false => text.to_owned(),
    };
    let head = format!("{mark} {store:<8} {:<16} ", finding.check.word());
    let message = fit(&finding.message, console::measure_text_width(&head), 4);
    let mut text = format!("{head}{message}");
    if let Some(next) = &finding.next {
        text.push_str(&format!("\n    {}: {}", look.bold("next"), fit(next, 10, 6)));
    }
    text
}

fn summary(findings: &[Finding], look: Look) -> String {
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let text = format!(
        "{problems} problem{}, {warnings} warning{}; nothing was changed",
        if problems == 1 { "" } else { "s" },
        if warnings == 1 { "" } else { "s" }
    );
    match (problems, warnings) {
        (0, 0) => look.good(&text),
        (0, _) => look.warn(&text),
        _ => look.bad(&text),
    }
}

fn objects(findings: &[Finding]) -> Vec<Value> {
    let object = |finding: &Finding| {
        json!({
            "check": finding.check.word(),
            "store": finding.store.map(StoreName::word),
            "level": finding.level.word(),
            "message": finding.message,
            "next": finding.next,
        })
    };
    findings.iter().map(object).collect()
}
