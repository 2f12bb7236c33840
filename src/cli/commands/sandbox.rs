//! `migrate sandbox`.

use crate::cli::args::{self, Global};
use crate::cli::config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::this_run;
use crate::core::causes::chain;
use crate::core::parse::{mongosh, sql};
use crate::core::problem::Problem;
use crate::core::step::PgStep;
use crate::sandbox::{self, Options, RunError, Sandbox, With};
use crate::store::mongo::{Mongo, MongoConfig};
use crate::store::postgres::{Postgres, PostgresConfig};
use crate::store::{Store, StoreError};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where the test data is.
const FIXTURES: &str = "fixtures";

/// Runs the command. Its exit code is that of COMMAND.
///
/// # Errors
/// Exit code 7 when no servers can be had, 2 when the fixtures are wrong.
pub async fn run(global: &Global, args: &args::Sandbox, output: &Output) -> Result<u8, Failure> {
    let mut options = Options::new(&config::variable);
    options.keep = args.keep;
    options.with = match args.with {
        args::With::Auto => With::Auto,
        args::With::Programs => With::Programs,
        args::With::Docker => With::Docker,
    };
    let shell = OsString::from(config::variable("SHELL").unwrap_or_else(|| "/bin/sh".to_owned()));
    let (program, rest): (&OsStr, &[OsString]) = match args.command.split_first() {
        Some((program, rest)) => (program, rest),
        None => (&shell, &[]),
    };
    let base = global.config.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let fixtures = base.join(FIXTURES);
    let notices = |notice: sandbox::Notice| output.remark(&notice.to_string());
    let load = async |sandbox: &Sandbox| load_fixtures(sandbox, &fixtures, output).await;
    let code = sandbox::run(&options, program, rest, &notices, load).await;
    code.map_err(|error| match error {
        RunError::Prepare(FixtureError::Problems(problems)) => Failure::of_problems(problems),
        RunError::Prepare(FixtureError::Store { file, source }) => {
            let mut failure = Failure::from(source);
            failure.place = Some((file, None));
            failure
        }
        error => Failure::new(Exit::Unreachable, "NO_SANDBOX", chain(&error)),
    })
}

#[derive(Debug, thiserror::Error)]
enum FixtureError {
    #[error("the fixtures cannot be read")]
    Problems(Vec<Problem>),
    #[error("failed to load {file}")]
    Store {
        file: String,
        #[source]
        source: StoreError,
    },
}

/// Loads the fixtures of version 000: what was there before any migration.
async fn load_fixtures(
    sandbox: &Sandbox,
    folder: &Path,
    output: &Output,
) -> Result<(), FixtureError> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let problem = Problem::whole(folder.display().to_string(), error.to_string());
            return Err(FixtureError::Problems(vec![problem]));
        }
    };
    files.sort();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let digits = name.split(['-', '_']).next().unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|digit| digit == b'0') {
            continue;
        }
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|error| {
            FixtureError::Problems(vec![Problem::whole(&shown, error.to_string())])
        })?;
        let text = crate::core::checksum::normalize(&text);
        let in_file = |problems: Vec<Problem>| {
            FixtureError::Problems(problems.into_iter().map(|it| it.file(&shown)).collect())
        };
        let failed = |source| FixtureError::Store { file: shown.clone(), source };
        if path.extension().is_some_and(|extension| extension == "sql") {
            let statements = sql::read(&text).map_err(in_file)?;
            let Some(url) = &sandbox.postgres_url else { continue };
            load_sql(url, statements).await.map_err(failed)?;
        } else if name.ends_with(".mongodb.js") {
            let statements = mongosh::read(&text).map_err(in_file)?;
            let Some(url) = &sandbox.mongo_uri else { continue };
            load_mongo(url, statements).await.map_err(failed)?;
        } else {
            continue;
        }
        output.remark(&format!("loaded {shown}"));
    }
    Ok(())
}

async fn load_sql(
    url: &str,
    statements: Vec<crate::core::step::SqlStatement>,
) -> Result<(), StoreError> {
    let config = PostgresConfig::parse(url).expect("the sandbox writes its URLs itself");
    let mut store = Postgres::connect(config, &this_run("sandbox").id).await?;
    for statement in statements {
        let step = PgStep { statements: vec![statement], ..PgStep::default() };
        store.perform(&step).await?;
    }
    Ok(())
}

async fn load_mongo(url: &str, statements: Vec<mongosh::Statement>) -> Result<(), StoreError> {
    let config = MongoConfig::parse(url).await.expect("the sandbox writes its URLs itself");
    let mut store = Mongo::connect(config, &this_run("sandbox").id).await?;
    for statement in statements {
        store.perform(&statement.step).await?;
    }
    Ok(())
}
