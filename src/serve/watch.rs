//! Watches one store, so that nobody who asks over HTTP waits for a database.
//!
//! Two loops for each store, each with a connection of its own: the [`pulse`] says
//! whether the store answers, and [`look`] what is in its history. Whoever wants to
//! know reads the last answer and when it came. So a database that is down or slow
//! gets as many questions when a thousand ask as when nobody does.

use crate::cli::commands::backfill::{self, Seen};
use crate::cli::config::Config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::project::{connect_mongo, connect_postgres};
use crate::core::duration::show;
use crate::core::history::{
    Event, Histories, History, RecordSeen, RunSeen, Snapshot, StepState, Timestamp,
};
use crate::core::id::{StepId, StepName, StoreName, Version};
use crate::core::migration::MigrationSet;
use crate::core::pace::Limits;
use crate::core::server::Servers;
use crate::core::step::Body;
use crate::engine::{Clock as _, SystemClock};
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use crate::store::{Store as _, StoreError, Stores};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// A store that has not answered for this long cannot be reached.
pub const PULSE_TIME: Duration = Duration::from_secs(2);

/// A connection that is not there within this is not there: TLS, a login and a
/// program that is asked for the password take their time.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// A look at a whole history takes this long at most.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// The longest pause before a store that is away is tried again, unless every look
/// has a longer one.
const AWAY_PAUSE: Duration = Duration::from_secs(2);

/// While a backfill runs, it is looked at least this often.
const AT_WORK: Duration = Duration::from_secs(1);

/// The audit log is read this often even if nothing else has changed: who steers a
/// backfill, or fails before the first step, leaves no other trace.
const RUNS_EVERY: Duration = Duration::from_secs(15);

/// The records of this many migrations are read in one look; those of the others in
/// the next ones.
const RECORDS_AT_ONCE: usize = 20;

/// Of this many migrations the records are kept, the newest ones.
const RECORDS_MAX: usize = 200;

/// A rate is that of the time that lies behind, this much of it.
const RATE_OF: Duration = Duration::from_secs(30);

/// Of less time than this there is no rate.
const RATE_FROM: Duration = Duration::from_millis(500);

/// One sign of life, or none.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// How long the store took to answer; why it cannot be reached.
    pub answer: Result<Duration, Failure>,
    /// When it was asked.
    pub asked: Instant,
    /// The same for people.
    pub checked_at: Timestamp,
}

/// What was found in one store.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its history.
    pub snapshot: Snapshot,
    /// Its audit log.
    pub runs: Vec<RunSeen>,
    /// The records of some migrations, with their times.
    pub records: BTreeMap<Version, Vec<RecordSeen>>,
    /// Its backfills and probes.
    pub seen: Seen,
    /// How fast its backfills are.
    pub rates: BTreeMap<StepId, Rate>,
    /// What it is.
    pub server: Servers,
}

/// How fast a backfill is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Keys per second; `None` after a single look.
    pub keys: Option<f64>,
    /// When it was last seen to have come further.
    pub progress_at: Timestamp,
}

/// The last look, and what became of the newest one.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// The last that succeeded.
    pub look: Option<Arc<Look>>,
    /// Why the newest did not.
    pub failure: Option<Failure>,
}

/// What both loops of a store need.
pub struct Watched<'a> {
    /// Where the databases are.
    pub config: &'a Config,
    /// The files.
    pub set: &'a MigrationSet,
    /// Which store.
    pub store: StoreName,
    /// What the sessions are called.
    pub run_id: &'a str,
    /// Between two looks.
    pub interval: Duration,
    /// Of the probes.
    pub limits: Limits,
}

/// One store of the two, reached.
type Reached = Stores<Postgres, Mongo>;

