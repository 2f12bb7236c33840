//! What the last looks at both stores add up to: where everything stands.

use super::watch::{Look, Rate};
use crate::cli::commands::backfill::Seen;
use crate::cli::commands::{history, status};
use crate::cli::config::Config;
use crate::core::expectation::broken_in;
use crate::core::history::{Event, RunSeen, Snapshot, Status, Timestamp};
use crate::core::id::{StepId, StoreName, Version};
use crate::core::migration::MigrationSet;
use crate::core::plan::{self, Goal, Known, PlanError, Up};
use crate::core::server::Servers;
use crate::core::status::{Line, State, lines};
use crate::core::step::Body;
use crate::engine::lock::{self, PairError, Read};
use crate::report::utc;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Both stores, as they were when it was last looked.
#[derive(Debug)]
pub struct View {
    /// The looks that it was made of.
    pub looks: Vec<(StoreName, Arc<Look>)>,
    /// Both histories.
    pub read: Read,
    /// What both servers are.
    pub servers: Servers,
    /// A line for each migration.
    pub lines: Vec<Line>,
    /// Whether the two databases belong together.
    pub paired: Result<(), PairError>,
    /// What `up` has against the history or the files; `None` where that takes more
    /// than a look.
    pub refused: Option<Result<(), PlanError>>,
    /// The audit log, the newest run first.
    pub runs: Vec<(RunSeen, Vec<StoreName>)>,
    /// The backfills of both stores.
    pub seen: Seen,
    /// What the history says of each invariant.
    pub invariants: Vec<Held>,
}

/// What the history says of an invariant.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its migration.
    pub version: Version,
    /// What it is called.
    pub name: String,
    /// Its step.
    pub step: String,
    /// Whether it held when it was last asked; `None`: it was not, or nobody knows.
    pub holds: Option<bool>,
    /// When that was.
    pub checked_at: Option<Timestamp>,
    /// What was found when it did not hold.
    pub found: Option<String>,
}

impl View {
    /// Of the looks at every store of the project, Postgres first.
    pub fn of(
        config: &Config,
        set: &MigrationSet,
        looks: Vec<(StoreName, Arc<Look>)>,
    ) -> Option<View> {
        let of = |wanted| looks.iter().find(|(store, _)| *store == wanted).map(|(_, look)| look);
        let snapshot = |store| of(store).map_or_else(Snapshot::default, |it| it.snapshot.clone());
        let read = Read::of(snapshot(StoreName::Postgres), snapshot(StoreName::Mongo));
        let servers = Servers {
            postgres: of(StoreName::Postgres).and_then(|look| look.server.postgres.clone()),
            mongo: of(StoreName::Mongo).and_then(|look| look.server.mongo.clone()),
        };
        let stores: Vec<StoreName> = looks.iter().map(|(store, _)| *store).collect();
        let lines = lines(set, &read.histories, &stores);
        let paired = match looks.len() {
            2 => lock::check_both(&read),
            _ => Ok(()),
        };
        let runs = looks.iter().map(|(store, look)| (*store, look.runs.clone()));
        let runs = history::merged(runs);
        let seen = looks.iter().map(|(_, look)| look.seen.clone()).reduce(Seen::and)?;
        let refused = refused(config, set, &read, &servers);
        let invariants = invariants(set, &read, &lines, &runs, &looks);
        Some(View { looks, read, servers, lines, paired, refused, runs, seen, invariants })
    }

    /// The last look at one store.
    pub fn look(&self, wanted: StoreName) -> Option<&Look> {
        let mut looks = self.looks.iter();
        looks.find(|(store, _)| *store == wanted).map(|(_, look)| look.as_ref())
    }

