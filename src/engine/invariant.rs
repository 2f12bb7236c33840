//! Checks invariants: asks, compares, and shows what offends.

use crate::core::compare::{Difference, MAX_AGE, Verdict, second_look};
use crate::core::expectation::{equal, holds, show};
use crate::core::grouped::grouped;
use crate::core::history::{Record, Timestamp};
use crate::core::id::Version;
use crate::core::notice::{Notice, Notices};
use crate::core::pace::{Level, Limits};
use crate::core::parse::manifest::{Check, Invariant, MongoAnswer, MongoSource, Sample};
use crate::core::step::{MongoStep, PgStep, Timeouts};
use crate::engine::compare::{Compared, KEPT_EVERY, Task, compare};
use crate::engine::{Clock, Stop};
use crate::store::invariant::{Invariants, shown};
use crate::store::{MongoStore, PostgresStore, StoreError, Stores};
use bson::Bson;
use std::time::Duration;

pub use crate::core::expectation::Broken;
pub use crate::engine::compare::Unanswered;

/// Two stores are not read at the same moment: what differs is asked again after
/// this, or after twice the lag of the standbys if that is more.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// The probes that say how far a standby is behind, in times the limit of it.
const LAGS: [&str; 2] = ["replication lag", "majority commit lag"];

/// A standby that is gone for a day is not waited for.
const LAG_TIMES_MAX: f64 = 12.0;

/// So many differences of a comparison are shown to people.
const SHOWN_MAX: usize = 20;

/// What to do about rows of which nobody can say whether they are the same.
const UNRESOLVED: &str = "cleanup was not run, and what was done before is recorded; look whether \
     one store's writes reach the other, and run `migrate up` (or `migrate cleanup`) again when \
     these rows are written less often";

/// What an invariant is checked with.
pub struct Asking<'a> {
    /// For how long it took.
    pub clock: &'a dyn Clock,
    /// From `[timeouts]`; without them a question may take as long as it takes.
    pub timeouts: Timeouts,
    /// How far the slowest standby is behind, if anybody knows.
    pub lag: Option<Duration>,
    /// Asked while something is waited for, and between two ranges of a comparison.
    pub stop: &'a Stop,
    /// The migration whose invariant it is.
    pub version: Version,
    /// Where a comparison records how far it is, so that it goes on there; `None` is
    /// nowhere, and it begins anew.
    pub record: Option<&'a Record>,
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
    /// Up to ten rows that offend, if it does not hold and says how to find them; of
    /// a comparison, up to twenty differences.
    pub sample: Vec<String>,
    /// The differences that a comparison found, as far as they are told one by one.
    pub differences: Vec<Difference>,
    /// How many they are in all; `None` if it is no comparison.
    pub count: Option<u64>,
    /// What to do about it, if it is not to mend the data.
    pub next: Option<&'static str>,
    /// How long ago it began when it ended, where that counts: of a comparison.
    pub age: Option<Duration>,
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
            differences: self.differences.clone(),
            count: self.count,
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
            next: self.next,
        })
    }
}

/// How far the slowest standby of either store is behind, if anybody knows; asked only
/// where both stores are, and what differs is looked at again.
pub async fn lag<P: PostgresStore, M: MongoStore>(
    stores: &mut Stores<P, M>,
    check: &Check,
    limits: &Limits,
) -> Option<Duration> {
    match check {
        Check::Compare { .. } | Check::Equal { .. } => {}
        Check::Postgres { .. } | Check::Mongo { .. } => return None,
    }
    let mut readings = Vec::new();
    if let Some(postgres) = stores.postgres.as_mut() {
        readings.extend(postgres.probe(limits).await);
    }
    if let Some(mongo) = stores.mongo.as_mut() {
        readings.extend(mongo.probe(limits).await);
    }
    let lags = readings.iter().filter(|reading| LAGS.contains(&reading.probe));
    let ratios = lags.filter_map(|reading| match &reading.level {
        Level::At { ratio, .. } => Some(*ratio),
        Level::Nothing(_) | Level::Off(_) => None,
    });
    let worst = ratios.max_by(f64::total_cmp).filter(|ratio| ratio.is_finite() && *ratio >= 0.0)?;
    Some(limits.replication_lag.mul_f64(worst.min(LAG_TIMES_MAX)))
}

