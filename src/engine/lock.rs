//! The lock: a lease in each store, Postgres first, held for the length of a
//! scope and given back on every way out of it.

use crate::core::history::{Histories, History, LeaseSeen, Snapshot};
use crate::core::id::StoreName;
use crate::core::notice::{Notice, Notices};
use crate::core::step::{MongoStep, PgStep};
use crate::engine::{Stop, StopReason};
use crate::failpoint;
use crate::store::{
    Fate, Heart, Holder, Lease, Outcome, Run, Store, StoreError, Stores, lease_term,
};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// A lease is renewed this often: five chances before it runs out.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

fn heartbeat() -> Duration {
    failpoint::heartbeat().unwrap_or(HEARTBEAT)
}

/// Waiters ask again after this long at most; the real pause is a random part of
/// it, so that many waiters do not ask at once.
const POLL_MAX: Duration = Duration::from_millis(900);

/// Both stores, with our lease in each. Only [`with_lock`] makes one.
#[derive(Debug)]
pub struct Locked<'a, P, M> {
    /// The stores.
    pub stores: &'a mut Stores<P, M>,
    /// Their histories, read after the lease was ours.
    pub histories: Histories,
}

impl<P, M> Locked<'_, P, M>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    /// Whether a lease is somebody else's by now. Then what was seen since may be
    /// their doing, and what we make of it is nothing to tell anybody.
    pub async fn lost(&mut self) -> Option<LockError> {
        let (store, why) = lost(self.stores).await?;
        Some(LockError::Lost { store, why })
    }
}

/// Why the lock was not to be had, or was lost.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LockError {
    /// Exit code 4.
    #[error("another run holds the lease in {store}: {holder}; its lease lasts {left}s more unless it is renewed", store = .store.title(), left = .left.as_secs())]
    Held {
        /// Where.
        store: StoreName,
        /// By whom.
        holder: Box<Holder>,
        /// How long still.
        left: Duration,
    },
    /// Exit code 4.
    #[error("the lease in {store} was lost: {why}", store = .store.title())]
    Lost {
        /// Where.
        store: StoreName,
        /// What showed it.
        why: String,
    },
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Exit code 5.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// Somebody asked for it while we waited.
    #[error("stopped while waiting for the lease: {0}")]
    Stopped(StopReason),
}

/// The two databases do not belong together. Exit code 5.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PairError {
    /// Each belongs to another pair.
    #[error(
        "this Postgres and this MongoDB do not belong together: Postgres is of pair {postgres}, MongoDB of pair {mongo}"
    )]
    Mismatch {
        /// The UUID in Postgres.
        postgres: String,
        /// The UUID in MongoDB.
        mongo: String,
    },
    /// There is a history, and nothing that says to which pair it belongs.
    #[error("{store} has a migration history, but its row in migration_control is gone: somebody deleted it", store = .0.title())]
    Lost(StoreName),
    /// One has a history and the other was never used.
    #[error("{paired} has a migration history (pair {pair}), but this {other} was never used with it", paired = .paired.title(), other = .paired.other().title())]
    OneSided {
        /// The store that belongs to a pair.
        paired: StoreName,
        /// Its UUID.
        pair: String,
    },
}

impl PairError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            PairError::Mismatch { .. } => "nothing was changed; check both URLs: is one of them of another environment? If they are to be a pair from now on, `migrate repair --pair`".to_owned(),
            PairError::Lost(_) => "nothing was changed; if both URLs are right, `migrate repair --pair` writes it again".to_owned(),
            PairError::OneSided { paired, .. } => format!(
                "nothing was changed; check both URLs: is one of them of another environment? If {title} was restored from a backup older than its first migration, `migrate repair --replay {other}` runs there what it lacks; if only our tables were dropped there, `migrate repair --mark-applied all --store {other}` writes them again",
                title = paired.other().title(),
                other = paired.other()
            ),
        }
    }
}

