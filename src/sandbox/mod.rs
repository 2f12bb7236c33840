//! Throwaway servers: a Postgres and a MongoDB of one's own, for as long as
//! they are needed.
//!
//! They listen on free ports of 127.0.0.1, keep everything they have in one
//! temporary folder, and are gone with it on every way out, a killed parent
//! included (see `reaper`). Nothing is printed and no variable is read here.
//!
//! They trust everybody who can reach 127.0.0.1: for data that may be lost and
//! may be seen.

mod docker;
mod find;
mod mongo;
mod postgres;
mod reaper;
mod run;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub use find::{Lookup, MONGOD_VARIABLE, POSTGRES_VARIABLE, Programs, find};
pub use run::{MONGO_VARIABLE, POSTGRES_URL_VARIABLE, RunError, run};

use crate::core::id::StoreName;
use reaper::{Access, Pid, Reaper};

/// A server that does not answer within this time never will.
const START_LIMIT: Duration = Duration::from_mins(1);

/// How often a condition is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(10);

/// A port that is free now may be taken when the server asks for it. Five in a
/// row are not bad luck.
const PORT_TRIES: u32 = 5;

/// What the database in each server is called.
const DATABASE: &str = "app";

/// What to start, and from what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// Programs or containers.
    pub with: With,
    /// Which servers.
    pub stores: Vec<StoreName>,
    /// Whether the servers outlive this process.
    pub keep: bool,
    /// Whether they flush what they commit to the disk, as in production.
    /// Without it, nothing survives a power failure, and tests are faster.
    pub durable: bool,
    /// What `find` found on this machine.
    pub programs: Programs,
    /// Where the folder is made.
    pub temp: PathBuf,
}

impl Options {
    /// Both servers, thrown away, from whatever this machine has.
    pub fn new(env: Lookup) -> Options {
        let temp = env("TMPDIR").filter(|dir| !dir.is_empty());
        Options {
            with: With::Auto,
            stores: StoreName::BOTH.to_vec(),
            keep: false,
            durable: false,
            programs: find(env),
            temp: temp.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
        }
    }
}

/// What servers are made of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum With {
    /// Programs; a container for a store whose programs are not there.
    #[default]
    Auto,
    /// Programs on this machine only.
    Programs,
    /// Containers only.
    Docker,
}

/// What a sandbox says while it starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A server is about to start.
    Starting {
        /// Which.
        store: StoreName,
        /// The folder, program or image it is started from.
        from: String,
    },
    /// A server answers.
    Started {
        /// Which.
        store: StoreName,
        /// Where; without a password, because there is none.
        url: String,
        /// Since the sandbox began.
        took: Duration,
    },
    /// Both stay, and nobody will remove them.
    Kept {
        /// Where everything they have is.
        dir: PathBuf,
        /// The script that stops them and removes the folder.
        stop: PathBuf,
        /// Where they are: variables and their values, as commands look for them.
        urls: Vec<(&'static str, String)>,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Starting { store, from } => {
                write!(f, "starting a throwaway {} from {from}", store.title())
            }
            Notice::Started { store, url, took } => {
                write!(f, "{} answers at {url} after {} ms", store.title(), took.as_millis())
            }
            Notice::Kept { dir, stop, urls } => {
                let (dir, stop) = (dir.display(), stop.display());
                write!(f, "the servers stay, in {dir}; to stop and remove them: sh {stop}")?;
                f.write_str("\nto use them in another shell:")?;
                // There is no quote in them: they are ours.
                urls.iter().try_for_each(|(name, url)| write!(f, "\n  export {name}='{url}'"))
            }
        }
    }
}

/// Where notices go.
pub type Notices<'a> = &'a (dyn Fn(Notice) + Sync);

/// Running servers. Dropping it stops them and removes all they had, unless
/// they are to be kept.
#[derive(Debug)]
pub struct Sandbox {
    /// `postgres://postgres@127.0.0.1:<port>/app`, if Postgres was asked for.
    pub postgres_url: Option<String>,
    /// `mongodb://127.0.0.1:<port>/app?directConnection=true`, the primary of
    /// a replica set of one, if MongoDB was asked for.
    pub mongo_uri: Option<String>,
    /// Where everything they have is.
    pub dir: PathBuf,
    /// How long it took until both answered.
    pub took: Duration,
    /// Process of each server, if it is one of this machine.
    pids: Vec<(StoreName, u32)>,
    keep: bool,
    reaper: Reaper,
}

