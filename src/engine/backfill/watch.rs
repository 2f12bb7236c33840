//! Asks people and servers: steering before each batch, probes each second, both
//! of both stores.

use super::board::Board;
use super::session::Session;
use crate::core::pace::Limits;
use crate::store::StoreError;
use crate::store::backfill::Backfills;
use std::cell::Cell;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Servers are asked how they are, and people told how far it is.
const EVERY: Duration = Duration::from_secs(1);

/// What others have done is read this often.
const OTHERS_EVERY: Duration = Duration::from_secs(5);

/// An answer that takes longer is none.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// The sessions with which a backfill is watched.
pub(super) struct Watch<S, O> {
    /// For steering, and for what others have done.
    steering: Mutex<(Session<S>, Option<Session<O>>)>,
    /// Questions about the steering that were begun, and that were answered: an
    /// answer to a question of after now is as good as one's own.
    begun: Cell<u64>,
    answered: Cell<u64>,
    probes: Mutex<(Session<S>, Option<Session<O>>)>,
}

impl<S: Backfills, O: Backfills> Watch<S, O> {
    pub async fn new(store: &mut S, other: Option<&mut O>) -> Result<Watch<S, O>, StoreError> {
        let (steering, probes) = (Session::new(store).await?, Session::new(store).await?);
        let (steering_other, probes_other) = match other {
            Some(other) => (Some(Session::new(other).await?), Some(Session::new(other).await?)),
            None => (None, None),
        };
        Ok(Watch {
            steering: Mutex::new((steering, steering_other)),
            begun: Cell::new(0),
            answered: Cell::new(0),
            probes: Mutex::new((probes, probes_other)),
        })
    }

    /// Reads what people ask for now.
    pub async fn steer(&self, board: &Board<'_>) -> Result<(), StoreError> {
        let mine = self.begun.get() + 1;
        let mut sessions = self.steering.lock().await;
        if self.answered.get() >= mine {
            return Ok(());
        }
        let question = self.begun.get() + 1;
        self.begun.set(question);
        let (own, other) = &mut *sessions;
        let own = own.ask(async |store| store.steering().await);
        let other = async {
            match other {
                Some(other) => other.ask(async |store| store.steering().await).await.map(Some),
                None => Ok(None),
            }
        };
        let (own, other) = futures_util::future::try_join(own, other).await?;
        board.steer(match other {
            Some(other) => own.and(other),
            None => own,
        });
        self.answered.set(question);
        Ok(())
    }

    /// Probes and reports until it is dropped.
    pub async fn go_on(&self, board: &Board<'_>) -> Infallible {
        let mut probes = self.probes.lock().await;
        let (own, other) = &mut *probes;
        let store = board.job.work.store();
        let limits = board.limits();
        let own = async {
            match limits {
                Some(limits) => probe(own, &limits, |readings| board.read(store, readings)).await,
                None => std::future::pending().await,
            }
        };
        let other = async {
            match (other, limits) {
                (Some(other), Some(limits)) => {
                    probe(other, &limits, |readings| board.read(store.other(), readings)).await
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            never = own => never,
            never = other => never,
            never = self.report(board) => never,
        }
    }

    async fn report(&self, board: &Board<'_>) -> Infallible {
        let mut others = Instant::now();
        loop {
            tokio::time::sleep(EVERY).await;
            if others.elapsed() >= OTHERS_EVERY {
                others = Instant::now();
                // Only for the numbers: who needs the session finds out if it is lost.
                if let Ok(mut sessions) = self.steering.try_lock() {
                    let store = sessions.0.store();
                    if let Ok(shards) = store.shards(board.job).await {
                        board.saw(&shards);
                    }
                    if board.job.max_bad > 0
                        && let Ok(rejected) = store.rejects(board.job).await
                    {
                        board.rejected(rejected);
                    }
                }
            }
            board.report();
        }
    }
}

async fn probe<S: Backfills>(
    session: &mut Session<S>,
    limits: &Limits,
    mut read: impl FnMut(&[crate::core::pace::Reading]),
) -> Infallible {
    let mut each = interval(EVERY);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        each.tick().await;
        match timeout(PROBE_MAX, session.store().probe(limits)).await {
            Ok(readings) => read(&readings),
            // The throttle hears that nothing is heard.
            Err(_) => {
                if let Ok(Ok(store)) = timeout(PROBE_MAX, session.hands.another()).await {
                    session.hands = store;
                }
            }
        }
    }
}
