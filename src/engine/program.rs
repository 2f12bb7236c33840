//! Runs a program of a migration's own, and whatever else a run starts.
//!
//! It runs without a shell, in the migration's folder, in a process group of its
//! own. The run that began it ends it: when it is asked to stop, when its lease is
//! lost, and when the program itself has ended and left something behind.

use crate::core::id::{Direction, Phase, StepName, Version};
use crate::core::notice::{Notice, Notices};
use crate::core::step::Program;
use crate::engine::{Stop, StopReason};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A program that is asked to stop has this long to do so by itself.
const GRACE: Duration = Duration::from_secs(10);

/// As good as never.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// What has left the group of a program that has ended may hold its output open;
/// nobody waits for it longer than this.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A longer line is passed on in pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// So many of its last lines are told when it fails.
const LINES_KEPT: usize = 10;

/// What a program gets to know.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Where the folders of the migrations are.
    pub migrations: &'a Path,
    /// The URL of Postgres, with its password.
    pub postgres_url: Option<&'a str>,
    /// The URL of MongoDB, with its password.
    pub mongo_url: Option<&'a str>,
    /// The run.
    pub run_id: &'a str,
    /// The migration.
    pub version: Version,
    /// Its step.
    pub step: &'a StepName,
    /// When it runs.
    pub phase: Phase,
    /// Which way.
    pub direction: Direction,
}

/// Every name under which programs look for a URL; a store that is not configured
/// has none of them, whatever this process inherited.
pub(super) fn url_variables(
    postgres_url: Option<&str>,
    mongo_url: Option<&str>,
) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let set = |names: [&'static str; 3], url: Option<&str>| {
        names.map(|name| (name, url.map(str::to_owned)))
    };
    let postgres = set(["DATABASE_URL", "POSTGRESQL_URI", "POSTGRES_URL"], postgres_url);
    let mongo = set(["MONGODB_URI", "MONGODB_URL", "MONGO_URL"], mongo_url);
    postgres.into_iter().chain(mongo)
}

impl Surroundings<'_> {
    fn variables(&self) -> Vec<(&'static str, Option<String>)> {
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        let ours = [
            ("LOCKSTEP_VERSION", Some(self.version.to_string())),
            ("LOCKSTEP_PHASE", Some(self.phase.word().to_owned())),
            ("LOCKSTEP_DIRECTION", Some(direction.to_owned())),
            ("LOCKSTEP_RUN_ID", Some(self.run_id.to_owned())),
        ];
        url_variables(self.postgres_url, self.mongo_url).chain(ours).collect()
    }
}

/// Why a program did not do what it was to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProgramError {
    /// It did not begin.
    NotStarted {
        /// The command.
        command: String,
        /// What the operating system said.
        said: String,
        /// What to do.
        hint: String,
    },
    /// It said that it failed, or was killed by somebody else.
    Failed {
        /// The command.
        command: String,
        /// `exit code 1`, `signal 9`.
        how: String,
        /// The last lines of its standard error.
        last: Vec<String>,
    },
    /// It was ended because the run was to stop.
    Stopped(StopReason),
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramError::NotStarted { command, said, .. } => {
                write!(f, "the program `{command}` could not be started: {said}")
            }
            ProgramError::Failed { command, how, .. } => {
                write!(f, "the program `{command}` failed with {how}")
            }
            ProgramError::Stopped(reason) => write!(f, "the program was ended: {reason}"),
        }
    }
}

impl std::error::Error for ProgramError {}

/// Runs a program to its end. What it writes becomes notices, line by line.
///
/// When this is dropped, the program and all that it started in its group are
/// killed.
///
/// # Errors
/// [`ProgramError`].
pub async fn run(
    program: &Program,
    surroundings: &Surroundings<'_>,
    stop: &Stop,
    notices: &mut dyn Notices,
) -> Result<(), ProgramError> {
    let command = program.command.join(" ");
    let folder = surroundings.migrations.join(&program.folder);
    let launch = Launch {
        command: &program.command,
        folder: &folder,
        variables: surroundings.variables(),
        input: None,
        limit: None,
    };
    let mut stop = stop.clone();
    let mut tell = |line: String, is_error: bool| {
        let (version, step) = (surroundings.version, surroundings.step.clone());
        notices.notice(Notice::ProgramSaid { version, step, is_error, line });
    };
    match launch.run(stop.wait(), &mut tell).await {
        Ok(Ended::Well) => Ok(()),
        Ok(Ended::Stopped(reason)) => Err(ProgramError::Stopped(reason)),
        Ok(Ended::Badly { how, last }) => Err(ProgramError::Failed { command, how, last }),
        Ok(Ended::TooLong { .. }) => unreachable!("it has no limit"),
        Err(error) => {
            let hint = not_started(&program.command, &folder, &error);
            Err(ProgramError::NotStarted { command, said: error.to_string(), hint })
        }
    }
}

