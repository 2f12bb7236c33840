//! `migrate wait`: for application pods that must not migrate. It writes nothing,
//! takes no lease, and needs no more than the right to read.

use crate::cli::args::{self, Global};
use crate::cli::commands::new::folders;
use crate::cli::config::Config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{
    self, connect_mongo, connect_postgres, stop_on_signals, this_run, unless_stopped,
};
use crate::core::duration::show;
use crate::core::id::{Phase, StoreName, Version};
use crate::core::parse::folder::parse_name;
use crate::engine::wait::{Lacking, Uncompleted, Wanted, completed};
use crate::source;
use crate::store::Stores;
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// As good as never.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Wait, output: &Output) -> Result<Exit, Failure> {
    let version = args.version.as_deref().map(project::version).transpose()?;
    let config = project::configure(global)?;
    config.stores()?;
    // What lies here may be of another release, and wrong: that is nobody's business who
    // only waits.
    let set = args.through.and_then(|_| source::read_known(&config.dir, &config).ok());
    let wanted = version.map(|version| Wanted {
        version,
        through: args.through.map_or(Phase::Cleanup, Phase::from),
        migration: set.as_ref().and_then(|set| set.get(version)),
    });
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
        if let Some(wanted) = wanted {
            waiting.completed(&mut stores, wanted).await?;
        }
        waiting.done(&stores, wanted, args.through);
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

    /// Until the version is completed in every store, or has come as far as is wanted.
    async fn completed(
        &self,
        stores: &mut Stores<Postgres, Mongo>,
        wanted: Wanted<'_>,
    ) -> Result<(), Failure> {
        let version = wanted.version;
        let mut tell = |lacking: &Lacking| {
            let lacking: Vec<&str> = lacking.iter().map(|(_, what)| what.as_str()).collect();
            self.output.remark(&format!("waiting for {wanted}: {}", lacking.join("; ")));
            if self.is_unknown(version) {
                self.output.remark(&format!(
                    "there is no file of {version} here: a newer release may bring it; or is it another number?"
                ));
            }
        };
        let done = completed(stores, wanted, &self.id, || self.left(), &mut tell).await;
        done.map_err(|error| match error {
            Uncompleted::Store(error) => error.into(),
            Uncompleted::Pair(error) => error.into(),
            Uncompleted::Late(lacking) => self.timed_out(&format!("for {wanted}"), lacking).next(
                "`migrate status` says more; whoever migrates has not come so far, or stands still",
            ),
        })
    }

    /// Whether the migrations that are at hand, if any are, have no such version.
    fn is_unknown(&self, version: Version) -> bool {
        let Ok(folders) = folders(&self.dir) else { return false };
        let mut versions = folders.iter().filter_map(|name| Some(parse_name(name).ok()?.0));
        !folders.is_empty() && !versions.any(|it| it == version)
    }

    fn done(
        &self,
        stores: &Stores<Postgres, Mongo>,
        wanted: Option<Wanted<'_>>,
        through: Option<args::Through>,
    ) {
        let through = through.map(Phase::from);
        let state = match (wanted, through) {
            (None, _) => "reachable",
            (Some(_), None | Some(Phase::Cleanup)) => "completed",
            (Some(_), Some(_)) => "reached",
        };
        let has = |is_there: bool| is_there.then_some(state);
        let mut object = json!({
            "version": wanted.map(|wanted| wanted.version.0),
            "postgres": has(stores.postgres.is_some()),
            "mongo": has(stores.mongo.is_some()),
            "waited_ms": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        if let Some(through) = through {
            object["through"] = through.word().into();
        }
        self.output.object("wait", &object);
        let names: Vec<&str> = stores.configured().into_iter().map(StoreName::title).collect();
        let names = names.join(" and ");
        self.output.remark(&match (wanted, state) {
            (None, _) => format!("ready: {names} can be reached"),
            (Some(wanted), "reached") => format!("ready: {wanted} in {names}"),
            (Some(wanted), _) => format!("ready: {} is completed in {names}", wanted.version),
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
