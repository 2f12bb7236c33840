//! `migrate backup`: records that there is a backup, and shows those that are
//! recorded. It makes none. It needs no lease: a hook of the run that has it calls it.

use crate::cli::args::{self, BackupWhat, Global, RecordBackup};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{Files, Project};
use crate::core::backup::{
    Backup, Backups, CLOCK_SLACK, Label, Required, about, between, standing, touched,
};
use crate::core::history::Timestamp;
use crate::core::id::{StoreName, Version};
use crate::core::outlook::bytes;
use crate::core::plan::Plan;
use crate::engine::lock;
use crate::engine::run::newest;
use crate::report::human::Look;
use crate::report::plan::required_object;
use crate::report::{local, utc};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use crate::store::{StoreError, Stores};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs the command.
///
/// # Errors
/// Exit code 2 on databases that were never migrated, and for a time that is still to
/// come.
pub async fn run(global: &Global, args: &args::Backup, output: &Output) -> Result<Exit, Failure> {
    let mut project = Project::open_with(global, "backup", Files::Unread).await?;
    match &args.what {
        BackupWhat::Record(args) => record(&mut project, args, output).await,
        BackupWhat::List => list(&mut project, output).await,
    }
}

async fn record(
    project: &mut Project,
    args: &RecordBackup,
    output: &Output,
) -> Result<Exit, Failure> {
    let read = lock::read(&mut project.stores).await?;
    lock::check_pair(&project.stores, &read)?;
    let wanted = match args.store.map(StoreName::from) {
        Some(store) if !project.stores.configured().contains(&store) => {
            let message = format!("this project has no {}", store.title());
            return Err(Failure::new(Exit::Usage, "USAGE", message)
                .next("leave --store out: then it is recorded for every store of the project"));
        }
        Some(store) => vec![store],
        None => project.stores.configured(),
    };
    project.run.from_version = newest(&read.histories);
    // All of it is looked at before any of it is written.
    let mut labelled = Vec::new();
    for store in wanted {
        let seen = project.stores.backups(store).await?;
        let Some(pair) = &seen.pair else {
            let message = "these databases were never migrated by migrate: there is no audit log to record it in";
            return Err(Failure::new(Exit::Usage, "NEVER_MIGRATED", message)
                .next("nothing was changed; check both URLs (`migrate -v status` shows them)"));
        };
        let ahead = args.taken_at.map_or(Duration::ZERO, |at| between(seen.clock, at));
        if ahead > CLOCK_SLACK {
            let message =
                format!("--taken-at is {} ahead of the clock of {}", about(ahead), store.title());
            return Err(Failure::new(Exit::Usage, "USAGE", message)
                .next("nothing was recorded; write when the backup was begun, in UTC: 2026-11-21T03:00:00Z"));
        }
        // A clock that is a little ahead is not believed.
        let taken_at = args.taken_at.unwrap_or(seen.clock).min(seen.clock);
        labelled.push((store, taken_at, Label::new(args.location.clone(), args.size, pair)));
    }
    let mut told: Vec<StoreName> = Vec::new();
    for (store, taken_at, label) in &labelled {
        let recorded = match store {
            StoreName::Postgres => {
                project.stores.postgres()?.record_backup(*taken_at, label, &project.run).await
            }
            StoreName::Mongo => {
                project.stores.mongo()?.record_backup(*taken_at, label, &project.run).await
            }
        };
        if let Err(error) = recorded {
            let mut failure = Failure::from(error);
            failure.details.extend(
                told.first().map(|store| ("done", format!("recorded for {}", store.title()))),
            );
            return Err(failure);
        }
        told.push(*store);
    }
    let taken_at = labelled.iter().map(|(_, taken_at, _)| *taken_at).min();
    output.object(
        "backup",
        &json!({
            "run_id": project.run.id,
            "stores": told.iter().map(|store| store.word()).collect::<Vec<_>>(),
            "taken_at": taken_at.map(utc),
            "location": args.location,
            "size": args.size,
            "version": project.run.from_version.map(|version| version.0),
        }),
    );
    let titles: Vec<&str> = told.iter().map(|store| store.title()).collect();
    let place = args.location.as_ref().map(|place| format!(": {place}")).unwrap_or_default();
    output.remark(&format!(
        "recorded a backup of {} from {}{place}",
        titles.join(" and "),
        taken_at.map(local).unwrap_or_default()
    ));
    Ok(Exit::Ok)
}