/// Both histories as they are now, and whether the pair is one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Read {
    /// Both histories.
    pub histories: Histories,
    /// The UUID in Postgres.
    pub postgres_pair: Option<String>,
    /// The UUID in MongoDB.
    pub mongo_pair: Option<String>,
    /// The lease, while somebody has it in either store.
    pub lease: Option<LeaseSeen>,
}

impl Read {
    /// What both stores say; a store that is not there says nothing.
    pub fn of(postgres: Snapshot, mongo: Snapshot) -> Read {
        Read {
            postgres_pair: postgres.pair.clone(),
            mongo_pair: mongo.pair.clone(),
            lease: postgres.lease.clone().or_else(|| mongo.lease.clone()),
            histories: Histories {
                postgres: History::replay(postgres),
                mongo: History::replay(mongo),
            },
        }
    }

    /// Whether this engine has written to either store.
    pub fn is_virgin(&self) -> bool {
        self.postgres_pair.is_none()
            && self.mongo_pair.is_none()
            && self.histories == Histories::default()
    }
}

/// Reads both histories. Changes nothing, creates nothing.
///
/// # Errors
/// A store that cannot be read.
pub async fn read<P, M>(stores: &mut Stores<P, M>) -> Result<Read, StoreError>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let Stores { postgres, mongo } = stores;
    let postgres = async {
        match postgres {
            Some(store) => store.read().await,
            None => Ok(Snapshot::default()),
        }
    };
    let mongo = async {
        match mongo {
            Some(store) => store.read().await,
            None => Ok(Snapshot::default()),
        }
    };
    let (postgres, mongo) = futures_util::future::try_join(postgres, mongo).await?;
    Ok(Read::of(postgres, mongo))
}

/// Whether the two databases belong together.
///
/// # Errors
/// [`PairError`].
pub fn check_pair<P, M>(stores: &Stores<P, M>, read: &Read) -> Result<(), PairError> {
    if stores.postgres.is_none() || stores.mongo.is_none() {
        return Ok(());
    }
    check_both(read)
}

/// Whether the two databases belong together, in a project that has both.
///
/// # Errors
/// [`PairError`].
pub fn check_both(read: &Read) -> Result<(), PairError> {
    let has_history = |store: StoreName| *read.histories.of(store) != History::default();
    match (&read.postgres_pair, &read.mongo_pair) {
        (None, _) if has_history(StoreName::Postgres) => Err(PairError::Lost(StoreName::Postgres)),
        (_, None) if has_history(StoreName::Mongo) => Err(PairError::Lost(StoreName::Mongo)),
        (None, None) => Ok(()),
        (Some(postgres), Some(mongo)) if postgres == mongo => Ok(()),
        (Some(postgres), Some(mongo)) => {
            Err(PairError::Mismatch { postgres: postgres.clone(), mongo: mongo.clone() })
        }
        // The first run writes the UUID into Postgres first: if it died right
        // then, there is no history yet, and the next run goes on.
        (Some(pair), None) if has_history(StoreName::Postgres) => {
            Err(PairError::OneSided { paired: StoreName::Postgres, pair: pair.clone() })
        }
        (Some(_), None) => Ok(()),
        (None, Some(pair)) => {
            Err(PairError::OneSided { paired: StoreName::Mongo, pair: pair.clone() })
        }
    }
}

/// Who waits for long is told again, so that nobody takes it for dead.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How somebody waits for the lease.
pub struct Waiting<'a> {
    /// For this long at most.
    pub limit: Duration,
    /// Told who holds it.
    pub notices: &'a mut dyn Notices,
    /// Stops the waiting.
    pub stop: &'a Stop,
    /// Whether the two databases must belong together.
    pub pairing: Pairing,
}

/// Whether the two databases must belong together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pairing {
    /// They must.
    Check,
    /// They are about to be made a pair.
    Ignore,
}