impl Sandbox {
    /// Starts the servers, both at once, and returns when they take writes.
    /// Where this fails, or the future is dropped, nothing is left.
    pub async fn start(options: &Options, notices: Notices<'_>) -> Result<Sandbox, SandboxError> {
        let begun = Instant::now();
        let sources = sources(options).await?;
        let user = match sources.iter().find_map(Source::postgres_programs) {
            Some(bin) => postgres::server_user(bin).await?,
            None => None,
        };
        let access = if user.is_some() { Access::Traversable } else { Access::Private };
        let mut reaper = Reaper::start(parent(&options.temp, access), access)?;

        let start = async |source: &Source| -> Result<Started, SandboxError> {
            let store = source.store();
            notices(Notice::Starting { store, from: source.to_string() });
            let started = match source {
                Source::Postgres(bin) => {
                    postgres::start(&reaper, bin, user.as_ref(), options.durable).await?
                }
                Source::Mongo(program) => mongo::start(&reaper, program, options.durable).await?,
                Source::Container { docker, store } => {
                    docker::start(&reaper, docker, *store, options.durable).await?
                }
            };
            notices(Notice::Started { store, url: started.url.clone(), took: begun.elapsed() });
            Ok(started)
        };
        let start_store = async |store: StoreName| match sources.iter().find(|s| s.store() == store)
        {
            Some(source) => start(source).await.map(Some),
            None => Ok(None),
        };
        let (postgres, mongo) =
            tokio::try_join!(start_store(StoreName::Postgres), start_store(StoreName::Mongo))?;

        if options.keep {
            let stop = reaper.keep()?;
            let urls = [(POSTGRES_URL_VARIABLE, &postgres), (MONGO_VARIABLE, &mongo)];
            let urls = urls.into_iter();
            let urls = urls.filter_map(|(name, it)| Some((name, it.as_ref()?.url.clone())));
            notices(Notice::Kept { dir: reaper.dir().to_owned(), stop, urls: urls.collect() });
        }
        let pid = |store, started: &Option<Started>| {
            started.as_ref().and_then(|started| started.pid).map(|Pid(pid)| (store, pid))
        };
        Ok(Sandbox {
            pids: [pid(StoreName::Postgres, &postgres), pid(StoreName::Mongo, &mongo)]
                .into_iter()
                .flatten()
                .collect(),
            postgres_url: postgres.map(|started| started.url),
            mongo_uri: mongo.map(|started| started.url),
            dir: reaper.dir().to_owned(),
            took: begun.elapsed(),
            keep: options.keep,
            reaper,
        })
    }

    /// The process id of a server, if it runs as a program of this machine.
    pub fn pid(&self, store: StoreName) -> Option<u32> {
        self.pids.iter().find(|(name, _)| *name == store).map(|(_, pid)| *pid)
    }

    /// The last lines of a server's log.
    pub fn log_tail(&self, store: StoreName) -> String {
        self.reaper.log_tail(store.word())
    }

    /// Stops the servers, removes all they had, and says if that failed.
    pub async fn stop(self) -> Result<(), SandboxError> {
        let Sandbox { mut reaper, keep, dir, .. } = self;
        // The wait is on a thread of its own: other tasks may be using the servers.
        let gone = tokio::task::spawn_blocking(move || reaper.close()).await.unwrap_or(false);
        if gone || keep { Ok(()) } else { Err(SandboxError::Left { dir }) }
    }
}

/// A server that takes writes.
#[derive(Clone, Debug)]
struct Started {
    url: String,
    pid: Option<Pid>,
}

/// What one server is started from.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Source {
    /// The folder with `initdb` and `postgres`.
    Postgres(PathBuf),
    /// The program `mongod`.
    Mongo(PathBuf),
    /// An image, by the program `docker`.
    Container { docker: PathBuf, store: StoreName },
}

impl Source {
    fn store(&self) -> StoreName {
        match self {
            Source::Postgres(_) => StoreName::Postgres,
            Source::Mongo(_) => StoreName::Mongo,
            Source::Container { store, .. } => *store,
        }
    }

