//! The binary `migrate`: what people type, and what they read.
//!
//! Only this module and [`report`] print; only [`config`] reads the environment.
//!
//! [`report`]: crate::report

pub mod args;
pub mod commands;
pub mod config;
pub mod output;
pub mod project;
pub mod telemetry;

pub use crate::failure;
pub use crate::failure::exit;

use crate::report::human::say;
use args::{Cli, Command};
use clap::Parser;
use config::secret::redacted;
use exit::Exit;
use failure::Failure;
use output::Output;
use std::ffi::OsString;
use tokio::runtime::{Builder, Runtime};

/// Dies, or stops, at a failpoint, and says at which.
#[cfg(feature = "failpoints")]
fn arm_failpoint() {
    fn happens(place: &'static str, signal: rustix::process::Signal) {
        eprintln!("failpoint: {place}");
        let ourselves = rustix::process::getpid();
        rustix::process::kill_process(ourselves, signal).expect("a process may end itself");
    }
    crate::failpoint::arm(config::failpoint([
        |place| happens(place, rustix::process::Signal::KILL),
        |place| happens(place, rustix::process::Signal::STOP),
    ]));
}

/// Runs the command line and ends with its exit code.
pub fn run() -> ! {
    #[cfg(feature = "failpoints")]
    arm_failpoint();
    let cli = read().unwrap_or_else(|code| std::process::exit(code.into()));
    let runtime = runtime(&cli.command);
    let code = runtime.block_on(answer(cli));
    // Before the runtime does: the MongoDB driver still says goodbye to the server, and
    // panics when that is taken away from it.
    std::process::exit(code.into())
}

/// One thread for all that waits for servers: an answer that wakes another one costs more
/// than what is done with it, of a copy about half of our time. Only who asks us must not
/// wait until something else is done.
fn runtime(command: &Command) -> Runtime {
    let mut runtime = match command {
        #[cfg(feature = "serve")]
        Command::Serve(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    runtime.enable_all().build().expect("there is a thread, and it can wait for files")
}

/// The command line; or, where it says no command, the exit code.
fn read() -> Result<Cli, u8> {
    let error = match Cli::try_parse() {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    // Help and version are answers; everything else is a usage error.
    let said = error.to_string();
    // What help says of tokens is no secret.
    let shown = if error.use_stderr() { redacted(&said) } else { said.clone() };
    if error.use_stderr() && asks_for_json(std::env::args_os()) {
        let failure = Failure::new(Exit::Usage, "USAGE", gist(&shown))
            .next("`migrate --help` lists the commands, `migrate COMMAND --help` the flags of one");
        let output = Output::new(&Cli::parse_from(["migrate", "man", "--output=json"]).global);
        output.failure(&failure);
    } else if shown == said {
        let _ = error.print();
    } else {
        // A URL stands where none belongs, with its password.
        say(shown.trim_end());
    }
    Err(if error.use_stderr() { Exit::Usage.code() } else { Exit::Ok.code() })
}

async fn answer(cli: Cli) -> u8 {
    let output = Output::new(&cli.global);
    // On the heap: it holds every command's own.
    let result = Box::pin(dispatch(cli, &output)).await;
    match result {
        Ok(code) => code,
        Err(failure) => {
            if !failure.said {
                output.failure(&failure);
            }
            failure.exit.code()
        }
    }
}

/// Whether arguments that cannot be read ask for objects all the same.
fn asks_for_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let words: Vec<OsString> = arguments.take_while(|word| word != "--").collect();
    words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json")
}

/// What is wrong, without how the command is used.
fn gist(said: &str) -> String {
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let said = said.split("\n\nUsage:").next().unwrap_or(said);
    let said = said.split("\n\nFor more information").next().unwrap_or(said);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn dispatch(cli: Cli, output: &Output) -> Result<u8, Failure> {
    let global = &cli.global;
    let done = match cli.command {
        Command::Init(args) => commands::init::run(global, args, output)?,
        Command::New(args) => commands::new::run(global, &args, output)?,
        Command::Up(args) => Box::pin(commands::up::run(global, &args, output)).await?,
        Command::Down(args) => Box::pin(commands::down::run(global, &args, output)).await?,
        Command::Cleanup(args) => Box::pin(commands::cleanup::run(global, &args, output)).await?,
        Command::Plan(args) => commands::plan::run(global, &args, output).await?,
        Command::Status(args) => commands::status::run(global, args, output).await?,
        Command::Doctor => commands::doctor::run(global, output).await?,
        Command::History(args) => commands::history::run(global, &args, output).await?,
        Command::Verify => commands::verify::run(global, output).await?,
        Command::Lint(args) => commands::lint::run(global, &args, output)?,
        Command::Repair(args) => Box::pin(commands::repair::run(global, &args, output)).await?,
        Command::Baseline(args) => Box::pin(commands::baseline::run(global, &args, output)).await?,
        Command::Import(args) => Box::pin(commands::import::run(global, &args, output)).await?,
        Command::Unlock(args) => commands::unlock::run(global, &args, output).await?,
        Command::Backfill(args) => {
            let files = commands::backfill::files(&args.what);
            let mut project = project::Project::open_with(global, "backfill", files).await?;
            let limits = project.config.throttle.pace().limits;
            let project::Project { stores, set, run, .. } = &mut project;
            commands::backfill::run(&args.what, stores, set, (run, &limits), output).await?
        }
        Command::Backup(args) => commands::backup::run(global, &args, output).await?,
        Command::Sandbox(args) => return commands::sandbox::run(global, &args, output).await,
        #[cfg(feature = "serve")]
        Command::Serve(args) => Box::pin(commands::serve::run(global, &args, output)).await?,
        Command::Wait(args) => commands::wait::run(global, &args, output).await?,
        Command::Prove(_) => return Err(commands::prove::not_yet()),
        Command::Completions(args) => commands::completions::run(args, output),
        Command::Man => commands::man::run(output),
    };
    Ok(done.code())
}
