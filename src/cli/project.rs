//! What most commands begin with: the configuration, the files, the databases.

use crate::cli::args::Global;
use crate::cli::config::secret::redacted;
use crate::cli::config::{
    self, Config, ConfigError, Flags, MongoSettings, PasswordCommand, PostgresSettings,
};
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, stopped};
use crate::core::causes::chain;
use crate::core::duration::show;
use crate::core::history::Histories;
use crate::core::id::{StoreName, Version};
use crate::core::migration::MigrationSet;
use crate::core::pace;
use crate::core::problem::Problem;
use crate::core::server::{MongoServer, PostgresServer, Servers};
use crate::engine::hook::{HookCommand, Hooks, Moment};
use crate::engine::run::{Meanwhile, Settings};
use crate::engine::wait::{Unreached, reached};
use crate::engine::{Clock as _, Means, Stop, StopReason, SystemClock};
use crate::report::utc;
use crate::source::{self, SourceError, Unfillable};
use crate::store::mongo::{Mongo, MongoConfig};
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::{Run, StoreError, Stores};
use std::cell::RefCell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Reads the configuration.
///
/// # Errors
/// Exit code 2.
pub fn configure(global: &Global) -> Result<Config, Failure> {
    let mut vars = Vec::new();
    for var in &global.vars {
        let Some((name, value)) = var.split_once('=') else {
            return Err(Failure::new(
                Exit::Usage,
                "USAGE",
                format!("--var {} has no `=`", redacted(var)),
            )
            .next("write --var NAME=VALUE"));
        };
        vars.push((name.to_owned(), value.to_owned()));
    }
    let flags = Flags {
        config: global.config.clone(),
        dir: global.dir.clone(),
        postgres: global.postgres.clone(),
        mongo: global.mongo.clone(),
        env: global.env.clone(),
        vars,
    };
    Ok(config::load_here(&flags)?)
}

/// Reads the migrations folder.
///
/// # Errors
/// Exit code 2: everything that is wrong with it.
pub fn read_set(config: &Config) -> Result<MigrationSet, Failure> {
    told(config, source::read_with(&config.dir, config))
}

/// The same, with templates without all of their values as far as they are known, and
/// what no value would mend about them.
///
/// # Errors
/// As [`read_set`].
pub fn read_unfilled(config: &Config) -> Result<(MigrationSet, Unfillable), Failure> {
    let read = source::read_unfilled(&config.dir, config);
    let (set, wrong) = read.map_err(|error| of_source(error, config))?;
    Ok((told(config, Ok(set))?, wrong))
}

/// As it is told to people.
fn told(config: &Config, set: Result<MigrationSet, SourceError>) -> Result<MigrationSet, Failure> {
    let set = set.map(|set| match config.postgres {
        Some(_) => set,
        None => set.remembered_in_mongo(),
    });
    set.map_err(|error| of_source(error, config))
}

/// Why the migrations cannot be read.
pub fn of_source(error: SourceError, config: &Config) -> Failure {
    Failure::of_source(error, &folder(config))
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        let code = error.code();
        if error.problems().is_empty() {
            // Its messages end with what to do.
            let text = chain(&error);
            return match text.split_once("; ") {
                Some((message, next)) => Failure::new(Exit::Usage, code, message).next(next),
                None => Failure::new(Exit::Usage, code, text),
            };
        }
        let mut failure = Failure::of_problems(error.problems().to_vec());
        failure.code = code;
        failure
    }
}

/// The migrations folder as seen from the working directory.
pub fn folder(config: &Config) -> String {
    let here = std::env::current_dir().ok();
    let near = here.and_then(|here| config.dir.strip_prefix(here).ok().map(Path::to_owned));
    near.unwrap_or_else(|| config.dir.clone()).display().to_string()
}

/// Reads a version off the command line.
///
/// # Errors
/// Exit code 2.
pub fn version(text: &str) -> Result<Version, Failure> {
    // A whole folder name is as good: people paste those.
    let digits = text.split(['-', '_']).next().unwrap_or(text);
    digits.parse().map_err(|_| {
        Failure::new(Exit::Usage, "USAGE", format!("`{}` is not a version", redacted(text)))
            .next("write its number, as in 007; `migrate status` lists them")
    })
}

/// What a command needs the migrations folder for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Files {
    /// Without them there is nothing to do.
    Needed,
    /// To compare them with the history: `status`, `verify`. A template needs no values.
    Compared,
    /// To compare them with the history, which has what is needed: `down`.
    IfThere,
    /// For nothing: `history`.
    Unread,
}