    fn postgres_programs(&self) -> Option<&Path> {
        match self {
            Source::Postgres(bin) => Some(bin),
            Source::Mongo(_) | Source::Container { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Postgres(path) | Source::Mongo(path) => write!(f, "{}", path.display()),
            Source::Container { store, .. } => {
                write!(f, "the image {} (downloaded the first time)", docker::image(*store))
            }
        }
    }
}

/// Decides what each server is made of, and makes sure that it can be.
async fn sources(options: &Options) -> Result<Vec<Source>, SandboxError> {
    let sources = choose(options)?;
    for source in &sources {
        match source {
            Source::Postgres(bin) => {
                for program in ["initdb", "postgres"] {
                    exists(&bin.join(program), POSTGRES_VARIABLE)?;
                }
            }
            Source::Mongo(program) => exists(program, MONGOD_VARIABLE)?,
            Source::Container { .. } => {}
        }
    }
    let docker = sources.iter().find_map(|source| match source {
        Source::Container { docker, .. } => Some(docker),
        Source::Postgres(_) | Source::Mongo(_) => None,
    });
    if let Some(docker) = docker {
        docker::answers(docker).await.map_err(|said| match options.with {
            // Nobody asked for containers: what is missing is programs.
            With::Auto => SandboxError::NoPrograms {
                stores: missing(options),
                docker: DockerState::Silent { said },
            },
            With::Docker | With::Programs => SandboxError::NoDocker { said: Some(said) },
        })?;
    }
    Ok(sources)
}

fn choose(options: &Options) -> Result<Vec<Source>, SandboxError> {
    let Programs { postgres, mongod, docker } = &options.programs;
    let program = |store: StoreName| match store {
        StoreName::Postgres => postgres.clone().map(Source::Postgres),
        StoreName::Mongo => mongod.clone().map(Source::Mongo),
    };
    let container = |store| docker.clone().map(|docker| Source::Container { docker, store });
    let chosen = |store| match options.with {
        With::Auto => program(store).or_else(|| container(store)),
        With::Programs => program(store),
        With::Docker => container(store),
    };
    let sources: Vec<Source> = options.stores.iter().copied().filter_map(chosen).collect();
    match (sources.len() == options.stores.len(), options.with) {
        (true, _) => Ok(sources),
        (false, With::Docker) => Err(SandboxError::NoDocker { said: None }),
        (false, With::Auto) => {
            Err(SandboxError::NoPrograms { stores: missing(options), docker: DockerState::Missing })
        }
        (false, With::Programs) => Err(SandboxError::NoPrograms {
            stores: missing(options),
            docker: DockerState::Unwanted,
        }),
    }
}

/// The stores whose programs were asked for and are not here.
fn missing(options: &Options) -> Vec<StoreName> {
    let there = |store| match store {
        StoreName::Postgres => options.programs.postgres.is_some(),
        StoreName::Mongo => options.programs.mongod.is_some(),
    };
    options.stores.iter().copied().filter(|store| !there(*store)).collect()
}

fn exists(program: &Path, variable: &'static str) -> Result<(), SandboxError> {
    match program.metadata() {
        Ok(file) if file.is_file() => Ok(()),
        _ => Err(SandboxError::NotThere { program: program.to_owned(), variable }),
    }
}

/// Where the folder is made: `temp`, unless the account of a server cannot get
/// there.
fn parent(temp: &Path, access: Access) -> &Path {
    match access {
        Access::Private => temp,
        Access::Traversable if closed_to_others(temp).is_none() => temp,
        Access::Traversable => Path::new("/tmp"),
    }
}

/// The folder on the way to `path` that other accounts cannot pass.
fn closed_to_others(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.ancestors()
        .find(|dir| dir.metadata().is_ok_and(|dir| dir.permissions().mode() & 0o001 == 0))
        .map(Path::to_owned)
}

/// Looks at a condition until it holds. `None` when the limit is over.
async fn until<T>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, SandboxError>,
) -> Result<Option<T>, SandboxError> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(found) = look().await? {
            return Ok(Some(found));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

/// A port of 127.0.0.1 that was free a moment ago.
fn free_port() -> Result<u16, SandboxError> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| SandboxError::Port { source })
}

/// How an attempt to start a server on some port ended.
enum Attempt {
    Ready(Pid),
    /// Somebody else was faster; another port may do.
    PortTaken,
}

/// Starts a server on a free port, on another one when that was taken meanwhile.
async fn on_a_free_port(
    store: StoreName,
    mut attempt: impl AsyncFnMut(u16) -> Result<Attempt, SandboxError>,
) -> Result<(u16, Pid), SandboxError> {
    for _ in 0..PORT_TRIES {
        let port = free_port()?;
        if let Attempt::Ready(pid) = attempt(port).await? {
            return Ok((port, pid));
        }
    }
    Err(SandboxError::NoPort { store })
}

/// Looks whether a server that should be starting has ended instead.
fn still_starting(
    reaper: &Reaper,
    store: StoreName,
    pid: Pid,
) -> Result<Option<Attempt>, SandboxError> {
    let Some(status) = reaper.ended(pid)? else { return Ok(None) };
    let log = reaper.log_tail(store.word());
    if log.contains("Address already in use") {
        return Ok(Some(Attempt::PortTaken));
    }
    Err(SandboxError::Ended { program: store.title().to_owned(), status, log })
}

fn timed_out(reaper: &Reaper, store: StoreName) -> SandboxError {
    SandboxError::Silent { store, limit: START_LIMIT, log: reaper.log_tail(store.word()) }
}

/// Joins arguments of different kinds.
fn arguments<const N: usize>(args: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    args.into_iter().map(|arg| arg.as_ref().to_owned()).collect()
}

/// Whether there is a `docker` that could have helped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DockerState {
    /// No such program.
    Missing,
    /// The program is there, its daemon does not answer.
    Silent {
        /// What the program said.
        said: String,
    },
    /// Programs were asked for.
    Unwanted,
}

