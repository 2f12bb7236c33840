//! What needs more than a look at the histories, one question after the other: a
//! plan asks the servers how large things are, and steering writes.
//!
//! Each question has connections of its own, which end with it. What many ask at the
//! same time is asked once; who does not wait any longer is not answered.

use super::watch::abandon;
use crate::cli::commands::{backfill, backup, history, plan};
use crate::cli::config::Config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::project::connect;
use crate::core::duration::show;
use crate::core::id::{Direction, Version};
use crate::core::migration::MigrationSet;
use crate::core::pace::Steer;
use crate::core::plan::{Goal, Up};
use crate::engine::run::plan_now;
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use crate::store::{Run, Stores};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

/// So many questions may wait.
pub const WAITING_MAX: usize = 32;

/// A question that is not answered within this is given up.
const ANSWER_TIME: Duration = Duration::from_secs(12);

/// For so long an answer is good enough for whoever asks the same.
const FRESH: Duration = Duration::from_secs(1);

/// So many answers are kept.
const KEPT_MAX: usize = 64;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// What `up` would do.
    Plan,
    /// The audit log, or the records of one migration.
    History(Option<Version>),
    /// Something is to be asked of running backfills.
    Steer(Steer),
}

/// A question, and where the answer goes.
pub type Asked = (Question, oneshot::Sender<Answer>);

/// The fields of an object, or why there are none.
pub type Answer = Result<Arc<Value>, Failure>;

/// Answers, for ever.
pub async fn desk(
    config: &Config,
    set: &MigrationSet,
    run: &Run,
    mut asked: mpsc::Receiver<Asked>,
    pokes: &[Arc<Notify>],
) {
    let mut kept: BTreeMap<String, (Instant, Answer)> = BTreeMap::new();
    while let Some((question, reply)) = asked.recv().await {
        if reply.is_closed() {
            continue;
        }
        kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        let key = match &question {
            Question::Plan => Some("plan".to_owned()),
            Question::History(version) => Some(format!("history {version:?}")),
            Question::Steer(_) => None,
        };
        if let Some((_, answer)) = key.as_ref().and_then(|key| kept.get(key)) {
            let _ = reply.send(answer.clone());
            continue;
        }
        let mut reached = None;
        let work = Box::pin(answer(config, set, run, &question, &mut reached));
        let answer = match tokio::time::timeout(ANSWER_TIME, work).await {
            Ok(answer) => answer.map(Arc::new),
            Err(_) => {
                if let Some(stores) = &mut reached {
                    abandon(stores).await;
                }
                let what = match question {
                    Question::Steer(_) => "; one of them may have been told all the same",
                    _ => "",
                };
                let limit = show(ANSWER_TIME);
                let message = format!("the databases did not answer within {limit}{what}");
                Err(Failure::new(Exit::Timeout, "TIMEOUT", message)
                    .next("ask again; `/health/ready` says how the databases are"))
            }
        };
        if let Some(key) = key.filter(|_| kept.len() < KEPT_MAX) {
            kept.insert(key, (Instant::now(), answer.clone()));
        } else {
            // What was steered shows at once.
            for poke in pokes {
                poke.notify_one();
            }
        }
        let _ = reply.send(answer);
    }
}

async fn answer(
    config: &Config,
    set: &MigrationSet,
    run: &Run,
    question: &Question,
    reached: &mut Option<Stores<Postgres, Mongo>>,
) -> Result<Value, Failure> {
    let (stores, servers) = connect(config, &run.id, None).await?;
    let stores = reached.insert(stores);
    match question {
        Question::Plan => {
            let goal = Goal::Up(Up { policy: config.cleanup.policy, ..Up::default() });
            let (plan, _) = plan_now(stores, set, &servers, &goal).await?;
            let mut foreseen = plan::foresee(stores, &plan).await;
            let limit = config.cleanup.require_backup;
            foreseen.backups = backup::needs(stores, &plan, limit).await?;
            Ok(crate::report::plan::object(&plan, &foreseen, Direction::Up))
        }
        Question::History(None) => Ok(history::runs_object(&history::read_runs(stores).await?)),
        Question::History(Some(version)) => {
            let records = history::read_records(stores, *version).await?;
            Ok(history::records_object(*version, &records))
        }
        Question::Steer(steer) => {
            backfill::histories(stores).await?;
            // Each is an entry of its own in the audit log.
            let by = Run { id: uuid::Uuid::new_v4().to_string(), ..run.clone() };
            backfill::steered(stores, steer, &by).await
        }
    }
}