impl Watched<'_> {
    async fn connect(&self, limit: Duration) -> Result<(Reached, Servers), Failure> {
        let connect = async {
            let (config, id) = (self.config, self.run_id);
            let (mut stores, mut servers) =
                (Stores { postgres: None, mongo: None }, Servers::default());
            match self.store {
                StoreName::Postgres => {
                    (stores.postgres, servers.postgres) =
                        connect_postgres(config, id, None).await?.unzip();
                }
                StoreName::Mongo => {
                    (stores.mongo, servers.mongo) = connect_mongo(config, id, None).await?.unzip();
                }
            }
            Ok((stores, servers))
        };
        match tokio::time::timeout(limit, Box::pin(connect)).await {
            Ok(done) => done,
            Err(_) => Err(self.silent("let nobody in", limit)),
        }
    }

    fn silent(&self, what: &str, limit: Duration) -> Failure {
        unreachable(format!("{} {what} within {}", self.store.title(), show(limit)))
    }

    /// Asks for a sign of life.
    async fn ask(&self, stores: &mut Reached) -> Result<Duration, Failure> {
        let began = Instant::now();
        let ping = async {
            if let Some(postgres) = &mut stores.postgres {
                postgres.ping().await?;
            }
            if let Some(mongo) = &stores.mongo {
                mongo.ping().await?;
            }
            Ok::<(), StoreError>(())
        };
        match tokio::time::timeout(PULSE_TIME, ping).await {
            Ok(Ok(())) => Ok(began.elapsed()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.silent("did not answer", PULSE_TIME)),
        }
    }

    fn pause(&self, is_there: bool) -> Duration {
        if is_there { self.interval } else { self.interval.max(AWAY_PAUSE.min(self.interval * 5)) }
    }
}

/// Nothing was heard of a store for too long.
pub fn overdue(store: StoreName, age: Duration) -> Failure {
    unreachable(format!("{} was last heard of {} s ago", store.title(), age.as_secs()))
}

fn unreachable(message: String) -> Failure {
    Failure::new(Exit::Unreachable, "UNREACHABLE", message)
        .next("check that the database is up and not overloaded; it is asked again all the time")
}

/// Asks a store for signs of life, for ever.
pub async fn pulse(watched: &Watched<'_>, tell: watch::Sender<Option<Pulse>>) {
    let mut reached: Option<Reached> = None;
    // Only a store that was there may be asked twice at once.
    let mut limit = CONNECT_TIME;
    loop {
        let (asked, checked_at) = (Instant::now(), SystemClock.now());
        let mut answer = None;
        if let Some(mut stores) = reached.take() {
            match watched.ask(&mut stores).await {
                Ok(took) => {
                    answer = Some(Ok(took));
                    reached = Some(stores);
                }
                // It is slow: another connection would be no faster.
                Err(silent) if asked.elapsed() >= PULSE_TIME => answer = Some(Err(silent)),
                // Somebody ended the session: that says nothing of the server.
                Err(_) => limit = PULSE_TIME,
            }
        }
        let answer = match answer {
            Some(answer) => answer,
            None => match watched.connect(limit).await {
                Err(failure) => Err(failure),
                Ok((mut stores, _)) => {
                    let answer = watched.ask(&mut stores).await;
                    reached = answer.is_ok().then_some(stores);
                    answer
                }
            },
        };
        limit = CONNECT_TIME;
        let is_there = answer.is_ok();
        tell.send_replace(Some(Pulse { answer, asked, checked_at }));
        tokio::time::sleep(watched.pause(is_there)).await;
    }
}

