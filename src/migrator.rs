//! Migrations as a part of a service: at its start, before it takes requests.
//!
//! [`Migrator`] is the engine of the program `migrate`, without its command line: the
//! same files, histories, leases and errors. Whichever of the two comes first does the
//! work; the other one finds that nothing is left to do. Any number of instances may
//! start at once.
//!
//! ```no_run
//! use lockstep::{Migrator, Up};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let migrator = Migrator::builder()
//!     .folder("migrations")
//!     .postgres_url("postgres://app@localhost/shop")
//!     .mongo_url("mongodb://localhost/shop")
//!     .on_notice(|notice| println!("{notice:?}"))
//!     .build()?;
//! let done = migrator.up(Up::all()).await?;
//! println!("applied {:?}", done.finished);
//! # Ok(()) }
//! ```
//!
//! An instance that must not migrate waits for one that does:
//!
//! ```no_run
//! # use std::time::Duration;
//! # async fn serve(migrator: lockstep::Migrator) -> Result<(), lockstep::Error> {
//! migrator.wait(7, Duration::from_mins(1)).await?;
//! # Ok(()) }
//! ```

mod answer;
mod builder;
#[cfg(feature = "embed")]
mod embedded;
mod failed;
mod goal;

pub use crate::core::status::State;
pub use answer::{Applied, MigrationStatus, Planned, PlannedStep, Status, Waiting};
pub use builder::{Builder, Migration, Pace};
pub use failed::{Error, Kind};
pub use goal::{Cleanups, Down, Up};

use crate::core::id::{StoreName, Version};
use crate::core::migration::MigrationSet;
use crate::core::notice::Notice;
use crate::core::pace;
use crate::core::plan::{Goal, Plan};
use crate::core::server::Servers;
use crate::core::status::lines;
use crate::engine::run::{self, Meanwhile, Settings, plan_now};
use crate::engine::wait::{Lacking, Uncompleted, Unreached, completed, reached};
use crate::engine::{Means, Stop, StopReason, SystemClock, lock};
use crate::failure::Failure;
use crate::failure::exit::Exit;
use crate::store::mongo::{Mongo, MongoConfig, MongoFunctions};
use crate::store::postgres::{Functions, Postgres, PostgresConfig};
use crate::store::{Run, StoreError, Stores};
use chrono::Timelike as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// The engine keeps what it does on its stack, and a service may have made its own
/// threads' small.
const STACK_BYTES: usize = 8 << 20;

/// The migrations of a service, and where they go.
///
/// It holds no connection: each call makes its own, and ends them. It makes several (the
/// work, the heartbeat of the lease, a look at who is in the way), which is why it wants
/// to know how to connect and not a connection.
///
/// Calls may be made from any task of a Tokio runtime, and their futures may be sent
/// between threads: the work itself runs on a thread of its own. **Dropping such a future
/// asks the run to stop**, as [`stop`](Migrator::stop) does: it comes to the end of its
/// step, records it, gives the lease back, and nothing is left half done. Nobody waits for
/// that then, and it needs the runtime for so long; whoever wants to wait calls `stop` and
/// awaits the future.
#[derive(Clone)]
pub struct Migrator {
    project: Arc<Project>,
}

impl fmt::Debug for Migrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Project { set, postgres, mongo, .. } = &*self.project;
        f.debug_struct("Migrator")
            .field("migrations", &set.len())
            .field("postgres", &postgres.as_ref().map(PostgresConfig::place))
            .field("mongo", &mongo)
            .finish_non_exhaustive()
    }
}

/// Told what happens.
type Sink = Arc<Mutex<dyn FnMut(&Notice) + Send>>;