/// Runs `work` with our lease in both stores, and gives the leases back in
/// reverse, whatever becomes of it. Before each try for the lease, `still`
/// looks at the histories, for as long as it likes: when it says that nothing is left to do, no lease is
/// taken and the answer is `None`.
///
/// When the lease is lost, `work` is dropped where it stands.
///
/// # Errors
/// [`LockError`], as `work`'s error type has it.
pub async fn with_lock<P, M, T, E>(
    stores: &mut Stores<P, M>,
    run: &Run,
    waiting: Waiting<'_>,
    mut still: impl AsyncFnMut(&mut Stores<P, M>, &Read, &mut dyn Notices) -> Result<bool, E>,
    work: impl AsyncFnOnce(&mut Locked<'_, P, M>, &mut dyn Notices) -> Result<T, E>,
    outcome: impl FnOnce(Result<&T, &E>) -> Outcome,
) -> Result<Option<T>, E>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
    E: From<LockError>,
{
    let Waiting { limit, notices, stop, pairing } = waiting;
    let mut began = Instant::now();
    let mut told: Option<(String, Instant)> = None;
    let died = loop {
        let mut now = read(stores).await.map_err(LockError::from)?;
        if pairing == Pairing::Check && check_pair(stores, &now).is_err() {
            // The two stores are not read at one moment, and another first run may
            // have made them a pair in between.
            now = read(stores).await.map_err(LockError::from)?;
            check_pair(stores, &now).map_err(LockError::from)?;
        }
        let asked = Instant::now();
        if !still(stores, &now, &mut *notices).await? {
            return Ok(None);
        }
        // Whoever helps whom it waits for does not stand around meanwhile.
        began += asked.elapsed();
        let (store, holder, left) = match take(stores, run, &now, pairing).await? {
            Taken::Ours(died) => break died,
            Taken::Held(store, holder, left) => (store, holder, left),
            Taken::TooLate => continue,
        };
        if began.elapsed() >= limit {
            return Err(LockError::Held { store, holder: Box::new(holder), left }.into());
        }
        let is_told = told
            .as_ref()
            .is_some_and(|(run, at)| *run == holder.run_id && at.elapsed() < TOLD_EVERY);
        if !is_told {
            notices.notice(Notice::Waiting {
                store,
                holder: format!(
                    "{holder}; the lease lasts {}s more unless it is renewed",
                    left.as_secs()
                ),
            });
            told = Some((holder.run_id, Instant::now()));
        }
        if let Some(reason) = stop.requested() {
            return Err(LockError::Stopped(reason).into());
        }
        sleep(POLL_MAX.mul_f64(jitter(&run.id, began.elapsed())).min(limit)).await;
    };

    let (lost, mut lost_seen) = watch::channel(None);
    let hearts = match hearts(stores, lost).await {
        Ok(hearts) => hearts,
        Err(error) => {
            let error = E::from(LockError::Store(error));
            let _ = give_back(stores, &outcome(Err(&error))).await;
            return Err(error);
        }
    };
    let mut lost = None;
    let mut result = async {
        for (store, run) in died {
            notices.notice(Notice::Remark(format!(
                "run {run} died while it held the lease in {}; going on from what it recorded",
                store.title()
            )));
        }
        for line in evict(stores).await.map_err(LockError::from)? {
            notices.notice(Notice::Remark(line));
        }
        let now = read(stores).await.map_err(LockError::from)?;
        let mut locked = Locked { stores: &mut *stores, histories: now.histories };
        tokio::select! {
            result = Box::pin(work(&mut locked, &mut *notices)) => result,
            error = lost_lease(&mut lost_seen) => {
                lost = Some(error.clone());
                Err(error.into())
            }
        }
    }
    .await;
    drop(hearts);
    if result.is_err()
        && lost.is_none()
        && let Some((store, why)) = Box::pin(self::lost(stores)).await
    {
        // What went wrong may have been another run's doing: whoever took it has ended
        // our sessions, or has gone on with what we were at.
        result = Err(LockError::Lost { store, why }.into());
    }
    if lost.is_some() {
        // What was under way belongs to nobody now.
        cancel(stores).await;
    }
    let released = give_back(stores, &outcome(result.as_ref())).await;
    let done = result?;
    released.map_err(LockError::from)?;
    Ok(Some(done))
}

enum Taken {
    Ours(Vec<(StoreName, String)>),
    Held(StoreName, Holder, Duration),
    /// When we had the second lease, the first one was somebody else's.
    TooLate,
}

/// Both leases, or none.
async fn take<P, M>(
    stores: &mut Stores<P, M>,
    run: &Run,
    read: &Read,
    pairing: Pairing,
) -> Result<Taken, LockError>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let mut died = Vec::new();
    // The run's id is a UUID: the first run of a pair gives it its name.
    let pair = read.postgres_pair.clone().or_else(|| read.mongo_pair.clone());
    let mut pair = pair.unwrap_or_else(|| run.id.clone());
    if let Some(postgres) = &mut stores.postgres {
        pair = postgres.found(&pair).await?;
        match postgres.acquire(run).await? {
            Lease::Ours { died: run, .. } => died.extend(run.map(|run| (StoreName::Postgres, run))),
            Lease::Held { holder, left } => {
                return Ok(Taken::Held(StoreName::Postgres, holder, left));
            }
        }
    }
    if let Some(mongo) = &mut stores.mongo {
        let lease = match mongo.found(&pair).await {
            // Somebody paired it with another Postgres since we read it.
            Ok(other)
                if pairing == Pairing::Check && stores.postgres.is_some() && other != pair =>
            {
                let refused =
                    Outcome { word: "refused", error: None, to_version: run.from_version };
                if let Some(postgres) = &mut stores.postgres {
                    postgres.release(&refused).await?;
                }
                return Err(PairError::Mismatch { postgres: pair, mongo: other }.into());
            }
            Ok(_) => mongo.acquire(run).await,
            Err(error) => Err(error),
        };
        match lease {
            Ok(Lease::Ours { died: run, .. }) => {
                died.extend(run.map(|run| (StoreName::Mongo, run)));
            }
            Ok(Lease::Held { holder, left }) => {
                let outcome = Outcome { word: "locked", error: None, to_version: run.from_version };
                if let Some(postgres) = &mut stores.postgres {
                    postgres.release(&outcome).await?;
                }
                return Ok(Taken::Held(StoreName::Mongo, holder, left));
            }
            Err(error) => {
                let outcome = Outcome {
                    word: "failed",
                    error: Some(error.to_string()),
                    to_version: run.from_version,
                };
                if let Some(postgres) = &mut stores.postgres {
                    let _ = postgres.release(&outcome).await;
                }
                return Err(error.into());
            }
        }
    }
    // Only who had both at one moment may begin. Whoever took the first one from
    // us while we waited for the second may have been at work, and lost the second
    // to us: then neither of us would see what the other one does.
    if let (Some(postgres), Some(mongo)) = (&mut stores.postgres, &mut stores.mongo) {
        match postgres.check_lease().await {
            Err(error) if error.fate == Fate::Fenced => {
                let outcome = Outcome { word: "locked", error: None, to_version: run.from_version };
                mongo.release(&outcome).await?;
                postgres.release(&outcome).await?;
                return Ok(Taken::TooLate);
            }
            Err(error) => {
                let outcome = Outcome {
                    word: "failed",
                    error: Some(error.to_string()),
                    to_version: run.from_version,
                };
                let _ = mongo.release(&outcome).await;
                let _ = postgres.release(&outcome).await;
                return Err(error.into());
            }
            Ok(()) => {}
        }
    }
    Ok(Taken::Ours(died))
}