/// Looks at the history of a store, for ever; at once when `poke` says so. When the
/// history has changed, `other` is poked, so that both are seen at nearly one moment.
pub async fn look(
    watched: &Watched<'_>,
    tell: watch::Sender<Looked>,
    [poke, other]: [Arc<Notify>; 2],
) {
    let mut reached: Option<(Reached, Servers)> = None;
    let mut memory = Memory::default();
    let mut last: Option<Arc<Look>> = None;
    loop {
        if reached.is_none() {
            match watched.connect(CONNECT_TIME).await {
                Ok(stores) => reached = Some(stores),
                Err(failure) => {
                    tell.send_modify(|looked| looked.failure = Some(failure));
                }
            }
        }
        if let Some((stores, server)) = &mut reached {
            let looking =
                Box::pin(look_once(watched, stores, server, &mut memory, last.as_deref()));
            match tokio::time::timeout(LOOK_TIME, looking).await {
                Ok(Ok(look)) => {
                    let has_changed = last.as_ref().is_none_or(|last| {
                        last.snapshot.records != look.snapshot.records
                            || last.snapshot.rows != look.snapshot.rows
                    });
                    let look = Arc::new(look);
                    last = Some(Arc::clone(&look));
                    tell.send_replace(Looked { look: Some(look), failure: None });
                    if has_changed {
                        other.notify_one();
                    }
                }
                Ok(Err(error)) => {
                    reached = None;
                    tell.send_modify(|looked| looked.failure = Some(error.into()));
                }
                Err(_) => {
                    // What was asked may still come: not as the answer to the next question.
                    // Nor may it stay in the server, where it would be one more each time.
                    if let Some((stores, _)) = &mut reached {
                        abandon(stores).await;
                    }
                    reached = None;
                    let failure = watched.silent("did not tell its history", LOOK_TIME);
                    tell.send_modify(|looked| looked.failure = Some(failure));
                }
            }
        }
        let is_at_work = last.as_ref().is_some_and(|last| !last.seen.running.is_empty());
        let pause = watched.pause(reached.is_some());
        let pause = if is_at_work { pause.min(AT_WORK) } else { pause };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = poke.notified() => {}
        }
    }
}

/// Ends what was asked and not answered in time: a session that waits for a lock would
/// outlive us.
pub async fn abandon(stores: &mut Reached) {
    /// A server that does not take this either has nothing to end.
    const LIMIT: Duration = Duration::from_secs(2);
    let ended = async {
        if let Some(postgres) = &mut stores.postgres {
            postgres.cancel().await;
        }
        if let Some(mongo) = &mut stores.mongo {
            mongo.cancel().await;
        }
    };
    let _ = tokio::time::timeout(LIMIT, ended).await;
}

/// What is kept from look to look.
#[derive(Default)]
struct Memory {
    runs_read: Option<Instant>,
    /// As they were when the records were read.
    read: BTreeMap<Version, Vec<(StepName, StepState)>>,
    records: BTreeMap<Version, Vec<RecordSeen>>,
    passed: BTreeMap<StepId, VecDeque<(Instant, u64)>>,
    progress: BTreeMap<StepId, Timestamp>,
}

async fn look_once(
    watched: &Watched<'_>,
    stores: &mut Reached,
    server: &Servers,
    memory: &mut Memory,
    last: Option<&Look>,
) -> Result<Look, StoreError> {
    let snapshot = match (&mut stores.postgres, &mut stores.mongo) {
        (Some(postgres), _) => postgres.read().await?,
        (None, Some(mongo)) => mongo.read().await?,
        (None, None) => Snapshot::default(),
    };
    let history = History::replay(snapshot.clone());
    let histories = match watched.store {
        StoreName::Postgres => Histories { postgres: history, ..Histories::default() },
        StoreName::Mongo => Histories { mongo: history, ..Histories::default() },
    };
    let seen = backfill::look(stores, watched.set, &histories, &watched.limits).await?;
    let is_same = last.is_some_and(|last| {
        last.snapshot == snapshot
            && last.seen.steering == seen.steering
            && memory.runs_read.is_some_and(|read| read.elapsed() < RUNS_EVERY)
    });
    let runs = match last {
        Some(last) if is_same => last.runs.clone(),
        _ => {
            memory.runs_read = Some(Instant::now());
            match (&mut stores.postgres, &mut stores.mongo) {
                (Some(postgres), _) => postgres.runs().await?,
                (None, Some(mongo)) => mongo.runs().await?,
                (None, None) => Vec::new(),
            }
        }
    };
    remember_records(watched, stores, histories.of(watched.store), memory).await?;
    let rates = rates(&seen, memory);
    let (records, server) = (memory.records.clone(), server.clone());
    Ok(Look { snapshot, runs, records, seen, rates, server })
}

