//! `migrate backfill`: steers running backfills from anywhere, and shows how far
//! they are. It needs no lease: it acts while somebody else has it.

use crate::cli::args::Steering as Wanted;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::Files;
use crate::core::backfill::Shard;
use crate::core::grouped::grouped;
use crate::core::history::{Event, Histories, Record};
use crate::core::id::{StepId, StoreName};
use crate::core::migration::MigrationSet;
use crate::core::pace::{Level, Limits, Reading, Steer, Steering};
use crate::core::step::{Body, MongoStep, PgStep};
use crate::engine::lock::{self, Read};
use crate::report::human::Look;
use crate::store::backfill::{Backfills, Job};
use crate::store::{Run, StoreError, Stores};
use serde_json::{Value, json};

/// What the command needs the migrations folder for.
pub fn files(wanted: &Wanted) -> Files {
    match wanted {
        Wanted::Status => Files::IfThere,
        Wanted::Pause { .. } | Wanted::Resume | Wanted::Speed { .. } => Files::Unread,
    }
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 on databases that were never migrated.
pub async fn run<P, M>(
    wanted: &Wanted,
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    (by, limits): (&Run, &Limits),
    output: &Output,
) -> Result<Exit, Failure>
where
    P: Backfills<Step = PgStep>,
    M: Backfills<Step = MongoStep>,
{
    let read = histories(stores).await?;
    let (steer, said) = match wanted {
        Wanted::Status => return status(stores, set, &read.histories, limits, output).await,
        Wanted::Pause { reason } => {
            let reason = reason.clone().unwrap_or_else(|| format!("by {}", by.who()));
            let said = format!("backfills stand still from now on: {reason}");
            (Steer::Pause(reason), said)
        }
        Wanted::Resume => (Steer::Resume, "backfills go on".to_owned()),
        Wanted::Speed { factor } => {
            let said = format!("backfills run at {factor} times their own pace from now on");
            (Steer::Speed(*factor), said)
        }
    };
    output.object("backfill", &steered(stores, &steer, by).await?);
    output.remark(&said);
    let is_undone = matches!(wanted, Wanted::Resume | Wanted::Speed { factor: 1.0 });
    if !is_undone && running(stores, set, &read.histories).await?.is_empty() {
        let until = if matches!(wanted, Wanted::Pause { .. }) { "resume" } else { "speed 1" };
        output.remark(&format!(
            "none is at work now: it holds for those that begin later, until `migrate backfill {until}`"
        ));
    }
    Ok(Exit::Ok)
}

/// The histories of a pair that was migrated before.
pub(crate) async fn histories<P, M>(stores: &mut Stores<P, M>) -> Result<Read, Failure>
where
    P: Backfills<Step = PgStep>,
    M: Backfills<Step = MongoStep>,
{
    let read = lock::read(stores).await?;
    lock::check_pair(stores, &read)?;
    if read.is_virgin() {
        let message = "these databases were never migrated by migrate: no backfill runs there";
        return Err(Failure::new(Exit::Usage, "NEVER_MIGRATED", message)
            .next("nothing was changed; check both URLs (`migrate -v status` shows them)"));
    }
    Ok(read)
}

/// Asks for it in both stores, and says what is asked of backfills then.
pub(crate) async fn steered<P, M>(
    stores: &mut Stores<P, M>,
    steer: &Steer,
    by: &Run,
) -> Result<Value, Failure>
where
    P: Backfills<Step = PgStep>,
    M: Backfills<Step = MongoStep>,
{
    let told = tell(stores, steer, by).await?;
    let steering = asked(stores).await?;
    Ok(json!({
        "paused": steering.paused.is_some(),
        "reason": steering.paused,
        "speed": steering.speed,
        "stores": told.iter().map(|store| store.word()).collect::<Vec<_>>(),
    }))
}

/// Tells both stores: the more cautious copy counts, so that a pause that reached
/// one of them acts.
async fn tell<P, M>(
    stores: &mut Stores<P, M>,
    steer: &Steer,
    by: &Run,
) -> Result<Vec<StoreName>, Failure>
where
    P: Backfills<Step = PgStep>,
    M: Backfills<Step = MongoStep>,
{
    let mut told = Vec::new();
    let mut failed: Option<StoreError> = None;
    if let Some(postgres) = &mut stores.postgres {
        match postgres.steer(steer, by).await {
            Ok(()) => told.push(StoreName::Postgres),
            Err(error) => failed = Some(error),
        }
    }
    if let Some(mongo) = &mut stores.mongo {
        match mongo.steer(steer, by).await {
            Ok(()) => told.push(StoreName::Mongo),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let Some(error) = failed else { return Ok(told) };
    let mut failure = Failure::from(error);
    if let [store] = told.as_slice() {
        let acts = match steer {
            Steer::Pause(_) => "was told, and that is enough for them to stand still",
            Steer::Resume | Steer::Speed(_) => "was told, but the more cautious of both counts",
        };
        failure.details.push(("done", format!("{} {acts}", store.title())));
    }
    Err(failure)
}

/// What people ask for in both stores, together.
async fn asked<P: Backfills, M: Backfills>(
    stores: &mut Stores<P, M>,
) -> Result<Steering, StoreError> {
    let mut steering = Steering { paused: None, speed: f64::INFINITY };
    if let Some(postgres) = &mut stores.postgres {
        steering = steering.and(postgres.steering().await?);
    }
    if let Some(mongo) = &mut stores.mongo {
        steering = steering.and(mongo.steering().await?);
    }
    Ok(steering)
}

/// A backfill that was begun and is not done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Running {
    pub(crate) store: StoreName,
    pub(crate) record: Record,
    /// Its title and its shards, if its files are here.
    pub(crate) known: Option<(String, Vec<Shard>)>,
}

impl Running {
    /// Rows, keys that were passed, and about how many there are.
    #[cfg(feature = "serve")]
    pub(crate) fn sums(&self) -> Option<(u64, u64, u64)> {
        self.known.as_ref().map(|(_, shards)| sums(shards))
    }
}

/// What can be seen of the backfills of both stores, or of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) steering: Steering,
    pub(crate) running: Vec<Running>,
    pub(crate) probes: Vec<(StoreName, Reading)>,
}

impl Seen {
    /// Together with what was seen in the other store.
    #[cfg(feature = "serve")]
    pub(crate) fn and(mut self, other: Seen) -> Seen {
        self.running.extend(other.running);
        self.running.sort_by_key(|it| (it.record.step.version, it.store));
        self.probes.extend(other.probes);
        Seen { steering: self.steering.and(other.steering), ..self }
    }

    /// What `--output json` says, but for what every object begins with.
    pub(crate) fn object(&self) -> Value {
        let Seen { steering, running, probes } = self;
        json!({
            "paused": steering.paused.is_some(),
            "reason": steering.paused,
            "speed": steering.speed,
            "backfills": running.iter().map(object).collect::<Vec<_>>(),
            "probes": probes.iter().map(probe_object).collect::<Vec<_>>(),
        })
    }
}

/// Looks how far they are, and asks the probes.
pub(crate) async fn look<P: Backfills, M: Backfills>(
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    histories: &Histories,
    limits: &Limits,
) -> Result<Seen, StoreError> {
    let steering = asked(stores).await?;
    let running = running(stores, set, histories).await?;
    let mut probes = Vec::new();
    if let Some(postgres) = &mut stores.postgres {
        let readings = postgres.probe(limits).await;
        probes.extend(readings.into_iter().map(|reading| (StoreName::Postgres, reading)));
    }
    if let Some(mongo) = &mut stores.mongo {
        let readings = mongo.probe(limits).await;
        probes.extend(readings.into_iter().map(|reading| (StoreName::Mongo, reading)));
    }
    Ok(Seen { steering, running, probes })
}

async fn status<P: Backfills, M: Backfills>(
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    histories: &Histories,
    limits: &Limits,
    output: &Output,
) -> Result<Exit, Failure> {
    let seen = look(stores, set, histories, limits).await?;
    output.object("backfill", &seen.object());
    let Seen { steering, running, probes } = seen;
    output.result(&lines(&steering, &running, &probes, output.result_look));
    Ok(Exit::Ok)
}

/// Every backfill whose newest event is its progress, with its shards.
async fn running<P: Backfills, M: Backfills>(
    stores: &mut Stores<P, M>,
    set: &MigrationSet,
    histories: &Histories,
) -> Result<Vec<Running>, StoreError> {
    let mut found = Vec::new();
    for version in histories.versions() {
        for (store, name, state) in histories.steps_of(version) {
            if state.events.last() != Some(&Event::Progress) {
                continue;
            }
            let record = state.record(StepId { version, name: name.clone() }, Event::Progress);
            let steps = set.get(version).map(|migration| migration.steps.as_slice());
            let mut steps = steps.unwrap_or_default().iter();
            let step = steps.find(|step| step.name == *name && step.store() == store);
            let known = match step.map(|step| &step.body) {
                Some(Body::Backfill(backfill)) => {
                    let (timeouts, max_bad) = (backfill.timeouts, backfill.max_bad);
                    let job = Job { work: &backfill.work, record: &record, timeouts, max_bad };
                    let shards = match store {
                        StoreName::Postgres => shards_of(stores.postgres.as_mut(), job).await?,
                        StoreName::Mongo => shards_of(stores.mongo.as_mut(), job).await?,
                    };
                    Some((backfill.title.clone(), shards))
                }
                _ => None,
            };
            found.push(Running { store, record, known });
        }
    }
    Ok(found)
}

async fn shards_of<S: Backfills>(
    store: Option<&mut S>,
    job: Job<'_>,
) -> Result<Vec<Shard>, StoreError> {
    match store {
        Some(store) => store.shards(job).await,
        None => Ok(Vec::new()),
    }
}

/// Rows, keys that were passed, and about how many there are.
fn sums(shards: &[Shard]) -> (u64, u64, u64) {
    let rows = shards.iter().map(|shard| shard.rows).sum();
    let passed = shards.iter().map(|shard| shard.passed).sum();
    let estimate = shards.iter().map(|shard| match shard.done {
        true => shard.passed,
        false => shard.estimate.max(shard.passed),
    });
    (rows, passed, estimate.sum())
}

fn percent(passed: u64, estimate: u64) -> u64 {
    passed.saturating_mul(100).checked_div(estimate).unwrap_or(0)
}

fn object(running: &Running) -> Value {
    let Running { store, record, known } = running;
    let shards = known.as_ref().map(|(_, shards)| shards);
    let sums = shards.map(|shards| sums(shards));
    json!({
        "version": record.step.version.0,
        "step": record.step.name.to_string(),
        "store": store.word(),
        "title": known.as_ref().map(|(title, _)| title),
        "rows": sums.map(|(rows, _, _)| rows),
        "passed": sums.map(|(_, passed, _)| passed),
        "estimate": sums.map(|(_, _, estimate)| estimate),
        "percent": sums.map(|(_, passed, estimate)| percent(passed, estimate)),
        "shards": shards.map(|shards| shards.iter().map(shard_object).collect::<Vec<_>>()),
    })
}

fn shard_object(shard: &Shard) -> Value {
    json!({
        "shard": shard.index,
        "round": shard.round,
        "table": shard.table,
        "after": shard.after,
        "upto": shard.upto,
        "estimate": shard.estimate,
        "passed": shard.passed,
        "rows": shard.rows,
        "done": shard.done,
        "claimed": shard.claimed,
    })
}

fn probe_object((store, reading): &(StoreName, Reading)) -> Value {
    let (ratio, says, off) = match &reading.level {
        Level::At { ratio, says } => (Some(ratio), Some(says), None),
        Level::Nothing(why) | Level::Off(why) => (None, None, Some(why)),
    };
    json!({
        "store": store.word(), "probe": reading.probe, "ratio": ratio, "says": says, "off": off,
    })
}

fn lines(
    steering: &Steering,
    running: &[Running],
    probes: &[(StoreName, Reading)],
    look: Look,
) -> String {
    let mut lines = Vec::new();
    for Running { store, record, known } in running {
        let what = look.bold(&record.step.to_string());
        let Some((title, shards)) = known else {
            lines.push(format!("{what}  {}  its file is not here", store.title()));
            continue;
        };
        let (rows, passed, estimate) = sums(shards);
        lines.push(format!(
            "{what}  {}  {title}: {} %, {} of about {} keys, {} rows",
            store.title(),
            percent(passed, estimate),
            grouped(passed),
            grouped(estimate),
            grouped(rows)
        ));
        for shard in shards.iter().filter(|shard| !shard.done) {
            let after = shard.after.as_ref().map_or("the start".to_owned(), ToString::to_string);
            let claimed = if shard.claimed { "" } else { ", nobody works at it" };
            lines.push(look.dim(&format!(
                "  shard {} of {}: at {after}, up to {}{claimed}",
                shard.index,
                shards.len(),
                shard.upto
            )));
        }
    }
    if running.is_empty() {
        lines.push("no backfill was begun that is not done".to_owned());
    }
    for (store, reading) in probes {
        if let Level::Nothing(why) | Level::Off(why) = &reading.level {
            let text = format!("not watched: {} {}: {why}", store.title(), reading.probe);
            lines.push(look.dim(&text));
        }
    }
    match &steering.paused {
        Some(why) => lines
            .push(look.warn(&format!("paused: {why}; `migrate backfill resume` lets them go on"))),
        None if steering.speed < 1.0 => lines.push(look.warn(&format!(
            "speed {} was asked for; `migrate backfill speed 1` ends that",
            steering.speed
        ))),
        None => {}
    }
    lines.join("\n")
}