    /// How many migrations are in a state.
    pub fn count(&self, state: State) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }

    /// How many `up` has something to do about.
    pub fn pending(&self) -> usize {
        self.lines.iter().filter(|line| line.state.is_pending()).count()
    }

    /// Those that were begun and are not finished.
    pub fn partial(&self) -> Vec<Version> {
        let partial = self.lines.iter().filter(|line| line.is_open);
        partial.map(|line| line.version).collect()
    }

    /// How fast a backfill is.
    pub fn rate(&self, store: StoreName, step: &StepId) -> Option<Rate> {
        self.look(store)?.rates.get(step).copied()
    }

    /// As `migrate status --output json`.
    pub fn status(&self) -> Value {
        let View { servers, read, lines, .. } = self;
        status::object(servers, read, self.paired.is_ok(), self.pending(), lines)
    }

    /// As `migrate backfill status --output json`, and the rate of each.
    pub fn backfills(&self) -> Value {
        let mut object = self.seen.object();
        if let Some(backfills) = object["backfills"].as_array_mut() {
            for (backfill, running) in backfills.iter_mut().zip(&self.seen.running) {
                let rate = self.rate(running.store, &running.record.step);
                backfill["rate"] = rate.and_then(|rate| rate.keys).map(f64::round).into();
            }
        }
        object
    }

    /// A line for each invariant.
    pub fn invariants(&self) -> Value {
        let object = |held: &Held| {
            json!({
                "version": held.version.0, "name": held.name, "step": held.step,
                "holds": held.holds, "checked_at": held.checked_at.map(utc), "found": held.found,
            })
        };
        json!({ "invariants": self.invariants.iter().map(object).collect::<Vec<_>>() })
    }
}

/// What `up` has against the history or the files.
fn refused(
    config: &Config,
    set: &MigrationSet,
    read: &Read,
    servers: &Servers,
) -> Option<Result<(), PlanError>> {
    // What is written between the two looks at the stores is no gap, and only who has
    // the lease knows.
    if read.lease.is_some() {
        return None;
    }
    let goal = Goal::Up(Up { policy: config.cleanup.policy, ..Up::default() });
    let wanted = match plan::needs_rollbacks(&read.histories, &goal) {
        Ok(wanted) => wanted,
        Err(error) => return Some(Err(error)),
    };
    // The stored down scripts are not part of a look.
    if !wanted.is_empty() {
        return None;
    }
    let rollbacks = BTreeMap::new();
    let known = Known { set, histories: &read.histories, rollbacks: &rollbacks, servers };
    match plan::plan(&known, &goal) {
        // What has no statement or no values yet, or is a function of a service, is the
        // business of whoever applies it.
        Err(
            PlanError::Nothing { .. } | PlanError::Unready { .. } | PlanError::NoFunction { .. },
        ) => Some(Ok(())),
        planned => Some(planned.map(drop)),
    }
}

/// What the history says of each invariant: a step that is recorded held when it was
/// recorded; a run that failed says what it found.
fn invariants(
    set: &MigrationSet,
    read: &Read,
    lines: &[Line],
    runs: &[(RunSeen, Vec<StoreName>)],
    looks: &[(StoreName, Arc<Look>)],
) -> Vec<Held> {
    let mut all = Vec::new();
    for migration in set {
        let version = migration.version;
        let state = lines.iter().find(|line| line.version == version).map(|line| line.state);
        let row = read.histories.row(version);
        for step in &migration.steps {
            let Body::Check(invariant) = &step.body else { continue };
            let name = &invariant.name.text;
            let id = StepId { version, name: step.name.clone() };
            let recorded = read.histories.of(step.store()).step(&id);
            let recorded = recorded.filter(|it| it.status() == Status::Applied);
            // What was there before was never asked.
            let recorded = recorded.filter(|_| state != Some(State::Baseline));
            let look = looks.iter().find(|(store, _)| *store == step.store());
            let applied_at = recorded.and_then(|recorded| {
                let records = look?.1.records.get(&version)?;
                let found = records.iter().find(|seen| {
                    seen.record.step == id
                        && seen.record.event == Event::Applied
                        && seen.record.attempt == recorded.attempt
                });
                found.map(|seen| seen.recorded_at)
            });
            // It is asked again in front of a cleanup.
            let sealed_at = recorded.and_then(|_| row?.finished_at);
            let held_at = applied_at.max(sealed_at);
            let broken = runs.iter().find_map(|(run, _)| {
                let found = broken_in(run.error.as_deref()?, version, name)?;
                Some((run.finished_at.unwrap_or(run.started_at), found))
            });
            let broken = broken.filter(|(at, _)| match recorded {
                // Without the time, what is recorded counts.
                Some(_) => held_at.is_some_and(|held_at| held_at < *at),
                None => true,
            });
            let step = step.name.to_string();
            let name = name.clone();
            all.push(match broken {
                Some((at, found)) => Held {
                    version,
                    name,
                    step,
                    holds: Some(false),
                    checked_at: Some(at),
                    found: Some(found),
                },
                None => Held {
                    version,
                    name,
                    step,
                    holds: recorded.map(|_| true),
                    checked_at: held_at,
                    found: None,
                },
            });
        }
    }
    all
}
