//! A session that is replaced when its connection is lost.

use super::hands::Hands;
use crate::store::backfill::is_passing;
use crate::store::{Fate, StoreError};
use std::time::Duration;
use tokio::time::sleep;

/// So often in a row a server may be gone, or somebody in the way: a failover
/// takes about ten seconds, and this is sixteen.
const TRIES_MAX: u32 = 8;

/// Before the first try.
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// Before the last ones.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A session of a worker, a probe or whoever leads.
pub(super) struct Session<H> {
    pub hands: H,
    failed: u32,
}

impl<H: Hands> Session<H> {
    /// One more session of the run that this one belongs to.
    pub async fn new(hands: &mut H) -> Result<Session<H>, StoreError> {
        Ok(Session::of(hands.renewed().await?))
    }

    pub fn of(hands: H) -> Session<H> {
        Session { hands, failed: 0 }
    }

    /// Something that the store may be asked again and again.
    pub async fn ask<T>(
        &mut self,
        mut question: impl AsyncFnMut(&mut H::Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(async |hands| question(hands.store()).await).await
    }

    /// The same for the hands as a whole.
    pub async fn with<T>(
        &mut self,
        mut question: impl AsyncFnMut(&mut H) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        loop {
            match question(&mut self.hands).await {
                Ok(answer) => {
                    self.is_fine();
                    return Ok(answer);
                }
                Err(error) => self.renew(error).await?,
            }
        }
    }

    /// The store that is written.
    pub fn store(&mut self) -> &mut H::Store {
        self.hands.store()
    }

    /// It works.
    pub fn is_fine(&mut self) {
        self.failed = 0;
    }

    /// Goes on after an error that may pass, with a new connection if the old one
    /// was lost.
    ///
    /// # Errors
    /// The error, if it will not pass, or has been there too often in a row.
    pub async fn renew(&mut self, error: StoreError) -> Result<(), StoreError> {
        let mut error = error;
        loop {
            if !(is_lost(&error) || is_passing(&error)) || self.failed >= TRIES_MAX {
                return Err(error);
            }
            sleep((WAIT_FIRST * 2_u32.pow(self.failed)).min(WAIT_MAX)).await;
            self.failed += 1;
            if !is_lost(&error) {
                return Ok(());
            }
            match self.hands.renewed().await {
                Ok(hands) => {
                    self.hands = hands;
                    return Ok(());
                }
                Err(next) => error = next,
            }
        }
    }
}

/// The connection went with it.
pub(super) fn is_lost(error: &StoreError) -> bool {
    match error.fate {
        Fate::Unknown | Fate::Unreachable => true,
        Fate::Refused | Fate::Fenced | Fate::Corrupt => false,
    }
}
