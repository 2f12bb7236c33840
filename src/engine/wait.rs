//! Waits, and changes nothing: for databases that answer, and for a migration that
//! somebody else applies. It takes no lease, and needs no more than the right to read.

use crate::core::history::{Histories, RowStatus, Status};
use crate::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use crate::core::migration::Migration;
use crate::core::plan;
use crate::core::step::{MongoStep, PgStep, Step};
use crate::engine::lock::{self, PairError, Read, jitter};
use crate::store::{Fate, Store, StoreError, Stores};
use std::fmt;
use std::time::{Duration, Instant};

/// Between the first two tries to reach a database that is not up yet; from then on
/// twice as long each time.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// A try has this long at least: what is refused at once is then told as that.
const TRY: Duration = Duration::from_secs(1);

/// The longest pause between two such tries.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(2);

/// Between the first two looks at the histories; from then on twice as long each
/// time.
const LOOK: Duration = Duration::from_millis(250);

/// The longest pause between two looks. Of it a random part is taken: a deployment
/// starts many instances at once.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// Why a database was not reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unreached {
    /// It says no, and will say so again.
    Refused(StoreError),
    /// The time is over. What the last try met, unless it met nothing.
    Late(Option<StoreError>),
}

/// Tries until a database takes connections, or the time is over.
///
/// # Errors
/// [`Unreached`].
pub async fn reached<T>(
    limit: Duration,
    mut connect: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, Unreached> {
    let began = Instant::now();
    let mut pause = TRY_AGAIN;
    let mut last = None;
    loop {
        let left = limit.saturating_sub(began.elapsed());
        match tokio::time::timeout(left.max(TRY), connect()).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(error)) if !is_worth_waiting(&error) => return Err(Unreached::Refused(error)),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(Unreached::Late(last));
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(TRY_AGAIN_MAX);
    }
}

/// Whether a database that does not let us in may do so in a moment. A wrong
/// password does not become right by waiting.
pub fn is_worth_waiting(error: &StoreError) -> bool {
    let is_refused = error.said.code.as_deref().is_some_and(|code| {
        code.starts_with("SQLSTATE 28") || code.starts_with("AuthenticationFailed")
    });
    matches!(error.fate, Fate::Unreachable | Fate::Unknown) && !is_refused
}

/// What is lacking, by the place where it is.
pub type Lacking = [(&'static str, String)];

/// Why a version was not seen to be completed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Uncompleted {
    /// A store says no.
    Store(StoreError),
    /// It is, in two databases that do not belong together.
    Pair(PairError),
    /// The time is over: by place, what was lacking then.
    Late(Vec<(&'static str, String)>),
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The migration.
    pub version: Version,
    /// Through which of its phases; all of them, if it has none.
    pub through: Phase,
    /// Its file, if that is at hand: of one that stays open, only it tells which steps
    /// there are.
    pub migration: Option<&'a Migration>,
}

impl From<Version> for Wanted<'_> {
    fn from(version: Version) -> Self {
        Wanted { version, through: Phase::Cleanup, migration: None }
    }
}

/// `002`, `002 through validate`
impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.through {
            Phase::Cleanup => write!(f, "{}", self.version),
            through => write!(f, "{} through {through}", self.version),
        }
    }
}

impl Wanted<'_> {
    /// Whether the steps tell that it has come so far, while it is not sealed. Phases
    /// follow each other in both stores at once.
    fn is_reached(&self, histories: &Histories) -> bool {
        let states = || {
            StoreName::BOTH.into_iter().flat_map(|store| histories.of(store).steps_of(self.version))
        };
        let is_live = |status: Status| matches!(status, Status::InDoubt | Status::Applied);
        let live = || {
            let forward = states().filter(|(name, _)| name.direction() == Direction::Up);
            let forward = forward.filter(|(name, _)| **name != StepName::Accepted);
            forward.filter(|(_, state)| is_live(state.status())).map(|(name, _)| name.phase())
        };
        // One without phases has none that it could have come through.
        if live().any(|phase| phase == Phase::Up) {
            return false;
        }
        let is_applied = |step: &Step| {
            let id = StepId { version: self.version, name: step.name.clone() };
            let state = histories.of(step.store()).step(&id);
            state.is_some_and(|state| state.status() == Status::Applied)
        };
        let by_file = |migration: &Migration| {
            let mut steps = migration.steps.iter().filter(|step| step.phase() <= self.through);
            !migration.is_unfilled() && live().next().is_some() && steps.all(is_applied)
        };
        live().any(|phase| phase > self.through) || self.migration.is_some_and(by_file)
    }
}

/// Looks until the version is completed in every store, or has come as far as is wanted,
/// or no time is left. Once, `tell` gets to know what is waited for.
///
/// # Errors
/// [`Uncompleted`].
pub async fn completed<P, M>(
    stores: &mut Stores<P, M>,
    wanted: Wanted<'_>,
    run_id: &str,
    left: impl Fn() -> Duration,
    tell: &mut dyn FnMut(&Lacking),
) -> Result<(), Uncompleted>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let began = Instant::now();
    let mut pause = LOOK;
    let mut told = false;
    loop {
        let lacking = match lock::read(stores).await {
            Ok(read) => {
                let lacking = lacking(stores, &read, wanted);
                if lacking.is_empty() {
                    return lock::check_pair(stores, &read).map_err(Uncompleted::Pair);
                }
                lacking
            }
            // The next look connects anew.
            Err(error) if is_worth_waiting(&error) => {
                vec![(error.store.word(), error.to_string())]
            }
            Err(error) => return Err(Uncompleted::Store(error)),
        };
        let left = left();
        if left.is_zero() {
            return Err(Uncompleted::Late(lacking));
        }
        if !std::mem::replace(&mut told, true) {
            tell(&lacking);
        }
        let part = pause.mul_f64(jitter(run_id, began.elapsed()));
        tokio::time::sleep(part.min(left)).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// In which stores the version has not come so far, and how far it is there.
fn lacking<P, M>(
    stores: &Stores<P, M>,
    read: &Read,
    wanted: Wanted<'_>,
) -> Vec<(&'static str, String)>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let Wanted { version, through, .. } = wanted;
    let mut lives = plan::lives(&read.histories).into_iter();
    let is_reverting = lives.any(|life| life.version == version && life.reverting);
    let may_be_open = through < Phase::Cleanup && !is_reverting;
    let is_reached = may_be_open && wanted.is_reached(&read.histories);
    let lack = |store: StoreName| {
        let row = read.histories.of(store).row(version);
        let state = match row.map(|row| row.status) {
            Some(RowStatus::Completed | RowStatus::Baseline) => return None,
            Some(RowStatus::Held) if may_be_open => return None,
            _ if is_reached => return None,
            Some(RowStatus::Held) => "held: its cleanup is not done",
            Some(RowStatus::Running) => "begun and not done",
            None => "pending",
        };
        Some((store.word(), format!("in {} it is {state}", store.title())))
    };
    let mut lacking: Vec<(&'static str, String)> =
        stores.configured().into_iter().filter_map(lack).collect();
    if !lacking.is_empty()
        && let Some(lease) = &read.lease
    {
        lacking.push(("at work", format!("{}, run {}", lease.holder, lease.run_id)));
    }
    lacking
}
