//! Configuration: flags beat the environment beats `[env.NAME]` beats the file
//! beats the defaults. docs/config.md is the contract.
//!
//! Nothing else under `src` reads the environment, and nothing here shows a password.

mod dotenv;
mod expand;
mod file;
mod keys;
mod layers;
pub mod secret;
mod sections;
mod settings;
mod stores;
mod value;

pub use layers::{Origin, Origins, Setting};
pub use settings::{
    CleanupPolicy, CleanupSettings, HookCommand, HookSettings, LintLevel, LintSettings,
    MongoSettings, PasswordCommand, PostgresSettings, TelemetrySettings, ThrottleSettings,
    Timezone, Window,
};

use crate::core::id::StoreName;
use crate::core::problem::{Problem, nearest};
use crate::core::template::Vars;
use crate::store::Stores;
use file::File;
use layers::{Environment, Layers};
use sections::required;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use value::Value;

/// The file, when nobody names another.
pub const FILE_NAME: &str = "migrate.toml";

/// What the command line said.
#[derive(Clone, Default)]
pub struct Flags {
    /// `-C, --config FILE`.
    pub config: Option<PathBuf>,
    /// `--dir DIR`.
    pub dir: Option<PathBuf>,
    /// `--postgres URL`.
    pub postgres: Option<String>,
    /// `--mongo URL`.
    pub mongo: Option<String>,
    /// `--env NAME`.
    pub env: Option<String>,
    /// `--var NAME=VALUE`, of which the last counts.
    pub vars: Vec<(String, String)>,
}

/// Everything a command needs, and where each setting comes from.
#[derive(Clone)]
pub struct Config {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// The `NAME` of the `[env.NAME]` that counts.
    pub env: Option<String>,
    /// The folder of the file, or else the working directory: paths in the file are
    /// relative to it, and hooks run in it.
    pub root: PathBuf,
    /// The migrations.
    pub dir: PathBuf,
    /// `None` too when its URL cannot be found out: ask [`stores`](Config::stores).
    pub postgres: Option<PostgresSettings>,
    /// As for Postgres.
    pub mongo: Option<MongoSettings>,
    /// The schema of the history tables.
    pub history_schema: String,
    /// How long to wait for the lease.
    pub lock_wait: Duration,
    /// The whole run takes no longer.
    pub timeout: Option<Duration>,
    /// When cleanups run.
    pub cleanup: CleanupSettings,
    /// The pace of backfills.
    pub throttle: ThrottleSettings,
    /// Commands to run.
    pub hooks: HookSettings,
    /// What runs tell about themselves.
    pub telemetry: TelemetrySettings,
    /// Levels of lint rules.
    pub lint: LintSettings,
    /// What templates may use. [`var`](Config::var) knows a few more spellings.
    pub vars: BTreeMap<String, String>,
    /// Where each setting comes from.
    pub origins: Origins,
    /// Why a store has no URL although it should.
    unresolved: Vec<ConfigError>,
}

/// Configuration that cannot be used. Nothing was touched.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The working directory is gone.
    #[error("failed to find the working directory; change into one that exists")]
    WorkingDirectory {
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// `-C` names no file.
    #[error(
        "there is no file {file}, which -C names; name one that exists, or write one with `migrate init`"
    )]
    NoFile {
        /// As it was named.
        file: String,
    },
    /// A file that is there and cannot be read.
    #[error("failed to read {file}; make it a text file that this user may read")]
    Read {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A file that was read and says something impossible.
    #[error("{}", lines(.problems))]
    Invalid {
        /// All of it, in the order of the file; at least one.
        problems: Vec<Problem>,
    },
    /// `--env` names nothing.
    #[error("there is no [env.{name}] in {file} (named by {origin}); {hint}")]
    NoEnv {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// Who named it.
        origin: Box<Origin>,
        /// What to do.
        hint: String,
    },
    /// A value is needed, and the variable in it is not set.
    #[error("{problem}")]
    Unset {
        /// The variable.
        variable: String,
        /// Where.
        problem: Box<Problem>,
    },
    /// `--var` with a name that no template can have.
    #[error(
        "--var {name}: this is no name for a variable; use letters, digits, _ and -, and begin with a letter or _"
    )]
    VarName {
        /// The name.
        name: String,
    },
    /// The file that holds a URL.
    #[error("{problem}")]
    UrlFile {
        /// Where it is named.
        problem: Box<Problem>,
        /// Why it cannot be read.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A URL of something else.
    #[error("the URL for {} (from {origin}) {why}", stores::called(*.store))]
    Url {
        /// Which store.
        store: StoreName,
        /// Where it comes from.
        origin: Box<Origin>,
        /// What is wrong with it, without repeating it, and what to write.
        why: String,
    },
    /// There are settings for a store and no URL.
    #[error("{problem}")]
    NoUrl {
        /// Which store.
        store: StoreName,
        /// Where.
        problem: Box<Problem>,
    },
    /// There is no URL at all.
    #[error(
        "no database is named; set DATABASE_URL or --postgres for Postgres, MONGODB_URI or --mongo for MongoDB, or write a migrate.toml with `migrate init`"
    )]
    NoStore,
}

impl ConfigError {
    /// Always usage: nothing was touched.
    pub const EXIT_CODE: u8 = 2;

