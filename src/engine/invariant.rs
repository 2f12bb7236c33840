//! Checks invariants: asks, compares, and shows what offends.

use crate::core::expectation::{equal, holds, show};
use crate::core::history::Timestamp;
use crate::core::id::Version;
use crate::core::notice::Notice;
use crate::core::parse::manifest::{Check, Invariant, MongoAnswer, MongoSource, Sample};
use crate::core::step::{MongoStep, PgStep, Timeouts};
use crate::engine::Clock;
use crate::store::invariant::{Invariants, shown};
use crate::store::{Fate, StoreError, Stores};
use bson::Bson;
use std::time::Duration;

pub use crate::core::expectation::Broken;

/// Two stores are not read at the same moment: what differs is asked again after
/// this, if nobody knows how far the standbys are behind.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// What an invariant is checked with.
pub struct Asking<'a> {
    /// For how long it took.
    pub clock: &'a dyn Clock,
    /// From `[timeouts]`; without them a question may take as long as it takes.
    pub timeouts: Timeouts,
    /// How far the slowest standby is behind, if anybody knows.
    pub lag: Option<Duration>,
}

/// What came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// It is as expected.
    pub holds: bool,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Up to ten rows that offend, if it does not hold and says how to find them.
    pub sample: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Checked {
    /// As the engine tells it.
    pub fn notice(&self, version: Version, invariant: &Invariant) -> Notice {
        Notice::InvariantChecked {
            version,
            name: invariant.name.text.clone(),
            holds: self.holds,
            expected: self.expected.clone(),
            found: self.found.clone(),
            sample: self.sample.clone(),
            took: self.took,
        }
    }

    /// `Some` if it does not hold.
    pub fn broken(self, invariant: &Invariant) -> Option<Broken> {
        (!self.holds).then(|| Broken {
            name: invariant.name.text.clone(),
            questions: invariant.check.questions(),
            expected: self.expected,
            found: self.found,
            sample: self.sample,
        })
    }
}

/// Checks one invariant, from scratch.
///
/// # Errors
/// [`StoreError`] when a question cannot be asked, or its answer is not one value.
/// That it does not hold is no error of this.
pub async fn check<P, M>(
    stores: &mut Stores<P, M>,
    invariant: &Invariant,
    asking: &Asking<'_>,
) -> Result<Checked, StoreError>
where
    P: Invariants<Step = PgStep, Question = str, Rows = str>,
    M: Invariants<Step = MongoStep, Question = MongoAnswer, Rows = MongoSource>,
{
    let begun = asking.clock.now();
    let (holds, expected, found) = match &invariant.check {
        Check::Postgres { query, expect } => {
            let value = stores.postgres()?.value(query, asking.timeouts).await?;
            (holds(expect, &value), expect.to_string(), show(&value))
        }
        Check::Mongo { answer, expect } => {
            let value = stores.mongo()?.value(answer, asking.timeouts).await?;
            (holds(expect, &value), expect.to_string(), show(&value))
        }
        Check::Equal { postgres, mongo } => {
            let mut answers = both(stores, postgres, mongo, asking).await?;
            if !equal(&answers.0, &answers.1) {
                let lag = asking.lag.map(|lag| lag * 2);
                tokio::time::sleep(lag.unwrap_or(SECOND_LOOK)).await;
                answers = both(stores, postgres, mongo, asking).await?;
            }
            let found =
                format!("{} in Postgres, {} in MongoDB", show(&answers.0), show(&answers.1));
            (equal(&answers.0, &answers.1), "the same in both stores".to_owned(), found)
        }
        Check::Compare { .. } => {
            return Err(StoreError::new(
                invariant.check.store(),
                "check the invariant",
                Fate::Refused,
                "comparing row by row (`compare`) is not built yet",
            ));
        }
    };
    let sample = match &invariant.sample {
        Some(sample) if !holds => shown(rows(stores, sample, asking.timeouts).await),
        _ => Vec::new(),
    };
    let took = between(begun, asking.clock.now());
    Ok(Checked { holds, expected, found, sample, took })
}

/// Both answers, asked for at once so that they are of about the same moment.
async fn both<P, M>(
    stores: &mut Stores<P, M>,
    postgres: &str,
    mongo: &MongoAnswer,
    asking: &Asking<'_>,
) -> Result<(Bson, Bson), StoreError>
where
    P: Invariants<Step = PgStep, Question = str, Rows = str>,
    M: Invariants<Step = MongoStep, Question = MongoAnswer, Rows = MongoSource>,
{
    let (in_postgres, in_mongo) = stores.both()?;
    let (postgres, mongo) = futures_util::future::join(
        in_postgres.value(postgres, asking.timeouts),
        in_mongo.value(mongo, asking.timeouts),
    )
    .await;
    Ok((postgres?, mongo?))
}

async fn rows<P, M>(
    stores: &mut Stores<P, M>,
    sample: &Sample,
    timeouts: Timeouts,
) -> Result<Vec<String>, StoreError>
where
    P: Invariants<Step = PgStep, Question = str, Rows = str>,
    M: Invariants<Step = MongoStep, Question = MongoAnswer, Rows = MongoSource>,
{
    match sample {
        Sample::Postgres(query) => stores.postgres()?.rows(query, timeouts).await,
        Sample::Mongo(source) => stores.mongo()?.rows(source, timeouts).await,
    }
}

fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(end.0 - start.0).unwrap_or(0))
}