/// Checks one invariant, from scratch.
///
/// # Errors
/// [`Unanswered`] when a question cannot be asked, or its answer is not one value, or
/// somebody asked to stop. That it does not hold is no error of this.
pub async fn check<P: PostgresStore, M: MongoStore>(
    stores: &mut Stores<P, M>,
    invariant: &Invariant,
    asking: &Asking<'_>,
    notices: &mut dyn Notices,
) -> Result<Checked, Unanswered> {
    let begun = asking.clock.now();
    let (mut differences, mut count, mut sample) = (Vec::new(), None, Vec::new());
    let (mut age, mut next) = (None, None);
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
                let lag = asking.lag.map_or(SECOND_LOOK, |lag| SECOND_LOOK.max(lag * 2));
                let mut stop = asking.stop.clone();
                tokio::select! {
                    reason = stop.wait() => return Err(Unanswered::Stopped(reason)),
                    () = tokio::time::sleep(lag) => {}
                }
                answers = both(stores, postgres, mongo, asking).await?;
            }
            let found =
                format!("{} in Postgres, {} in MongoDB", show(&answers.0), show(&answers.1));
            (equal(&answers.0, &answers.1), "the same in both stores".to_owned(), found)
        }
        Check::Compare { postgres, mongo, key, max_age } => {
            let task = Task {
                version: asking.version,
                name: &invariant.name.text,
                record: asking.record,
                postgres,
                mongo,
                key,
                max_age: max_age.unwrap_or(MAX_AGE),
                timeouts: asking.timeouts,
                again: second_look(asking.lag),
                keep: KEPT_EVERY,
            };
            let (in_postgres, in_mongo) = stores.both()?;
            let compared = compare(in_postgres, in_mongo, task, asking.stop, notices).await?;
            let found = words(&compared);
            age = Some(compared.age);
            if matches!(compared.verdict, Verdict::Unresolved { .. }) {
                next = Some(UNRESOLVED);
            }
            let holds = compared.verdict == Verdict::Clean;
            count = Some(match &compared.verdict {
                Verdict::Clean => 0,
                Verdict::Diverged { count, .. } | Verdict::Unresolved { count, .. } => *count,
            });
            if let Verdict::Diverged { differences: told, .. }
            | Verdict::Unresolved { differences: told, .. } = compared.verdict
            {
                sample = told.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
                differences = told;
            }
            (holds, "the same rows in both stores".to_owned(), found)
        }
    };
    if let Some(of_it) = &invariant.sample
        && !holds
    {
        sample.extend(shown(rows(stores, of_it, asking.timeouts).await));
    }
    let took = between(begun, asking.clock.now());
    Ok(Checked { holds, expected, found, sample, differences, count, next, age, took })
}

/// What a comparison found, in a few words.
fn words(compared: &Compared) -> String {
    let rows = grouped(compared.rows);
    let many = |count: u64, one: &str, several: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {several}", grouped(count)),
    };
    match &compared.verdict {
        Verdict::Clean => format!("{} the same", many(compared.rows, "row", "rows")),
        Verdict::Diverged { count, .. } if compared.is_partial => {
            format!("{} differences and more, among the first {rows} rows", grouped(*count))
        }
        Verdict::Diverged { count, .. } => {
            format!("{} in {rows} rows", many(*count, "difference", "differences"))
        }
        Verdict::Unresolved { count, .. } => format!(
            "{} that changed each time and never agreed: nobody can say whether they are the same",
            many(*count, "row", "rows")
        ),
    }
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