    /// Its stable name.
    pub fn code(&self) -> &'static str {
        match self {
            ConfigError::WorkingDirectory { .. } => "CONFIG_WORKING_DIRECTORY",
            ConfigError::NoFile { .. } => "CONFIG_NOT_FOUND",
            ConfigError::Read { .. } => "CONFIG_UNREADABLE",
            ConfigError::Invalid { .. } => "CONFIG_INVALID",
            ConfigError::NoEnv { .. } => "CONFIG_ENV_UNKNOWN",
            ConfigError::Unset { .. } => "CONFIG_VARIABLE_UNSET",
            ConfigError::VarName { .. } => "CONFIG_VAR_NAME",
            ConfigError::UrlFile { .. } => "CONFIG_URL_FILE",
            ConfigError::Url { .. } => "CONFIG_URL",
            ConfigError::NoUrl { .. } => "CONFIG_NO_URL",
            ConfigError::NoStore => "CONFIG_NO_STORE",
        }
    }

    /// The places in files that it is about, to be shown with their lines.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Invalid { problems } => problems,
            ConfigError::Unset { problem, .. }
            | ConfigError::UrlFile { problem, .. }
            | ConfigError::NoUrl { problem, .. } => std::slice::from_ref(problem),
            ConfigError::WorkingDirectory { .. }
            | ConfigError::NoFile { .. }
            | ConfigError::Read { .. }
            | ConfigError::NoEnv { .. }
            | ConfigError::VarName { .. }
            | ConfigError::Url { .. }
            | ConfigError::NoStore => &[],
        }
    }

    fn read(file: &str, source: std::io::Error) -> ConfigError {
        ConfigError::Read { file: file.to_owned(), source: Arc::new(source) }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Loads the configuration of this process: its environment, its working directory.
///
/// # Errors
/// [`ConfigError`].
pub fn load_here(flags: &Flags) -> Result<Config, ConfigError> {
    let cwd = std::env::current_dir()
        .map_err(|source| ConfigError::WorkingDirectory { source: Arc::new(source) })?;
    let names: Vec<String> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    load_named(flags, &cwd, &|name| std::env::var(name).ok(), &names)
}

/// One variable of the environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Who runs this process, as the history names people.
pub fn user() -> String {
    let named = ["USER", "LOGNAME"].into_iter().filter_map(variable).find(|name| !name.is_empty());
    named.unwrap_or_else(|| match rustix::process::getuid() {
        uid if uid.is_root() => "root".to_owned(),
        uid => format!("uid{}", uid.as_raw()),
    })
}

/// Loads the configuration. Databases that are not named are no error here, since
/// not every command needs them: [`Config::stores`] tells.
///
/// The environment is asked by name; of the `MIGRATE_VAR_…`, only those are found
/// whose name is in `[vars]` or in `.env`. [`load_here`] finds all.
///
/// # Errors
/// [`ConfigError`].
pub fn load(
    flags: &Flags,
    cwd: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    load_named(flags, cwd, env, &[])
}

/// Loads the configuration, knowing the names of the environment's variables.
fn load_named(
    flags: &Flags,
    cwd: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> Result<Config, ConfigError> {
    let environment = Environment::read(cwd, env)?;
    let found = find(flags, cwd)?;
    let file = found.as_ref().map(|(_, file)| file);
    let selected = select(flags, &environment, file)?;
    let root = found.as_ref().and_then(|(path, _)| path.parent()).unwrap_or(cwd).to_owned();
    let mut layers =
        Layers { file, selected, environment: &environment, origins: Origins::default() };

    let dir = match &flags.dir {
        Some(dir) => {
            let shown = dir.display().to_string();
            layers.origins.add("dir", shown, Origin::Flag("--dir"));
            cwd.join(dir)
        }
        None => root.join(required(&mut layers, "dir", Value::into_text)?),
    };
    let mut unresolved = Vec::new();
    let postgres = stores::postgres(&mut layers, &root, flags.postgres.as_deref());
    let postgres = postgres.unwrap_or_else(|error| {
        unresolved.push(error);
        None
    });
    let mongo = stores::mongo(&mut layers, &root, flags.mongo.as_deref());
    let mongo = mongo.unwrap_or_else(|error| {
        unresolved.push(error);
        None
    });
    let history_schema = sections::history_schema(&mut layers, postgres.as_ref())?;
    let lock_wait = required(&mut layers, "lock_wait", Value::into_duration)?;
    let timeout = required(&mut layers, "timeout", Value::into_optional_duration)?;
    let cleanup = CleanupSettings {
        policy: required(&mut layers, "cleanup.policy", Value::into_policy)?,
        require_backup: required(
            &mut layers,
            "cleanup.require_backup",
            Value::into_optional_duration,
        )?,
    };
    let throttle = sections::throttle(&mut layers)?;
    let hooks = sections::hooks(&mut layers)?;
    let telemetry = sections::telemetry(&mut layers, &root)?;
    let lint = LintSettings { levels: sections::lint_levels(&mut layers)? };
    let vars = sections::vars(&mut layers, flags, names)?;
    let Layers { selected, mut origins, .. } = layers;
    origins.sort();
    Ok(Config {
        file: found.map(|(path, _)| path),
        env: selected,
        root,
        dir,
        postgres,
        mongo,
        history_schema,
        lock_wait,
        timeout,
        cleanup,
        throttle,
        hooks,
        telemetry,
        lint,
        vars,
        origins,
        unresolved,
    })
}

/// How tests make this process fail: `LOCKSTEP_FAILPOINT=7` kills it at the
/// seventh failpoint, `7:stop` stops it there until it gets SIGCONT, and
/// `LOCKSTEP_LEASE_MS` shortens the lease.
#[cfg(feature = "failpoints")]
pub fn failpoint(happens: [fn(&'static str); 2]) -> crate::failpoint::Failpoint {
    let number = |text: &str| text.parse().expect("a number in a variable for tests");
    let at = std::env::var("LOCKSTEP_FAILPOINT").ok();
    let [kill, stop] = happens;
    let (at, happens) = match at.as_deref().map(|at| (at, at.strip_suffix(":stop"))) {
        None => (None, kill),
        Some((_, Some(at))) => (Some(number(at)), stop),
        Some((at, None)) => (Some(number(at)), kill),
    };
    let lease = std::env::var("LOCKSTEP_LEASE_MS").ok();
    crate::failpoint::Failpoint {
        at: at.map(|at| usize::try_from(at).expect("a small number")),
        happens,
        lease_term: lease.map(|lease| Duration::from_millis(number(&lease))),
    }
}

impl Config {
    /// The stores of this project, at least one. Commands that work without a
    /// database do not ask.
    ///
    /// # Errors
    /// A URL that cannot be found out, or none at all.
    pub fn stores(&self) -> Result<Stores<&PostgresSettings, &MongoSettings>, ConfigError> {
        if let Some(error) = self.unresolved.first() {
            return Err(error.clone());
        }
        let (postgres, mongo) = (self.postgres.as_ref(), self.mongo.as_ref());
        if postgres.is_none() && mongo.is_none() {
            return Err(ConfigError::NoStore);
        }
        Ok(Stores { postgres, mongo })
    }

    /// The value of `{{name}}`. A name that is not in [`vars`](Config::vars) as such
    /// is found as the environment spells it: `shardCount` as `MIGRATE_VAR_SHARDCOUNT`.
    pub fn var(&self, name: &str) -> Option<&str> {
        let other = || {
            let spelled = sections::variable_of(name);
            self.vars.iter().find(|(name, _)| {
                // Names from elsewhere mean what they say.
                let origin = self.origins.of(&format!("vars.{name}"));
                let from_environment =
                    matches!(origin, Some(Origin::Environment(_) | Origin::DotEnv(_)));
                from_environment && sections::variable_of(name) == spelled
            })
        };
        self.vars.get(name).or_else(|| other().map(|(_, value)| value)).map(String::as_str)
    }
}

impl Vars for Config {
    fn value(&self, name: &str) -> Option<&str> {
        self.var(name)
    }

    fn names(&self) -> Vec<&str> {
        self.vars.keys().map(String::as_str).collect()
    }

    fn is_secret(&self, name: &str) -> bool {
        secret::is_secret_name(name)
    }
}

/// As `migrate -v status` lists it, without passwords.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |setting: &Setting| {
            (setting.key.clone(), format!("{} ({})", setting.value, setting.origin))
        };
        f.debug_map().entries(self.origins.iter().map(shown)).finish()
    }
}

/// Without passwords.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.clone().map(secret::SecretUrl::new);
        f.debug_struct("Flags")
            .field("config", &self.config)
            .field("dir", &self.dir)
            .field("postgres", &url(&self.postgres))
            .field("mongo", &url(&self.mongo))
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// The file, its path and its contents.
fn find(flags: &Flags, cwd: &Path) -> Result<Option<(PathBuf, File)>, ConfigError> {
    let named = flags.config.as_deref();
    let name = named.unwrap_or(Path::new(FILE_NAME));
    let path = cwd.join(name);
    let shown = name.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let file =
                File::parse(&shown, text).map_err(|problems| ConfigError::Invalid { problems })?;
            Ok(Some((path, file)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match named {
            Some(_) => Err(ConfigError::NoFile { file: shown }),
            None => Ok(None),
        },
        Err(source) => Err(ConfigError::read(&shown, source)),
    }
}

/// The `[env.NAME]` that counts.
fn select(
    flags: &Flags,
    environment: &Environment<'_>,
    file: Option<&File>,
) -> Result<Option<String>, ConfigError> {
    let flag = flags.env.clone().map(|name| (name, Origin::Flag("--env")));
    let Some((name, origin)) = flag.or_else(|| environment.first(&["MIGRATE_ENV"])) else {
        return Ok(None);
    };
    let envs = file.map(|file| file.envs.as_slice()).unwrap_or_default();
    if envs.contains(&name) {
        return Ok(Some(name));
    }
    let hint = if let Some(meant) = nearest(&name, envs.iter().map(String::as_str)) {
        format!("did you mean {meant}?")
    } else if envs.is_empty() {
        format!("write one, or leave {origin} away")
    } else {
        format!("there is {}", envs.join(", "))
    };
    let file = file.map_or_else(|| FILE_NAME.to_owned(), |file| file.name.clone());
    Err(ConfigError::NoEnv { name, file, origin: Box::new(origin), hint })
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
#[expect(clippy::needless_pass_by_value, reason = "an expect![] is written where it is used")]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// A working directory with files, the environment, and the arguments of a
    /// command; the last by their own little parser.
    struct Case {
        folder: tempfile::TempDir,
        env: Vec<(String, String)>,
        flags: Flags,
    }

    /// `toml` is the file; `line` holds `NAME=value` and flags, split at blanks.
    fn case(toml: &str, line: &str) -> Case {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if !toml.is_empty() {
            std::fs::write(folder.path().join(FILE_NAME), toml).expect("written");
        }
        let (mut env, mut flags) = (Vec::new(), Flags::default());
        let mut words = line.split_whitespace().map(str::to_owned);
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("a value behind the flag");
            match word.as_str() {
                "-C" => flags.config = Some(value().into()),
                "--dir" => flags.dir = Some(value().into()),
                "--postgres" => flags.postgres = Some(value().replace("''", "")),
                "--mongo" => flags.mongo = Some(value()),
                "--env" => flags.env = Some(value()),
                "--var" => {
                    let (name, text) = value().split_once('=').map(own).expect("NAME=VALUE");
                    flags.vars.push((name, text));
                }
                word => env.push(word.split_once('=').map(own).expect("NAME=value")),
            }
        }
        Case { folder, env, flags }
    }

    fn own((name, value): (&str, &str)) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    impl Case {
        fn file(self, name: &str, text: &str) -> Case {
            let path = self.folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("made");
            std::fs::write(path, text).expect("written");
            self
        }

        fn load(&self) -> Result<Config, ConfigError> {
            let env = |name: &str| {
                let found = self.env.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone())
            };
            let names: Vec<String> = self.env.iter().map(|(name, _)| name.clone()).collect();
            load_named(&self.flags, self.folder.path(), &env, &names)
        }

        fn here(&self, text: &str) -> String {
            text.replace(&self.folder.path().display().to_string(), "HERE")
        }

        /// What `migrate -v status` shows, or why a command that needs stores fails.
        fn check(&self, expected: Expect) {
            let shown =
                match self.load().and_then(|config| config.stores().map(drop).map(|()| config)) {
                    Ok(config) => shown(&config),
                    Err(error) => {
                        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
                        failed(&error)
                    }
                };
            assert!(!shown.contains("hunter2"), "{shown}");
            expected.assert_eq(&self.here(&shown));
        }
    }

    fn failed(error: &ConfigError) -> String {
        use std::error::Error as _;
        let source = error.source().map(|source| format!("\n  because {source}"));
        format!("{}: {error}{}", error.code(), source.unwrap_or_default())
    }

    /// Settings that are not the default, and the folder.
    fn shown(config: &Config) -> String {
        let line = |setting: &Setting| {
            let Setting { key, value, origin } = setting;
            format!("{key} = {value}    {origin}")
        };
        let set = config.origins.iter().filter(|setting| setting.origin != Origin::Default);
        set.map(line).collect::<Vec<_>>().join("\n")
    }

    fn check(toml: &str, line: &str, expected: Expect) {
        case(toml, line).check(expected);
    }

    const PG: &str = "--postgres postgres://db/shop";

    #[test]
    fn flags_alone_are_enough() {
        check(
            "",
            "--postgres postgres://app:hunter2@db/shop --mongo mongodb://db/shop",
            expect![[r#"
                postgres.url = postgres://app:***@db/shop    --postgres
                mongo.url = mongodb://db/shop    --mongo"#]],
        );
    }

    #[test]
    fn the_environment_alone_is_enough_and_the_first_name_counts() {
        check(
            "",
            "POSTGRES_URL=postgres://c/ POSTGRESQL_URI=postgres://b/ DATABASE_URL=postgres://a/ MONGO_URL=mongodb://c/ MONGODB_URL=mongodb://b/ MONGODB_URI=mongodb://a/",
            expect![[r#"
                postgres.url = postgres://a/    DATABASE_URL
                mongo.url = mongodb://a/    MONGODB_URI"#]],
        );
        check(
            "",
            "POSTGRES_URL=postgres://c/ POSTGRESQL_URI=postgres://b/ MONGO_URL=mongodb://c/ MONGODB_URL=mongodb://b/",
            expect![[r#"
                postgres.url = postgres://b/    POSTGRESQL_URI
                mongo.url = mongodb://b/    MONGODB_URL"#]],
        );
        check(
            "",
            "POSTGRES_URL=postgres://c/ MONGO_URL=mongodb://c/",
            expect![[r#"
            postgres.url = postgres://c/    POSTGRES_URL
            mongo.url = mongodb://c/    MONGO_URL"#]],
        );
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        check(
            "",
            "DATABASE_URL= POSTGRES_URL=postgres://c/",
            expect!["postgres.url = postgres://c/    POSTGRES_URL"],
        );
    }

    #[test]
    fn each_layer_beats_the_next() {
        const TOML: &str = "[postgres]\nurl = 'postgres://file/'\n[env.production]\npostgres.url = 'postgres://production/'\n";
        let dotenv = "DATABASE_URL=postgres://dotenv/";
        check(TOML, "", expect!["postgres.url = postgres://file/    migrate.toml:2"]);
        check(
            TOML,
            "--env production",
            expect!["postgres.url = postgres://production/    migrate.toml:4 [env.production]"],
        );
        check(
            TOML,
            "MIGRATE_ENV=production",
            expect!["postgres.url = postgres://production/    migrate.toml:4 [env.production]"],
        );
        case(TOML, "--env production")
            .file(".env", dotenv)
            .check(expect!["postgres.url = postgres://dotenv/    .env (DATABASE_URL)"]);
        case(TOML, "--env production DATABASE_URL=postgres://env/")
            .file(".env", dotenv)
            .check(expect!["postgres.url = postgres://env/    DATABASE_URL"]);
        case(TOML, "--env production DATABASE_URL=postgres://env/ --postgres postgres://flag/")
            .file(".env", dotenv)
            .check(expect!["postgres.url = postgres://flag/    --postgres"]);
        case("", "DATABASE_URL= --mongo mongodb://a/b")
            .file(".env", dotenv)
            .check(expect!["mongo.url = mongodb://a/b    --mongo"]);
    }

    #[test]
    fn env_as_a_flag_beats_the_variable() {
        check(
            "[env.a]\nlock_wait = '1s'\n[env.b]\nlock_wait = '2s'",
            &format!("MIGRATE_ENV=a --env b {PG}"),
            expect![[r#"
                lock_wait = 2s    migrate.toml:4 [env.b]
                postgres.url = postgres://db/shop    --postgres"#]],
        );
    }

    #[test]
    fn an_env_may_hold_any_key_in_any_form() {
        let toml = "
            [cleanup]
            policy = 'auto'
            [env.production]
            cleanup.policy = 'next-release'
            dir = 'prod'
            [env.production.throttle]
            nice = 1
            [env.production.lint.levels]
            drop-column = 'error'
            [lint]
            levels = { drop-column = 'warn', rename = 'off' }";
        check(
            toml,
            &format!("--env production {PG}"),
            expect![[r#"
            dir = prod    migrate.toml:6 [env.production]
            postgres.url = postgres://db/shop    --postgres
            cleanup.policy = next-release    migrate.toml:5 [env.production]
            throttle.nice = 1    migrate.toml:8 [env.production]
            lint.levels.drop-column = error    migrate.toml:10 [env.production]
            lint.levels.rename = off    migrate.toml:12"#]],
        );
    }

    #[test]
    fn an_env_that_is_not_there_is_refused() {
        let toml = "[env.production]\n[env.staging]\n";
        check(
            toml,
            "--env prodution",
            expect![
                "CONFIG_ENV_UNKNOWN: there is no [env.prodution] in migrate.toml (named by --env); did you mean production?"
            ],
        );
        check(
            toml,
            "MIGRATE_ENV=laptop",
            expect![
                "CONFIG_ENV_UNKNOWN: there is no [env.laptop] in migrate.toml (named by MIGRATE_ENV); there is production, staging"
            ],
        );
        check(
            "dir = 'x'",
            "--env production",
            expect![
                "CONFIG_ENV_UNKNOWN: there is no [env.production] in migrate.toml (named by --env); write one, or leave --env away"
            ],
        );
        case("", "").file(".env", "MIGRATE_ENV=production").check(expect!["CONFIG_ENV_UNKNOWN: there is no [env.production] in migrate.toml (named by .env (MIGRATE_ENV)); write one, or leave .env (MIGRATE_ENV) away"]);
    }

    #[test]
    fn every_default_is_what_the_documents_say() {
        let config = case("", PG).load().expect("loads");
        let line = |setting: &Setting| format!("{} = {}", setting.key, setting.value);
        let defaults = config.origins.iter().filter(|setting| setting.origin == Origin::Default);
        expect![[r#"
            dir = migrations
            lock_wait = 1m
            timeout = none
            history.schema = public
            cleanup.policy = auto
            cleanup.require_backup = none
            throttle.enabled = true
            throttle.batch_time = 100ms
            throttle.pause = 0s
            throttle.rate = 0
            throttle.window = none
            throttle.timezone = UTC
            throttle.max_replication_lag = 5s
            throttle.max_commit_latency = 100ms
            throttle.max_active_backends = 0
            hooks.timeout = 10m"#]]
        .assert_eq(&defaults.map(line).collect::<Vec<_>>().join("\n"));
        let Config { throttle, .. } = config;
        assert_eq!(
            (throttle.rate, throttle.max_active_backends, throttle.window),
            (None, None, None)
        );
    }

    #[test]
    fn everything_can_be_set() {
        const LINE: &str = "DATABASE_URL=postgres://app@db/shop MONGODB_URI=mongodb://db/shop \
            PUSHGATEWAY_URL=http://app:s3cret@gateway:9091";
        let mut toml = String::new();
        for key in keys::KEYS.iter().filter(|key| !key.name.ends_with("url_file")) {
            use std::fmt::Write as _;
            writeln!(toml, "{} = {}", key.name.replace('*', "name"), key.example)
                .expect("to a string");
        }
        check(
            &toml,
            LINE,
            expect![[r#"
                dir = db/migrations    migrate.toml:1
                lock_wait = 5m    migrate.toml:2
                timeout = 10m    migrate.toml:3
                postgres.url = postgres://app@db/shop    DATABASE_URL
                postgres.password_command = ["vault", …]    migrate.toml:5
                postgres.schema = shop    migrate.toml:6
                postgres.sslmode = verify-full    migrate.toml:7
                postgres.sslrootcert = rds-ca.pem    migrate.toml:8
                postgres.sslcert = client.crt    migrate.toml:9
                postgres.sslkey = client.key    migrate.toml:10
                mongo.url = mongodb://db/shop    MONGODB_URI
                mongo.password_command = ["vault", …]    migrate.toml:12
                history.schema = lockstep    migrate.toml:13
                cleanup.policy = next-release    migrate.toml:14
                cleanup.require_backup = 1day    migrate.toml:15
                throttle.enabled = false    migrate.toml:16
                throttle.batch_time = 250ms    migrate.toml:17
                throttle.pause = 50ms    migrate.toml:18
                throttle.nice = 0    migrate.toml:19
                throttle.rate = 5000    migrate.toml:20
                throttle.window = 22:00-06:00    migrate.toml:21
                throttle.timezone = Europe/Berlin    migrate.toml:22
                throttle.max_replication_lag = 10s    migrate.toml:23
                throttle.max_commit_latency = 200ms    migrate.toml:24
                throttle.max_active_backends = 40    migrate.toml:25
                hooks.before_up = ["./backup.sh"]    migrate.toml:26
                hooks.after_up = ["./warm-cache.sh"]    migrate.toml:27
                hooks.before_down = ["./backup.sh"]    migrate.toml:28
                hooks.after_down = [["./notify.sh", "reverted"]]    migrate.toml:29
                hooks.before_cleanup = ["./backup.sh"]    migrate.toml:30
                hooks.after_cleanup = [["./notify.sh", "cleaned up"]]    migrate.toml:31
                hooks.on_failure = ["./notify.sh"]    migrate.toml:32
                hooks.timeout = 1h    migrate.toml:33
                telemetry.metrics_file = /var/lib/node_exporter/lockstep.prom    migrate.toml:34
                telemetry.push = http://app:***@gateway:9091    migrate.toml:35
                lint.levels.name = warn    migrate.toml:36
                vars.name = eu-1    migrate.toml:37"#]],
        );
        let config = case(&toml, LINE).load().expect("loads");
        assert_eq!(config.hooks.before_up, [HookCommand::Shell("./backup.sh".to_owned())]);
        let program = ["./notify.sh", "reverted"].map(str::to_owned).to_vec();
        assert_eq!(config.hooks.after_down, [HookCommand::Program(program)]);
        assert_eq!(config.cleanup.policy, CleanupPolicy::NextRelease);
        assert_eq!(config.lint.levels["name"], LintLevel::Warn);
        assert_eq!(config.throttle.rate, Some(5000));
        let postgres = config.postgres.expect("is there");
        assert_eq!(postgres.password_command.expect("is there").program, "vault");
        assert_eq!(postgres.fallbacks.get("sslcert"), config.root.join("client.crt").to_str(),);
    }

    #[test]
    fn paths_in_the_file_are_relative_to_it_and_flags_to_the_working_directory() {
        const TOML: &str = "dir = '../db'\npostgres.sslrootcert = 'ca.pem'";
        let case_of =
            |line: &str| case("", &format!("{line} {PG}")).file("conf/migrate.toml", TOML);
        let dirs = |case: Case| {
            let config = case.load().expect("loads");
            let root = config
                .postgres
                .and_then(|postgres| postgres.fallbacks.get("sslrootcert").map(str::to_owned))
                .unwrap_or_default();
            case.here(&format!("{} {root}", config.dir.display()))
        };
        expect!["HERE/conf/../db HERE/conf/ca.pem"]
            .assert_eq(&dirs(case_of("-C conf/migrate.toml")));
        expect!["HERE/db HERE/conf/ca.pem"]
            .assert_eq(&dirs(case_of("-C conf/migrate.toml --dir db")));
        expect!["HERE/migrations "].assert_eq(&dirs(case_of("")));
        expect!["HERE/migrations system"]
            .assert_eq(&dirs(case("postgres.sslrootcert = 'system'", PG)));
        case_of("-C conf/migrate.toml").check(expect![[r#"
            dir = ../db    conf/migrate.toml:1
            postgres.url = postgres://db/shop    --postgres
            postgres.sslrootcert = ca.pem    conf/migrate.toml:2"#]]);
    }

    #[test]
    fn a_named_file_must_be_there() {
        check(
            "",
            "-C nope.toml",
            expect![
                "CONFIG_NOT_FOUND: there is no file nope.toml, which -C names; name one that exists, or write one with `migrate init`"
            ],
        );
        case("", "-C conf").file("conf/x", "").check(expect![[r#"
            CONFIG_UNREADABLE: failed to read conf; make it a text file that this user may read
              because Is a directory (os error 21)"#]]);
    }

    #[test]
    fn a_file_that_is_not_text_is_refused() {
        let case = case("", PG);
        std::fs::write(case.folder.path().join(FILE_NAME), b"dir = '\xff'").expect("written");
        case.check(expect![[r#"
            CONFIG_UNREADABLE: failed to read migrate.toml; make it a text file that this user may read
              because stream did not contain valid UTF-8"#]]);
    }

    #[test]
    fn a_dotenv_that_cannot_be_read_names_its_line() {
        case("", PG).file(".env", "A=1\nhunter2").check(expect![
            "CONFIG_INVALID: .env:2:1: this is not KEY=VALUE; add the `=`, or begin the line with #"
        ]);
        case("", PG).file(".env/x", "").check(expect![[r#"
            CONFIG_UNREADABLE: failed to read .env; make it a text file that this user may read
              because Is a directory (os error 21)"#]]);
    }

    #[test]
    fn variables_are_replaced_in_any_string() {
        check(
            "dir = '${D:-db}'\nthrottle.rate = '${RATE}'\nthrottle.enabled = '${ON:-false}'\nthrottle.nice = '${NICE:-1.5}'\npostgres.url = 'postgres://app:${PW}@${HOST:-localhost}/shop'\npostgres.schema = 'a$$b'\nhooks.on_failure = ['curl ${HOOK}', ['say', '${HOOK}']]",
            "RATE=10 PW=hunter2 HOOK=https://x/hunter2",
            expect![[r#"
                dir = db    migrate.toml:1
                postgres.url = postgres://app:***@localhost/shop    migrate.toml:5
                postgres.schema = a$b    migrate.toml:6
                history.schema = a$b    postgres.schema
                throttle.enabled = false    migrate.toml:3
                throttle.nice = 1.5    migrate.toml:4
                throttle.rate = 10    migrate.toml:2
                hooks.on_failure = ["curl ${HOOK}", ["say", "${HOOK}"]]    migrate.toml:7"#]],
        );
        case("dir = '${D}'", PG).file(".env", "D=db").check(expect![[r#"
            dir = db    migrate.toml:1
            postgres.url = postgres://db/shop    --postgres"#]]);
    }

    #[test]
    fn an_unset_variable_is_named() {
        check(
            "[postgres]\nurl = '${PROD_URL}'",
            "",
            expect![
                "CONFIG_VARIABLE_UNSET: migrate.toml:2:7: `postgres.url` needs the variable PROD_URL, which is not set; set PROD_URL, or DATABASE_URL, or --postgres, or write a default as ${PROD_URL:-…}; a project without Postgres has no [postgres] here"
            ],
        );
        check(
            "[mongo]\nurl = 'mongodb://${USER_NAME}@db'",
            "",
            expect![
                "CONFIG_VARIABLE_UNSET: migrate.toml:2:7: `mongo.url` needs the variable USER_NAME, which is not set; set USER_NAME, or MONGODB_URI, or --mongo, or write a default as ${USER_NAME:-…}; a project without MongoDB has no [mongo] here"
            ],
        );
        check(
            "[throttle]\nwindow = '${WINDOW}'",
            PG,
            expect![
                "CONFIG_VARIABLE_UNSET: migrate.toml:2:10: `throttle.window` needs the variable WINDOW, which is not set; set WINDOW, or write a default as ${WINDOW:-…}"
            ],
        );
        check(
            "[hooks]\nbefore_up = [['a', '${NOPE}']]",
            PG,
            expect![
                "CONFIG_VARIABLE_UNSET: migrate.toml:2:13: `hooks.before_up` needs the variable NOPE, which is not set; set NOPE, or write a default as ${NOPE:-…}"
            ],
        );
    }

    #[test]
    fn an_unset_variable_does_not_matter_where_its_value_does_not() {
        check(
            "dir = '${A}'\n[postgres]\nurl = '${B}'\n[vars]\nx = '${C}'\n[env.p]\nmongo.url = '${D}'",
            &format!("{PG} --dir db --var x=1"),
            expect![[r#"
                dir = db    --dir
                postgres.url = postgres://db/shop    --postgres
                vars.x = 1    --var"#]],
        );
        check(
            "lock_wait = '${A}'\n[env.p]\nlock_wait = '2s'",
            &format!("{PG} --env p"),
            expect![[r#"
                lock_wait = 2s    migrate.toml:3 [env.p]
                postgres.url = postgres://db/shop    --postgres"#]],
        );
        let config = case("[postgres]\nurl = '${B}'", "").load().expect("lint needs no database");
        assert!(config.postgres.is_none() && config.stores().is_err());
    }

    #[test]
    fn a_value_from_the_environment_is_checked_as_well() {
        check(
            "[throttle]\nrate = '${RATE}'",
            &format!("RATE=fast {PG}"),
            expect![[
                r#"CONFIG_INVALID: migrate.toml:2:8: `throttle.rate` wants an integer from 0 to 1000000000, not "fast"; write rate = 5000, for example"#
            ]],
        );
        check(
            "[throttle]\nenabled = '${ON}'",
            &format!("ON=yes {PG}"),
            expect![[
                r#"CONFIG_INVALID: migrate.toml:2:11: `throttle.enabled` wants true or false, not "yes"; write enabled = false, for example"#
            ]],
        );
        check(
            "[throttle]\npause = '${PAUSE:-long}'",
            PG,
            expect![[
                r#"CONFIG_INVALID: migrate.toml:2:9: `throttle.pause` wants a duration from 0s to 1h, not "long"; write pause = "50ms", for example"#
            ]],
        );
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        check(
            "dri = 'x'\n[postgress]\nurl = 'x'\n[throttle]\nbatchtime = '1s'\n[env.production]\ncleanup.polcy = 'hold'\nenv.x.dir = 'y'",
            PG,
            expect![[r#"
                CONFIG_INVALID: migrate.toml:1:1: there is no key `dri`; did you mean `dir`?
                migrate.toml:2:2: there is no key `postgress`; did you mean `postgres`?
                migrate.toml:5:1: there is no key `batchtime` in [throttle]; did you mean `throttle.batch_time`?
                migrate.toml:7:9: there is no key `polcy` in [env.production.cleanup]; did you mean `cleanup.policy`?
                migrate.toml:8:1: there is no key `env` in [env.production]; valid here: dir, lock_wait, timeout, postgres, mongo, history, cleanup, throttle, hooks, telemetry, lint, vars"#]],
        );
        check(
            "policy = 'hold'\n[postgres]\nurll = 'postgres://app:hunter2@db'\npassword = 'hunter2'\nzebra = 1\n[mongo]\nschema = 'x'",
            PG,
            expect![[r#"
                CONFIG_INVALID: migrate.toml:1:1: there is no key `policy`; did you mean `cleanup.policy`?
                migrate.toml:3:1: there is no key `urll` in [postgres]; did you mean `postgres.url`?
                migrate.toml:4:1: there is no key `password` in [postgres]; put it into the url, into url_file, or have password_command print it
                migrate.toml:5:1: there is no key `zebra` in [postgres]; valid here: url, url_file, password_command, schema, sslmode, sslrootcert, sslcert, sslkey
                migrate.toml:7:1: there is no key `schema` in [mongo]; did you mean `postgres.schema`?"#]],
        );
    }

    #[test]
    fn wrong_types_say_what_was_expected() {
        check(
            "dir = 1\nlock_wait = 5\npostgres = 'postgres://app:hunter2@db'\n[cleanup]\npolicy = true\nrequire_backup = '1s'\n[throttle]\nenabled = 'true'\nbatch_time = '100'\npause = '2h'\nnice = -1\nrate = 1.5\nwindow = '22-06'\ntimezone = 'Mars'\nmax_replication_lag = '0s'\nmax_active_backends = -1\n[hooks]\nbefore_up = './backup.sh'\nafter_up = [1]\ntimeout = '1ms'\n[lint]\nlevels = 'off'\n[vars]\nx = []\n'a b' = 'c'",
            PG,
            expect![[r#"
                CONFIG_INVALID: migrate.toml:1:7: `dir` wants a path, not an integer; write dir = "db/migrations", for example
                migrate.toml:2:13: `lock_wait` wants a duration from 0s to 1day, not an integer; write lock_wait = "5m", for example
                migrate.toml:3:1: `postgres` is a section, not a string; write [postgres] and its keys below
                migrate.toml:5:10: `cleanup.policy` wants auto, hold or next-release, not a boolean; write policy = "next-release", for example
                migrate.toml:6:18: `cleanup.require_backup` wants a duration from 1m to 1year, or "" for none, not "1s"; write require_backup = "24h", for example
                migrate.toml:8:11: `throttle.enabled` wants true or false, not a string; write enabled = false, for example
                migrate.toml:9:14: `throttle.batch_time` wants a duration from 1ms to 1m, not "100"; write batch_time = "250ms", for example
                migrate.toml:10:9: `throttle.pause` wants a duration from 0s to 1h, not "2h"; write pause = "50ms", for example
                migrate.toml:11:8: `throttle.nice` wants a number from 0 to 100, not -1; write nice = 0.0, for example
                migrate.toml:12:8: `throttle.rate` wants an integer from 0 to 1000000000, not a float; write rate = 5000, for example
                migrate.toml:13:10: `throttle.window` wants hours as "22:00-06:00", or "" for all, not "22-06"; write window = "22:00-06:00", for example
                migrate.toml:14:12: `throttle.timezone` wants UTC, local, an offset as "+02:00" or a name as "Europe/Berlin", not "Mars"; write timezone = "Europe/Berlin", for example
                migrate.toml:15:23: `throttle.max_replication_lag` wants a duration from 1ms to 1day, not "0s"; write max_replication_lag = "10s", for example
                migrate.toml:16:23: `throttle.max_active_backends` wants an integer from 0 to 100000, not -1; write max_active_backends = 40, for example
                migrate.toml:18:13: `hooks.before_up` wants a list of commands, each a string or a list of strings, not a string; write before_up = ["./backup.sh"], for example
                migrate.toml:19:12: `hooks.after_up` wants a list of commands, each a string or a list of strings, not a list; write after_up = ["./warm-cache.sh"], for example
                migrate.toml:20:11: `hooks.timeout` wants a duration from 1s to 1day, not "1ms"; write timeout = "1h", for example
                migrate.toml:22:1: `lint.levels` is a section, not a string; write [lint.levels] and its keys below
                migrate.toml:24:5: `vars.x` wants a string, not a list; write x = "eu-1", for example
                migrate.toml:25:1: `a b` is no name for a variable; use letters, digits, _ and -, and begin with a letter or _"#]],
        );
        check(
            "[postgres]\nurl = 1\nsslmode = 'verify'\nschema = ''\npassword_command = 'vault read'\nsslcert = ''\n[history]\nschema = 1979-05-27\n[lint.levels]\nx = 'fatal'\n[throttle]\nrate = 99999999999999999999\nnice = inf",
            PG,
            expect![[r#"
                CONFIG_INVALID: migrate.toml:2:7: `postgres.url` wants a string, not an integer; write url = "${DATABASE_URL}", for example
                migrate.toml:3:11: `postgres.sslmode` wants disable, allow, prefer, require, verify-ca or verify-full, not "verify"; write sslmode = "verify-full", for example
                migrate.toml:4:10: `postgres.schema` wants a name of 1 to 63 bytes, not ""; write schema = "shop", for example
                migrate.toml:5:20: `postgres.password_command` wants a list of strings, a program and its arguments, not a string; write password_command = ["vault", "read", "-field=password", "db/app"], for example
                migrate.toml:6:11: `postgres.sslcert` wants a path, not ""; write sslcert = "client.crt", for example
                migrate.toml:8:10: `history.schema` wants a name of 1 to 63 bytes, not a date or time; write schema = "lockstep", for example
                migrate.toml:10:5: `lint.levels.x` wants error, warn or off, not "fatal"; write x = "warn", for example
                migrate.toml:12:8: `throttle.rate` wants an integer from 0 to 1000000000, not an integer of more than 64 bits; write rate = 5000, for example
                migrate.toml:13:8: `throttle.nice` wants a number from 0 to 100, not inf; write nice = 0.0, for example"#]],
        );
        check(
            "env = 'production'",
            PG,
            expect![
                "CONFIG_INVALID: migrate.toml:1:7: `env` holds one section for each environment; write it as [env.production], and the keys of the file below"
            ],
        );
        check(
            "[env]\nproduction = 'x'",
            PG,
            expect![
                "CONFIG_INVALID: migrate.toml:2:1: `env.production` is not a section; write it as [env.production], and the keys of the file below"
            ],
        );
    }

    #[test]
    fn other_environments_are_checked_too() {
        check(
            "[env.production.throttle]\nbatch_time = 'fast'\npause = '${PAUSE}'",
            PG,
            expect![[
                r#"CONFIG_INVALID: migrate.toml:2:14: `throttle.batch_time` wants a duration from 1ms to 1m, not "fast"; write batch_time = "250ms", for example"#
            ]],
        );
    }

    #[test]
    fn broken_syntax_says_where_without_the_password() {
        check(
            "[postgres]\nurl = \"postgres://app:hunter2@db/shop",
            PG,
            expect![[
                r#"CONFIG_INVALID: migrate.toml:2:38: this is no TOML: invalid basic string, expected `"`; mend it; strings stand in quotes, sections in [brackets]"#
            ]],
        );
        check(
            "dir = 'a'\ndir = 'b'",
            PG,
            expect!["CONFIG_INVALID: migrate.toml:2:1: `dir` is there twice; keep one of the two"],
        );
        check(
            "postgres.url = postgres://app:hunter2@db/shop",
            PG,
            expect![
                "CONFIG_INVALID: migrate.toml:1:16: this is no TOML: string values must be quoted, expected literal string; mend it; strings stand in quotes, sections in [brackets]"
            ],
        );
        check(
            "dir = '${X'",
            PG,
            expect![
                "CONFIG_INVALID: migrate.toml:1:7: in `dir`, `${` is not closed; write ${NAME}, or $${ for a plain ${"
            ],
        );
        check(
            "dir = '${X-y}'",
            PG,
            expect![
                "CONFIG_INVALID: migrate.toml:1:7: in `dir`, `${` begins no variable; write ${NAME} or ${NAME:-default}, and a plain ${ as $${"
            ],
        );
    }

    #[test]
    fn a_url_may_stand_in_a_file_of_its_own() {
        let toml = "[postgres]\nurl_file = 'secrets/pg'\n[env.here]\npostgres.url = 'postgres://here/'\n[env.there]\npostgres.url_file = 'secrets/there'";
        case(toml, "").file("secrets/pg", "postgres://app:hunter2@db/shop\r\n").check(expect![[
            r#"
                postgres.url = postgres://app:***@db/shop    secrets/pg
                postgres.url_file = secrets/pg    migrate.toml:2"#
        ]]);
        case(toml, "--env here")
            .check(expect!["postgres.url = postgres://here/    migrate.toml:4 [env.here]"]);
        case(toml, "DATABASE_URL=postgres://env/")
            .check(expect!["postgres.url = postgres://env/    DATABASE_URL"]);
        case(toml, "").check(expect![[r#"
            CONFIG_URL_FILE: migrate.toml:2:12: `postgres.url_file` names secrets/pg, which cannot be read; mount the file, or let this user read it
              because No such file or directory (os error 2)"#]]);
        case(toml, "--env there").file("secrets/there", "\n").check(expect!["CONFIG_INVALID: migrate.toml:6:21: `postgres.url_file` names secrets/there, which is empty; write the URL into it"]);
        check(
            "[postgres]\nurl_file = 'x'\nurl = 'y'",
            "",
            expect![
                "CONFIG_INVALID: migrate.toml:2:12: `postgres.url` and `postgres.url_file` are both set; keep one of them"
            ],
        );
    }

    #[test]
    fn a_password_command_is_for_a_url_without_password() {
        let command = |toml: &str, url: &str| {
            let toml = format!("[postgres]\npassword_command = {toml}");
            let config = case(&toml, &format!("--postgres {url}")).load().expect("loads");
            format!("{:?}", config.postgres.and_then(|postgres| postgres.password_command))
        };
        expect![[r#"Some(PasswordCommand { program: "vault", .. })"#]]
            .assert_eq(&command("['vault', '--token', 'hunter2']", "postgres://app@db/"));
        expect!["None"].assert_eq(&command("['vault']", "postgres://app:x@db/"));
        expect!["None"].assert_eq(&command("[]", "postgres://app@db/"));
        check(
            "[mongo]\npassword_command = ['vault', '--token', 'hunter2']",
            "MONGODB_URI=mongodb://app@db/shop",
            expect![[r#"
                mongo.url = mongodb://app@db/shop    MONGODB_URI
                mongo.password_command = ["vault", …]    migrate.toml:2"#]],
        );
    }

    #[test]
    fn a_url_of_something_else_is_refused_without_repeating_it() {
        check(
            "",
            "--postgres mongodb://app:hunter2@db/",
            expect![
                "CONFIG_URL: the URL for Postgres (from --postgres) begins with mongodb://; write postgres://USER@HOST/DATABASE"
            ],
        );
        check(
            "",
            "DATABASE_URL=mysql://app:hunter2@db/",
            expect![
                "CONFIG_URL: the URL for Postgres (from DATABASE_URL) begins with mysql://; write postgres://USER@HOST/DATABASE"
            ],
        );
        case("", "").file(".env", "MONGODB_URI=postgres://app:hunter2@db/").check(expect!["CONFIG_URL: the URL for MongoDB (from .env (MONGODB_URI)) begins with postgres://; write mongodb://HOST/DATABASE"]);
        check(
            "[mongo]\nurl = 'hunter2'",
            "",
            expect![
                "CONFIG_URL: the URL for MongoDB (from migrate.toml:2) is no URL; write mongodb://HOST/DATABASE"
            ],
        );
        check(
            "postgres.url = 'host=db password=hunter2'",
            "",
            expect!["postgres.url = host=db password=***    migrate.toml:1"],
        );
    }

    #[test]
    fn one_store_alone_is_a_project_and_none_is_not() {
        check(
            "",
            "",
            expect![
                "CONFIG_NO_STORE: no database is named; set DATABASE_URL or --postgres for Postgres, MONGODB_URI or --mongo for MongoDB, or write a migrate.toml with `migrate init`"
            ],
        );
        check(
            "dir = 'x'",
            "",
            expect![
                "CONFIG_NO_STORE: no database is named; set DATABASE_URL or --postgres for Postgres, MONGODB_URI or --mongo for MongoDB, or write a migrate.toml with `migrate init`"
            ],
        );
        check(
            "[postgres]\nurl = '${NOPE:-}'",
            "",
            expect![
                "CONFIG_NO_STORE: no database is named; set DATABASE_URL or --postgres for Postgres, MONGODB_URI or --mongo for MongoDB, or write a migrate.toml with `migrate init`"
            ],
        );
        check(
            "[postgres]\nurl = 'postgres://db/'",
            "--postgres '' --mongo mongodb://db/shop",
            expect!["mongo.url = mongodb://db/shop    --mongo"],
        );
        assert!(case("", "").load().expect("lint needs no database").stores().is_err());
    }

    #[test]
    fn settings_for_a_store_without_url_are_a_slip() {
        check(
            "[postgres]\nschema = 'x'\n[mongo]\nurl = 'mongodb://db/shop'",
            "",
            expect![[
                r#"CONFIG_NO_URL: migrate.toml:2:10: `postgres.schema` is set, but no URL for Postgres; set postgres.url, DATABASE_URL or --postgres; or postgres.url = "" to go without"#
            ]],
        );
        check(
            "[postgres]\nurl = ''\nschema = 'x'\n[mongo]\nurl = 'mongodb://db/shop'",
            "",
            expect!["mongo.url = mongodb://db/shop    migrate.toml:5"],
        );
    }

    #[test]
    fn the_history_stands_where_the_tables_stand() {
        check(
            "[postgres]\nschema = 'shop'",
            PG,
            expect![[r#"
            postgres.url = postgres://db/shop    --postgres
            postgres.schema = shop    migrate.toml:2
            history.schema = shop    postgres.schema"#]],
        );
        check(
            "[postgres]\nschema = 'shop'\n[history]\nschema = 'lockstep'",
            PG,
            expect![[r#"
            postgres.url = postgres://db/shop    --postgres
            postgres.schema = shop    migrate.toml:2
            history.schema = lockstep    migrate.toml:4"#]],
        );
        let config = case("", PG).load().expect("loads");
        assert_eq!(config.history_schema, "public");
    }

    #[test]
    fn vars_come_from_all_layers() {
        let toml = "[vars]\na = 'file'\nb = 'file'\nc = 'file'\nd = 4\ndb_password = 'hunter2'\nurl = 'postgres://app:hunter2@db'\n[env.p.vars]\nb = 'env.p'";
        let line = format!(
            "{PG} --env p MIGRATE_VAR_B=variable MIGRATE_VAR_C=variable MIGRATE_VAR_REGION=eu MIGRATE_VAR_EMPTY= --var c=flag --var shard-count=1 --var shard-count=2 MIGRATE_VAR_SHARD_COUNT=3"
        );
        let case =
            case(toml, &line).file(".env", "MIGRATE_VAR_REGION=us\nMIGRATE_VAR_TIER=free\nOTHER=1");
        case.check(expect![[r#"
            postgres.url = postgres://db/shop    --postgres
            vars.a = file    migrate.toml:2
            vars.b = variable    MIGRATE_VAR_B
            vars.c = flag    --var
            vars.d = 4    migrate.toml:5
            vars.db_password = ***    migrate.toml:6
            vars.empty =     MIGRATE_VAR_EMPTY
            vars.region = eu    MIGRATE_VAR_REGION
            vars.shard-count = 2    --var
            vars.tier = free    .env (MIGRATE_VAR_TIER)
            vars.url = postgres://app:***@db    migrate.toml:7"#]]);
        let config = case.load().expect("loads");
        assert_eq!(config.var("b"), Some("variable"));
        assert_eq!(config.var("Region"), Some("eu"), "as the environment spells it");
        assert_eq!(config.var("A"), None, "but names of the file mean what they say");
        let asked = load(&case.flags, case.folder.path(), &|name| {
            (name == "MIGRATE_VAR_A").then(|| "asked".to_owned())
        });
        assert_eq!(asked.expect("loads").var("a"), Some("asked"));
    }

    #[test]
    fn a_var_needs_a_name_that_a_template_can_have() {
        check(
            "",
            &format!("{PG} --var 1x=2"),
            expect![
                "CONFIG_VAR_NAME: --var 1x: this is no name for a variable; use letters, digits, _ and -, and begin with a letter or _"
            ],
        );
        check(
            "",
            &format!("{PG} --var =2"),
            expect![
                "CONFIG_VAR_NAME: --var : this is no name for a variable; use letters, digits, _ and -, and begin with a letter or _"
            ],
        );
    }

    #[test]
    fn nothing_shows_a_password() {
        let toml = "[postgres]\nurl = 'postgres://app:hunter2@db/shop'\n[mongo]\nurl = 'mongodb://db/shop?password=hunter2'\n[vars]\ntoken = 'hunter2'\n[hooks]\non_failure = ['curl --token hunter2', ['x', '--password=hunter2', '--token', 'hunter2']]";
        let case = case(toml, "");
        case.check(expect![[r#"
            postgres.url = postgres://app:***@db/shop    migrate.toml:2
            mongo.url = mongodb://db/shop?password=***    migrate.toml:4
            hooks.on_failure = ["curl --token ***", ["x", "--password=***", "--token", "***"]]    migrate.toml:8
            vars.token = ***    migrate.toml:6"#]]);
        let config = case.load().expect("loads");
        let Config { postgres, mongo, hooks, .. } = &config;
        let debug = format!("{config:?} {postgres:?} {mongo:?} {hooks:?} {:?}", config.origins);
        assert!(!debug.contains("hunter2"), "{debug}");
        let flags = Flags {
            postgres: Some("postgres://app:hunter2@db".to_owned()),
            vars: vec![own(("a", "hunter2"))],
            ..Flags::default()
        };
        assert!(!format!("{flags:?}").contains("hunter2"));
    }

    const DOCUMENT: &str = include_str!("../../docs/config.md");

    #[test]
    fn the_files_in_the_document_are_valid() {
        let blocks: Vec<&str> = DOCUMENT.split("```toml\n").skip(1).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let (toml, _) = block.split_once("```").expect("a block ends");
            let line =
                "DATABASE_URL=postgres://db/shop MONGODB_URI=mongodb://db/shop --env production";
            case(toml, line).load().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn the_document_has_every_variable_and_every_code() {
        let variables = [StoreName::Postgres, StoreName::Mongo].map(stores::variables);
        for name in variables.concat().iter().chain(&["MIGRATE_ENV", "MIGRATE_VAR_NAME"]) {
            assert!(DOCUMENT.contains(&format!("`{name}`")), "{name}");
        }
        let source = include_str!("config.rs");
        let codes = source.split("=> \"CONFIG_").skip(1).filter_map(|rest| rest.split('"').next());
        assert_eq!(codes.clone().count(), 11);
        for code in codes {
            assert!(DOCUMENT.contains(&format!("| `CONFIG_{code}` |")), "{code}");
        }
    }
}
