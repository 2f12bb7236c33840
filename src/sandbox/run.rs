//! A sandbox for as long as a command runs.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use super::{Notices, Options, Sandbox, SandboxError};

/// What the command finds Postgres by.
pub const POSTGRES_URL_VARIABLE: &str = "DATABASE_URL";
/// What the command finds MongoDB by.
pub const MONGO_VARIABLE: &str = "MONGODB_URI";

/// Other names of the same two settings. The command must not find a database
/// by them that is not the sandbox's.
const SYNONYMS: [&str; 4] = ["POSTGRESQL_URI", "POSTGRES_URL", "MONGODB_URL", "MONGO_URL"];

/// Why a command did not run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E: std::error::Error + 'static> {
    /// There are no servers.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The servers were there; what the caller does before the command failed.
    #[error(transparent)]
    Prepare(E),
    /// Everything was there but the command.
    #[error("failed to run `{}` in the sandbox", program.display())]
    Command {
        /// What was to be run.
        program: OsString,
        /// Why it could not be.
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("failed to listen for signals")]
    Signals {
        /// What the system said.
        source: io::Error,
    },
}

/// Starts the servers, calls `prepare`, runs `program` with `DATABASE_URL` and
/// `MONGODB_URI` set, waits for it and removes everything. Returns the exit
/// code to end with: the command's own, or 128 and the number of the signal
/// that ended it, or that ended the sandbox before the command began.
///
/// While the command runs, it is the one to decide what a Ctrl-C means: the
/// sandbox goes on until the command ends.
pub async fn run<E: std::error::Error + 'static>(
    options: &Options,
    program: &OsStr,
    args: &[OsString],
    notices: Notices<'_>,
    prepare: impl AsyncFnOnce(&Sandbox) -> Result<(), E>,
) -> Result<u8, RunError<E>> {
    let mut signals = Signals::listen().map_err(|source| RunError::Signals { source })?;
    let begin = async {
        let sandbox = Sandbox::start(options, notices).await?;
        prepare(&sandbox).await.map_err(RunError::Prepare)?;
        Ok::<Sandbox, RunError<E>>(sandbox)
    };
    let sandbox = tokio::select! {
        sandbox = begin => sandbox?,
        signal = signals.next() => return Ok(code_of_signal(signal.as_raw())),
    };

    let mut command = command(&sandbox, program, args);
    let failed = |source| RunError::Command { program: program.to_owned(), source };
    let child = command.spawn().map_err(failed)?;
    let status = wait(child, &mut signals).await.map_err(failed)?;
    sandbox.stop().await?;
    Ok(code(status))
}

fn command(sandbox: &Sandbox, program: &OsStr, args: &[OsString]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for variable in SYNONYMS {
        command.env_remove(variable);
    }
    let urls =
        [(POSTGRES_URL_VARIABLE, &sandbox.postgres_url), (MONGO_VARIABLE, &sandbox.mongo_uri)];
    for (variable, url) in urls {
        match url {
            Some(url) => command.env(variable, url),
            None => command.env_remove(variable),
        };
    }
    command
}

/// Waits for the command, whatever signals come.
async fn wait(mut child: Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                // A Ctrl-C in the terminal has reached the command as well. A
                // signal from elsewhere was sent to us alone.
                let typed = signal == Signal::INT && io::stdin().is_terminal();
                if !typed && let Some(pid) = pid(&child) {
                    // It may have ended by itself in this moment.
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The signals that would otherwise end this process before its command.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => code_of_signal(signal),
        (None, None) => unreachable!("a process that ended has a code or a signal"),
    }
}

fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ended_by_a_signal_has_the_code_a_shell_gives_it() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }
}