/// Reads the records of migrations about which something has changed and of which
/// the times say something: those with an invariant, and with steps that were begun
/// before they were done.
async fn remember_records(
    watched: &Watched<'_>,
    stores: &mut Reached,
    history: &History,
    memory: &mut Memory,
) -> Result<(), StoreError> {
    let has_check = |version| {
        let steps = watched.set.get(version).map(|migration| migration.steps.as_slice());
        steps.unwrap_or_default().iter().any(|step| matches!(step.body, Body::Check(_)))
    };
    let mut wanted = BTreeMap::new();
    for version in history.versions().into_iter().rev() {
        let states: Vec<(StepName, StepState)> =
            history.steps_of(version).map(|(name, state)| (name.clone(), state.clone())).collect();
        let is_announced = |event| matches!(event, &Event::Started | &Event::Progress);
        let has_times = states.iter().any(|(_, state)| state.events.iter().any(is_announced));
        if wanted.len() < RECORDS_MAX && (has_times || has_check(version)) {
            wanted.insert(version, states);
        }
    }
    memory.read.retain(|version, _| wanted.contains_key(version));
    memory.records.retain(|version, _| wanted.contains_key(version));
    let stale = |(version, states): &(&Version, &Vec<_>)| memory.read.get(version) != Some(*states);
    let stale: Vec<Version> = wanted.iter().rev().filter(stale).map(|(it, _)| *it).collect();
    for version in stale.into_iter().take(RECORDS_AT_ONCE) {
        let records = match (&mut stores.postgres, &mut stores.mongo) {
            (Some(postgres), _) => postgres.records_of(version).await?,
            (None, Some(mongo)) => mongo.records_of(version).await?,
            (None, None) => Vec::new(),
        };
        memory.records.insert(version, records);
        memory.read.extend(wanted.remove_entry(&version));
    }
    Ok(())
}

/// How fast backfills are, from how far they were when it was looked before.
fn rates(seen: &Seen, memory: &mut Memory) -> BTreeMap<StepId, Rate> {
    let now = Instant::now();
    let mut rates = BTreeMap::new();
    for running in &seen.running {
        let Some((_, passed, _)) = running.sums() else { continue };
        let step = &running.record.step;
        let marks = memory.passed.entry(step.clone()).or_default();
        let has_moved = marks.back().is_none_or(|(_, before)| *before != passed);
        marks.push_back((now, passed));
        while marks.len() > 2 && now.duration_since(marks[0].0) > RATE_OF {
            marks.pop_front();
        }
        let progress_at = memory.progress.entry(step.clone()).or_insert_with(|| SystemClock.now());
        if has_moved {
            *progress_at = SystemClock.now();
        }
        rates.insert(step.clone(), Rate { keys: rate(marks), progress_at: *progress_at });
    }
    memory.passed.retain(|step, _| rates.contains_key(step));
    memory.progress.retain(|step, _| rates.contains_key(step));
    rates
}

/// Keys per second between the first mark and the last.
fn rate(marks: &VecDeque<(Instant, u64)>) -> Option<f64> {
    let (first, last) = (marks.front()?, marks.back()?);
    let time = last.0.duration_since(first.0);
    let keys = crate::report::metrics::text::count(last.1.saturating_sub(first.1));
    (time >= RATE_FROM).then(|| keys / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_time_behind_it() {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        let check = |marks: &[(u64, u64)], expected: Option<f64>| {
            let marks = marks.iter().map(|(millis, keys)| (at(*millis), *keys)).collect();
            assert_eq!(rate(&marks), expected);
        };
        check(&[], None);
        check(&[(0, 100)], None);
        check(&[(0, 100), (100, 200)], None);
        check(&[(0, 100), (1000, 200), (2000, 500)], Some(200.0));
        check(&[(0, 100), (2000, 100)], Some(0.0));
        // A step that was begun anew is not faster than nothing.
        check(&[(0, 100), (2000, 50)], Some(0.0));
    }
}