/// A program that is about to run.
pub(super) struct Launch<'a> {
    /// The program and its arguments.
    pub command: &'a [String],
    /// Where it runs.
    pub folder: &'a Path,
    /// What is set, or taken out, of its environment.
    pub variables: Vec<(&'static str, Option<String>)>,
    /// What it may read; without, there is nothing to read.
    pub input: Option<&'a [u8]>,
    /// It is ended after this long.
    pub limit: Option<Duration>,
}

/// How a program ended.
pub(super) enum Ended {
    /// As it should.
    Well,
    /// It said that it failed, or was killed by somebody else.
    Badly {
        /// `exit code 1`, `signal 9`.
        how: String,
        /// The last lines of its standard error.
        last: Vec<String>,
    },
    /// It was ended because somebody asked to stop.
    Stopped(StopReason),
    /// It was ended because its time was over.
    TooLong {
        /// The last lines of its standard error.
        last: Vec<String>,
    },
}

/// Why a program is ended.
#[derive(Clone, Copy)]
enum Why {
    Stopped(StopReason),
    TooLong,
}

impl Launch<'_> {
    /// Runs it to its end, which comes early when `stop` does. Each line goes to
    /// `tell`, with whether it is one of standard error.
    ///
    /// When this is dropped, the program and all that it started in its group are
    /// killed.
    ///
    /// # Errors
    /// It could not be started.
    pub(super) async fn run(
        &self,
        stop: impl Future<Output = StopReason>,
        tell: &mut dyn FnMut(String, bool),
    ) -> io::Result<Ended> {
        let mut group = Group::start(self)?;
        let mut stdout = Lines::new(group.child.stdout.take());
        let mut stderr = Lines::new(group.child.stderr.take());
        let mut last = VecDeque::new();
        let mut tell = |line: String, is_error: bool| {
            if is_error {
                if last.len() == LINES_KEPT {
                    last.pop_front();
                }
                last.push_back(line.clone());
            }
            tell(line, is_error);
        };
        let mut ended_by = None;
        // It has not been asked to stop yet: far away.
        let patience = tokio::time::sleep(FOREVER);
        let limit = tokio::time::sleep(self.limit.unwrap_or(FOREVER));
        let feed = feed(group.child.stdin.take(), self.input);
        tokio::pin!(patience, limit, stop, feed);
        let mut is_fed = false;
        let ended = loop {
            let why = tokio::select! {
                Some(line) = stdout.next() => { tell(line, false); continue }
                Some(line) = stderr.next() => { tell(line, true); continue }
                () = &mut feed, if !is_fed => { is_fed = true; continue }
                ended = group.child.wait() => break ended,
                reason = &mut stop, if ended_by.is_none() => Why::Stopped(reason),
                () = &mut limit, if ended_by.is_none() => Why::TooLong,
                () = &mut patience => {
                    group.signal(Signal::KILL);
                    patience.as_mut().reset(tokio::time::Instant::now() + FOREVER);
                    continue;
                }
            };
            ended_by = Some(why);
            group.signal(Signal::TERM);
            patience.as_mut().reset(tokio::time::Instant::now() + GRACE);
        };
        // What it left running would go on without a lease. From here on its number
        // may be another's.
        group.signal(Signal::KILL);
        group.id = None;
        let words = async {
            loop {
                tokio::select! {
                    Some(line) = stdout.next() => tell(line, false),
                    Some(line) = stderr.next() => tell(line, true),
                    else => break,
                }
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, words).await;
        let last = last.into_iter().collect();
        Ok(match (ended_by, ended) {
            (Some(Why::Stopped(reason)), _) => Ended::Stopped(reason),
            (Some(Why::TooLong), _) => Ended::TooLong { last },
            (None, Ok(status)) if status.success() => Ended::Well,
            (None, Ok(status)) => Ended::Badly { how: how(status), last },
            (None, Err(error)) => {
                Ended::Badly { how: format!("an end that nobody saw ({error})"), last }
            }
        })
    }
}

/// Gives a program what it may read. One that does not want it is free not to.
async fn feed(stdin: Option<ChildStdin>, input: Option<&[u8]>) {
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        let _ = stdin.write_all(input).await;
    }
}