/// All that a call needs.
struct Project {
    set: MigrationSet,
    /// Where programs of migrations run.
    folder: PathBuf,
    postgres: Option<PostgresConfig>,
    mongo: Option<MongoPlace>,
    functions: Functions,
    mongo_functions: MongoFunctions,
    /// For programs of migrations.
    urls: [Option<String>; 2],
    applied_by: String,
    lock_wait: Duration,
    require_backup: Option<Duration>,
    connect_wait: Option<Duration>,
    timeout: Option<Duration>,
    pace: pace::Settings,
    sink: Sink,
    stop: watch::Sender<Option<StopReason>>,
}

/// A URL is looked up when it is needed: that may ask the DNS.
#[derive(Clone)]
enum MongoPlace {
    Url(String),
    Given(Box<MongoConfig>),
}

/// Without the password.
impl fmt::Debug for MongoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MongoPlace::Url(_) => f.write_str("a URL"),
            MongoPlace::Given(config) => f.write_str(&config.place()),
        }
    }
}

impl Migrator {
    /// Begins to say which migrations, and where they go.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The versions that it knows, in order.
    pub fn versions(&self) -> Vec<Version> {
        self.project.set.iter().map(|migration| migration.version).collect()
    }

    /// Applies what is pending. While another run is at work, it waits for it; when that
    /// has done everything, this is all there was to do.
    ///
    /// # Errors
    /// [`Error`]. What was done before is recorded, and the same call goes on from there.
    pub async fn up(&self, up: Up) -> Result<Applied, Error> {
        self.reach("up", up.release.clone(), Goal::Up(up.goal())).await
    }

    /// Reverts, newest applied first, with the down scripts that the history keeps.
    ///
    /// # Errors
    /// As [`up`](Migrator::up). What cannot be reverted is refused before anything is
    /// changed.
    pub async fn down(&self, down: Down) -> Result<Applied, Error> {
        self.reach("down", None, Goal::Down(down.goal())).await
    }

    /// Finishes what is held: its cleanup, when its invariants hold.
    ///
    /// # Errors
    /// As [`up`](Migrator::up).
    pub async fn cleanup(&self) -> Result<Applied, Error> {
        self.reach("cleanup", None, Goal::Cleanup(None)).await
    }

    /// What [`up`](Migrator::up) would do now. Changes nothing.
    ///
    /// # Errors
    /// As [`up`](Migrator::up).
    pub async fn plan(&self, up: Up) -> Result<Vec<Planned>, Error> {
        self.look_ahead(Goal::Up(up.goal())).await
    }

    /// What [`down`](Migrator::down) would do now. Changes nothing.
    ///
    /// # Errors
    /// As [`down`](Migrator::down).
    pub async fn plan_down(&self, down: Down) -> Result<Vec<Planned>, Error> {
        self.look_ahead(Goal::Down(down.goal())).await
    }

    /// Where each migration stands. Changes nothing.
    ///
    /// # Errors
    /// A database that cannot be reached or read, and two that do not belong together.
    pub async fn status(&self) -> Result<Status, Error> {
        let project = self.project.clone();
        self.apart(async move |_: Stop| {
            let (mut stores, _, _) = project.open("status").await?;
            let read = lock::read(&mut stores).await.map_err(Failure::from)?;
            lock::check_pair(&stores, &read).map_err(Failure::from)?;
            let lines = lines(&project.set, &read.histories, &stores.configured());
            Ok(Status {
                migrations: lines.into_iter().map(MigrationStatus::of).collect(),
                run: read.lease.map(|lease| format!("{}, run {}", lease.holder, lease.run_id)),
            })
        })
        .await
    }

