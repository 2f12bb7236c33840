//! `migrate wait`: for application pods that must not migrate. It writes nothing,
//! takes no lease, and needs no more than the right to read.

use crate::cli::args::{self, Global};
use crate::cli::commands::new::folders;
use crate::cli::config::Config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{
    self, connect_mongo, connect_postgres, is_worth_waiting, stop_on_signals, this_run,
    unless_stopped,
};
use crate::core::duration::show;
use crate::core::history::RowStatus;
use crate::core::id::{StoreName, Version};
use crate::core::parse::folder::parse_name;
use crate::engine::lock::{self, Read, jitter};
use crate::store::Stores;
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As good as never.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// Between the first two looks at the histories; from then on twice as long each
/// time.
const POLL: Duration = Duration::from_millis(250);

/// The longest pause between two looks. Of it a random part is taken: a deployment
/// starts many pods at once.
const POLL_MAX: Duration = Duration::from_secs(3);

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Wait, output: &Output) -> Result<Exit, Failure> {
    let wanted = args.version.as_deref().map(project::version).transpose()?;
    let config = project::configure(global)?;
    config.stores()?;
    // In a container nobody else ends it on SIGTERM.
    let stop = stop_on_signals(None)?;
    let waiting = Waiting {
        began: Instant::now(),
        limit: args.timeout.or(global.wait),
        id: this_run("wait").id,
        dir: config.dir.clone(),
        output,
    };
    let work = Box::pin(async {
        let mut stores = waiting.reach(&config).await?;
        if let Some(version) = wanted {
            waiting.completed(&mut stores, version).await?;
        }
        waiting.done(&stores, wanted);
        Ok(Exit::Ok)
    });
    unless_stopped(&stop, work).await
}

/// For how long, and who.
struct Waiting<'a> {
    began: Instant,
    limit: Option<Duration>,
    id: String,
    /// Where migrations are, if there are any: an application has none at hand.
    dir: PathBuf,
    output: &'a Output,
}

impl Waiting<'_> {
    /// How much of the time is left.
    fn left(&self) -> Duration {
        self.limit.unwrap_or(FOREVER).saturating_sub(self.began.elapsed())
    }

    /// Both databases, when both answer.
    async fn reach(&self, config: &Config) -> Result<Stores<Postgres, Mongo>, Failure> {
        let wait = Some(self.left());
        let (postgres, mongo) = futures_util::future::try_join(
            async { late(connect_postgres(config, &self.id, wait).await) },
            async { late(connect_mongo(config, &self.id, wait).await) },
        )
        .await?;
        let lacking: Vec<(&'static str, String)> = [
            (StoreName::Postgres, postgres.as_ref().err()),
            (StoreName::Mongo, mongo.as_ref().err()),
        ]
        .into_iter()
        .filter_map(|(store, failure)| Some((store.word(), failure?.message.clone())))
        .collect();
        match (postgres, mongo) {
            (Ok(postgres), Ok(mongo)) => Ok(Stores {
                postgres: postgres.map(|(store, _)| store),
                mongo: mongo.map(|(store, _)| store),
            }),
            _ => Err(self.timed_out("for a database that answers", lacking).next(
                "check that it is up and that its URL is right (`migrate -v status` shows it); then run the same command again",
            )),
        }
    }

    /// Until the version is completed in every store.
    async fn completed(
        &self,
        stores: &mut Stores<Postgres, Mongo>,
        version: Version,
    ) -> Result<(), Failure> {
        let mut pause = POLL;
        let mut told = false;
        loop {
            let lacking = match lock::read(stores).await {
                Ok(read) => {
                    let lacking = lacking(stores, &read, version);
                    if lacking.is_empty() {
                        lock::check_pair(stores, &read)?;
                        return Ok(());
                    }
                    lacking
                }
                // The next look connects anew.
                Err(error) if is_worth_waiting(&error) => {
                    vec![(error.store.word(), error.to_string())]
                }
                Err(error) => return Err(error.into()),
            };
            let left = self.left();
            if left.is_zero() {
                return Err(self.timed_out(&format!("for {version}"), lacking).next(
                    "`migrate status` says more; whoever migrates has not come so far, or stands still",
                ));
            }
            if !std::mem::replace(&mut told, true) {
                let lacking: Vec<&str> = lacking.iter().map(|(_, what)| what.as_str()).collect();
                self.output.remark(&format!("waiting for {version}: {}", lacking.join("; ")));
                if self.is_unknown(version) {
                    self.output.remark(&format!(
                        "there is no file of {version} here: a newer release may bring it; or is it another number?"
                    ));
                }
            }
            let part = pause.mul_f64(jitter(&self.id, self.began.elapsed()));
            tokio::time::sleep(part.min(left)).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Whether the migrations that are at hand, if any are, have no such version.
    fn is_unknown(&self, version: Version) -> bool {
        let Ok(folders) = folders(&self.dir) else { return false };
        let mut versions = folders.iter().filter_map(|name| Some(parse_name(name).ok()?.0));
        !folders.is_empty() && !versions.any(|it| it == version)
    }

    fn done(&self, stores: &Stores<Postgres, Mongo>, wanted: Option<Version>) {
        let state = wanted.map_or("reachable", |_| "completed");
        let has = |is_there: bool| is_there.then_some(state);
        self.output.object(
            "wait",
            &json!({
                "version": wanted.map(|version| version.0),
                "postgres": has(stores.postgres.is_some()),
                "mongo": has(stores.mongo.is_some()),
                "waited_ms": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            }),
        );
        let names: Vec<&str> = stores.configured().into_iter().map(StoreName::title).collect();
        let names = names.join(" and ");
        self.output.remark(&match wanted {
            None => format!("ready: {names} can be reached"),
            Some(version) => format!("ready: {version} is completed in {names}"),
        });
    }

    /// The time is over, and this is what was missing.
    fn timed_out(&self, what: &str, lacking: Vec<(&'static str, String)>) -> Failure {
        let waited = self.limit.map_or_else(String::new, |limit| format!(" {}", show(limit)));
        let message = format!("waited{waited} in vain {what}");
        let mut failure = Failure::new(Exit::Timeout, "WAIT_TIMEOUT", message);
        failure.details = lacking;
        failure
    }
}

/// A failure that is only about time is told together with the other store's.
fn late<T>(result: Result<T, Failure>) -> Result<Result<T, Failure>, Failure> {
    match result {
        Err(failure) if failure.exit == Exit::Timeout => Ok(Err(failure)),
        Err(failure) => Err(failure),
        Ok(reached) => Ok(Ok(reached)),
    }
}

/// In which stores the version is not completed, and how far it is there.
fn lacking(
    stores: &Stores<Postgres, Mongo>,
    read: &Read,
    version: Version,
) -> Vec<(&'static str, String)> {
    let lack = |store: StoreName| {
        let row = read.histories.of(store).row(version);
        let state = match row.map(|row| row.status) {
            Some(RowStatus::Completed | RowStatus::Baseline) => return None,
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
