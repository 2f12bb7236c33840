//! Owns the folder and the processes of a sandbox, and sees that they end.
//!
//! The first process started is the reaper, a shell script in a process group
//! of its own that waits for its stdin to end. Only this process holds the
//! other end of that pipe, so it ends with this process, whatever ended it:
//! `return`, `?`, a panic, Ctrl-C, `kill -9`. Then the reaper stops what was
//! started and removes the folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{POLL, SandboxError};

/// The script itself; also written into a folder that is kept, as `stop`.
const SCRIPT: &str = include_str!("reaper.sh");

/// Runs in a new process before it becomes a server. It is on record before
/// it is one, so no moment exists in which the reaper would overlook it.
const RECORD: &str = r#"echo "$$" >"$1" || exit 1; shift; exec "$@""#;

/// The reaper gives servers eight seconds and the folder five.
const REAPER_LIMIT: Duration = Duration::from_secs(30);

/// How much of a log's end is read for an error.
const TAIL_BYTES: u64 = 16 * 1024;
/// How many lines of it are shown.
const TAIL_LINES: usize = 15;

/// An account that a server runs under, other than our own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// A program to start. Its arguments must name the sandbox's folder: that is
/// how the reaper knows it again.
pub(super) struct Process<'a> {
    /// The name of its log and of its record.
    pub name: &'a str,
    pub program: &'a Path,
    pub args: Vec<OsString>,
    /// `None` for our own account.
    pub user: Option<&'a User>,
}

/// A process that was started by [`Reaper::spawn`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Pid(pub u32);

/// The folder of a sandbox and all processes in it.
///
/// Invariant: while this value lives, no process of [`Self::children`] is
/// waited for except here, so no number in `pids/` can belong to a stranger.
pub(super) struct Reaper {
    dir: PathBuf,
    process: Child,
    /// `None` once it was closed.
    pipe: Option<ChildStdin>,
    children: Mutex<BTreeMap<u32, (String, Child)>>,
}

impl Reaper {
    /// Starts the reaper, then makes its folder in `parent`: in this order,
    /// because what the reaper does not know of yet cannot be removed.
    pub fn start(parent: &Path, access: Access) -> Result<Reaper, SandboxError> {
        let parent = parent
            .canonicalize()
            .map_err(|source| SandboxError::Folder { dir: parent.to_owned(), source })?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let dir = parent.join(format!("lockstep-{}", &id[..12]));
        let mut process = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "lockstep-reaper"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| SandboxError::Spawn { program: "/bin/sh".into(), source })?;
        let pipe = process.stdin.take();
        let reaper = Reaper { dir, process, pipe, children: Mutex::default() };
        reaper.make_folder(access)?;
        Ok(reaper)
    }

    fn make_folder(&self, access: Access) -> Result<(), SandboxError> {
        let failed = |source| SandboxError::Folder { dir: self.dir.clone(), source };
        // Fails where the folder exists: nobody else's is ever used.
        DirBuilder::new().mode(0o700).create(&self.dir).map_err(failed)?;
        fs::create_dir(self.dir.join("pids")).map_err(failed)?;
        if access == Access::Traversable {
            let mode = fs::Permissions::from_mode(0o711);
            fs::set_permissions(&self.dir, mode.clone()).map_err(failed)?;
            fs::set_permissions(self.dir.join("pids"), mode).map_err(failed)?;
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a folder in the sandbox's own, for `user` if there is one.
    pub fn folder(&self, name: &str, user: Option<&User>) -> Result<PathBuf, SandboxError> {
        let path = self.dir.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| chown(&path, user))
            .map_err(|source| SandboxError::Folder { dir: path.clone(), source })?;
        Ok(path)
    }

    /// Starts a program in a process group of its own, so that a Ctrl-C in the
    /// terminal does not reach it; its output goes to its log.
    pub fn spawn(&self, process: &Process) -> Result<Pid, SandboxError> {
        let failed = |source| SandboxError::Spawn { program: process.program.to_owned(), source };
        let log = File::create(self.log(process.name)).map_err(failed)?;
        let record = self.record(process.name);
        // The file is made here and handed over, because the folder is not the
        // other account's to write in.
        File::create(&record).and_then(|_| chown(&record, process.user)).map_err(failed)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", RECORD, "sh"])
            .arg(&record)
            .arg(process.program)
            .args(&process.args)
            .current_dir("/")
            // Messages are searched for words, and shown as they are.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stderr(log.try_clone().map_err(failed)?)
            .stdout(log)
            .process_group(0);
        if let Some(user) = process.user {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn().map_err(|source| {
            let _ = fs::remove_file(&record);
            failed(source)
        })?;
        let pid = child.id();
        self.children
            .lock()
            .expect("nothing panics while it holds the children")
            .insert(pid, (process.name.to_owned(), child));
        Ok(Pid(pid))
    }

    /// How the process ended, if it did; then it is forgotten.
    pub fn ended(&self, pid: Pid) -> Result<Option<ExitStatus>, SandboxError> {
        let mut children =
            self.children.lock().expect("nothing panics while it holds the children");
        let Some((name, child)) = children.get_mut(&pid.0) else { return Ok(None) };
        let ended = child
            .try_wait()
            .map_err(|source| SandboxError::Wait { program: name.clone(), source })?;
        if ended.is_some() {
            // Before its number can be given to another process.
            let _ = fs::remove_file(self.record(name));
            children.remove(&pid.0);
        }
        Ok(ended)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.dir.join("pids").join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The last lines of a program's log.
    pub fn log_tail(&self, name: &str) -> String {
        tail(&self.log(name)).unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }

    /// From now on the servers outlive this process. Returns the script that
    /// stops them and removes the folder.
    pub fn keep(&mut self) -> Result<PathBuf, SandboxError> {
        let stop = self.dir.join("stop");
        let failed = |source| SandboxError::Folder { dir: stop.clone(), source };
        fs::write(&stop, SCRIPT).map_err(failed)?;
        fs::set_permissions(&stop, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        if let Some(pipe) = &mut self.pipe {
            pipe.write_all(b"keep\n").map_err(failed)?;
        }
        self.close();
        Ok(stop)
    }

    /// Closes the pipe and waits for the reaper. True when its folder is gone.
    pub fn close(&mut self) -> bool {
        drop(self.pipe.take());
        let begun = Instant::now();
        loop {
            // Waited for as well: nobody else can, and they would stay as zombies.
            for (_, child) in
                self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner).values_mut()
            {
                let _ = child.try_wait();
            }
            if !matches!(self.process.try_wait(), Ok(None)) || begun.elapsed() > REAPER_LIMIT {
                return !self.dir.exists();
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.close();
    }
}

/// Who may pass through the folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// Only our own account.
    Private,
    /// Servers run under another one.
    Traversable,
}

fn chown(path: &Path, user: Option<&User>) -> io::Result<()> {
    match user {
        Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_to_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> = (0..10_000).map(|line| format!("line {line}")).collect();
        fs::write(file.path(), lines.join("\n")).unwrap();
        let tail = tail(file.path()).unwrap();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 9999"), "{tail}");
    }

    #[test]
    fn a_folder_that_is_not_a_sandbox_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let stop = dir.path().join("stop");
        fs::write(&stop, SCRIPT).unwrap();
        let status = Command::new("/bin/sh").arg(&stop).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success());
        assert!(stop.exists());
    }
}