    /// Waits until a version is completed in every store, for instances that must not
    /// migrate themselves. It needs no more than the right to read, takes no lease, and
    /// waits as well for databases that are not up yet.
    ///
    /// # Errors
    /// [`Kind::Timeout`] when it takes longer than `limit`.
    pub async fn wait(&self, version: impl Into<Version>, limit: Duration) -> Result<(), Error> {
        let version = version.into();
        let project = self.project.clone();
        self.apart(async move |mut stop: Stop| {
            let began = Instant::now();
            let left = || limit.saturating_sub(began.elapsed());
            let work = async {
                let (mut stores, _, run) = project.connect("wait", Some(limit)).await?;
                let mut tell = |lacking: &Lacking| {
                    let lacking: Vec<&str> = lacking.iter().map(|(_, it)| it.as_str()).collect();
                    let text = format!("waiting for {version}: {}", lacking.join("; "));
                    project.say(&Notice::Remark(text));
                };
                completed(&mut stores, version.into(), &run.id, left, &mut tell).await.map_err(
                    |error| {
                        Error::from(match error {
                            Uncompleted::Store(error) => Failure::from(error),
                            Uncompleted::Pair(error) => error.into(),
                            Uncompleted::Late(lacking) => {
                                let mut late = late(limit, &format!("for {version}"));
                                late.details = lacking;
                                late.next("whoever migrates has not come so far, or stands still")
                            }
                        })
                    },
                )
            };
            tokio::select! {
                done = work => done,
                reason = stop.wait() => Err(stopped(reason)),
            }
        })
        .await
    }

    /// Asks the calls that are under way to stop between two steps; they end with
    /// [`Kind::Stopped`]. What was done is recorded, and the next run goes on there. For
    /// when the service is told to end.
    pub fn stop(&self) {
        self.project.stop.send_modify(|reason| *reason = Some(StopReason::Terminated));
        // For calls that come later, it was never said.
        self.project.stop.send_modify(|reason| *reason = None);
    }

    async fn reach(
        &self,
        command: &'static str,
        release: Option<String>,
        goal: Goal,
    ) -> Result<Applied, Error> {
        let project = self.project.clone();
        self.apart(async move |stop: Stop| {
            let mut asked = stop.clone();
            let opened = tokio::select! {
                opened = project.open(command) => opened,
                reason = asked.wait() => Err(stopped(reason)),
            };
            let (mut stores, servers, mut run) = opened?;
            run.release = release;
            // Windows are in UTC, where nobody says otherwise.
            let minute = || {
                let now = chrono::Utc::now();
                u16::try_from(now.hour() * 60 + now.minute()).unwrap_or(0)
            };
            let settings = Settings {
                set: &project.set,
                servers: &servers,
                run,
                tool_version: env!("CARGO_PKG_VERSION"),
                clock: &SystemClock,
                lock_wait: project.lock_wait,
                stop: &stop,
                meanwhile: Meanwhile::Wait,
                means: Means {
                    pace: &project.pace,
                    minute: &minute,
                    migrations: &project.folder,
                    postgres_url: project.urls[0].as_deref(),
                    mongo_url: project.urls[1].as_deref(),
                    hooks: None,
                    require_backup: project.require_backup,
                },
            };
            let mut notices = |notice: Notice| project.say(&notice);
            let done = Box::pin(run::run(&mut stores, &goal, None, settings, &mut notices)).await;
            done.map(Applied::of).map_err(Error::of_run)
        })
        .await
    }

    async fn look_ahead(&self, goal: Goal) -> Result<Vec<Planned>, Error> {
        let project = self.project.clone();
        self.apart(async move |_: Stop| {
            let (mut stores, servers, _) = project.open("plan").await?;
            let planned = plan_now(&mut stores, &project.set, &servers, &goal).await;
            let (Plan { work, .. }, _) = planned.map_err(Error::of_run)?;
            Ok(work.into_iter().map(Planned::of).collect())
        })
        .await
    }