/// Gives both leases back, MongoDB first. Tries both, whatever happens.
async fn give_back<P, M>(stores: &mut Stores<P, M>, outcome: &Outcome) -> Result<(), StoreError>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let mongo = match &mut stores.mongo {
        Some(mongo) => mongo.release(outcome).await,
        None => Ok(()),
    };
    let postgres = match &mut stores.postgres {
        Some(postgres) => postgres.release(outcome).await,
        None => Ok(()),
    };
    mongo.and(postgres)
}

/// Ends what dead runs left running: a killed client does not stop its
/// statement.
async fn evict<P, M>(stores: &mut Stores<P, M>) -> Result<Vec<String>, StoreError>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let mut ended = Vec::new();
    if let Some(postgres) = &mut stores.postgres {
        ended.extend(postgres.evict().await?);
    }
    if let Some(mongo) = &mut stores.mongo {
        ended.extend(mongo.evict().await?);
    }
    Ok(ended)
}

/// What fails first when the lease went to another run may be anything. A look at the
/// lease takes this long at most.
const LOOK_AT_LEASE: Duration = Duration::from_secs(3);

/// Whether a lease is somebody else's by now.
async fn lost<P, M>(stores: &mut Stores<P, M>) -> Option<(StoreName, String)>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let look = async {
        for store in stores.configured() {
            match stores.check_lease(store).await {
                Err(error) if error.fate == Fate::Fenced => {
                    return Some((store, error.said.message));
                }
                // A store that does not answer has not said that it is lost.
                Ok(()) | Err(_) => {}
            }
        }
        None
    };
    tokio::time::timeout(LOOK_AT_LEASE, look).await.ok().flatten()
}