/// A program and what it started.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn start(launch: &Launch<'_>) -> io::Result<Group> {
        let Some((name, arguments)) = launch.command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        let mut command = Command::new(name);
        command
            .args(arguments)
            .current_dir(launch.folder)
            .stdin(if launch.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        for (name, value) in &launch.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn()?;
        // The first process of a group gives it its number.
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Group { child, id })
    }

    /// To every process of the group that is still there.
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The lines of a stream as they come.
struct Lines<R> {
    reader: Option<BufReader<R>>,
    /// What came since the last end of a line.
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(stream: Option<R>) -> Lines<R> {
        Lines { reader: stream.map(BufReader::new), line: Vec::new() }
    }

    /// The next line. May be dropped at any time without losing any of it.
    async fn next(&mut self) -> Option<String> {
        loop {
            let reader = self.reader.as_mut()?;
            let seen = match reader.fill_buf().await {
                Ok(bytes) if !bytes.is_empty() => bytes,
                Ok(_) | Err(_) => {
                    self.reader = None;
                    let rest = std::mem::take(&mut self.line);
                    return (!rest.is_empty()).then(|| text(&rest));
                }
            };
            let room = LINE_BYTES_MAX - self.line.len();
            let seen = &seen[..seen.len().min(room)];
            let end = seen.iter().position(|byte| *byte == b'\n');
            self.line.extend_from_slice(&seen[..end.unwrap_or(seen.len())]);
            let used = end.map_or(seen.len(), |end| end + 1);
            reader.consume(used);
            if end.is_some() || self.line.len() == LINE_BYTES_MAX {
                return Some(text(&std::mem::take(&mut self.line)));
            }
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches('\r').to_owned()
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// What to do about a program of a migration that could not be started.
fn not_started(command: &[String], folder: &Path, error: &io::Error) -> String {
    let name = command.first().map(String::as_str).unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound if !folder.is_dir() => {
            format!("it runs in {}, which is not there", folder.display())
        }
        io::ErrorKind::NotFound if folder.join(name).is_file() && !name.contains('/') => {
            format!("it is a file of the migration's folder: write `./{name}`")
        }
        io::ErrorKind::NotFound if name.contains('/') => format!(
            "is `{name}` in {}, where the program runs? If it is a script, is the program there that its first line names?",
            folder.display()
        ),
        io::ErrorKind::NotFound => format!(
            "install `{name}` where `migrate` runs, or put it into the migration's folder and write `./{name}`; a script also needs the program that its first line names"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "make it executable (`chmod +x {name}`), or name what runs it: [\"sh\", \"{name}\"]"
            )
        }
        _ => format!(
            "is it a program for this machine? A script begins with a line like `#!/bin/sh`, or is named with what runs it: [\"sh\", \"{name}\"]"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::StoreName;
    use tempfile::TempDir;

    struct Said {
        result: Result<(), ProgramError>,
        lines: Vec<String>,
    }

    fn program(words: &[&str]) -> Program {
        Program {
            title: "x".to_owned(),
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            folder: "007-x".to_owned(),
            store: StoreName::Postgres,
        }
    }

    fn folder() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("007-x")).expect("a folder in it");
        folder
    }

    async fn run_in(
        folder: &Path,
        words: &[&str],
        stop: &Stop,
        seen: &mut dyn FnMut(&str),
    ) -> Said {
        let mut lines = Vec::new();
        let mut notices = |notice: Notice| {
            if let Notice::ProgramSaid { is_error, line, .. } = notice {
                seen(&line);
                lines.push(format!("{}{line}", if is_error { "! " } else { "" }));
            }
        };
        let step: StepName = "execute/x".parse().expect("a name");
        let surroundings = Surroundings {
            migrations: folder,
            postgres_url: Some("postgres://p"),
            mongo_url: None,
            run_id: "a",
            version: Version(7),
            step: &step,
            phase: Phase::Execute,
            direction: Direction::Up,
        };
        let result = run(&program(words), &surroundings, stop, &mut notices).await;
        Said { result, lines }
    }

    async fn sh(script: &str) -> Said {
        let (_handle, stop) = Stop::new();
        run_in(folder().path(), &["sh", "-c", script], &stop, &mut |_| {}).await
    }

    #[tokio::test]
    async fn it_runs_in_its_folder_with_both_urls() {
        let script = "basename $PWD; echo $DATABASE_URL $POSTGRESQL_URI $POSTGRES_URL; \
             echo ${MONGODB_URI-none} ${MONGODB_URL-none} ${MONGO_URL-none}; \
             echo $LOCKSTEP_VERSION $LOCKSTEP_PHASE $LOCKSTEP_DIRECTION $LOCKSTEP_RUN_ID; cat";
        let said = sh(script).await;
        assert_eq!(said.result, Ok(()));
        let expected = [
            "007-x",
            "postgres://p postgres://p postgres://p",
            "none none none",
            &format!("{} execute up a", Version(7)),
        ];
        assert_eq!(said.lines, expected);
    }

    #[tokio::test]
    async fn what_it_says_comes_line_by_line() {
        let said = sh("printf 'a\\r\\nb\\377\\n\\nend'; printf 'x' >&2").await;
        assert_eq!(said.result, Ok(()));
        let (errors, lines): (Vec<_>, Vec<_>) =
            said.lines.into_iter().partition(|line| line.starts_with("! "));
        assert_eq!(lines, ["a", "b\u{fffd}", "", "end"]);
        assert_eq!(errors, ["! x"]);
        let long = sh("head -c 20000 /dev/zero | tr '\\0' x").await;
        let lengths: Vec<usize> = long.lines.iter().map(String::len).collect();
        assert_eq!(lengths, [8192, 8192, 3616]);
    }

    #[tokio::test]
    async fn one_that_fails_is_told_with_its_last_words() {
        let said = sh("for i in $(seq 1 30); do echo line $i >&2; done; exit 3").await;
        let Err(ProgramError::Failed { how, last, command }) = said.result else {
            panic!("{:?}", said.result);
        };
        assert_eq!(how, "exit code 3");
        assert!(command.starts_with("sh -c for i"), "{command}");
        assert_eq!(last.len(), LINES_KEPT);
        assert_eq!(last.last().map(String::as_str), Some("line 30"));
        let said = sh("kill -9 $$").await;
        let Err(ProgramError::Failed { how, .. }) = said.result else { panic!("it was killed") };
        assert_eq!(how, "signal 9");
    }

    #[tokio::test]
    async fn one_that_cannot_be_started_is_told_with_what_to_do() {
        let folder = folder();
        let (_handle, stop) = Stop::new();
        let file = folder.path().join("007-x/mine.sh");
        std::fs::write(&file, "#!/bin/sh\necho hello\n").expect("a file");
        for (words, expected) in [
            (["no-such-program"], "install `no-such-program`"),
            (["mine.sh"], "write `./mine.sh`"),
            (["./mine.sh"], "chmod +x ./mine.sh"),
        ] {
            let said = run_in(folder.path(), &words, &stop, &mut |_| {}).await;
            let Err(ProgramError::NotStarted { hint, .. }) = said.result else {
                panic!("{words:?}: {:?}", said.result);
            };
            assert!(hint.contains(expected), "{words:?}: {hint}");
        }
        let said = run_in(&folder.path().join("gone"), &["true"], &stop, &mut |_| {}).await;
        let Err(ProgramError::NotStarted { hint, .. }) = said.result else { panic!("no folder") };
        assert!(hint.ends_with("which is not there"), "{hint}");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))
            .expect("it is ours");
        let said = run_in(folder.path(), &["./mine.sh"], &stop, &mut |_| {}).await;
        assert_eq!((said.result, said.lines), (Ok(()), vec!["hello".to_owned()]));
    }

    /// Whether a process is there and not only waits to be buried.
    fn is_alive(id: &str) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = state.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned());
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    async fn wait_until_gone(id: &str) {
        let waiting = async {
            while is_alive(id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it is killed");
    }

    #[tokio::test]
    async fn a_run_that_stops_ends_it_and_all_that_it_started() {
        let (handle, stop) = Stop::new();
        let mut child = String::new();
        let script = "sleep 1000 & trap 'echo bye; exit 0' TERM; echo $!; wait";
        let said = run_in(folder().path(), &["sh", "-c", script], &stop, &mut |line| {
            if child.is_empty() {
                line.clone_into(&mut child);
                handle.send_replace(Some(StopReason::Interrupted));
            }
        })
        .await;
        assert_eq!(said.result, Err(ProgramError::Stopped(StopReason::Interrupted)));
        assert_eq!(said.lines.last().map(String::as_str), Some("bye"));
        wait_until_gone(&child).await;
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_kills_it_and_all_that_it_started() {
        let (_handle, stop) = Stop::new();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let folder = folder();
        let script = "trap '' TERM; sleep 1000 & echo $!; echo $$; wait";
        let words = ["sh", "-c", script];
        let mut tell = |line: &str| drop(sender.send(line.to_owned()));
        let ids = tokio::select! {
            said = run_in(folder.path(), &words, &stop, &mut tell) => panic!("{:?}", said.result),
            ids = async { (receiver.recv().await, receiver.recv().await) } => ids,
        };
        wait_until_gone(&ids.0.expect("its child")).await;
        wait_until_gone(&ids.1.expect("itself")).await;
    }

    #[tokio::test]
    async fn what_it_leaves_behind_is_killed_and_not_waited_for() {
        let said = sh("sleep 1000 & echo $!").await;
        assert_eq!(said.result, Ok(()));
        wait_until_gone(&said.lines[0]).await;
    }
}
