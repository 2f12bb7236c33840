//! A step that takes long says so: about once a second, with how far it is where the
//! server tells.

use crate::core::id::Version;
use crate::core::notice::{Doing, Notice, Notices, StepProgress};
use crate::core::plan::Attempt;
use crate::store::Gauge;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Steps are said to be at work this often; the first time after this, so that what
/// is quick is not looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Whoever does not say how far it is by then does not say it this time.
const LOOK: Duration = Duration::from_secs(2);

/// Does a step, and tells while it does.
pub(super) async fn telling<T>(
    doing: impl Future<Output = T>,
    mut gauge: Option<Box<dyn Gauge>>,
    notices: &mut dyn Notices,
    version: Version,
    attempt: &Attempt,
) -> T {
    let began = Instant::now();
    let tell = async {
        let mut part = Part::default();
        loop {
            sleep(EVERY).await;
            let seen = match &mut gauge {
                Some(gauge) => timeout(LOOK, gauge.look()).await.ok().flatten(),
                None => None,
            };
            let (rate, left) = seen.as_ref().map_or((0, None), |seen| part.pace(seen));
            notices.notice(Notice::StepProgress(StepProgress {
                version,
                step: attempt.step.name.clone(),
                store: attempt.step.store(),
                took: began.elapsed(),
                doing: seen,
                rate,
                left,
            }));
        }
    };
    let mut doing = pin!(doing);
    let tell: std::pin::Pin<&mut (dyn Future<Output = Infallible> + '_)> = pin!(tell);
    tokio::select! {
        biased;
        done = &mut doing => done,
        never = tell => match never {},
    }
}

/// A part of what a step does, as the server divides it.
#[derive(Default)]
struct Part {
    what: String,
    first: Option<(Instant, u64)>,
}

impl Part {
    /// Units a second since it began, and about how long it still takes.
    fn pace(&mut self, seen: &Doing) -> (u64, Option<Duration>) {
        if self.what != seen.what {
            self.what.clone_from(&seen.what);
            self.first = None;
        }
        let (at, done) = *self.first.get_or_insert((Instant::now(), seen.done));
        let ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = seen.done.saturating_sub(done).saturating_mul(1_000).checked_div(ms);
        let rate = rate.unwrap_or(0);
        let left = seen.total.saturating_sub(seen.done).checked_div(rate);
        (rate, left.map(Duration::from_secs))
    }
}