async fn cancel<P, M>(stores: &mut Stores<P, M>)
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    if let Some(postgres) = &mut stores.postgres {
        postgres.cancel().await;
    }
    if let Some(mongo) = &mut stores.mongo {
        mongo.cancel().await;
    }
}

/// Tasks that end when this is dropped.
struct Hearts(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Hearts {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

type LostSeen = watch::Receiver<Option<(StoreName, String)>>;

async fn hearts<P, M>(
    stores: &mut Stores<P, M>,
    lost: watch::Sender<Option<(StoreName, String)>>,
) -> Result<Hearts, StoreError>
where
    P: Store<Step = PgStep>,
    M: Store<Step = MongoStep>,
{
    let mut hearts = Hearts(Vec::new());
    if let Some(postgres) = &mut stores.postgres {
        let heart = postgres.heart().await?;
        hearts.0.push(tokio::spawn(beat(StoreName::Postgres, heart, lost.clone())));
    }
    if let Some(mongo) = &mut stores.mongo {
        let heart = mongo.heart().await?;
        hearts.0.push(tokio::spawn(beat(StoreName::Mongo, heart, lost)));
    }
    Ok(hearts)
}

/// Renews a lease until it is lost: somebody else has it, or it could not be
/// renewed for as long as it lasts.
async fn beat(
    store: StoreName,
    mut heart: impl Heart,
    lost: watch::Sender<Option<(StoreName, String)>>,
) {
    let mut renewed = Instant::now();
    loop {
        sleep(heartbeat()).await;
        let before = Instant::now();
        let left = lease_term().saturating_sub(renewed.elapsed());
        let why = match tokio::time::timeout(left, heart.beat()).await {
            Ok(Ok(())) => {
                renewed = before;
                continue;
            }
            Ok(Err(error)) if error.fate == Fate::Fenced => error.said.message,
            Ok(Err(error)) if renewed.elapsed() >= lease_term() => error.to_string(),
            Ok(Err(_)) => continue,
            Err(_) => "it could not be renewed in time".to_owned(),
        };
        let _ = lost.send(Some((store, why)));
        return;
    }
}

async fn lost_lease(seen: &mut LostSeen) -> LockError {
    match seen.wait_for(Option::is_some).await {
        Ok(lost) => {
            let (store, why) = lost.clone().expect("waited for Some");
            LockError::Lost { store, why }
        }
        // No heart beats where no store is configured, or when all have ended.
        Err(_) => std::future::pending().await,
    }
}

/// A part of one, different for each run and each moment.
pub fn jitter(run_id: &str, elapsed: Duration) -> f64 {
    let seed = format!("{run_id}{}", elapsed.as_nanos());
    let byte = crate::core::checksum::Checksum::of(seed.as_bytes()).first_byte();
    0.3 + 0.7 * f64::from(byte) / 255.0
}