    /// Does something on a thread of its own, in the runtime of the caller: the engine
    /// stays where it began, and the caller need not.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(Stop) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        /// Asks the run to stop when nobody waits for it any more.
        struct Waited(Arc<watch::Sender<Option<StopReason>>>);
        impl Drop for Waited {
            fn drop(&mut self) {
                self.0.send_replace(Some(StopReason::Terminated));
            }
        }
        let runtime = tokio::runtime::Handle::current();
        let (sender, stop) = Stop::new();
        let waited = Waited(Arc::new(sender));
        let asked = {
            let (sender, timeout) = (waited.0.clone(), self.project.timeout);
            let mut everyone = self.project.stop.subscribe();
            runtime.spawn(async move {
                let limit = async {
                    match timeout {
                        Some(limit) => tokio::time::sleep(limit).await,
                        None => std::future::pending().await,
                    }
                };
                let reason = tokio::select! {
                    _ = everyone.changed() => StopReason::Terminated,
                    () = limit => StopReason::TimedOut,
                };
                sender.send_replace(Some(reason));
            })
        };
        let (answer, answered) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("lockstep".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            let _ = answer.send(runtime.block_on(work(stop)));
        });
        let thread = thread.expect("the system has room for another thread");
        let answered = answered.await;
        asked.abort();
        answered.unwrap_or_else(|_| match thread.join() {
            // It said nothing, so it panicked; that is the caller's to know.
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("a thread that ends has answered"),
        })
    }
}

impl Project {
    fn say(&self, notice: &Notice) {
        // A sink that panicked once has said all that it will say.
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink(notice);
    }

    /// Connects, as often as was asked for.
    async fn open(&self, command: &str) -> Result<(Stores<Postgres, Mongo>, Servers, Run), Error> {
        self.connect(command, self.connect_wait).await
    }

    async fn connect(
        &self,
        command: &str,
        wait: Option<Duration>,
    ) -> Result<(Stores<Postgres, Mongo>, Servers, Run), Error> {
        let run = Run::new(command, self.applied_by.clone());
        let postgres = async {
            let Some(config) = &self.postgres else { return Ok(None) };
            let connect = async || {
                let store = Postgres::connect(config.clone(), &run.id).await?;
                let mut store = store.with_functions(self.functions.clone());
                let server = store.server().await?;
                Ok((store, server))
            };
            until(wait, StoreName::Postgres, connect).await.map(Some)
        };
        let mongo = async {
            let config = match &self.mongo {
                None => return Ok(None),
                Some(MongoPlace::Given(config)) => MongoConfig::clone(config),
                Some(MongoPlace::Url(url)) => MongoConfig::parse(url).await.map_err(|error| {
                    Failure::new(Exit::Usage, "BAD_URL", error.to_string())
                        .next("write mongodb://user:password@host:27017/database")
                })?,
            };
            let connect = async || {
                let store = Mongo::connect(config.clone(), &run.id).await?;
                let store = store.with_functions(self.mongo_functions.clone());
                let server = store.server();
                Ok((store, server))
            };
            until(wait, StoreName::Mongo, connect).await.map(Some)
        };
        let (postgres, mongo) = futures_util::future::try_join(postgres, mongo).await?;
        let (postgres, postgres_server) = postgres.unzip();
        let (mongo, mongo_server) = mongo.unzip();
        let servers = Servers { postgres: postgres_server, mongo: mongo_server };
        Ok((Stores { postgres, mongo }, servers, run))
    }
}

/// Tries once, or until the wait is over.
async fn until<T>(
    wait: Option<Duration>,
    store: StoreName,
    mut connect: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let Some(wait) = wait else { return Ok(connect().await?) };
    reached(wait, connect).await.map_err(|error| match error {
        Unreached::Refused(error) => error.into(),
        Unreached::Late(last) => {
            let mut late = late(wait, &format!("for {}", store.title()));
            late.details.extend(last.map(|error| (store.word(), error.to_string())));
            late.next("check that the database is up and that the URL is right")
        }
    })
}

/// The time is over.
fn late(limit: Duration, what: &str) -> Failure {
    let limit = crate::core::duration::show(limit);
    Failure::new(Exit::Timeout, "WAIT_TIMEOUT", format!("waited {limit} in vain {what}"))
}

/// Nothing was begun.
fn stopped(reason: StopReason) -> Error {
    crate::failure::stopped(reason, format!("stopped before anything was begun: {reason}"))
        .next("nothing was changed")
        .into()
}