/// How what `migration.toml` names is carried out, in a project.
pub struct Ways {
    pace: pace::Settings,
    minute: Box<dyn Fn() -> u16>,
    migrations: PathBuf,
    postgres_url: Option<String>,
    mongo_url: Option<String>,
    hooks: Option<Hooks>,
    require_backup: Option<Duration>,
}

impl Ways {
    /// Those of the configuration; without probes and pauses if `unthrottled`.
    pub fn of(config: &Config, unthrottled: bool) -> Ways {
        let mut pace = config.throttle.pace();
        pace.throttled &= !unthrottled;
        let postgres = config.postgres.as_ref();
        let mongo = config.mongo.as_ref();
        let timezone = config.throttle.timezone.clone();
        Ways {
            pace,
            minute: Box::new(move || timezone.minute(chrono::Utc::now())),
            migrations: config.dir.clone(),
            postgres_url: postgres.map(|settings| settings.url.expose().to_owned()),
            mongo_url: mongo.map(|settings| settings.url.expose().to_owned()),
            hooks: None,
            require_backup: None,
        }
    }

    /// With the hooks of the configuration, and the backups that it asks for: a run of
    /// `up`, `down` or `cleanup`.
    #[must_use]
    pub fn with_hooks(mut self, config: &Config) -> Ways {
        self.hooks = Some(hooks(config, [self.postgres_url.clone(), self.mongo_url.clone()]));
        self.require_backup = config.cleanup.require_backup;
        self
    }

    /// The hooks, if there are any.
    pub fn hooks(&self) -> Option<&Hooks> {
        self.hooks.as_ref()
    }

    /// The same, for the engine.
    pub fn means(&self) -> Means<'_> {
        Means {
            pace: &self.pace,
            minute: &self.minute,
            migrations: &self.migrations,
            postgres_url: self.postgres_url.as_deref(),
            mongo_url: self.mongo_url.as_deref(),
            hooks: self.hooks.as_ref(),
            require_backup: self.require_backup,
        }
    }
}

/// The hooks of the configuration.
fn hooks(config: &Config, [postgres_url, mongo_url]: [Option<String>; 2]) -> Hooks {
    let settings = &config.hooks;
    let all = [
        (Moment::BeforeUp, &settings.before_up),
        (Moment::AfterUp, &settings.after_up),
        (Moment::BeforeDown, &settings.before_down),
        (Moment::AfterDown, &settings.after_down),
        (Moment::BeforeCleanup, &settings.before_cleanup),
        (Moment::AfterCleanup, &settings.after_cleanup),
        (Moment::OnFailure, &settings.on_failure),
    ];
    let command = |command: &config::HookCommand| HookCommand {
        words: match command {
            config::HookCommand::Shell(line) => {
                vec!["sh".to_owned(), "-c".to_owned(), line.clone()]
            }
            config::HookCommand::Program(words) => words.clone(),
        },
        shown: match command {
            config::HookCommand::Shell(line) => redacted(line),
            config::HookCommand::Program(words) => redacted(&words.join(" ")),
        },
    };
    let commands = all.map(|(moment, commands)| (moment, commands.iter().map(command).collect()));
    let mut event = serde_json::Map::new();
    event.insert("env".to_owned(), config.env.clone().into());
    Hooks {
        commands: commands.into(),
        limit: settings.timeout,
        folder: config.root.clone(),
        postgres_url,
        mongo_url,
        event,
        now: || utc(SystemClock.now()),
        begun: RefCell::default(),
    }
}

/// A project with its databases reached.
pub struct Project {
    /// The configuration.
    pub config: Config,
    /// The files.
    pub set: MigrationSet,
    /// Of [`Files::Compared`]: templates that no value makes right.
    pub unfillable: Unfillable,
    /// The databases.
    pub stores: Stores<Postgres, Mongo>,
    /// What they are.
    pub servers: Servers,
    /// Who we are.
    pub run: Run,
    /// How long to wait for the lease.
    pub lock_wait: Duration,
}