/// Why there are no servers. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it is")]
pub enum SandboxError {
    #[error("{}", no_programs(stores, docker))]
    NoPrograms { stores: Vec<StoreName>, docker: DockerState },

    #[error("{}", no_docker(said.as_deref()))]
    NoDocker { said: Option<String> },

    #[error(
        "there is no program {}; mend {variable}, or unset it to have one searched for",
        program.display()
    )]
    NotThere { program: PathBuf, variable: &'static str },

    #[error("failed to make the sandbox's folder {}; set TMPDIR to one with room that you may write in", dir.display())]
    Folder { dir: PathBuf, source: io::Error },

    #[error("failed to start {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },

    #[error("failed to wait for {program}")]
    Wait { program: String, source: io::Error },

    #[error("failed to find a free port on 127.0.0.1")]
    Port { source: io::Error },

    #[error("{} found each of {PORT_TRIES} ports taken that had been free a moment before; try again", store.title())]
    NoPort { store: StoreName },

    #[error(
        "no account for Postgres, which refuses to run as root: there is neither `postgres` nor `nobody`; run this as an ordinary user"
    )]
    NoUser,

    #[error(
        "Postgres refuses to run as root, and the account `{user}` cannot reach its programs in {}, because {} is closed to it; \
         run `chmod o+x {}`, install Postgres for the whole machine, or run this as an ordinary user",
        bin.display(), closed.display(), closed.display()
    )]
    Unreachable { user: String, bin: PathBuf, closed: PathBuf },

    #[error("{program} ended ({status}) instead of starting; the end of its log:\n{log}")]
    Ended { program: String, status: ExitStatus, log: String },

    #[error("{} did not answer within {} seconds; the end of its log:\n{log}", store.title(), limit.as_secs())]
    Silent { store: StoreName, limit: Duration, log: String },

    #[error("failed to {doing} in the new Postgres")]
    Postgres { doing: &'static str, source: tokio_postgres::Error },

    #[error("failed to {doing} in the new MongoDB")]
    Mongo { doing: &'static str, source: mongodb::error::Error },

    #[error("docker said something that is not a port: `{said}`")]
    DockerPort { said: String },

    #[error("some of {} is still there; remove it by hand", dir.display())]
    Left { dir: PathBuf },
}

fn no_programs(stores: &[StoreName], docker: &DockerState) -> String {
    let names: Vec<&str> = stores.iter().map(|store| store.title()).collect();
    let mut text = format!("found no server programs for {} on this machine", names.join(" and "));
    text.push_str(match docker {
        DockerState::Missing => ", and no docker either",
        DockerState::Silent { .. } => ", and docker is there but does not answer",
        DockerState::Unwanted => "",
    });
    if let DockerState::Silent { said } = docker {
        text.push_str(" (");
        text.push_str(said);
        text.push(')');
    }
    text.push_str(". One of these helps:");
    text.push_str("\n  in a clone of lockstep: run scripts/setup");
    for store in stores {
        text.push_str(match store {
            StoreName::Postgres => {
                "\n  Postgres: apt-get install postgresql, brew install postgresql@16, \
                 or set LOCKSTEP_POSTGRES_BIN to the folder with initdb"
            }
            StoreName::Mongo => {
                "\n  MongoDB: install mongodb-org-server, brew install mongodb-community, \
                 or set LOCKSTEP_MONGOD to the program mongod"
            }
        });
    }
    text.push_str("\n  both: install and start Docker, then run `migrate sandbox --with docker`");
    text
}

fn no_docker(said: Option<&str>) -> String {
    match said {
        None => "found no program `docker` on the PATH; install Docker, or run without \
                 `--with docker` to use server programs of this machine"
            .to_owned(),
        Some(said) => format!(
            "docker is there but does not answer ({said}); start it, or run without \
             `--with docker` to use server programs of this machine"
        ),
    }
}

impl fmt::Debug for Reaper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper").field("dir", &self.dir()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_stay_are_told_as_a_shell_takes_them() {
        let uri = "mongodb://127.0.0.1:2/app?directConnection=true";
        let kept = Notice::Kept {
            dir: "/tmp/x".into(),
            stop: "/tmp/x/stop".into(),
            urls: vec![
                (POSTGRES_URL_VARIABLE, "postgres://127.0.0.1:1/app".to_owned()),
                (MONGO_VARIABLE, uri.to_owned()),
            ],
        };
        expect_test::expect![[r"
            the servers stay, in /tmp/x; to stop and remove them: sh /tmp/x/stop
            to use them in another shell:
              export DATABASE_URL='postgres://127.0.0.1:1/app'
              export MONGODB_URI='mongodb://127.0.0.1:2/app?directConnection=true'"]]
        .assert_eq(&kept.to_string());
    }
}