async fn list(project: &mut Project, output: &Output) -> Result<Exit, Failure> {
    let limit = project.config.cleanup.require_backup;
    let mut stores: Vec<(StoreName, Backups)> = Vec::new();
    for store in project.stores.configured() {
        stores.push((store, project.stores.backups(store).await?));
    }
    let mut all: Vec<(StoreName, Timestamp, &Backup)> = stores
        .iter()
        .flat_map(|(store, seen)| seen.backups.iter().map(|it| (*store, seen.clock, it)))
        .collect();
    all.sort_by_key(|(_, _, backup)| std::cmp::Reverse(backup.taken_at));
    let required = limit.map(|limit| required(&stores, limit));
    output.object(
        "backups",
        &json!({
            "backups": all.iter().map(|it| object(*it)).collect::<Vec<_>>(),
            "required": required.as_ref().map(required_object),
        }),
    );
    if all.is_empty() {
        output.result("no backup is recorded");
    }
    for it in &all {
        output.result(&line(*it, output.result_look));
    }
    if let Some(required) = &required {
        let text = format!("cleanups need {required}");
        output.result(&match required.is_met() {
            true => output.result_look.dim(&text),
            false => output.result_look.warn(&text),
        });
    }
    Ok(Exit::Ok)
}

/// What a cleanup of these stores would need.
fn required(stores: &[(StoreName, Backups)], limit: Duration) -> Required {
    let stores = stores.iter().map(|(store, seen)| (*store, standing(seen, limit)));
    Required { limit, stores: stores.collect() }
}

/// What the cleanups of a plan need, and what there is.
///
/// # Errors
/// A store that cannot be read.
pub async fn needs(
    stores: &mut Stores<Postgres, Mongo>,
    plan: &Plan,
    limit: Option<Duration>,
) -> Result<BTreeMap<Version, Required>, StoreError> {
    let mut needs = BTreeMap::new();
    let Some(limit) = limit else { return Ok(needs) };
    let configured = stores.configured();
    for work in &plan.work {
        let mut standings = Vec::new();
        for store in touched(work, &configured) {
            standings.push((store, standing(&stores.backups(store).await?, limit)));
        }
        if !standings.is_empty() {
            needs.insert(work.version, Required { limit, stores: standings });
        }
    }
    Ok(needs)
}

fn object((store, clock, backup): (StoreName, Timestamp, &Backup)) -> Value {
    let age = between(backup.taken_at, clock);
    json!({
        "store": store.word(),
        "run_id": backup.run_id,
        "taken_at": utc(backup.taken_at),
        "recorded_at": utc(backup.recorded_at),
        "recorded_by": backup.by,
        "age_seconds": age.as_secs(),
        "version": backup.version.map(|version| version.0),
        "location": backup.label.location,
        "size": backup.label.size,
    })
}

fn line((store, clock, backup): (StoreName, Timestamp, &Backup), look: Look) -> String {
    let version = backup.version.map_or("nothing".to_owned(), |version| version.to_string());
    let age = format!("{} old", about(between(backup.taken_at, clock)));
    let size = backup.label.size.map(bytes);
    let rest = [Some(age), Some(format!("at {version}")), size, Some(backup.by.clone())];
    let rest: Vec<String> = rest.into_iter().flatten().collect();
    format!(
        "{}  {:<8}  {}  {}",
        local(backup.taken_at),
        store.title(),
        backup.label.location.as_deref().unwrap_or("-"),
        look.dim(&rest.join(", "))
    )
}