impl Project {
    /// The databases, and what the engine needs besides them. While another run has
    /// the lease, it waits.
    pub fn parts<'a>(
        &'a mut self,
        ways: &'a Ways,
        stop: &'a Stop,
    ) -> (&'a mut Stores<Postgres, Mongo>, Settings<'a>) {
        let settings = Settings {
            set: &self.set,
            servers: &self.servers,
            run: self.run.clone(),
            tool_version: env!("CARGO_PKG_VERSION"),
            clock: &SystemClock,
            lock_wait: self.lock_wait,
            stop,
            meanwhile: Meanwhile::Wait,
            means: ways.means(),
        };
        (&mut self.stores, settings)
    }

    /// Opens everything.
    ///
    /// # Errors
    /// Exit codes 2 and 7, or 8 when `--wait` ran out.
    pub async fn open(global: &Global, command: &str) -> Result<Project, Failure> {
        Project::open_with(global, command, Files::Needed).await
    }

    /// Opens everything, the files as far as they are needed.
    ///
    /// # Errors
    /// As [`Project::open`].
    pub async fn open_with(
        global: &Global,
        command: &str,
        files: Files,
    ) -> Result<Project, Failure> {
        let config = configure(global)?;
        // Wrong files are told before a database is asked for anything.
        let mut unfillable = Unfillable::new();
        let set = match files {
            Files::Compared => {
                let (set, wrong) = read_unfilled(&config)?;
                unfillable = wrong;
                set
            }
            Files::Unread => MigrationSet::default(),
            // A folder that somebody named is one that is meant to be there.
            Files::IfThere if global.dir.is_none() && !config.dir.exists() => {
                MigrationSet::default()
            }
            // Nor are the values that a template was applied with.
            Files::IfThere => told(&config, source::read_known(&config.dir, &config))?,
            Files::Needed => read_set(&config)?,
        };
        let run = this_run(command);
        let lock_wait = global.lock_wait.unwrap_or(config.lock_wait);
        let (stores, servers) = connect(&config, &run.id, global.wait).await?;
        Ok(Project { config, set, unfillable, stores, servers, run, lock_wait })
    }

    /// Refuses templates that no value makes right and that are not completed. Those that
    /// are completed did it with the values of then.
    ///
    /// # Errors
    /// Exit code 2.
    pub fn check_templates(&self, histories: &Histories) -> Result<(), Failure> {
        let is_completed =
            |version: Version| histories.row(version).is_some_and(|it| it.status.is_done());
        let open = self.unfillable.iter().filter(|(version, _)| !is_completed(**version));
        let problems: Vec<Problem> = open.flat_map(|(_, problems)| problems.clone()).collect();
        match problems.is_empty() {
            true => Ok(()),
            false => Err(of_source(SourceError::Problems(problems), &self.config)),
        }
    }
}

/// Who runs this command, where.
pub fn this_run(command: &str) -> Run {
    Run::new(command, config::user())
}

/// Reaches both databases, or says which cannot be.
///
/// # Errors
/// Exit codes 2 and 7, or 8 when `wait` ran out.
pub async fn connect(
    config: &Config,
    run_id: &str,
    wait: Option<Duration>,
) -> Result<(Stores<Postgres, Mongo>, Servers), Failure> {
    let (postgres, mongo) = futures_util::future::try_join(
        connect_postgres(config, run_id, wait),
        connect_mongo(config, run_id, wait),
    )
    .await?;
    let (postgres, postgres_server) = postgres.unzip();
    let (mongo, mongo_server) = mongo.unzip();
    let servers = Servers { postgres: postgres_server, mongo: mongo_server };
    Ok((Stores { postgres, mongo }, servers))
}

/// Reaches Postgres; `None` if this project has none.
///
/// # Errors
/// Exit codes 2 and 7, or 8 when `wait` ran out.
pub async fn connect_postgres(
    config: &Config,
    run_id: &str,
    wait: Option<Duration>,
) -> Result<Option<(Postgres, PostgresServer)>, Failure> {
    let Some(settings) = config.stores()?.postgres else { return Ok(None) };
    let place = &settings.url;
    let settings = postgres_config(config, settings).await?;
    let connect = async || {
        let mut store = Postgres::connect(settings.clone(), run_id).await?;
        let server = store.server().await?;
        Ok((store, server))
    };
    until(wait, StoreName::Postgres, place, connect).await.map(Some)
}

/// Reaches MongoDB; `None` if this project has none.
///
/// # Errors
/// Exit codes 2 and 7, or 8 when `wait` ran out.
pub async fn connect_mongo(
    config: &Config,
    run_id: &str,
    wait: Option<Duration>,
) -> Result<Option<(Mongo, MongoServer)>, Failure> {
    let Some(settings) = config.stores()?.mongo else { return Ok(None) };
    let place = &settings.url;
    let settings = mongo_config(settings).await?;
    let connect = async || {
        let store = Mongo::connect(settings.clone(), run_id).await?;
        let server = store.server();
        Ok((store, server))
    };
    until(wait, StoreName::Mongo, place, connect).await.map(Some)
}

/// Tries until a database takes connections, or the wait is over. `place` is where
/// it is looked for, without a password.
async fn until<T>(
    wait: Option<Duration>,
    store: StoreName,
    place: &dyn Display,
    mut connect: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, Failure> {
    let Some(wait) = wait else { return Ok(connect().await?) };
    let last = match reached(wait, &mut connect).await {
        Ok(reached) => return Ok(reached),
        Err(Unreached::Refused(error)) => return Err(error.into()),
        Err(Unreached::Late(last)) => last,
    };
    let mut failure = match last {
        Some(error) => Failure::from(error),
        None => {
            let message = format!("{} at {place} does not answer", store.title());
            Failure::new(Exit::Timeout, "WAIT_TIMEOUT", message).next(
                "check that the database is up and the URL is right (`migrate -v status` shows it); then run the same command again",
            )
        }
    };
    failure.exit = Exit::Timeout;
    failure.code = "WAIT_TIMEOUT";
    let waited = format!("{} for {} (--wait)", show(wait), store.title());
    failure.details.push(("waited", waited));
    Err(failure)
}

/// Does what comes before a run, unless it is asked to stop.
///
/// # Errors
/// The work's own, and exit codes 8, 130 and 143.
pub async fn unless_stopped<T>(
    stop: &Stop,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => done,
        reason = stop.wait() => {
            Err(stopped(reason, format!("stopped before anything was begun: {reason}"))
                .next("nothing was changed; run the same command again"))
        }
    }
}

async fn postgres_config(
    config: &Config,
    settings: &PostgresSettings,
) -> Result<PostgresConfig, Failure> {
    let mut parsed =
        PostgresConfig::with(settings.url.expose(), &settings.fallbacks).map_err(|error| {
            Failure::new(Exit::Usage, "BAD_URL", error.to_string())
                .next("write postgres://user:password@host:5432/database")
        })?;
    parsed.history_schema.clone_from(&config.history_schema);
    parsed.schema.clone_from(&settings.schema);
    if let Some(command) = &settings.password_command {
        parsed.set_password(&password(command).await?);
    }
    Ok(parsed)
}

async fn mongo_config(settings: &MongoSettings) -> Result<MongoConfig, Failure> {
    let mut parsed = MongoConfig::parse(settings.url.expose()).await.map_err(|error| {
        Failure::new(Exit::Usage, "BAD_URL", error.to_string())
            .next("write mongodb://user:password@host:27017/database")
    })?;
    if let Some(command) = &settings.password_command {
        parsed.set_password(&password(command).await?);
    }
    Ok(parsed)
}

/// What a secret store's program says. Neither it nor what the program complains
/// about is shown: both may hold the secret.
async fn password(command: &PasswordCommand) -> Result<String, Failure> {
    let failed = |why: String| {
        let message = format!("password_command `{}` {why}", command.program);
        Failure::new(Exit::Usage, "PASSWORD_COMMAND", message)
            .next("run it by hand; it must print the password and nothing else, and end with 0")
    };
    let output = tokio::process::Command::new(&command.program)
        .args(&command.arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("failed ({})", output.status)));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|_| failed("printed no text".to_owned()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// How long a run may take: what the flag says, else the settings.
///
/// # Errors
/// Exit code 2.
pub fn time_limit(global: &Global, flag: Option<Duration>) -> Result<Option<Duration>, Failure> {
    match flag {
        Some(limit) => Ok(Some(limit)),
        None => Ok(configure(global)?.timeout),
    }
}

/// Stops a run between two steps on SIGINT, SIGTERM, or after a time. A second
/// SIGINT ends the process at once; the next run goes on all the same.
///
/// # Errors
/// The system does not let us listen.
pub fn stop_on_signals(timeout: Option<Duration>) -> Result<Stop, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, "SIGNALS", format!("failed to listen for signals: {error}"))
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, stop) = Stop::new();
    tokio::spawn(async move {
        let limit = async {
            match timeout {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(limit);
        let mut is_late = false;
        loop {
            let reason = tokio::select! {
                _ = interrupt.recv() => StopReason::Interrupted,
                _ = terminate.recv() => StopReason::Terminated,
                () = &mut limit, if !is_late => StopReason::TimedOut,
            };
            let _ = sender.send(Some(reason));
            is_late = reason == StopReason::TimedOut;
            if !is_late {
                break;
            }
            // What comes after a run that was out of time still stops for signals.
        }
        interrupt.recv().await;
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    Ok(stop)
}
