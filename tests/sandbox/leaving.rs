//! Every way out. A process to be killed is this test binary again, running
//! one of the tests named `parent_…`, which are nothing otherwise.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lockstep::core::id::StoreName;
use lockstep::sandbox::{Notice, Options, RunError, Sandbox, run};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{folder, is_empty, options, processes, script, support, until};

/// Names the folder of the parent to be killed, and makes it one.
const PARENT: &str = "LOCKSTEP_TEST_PARENT";

/// Starts one of the parents below.
fn parent(test: &str, temp: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("leaving::{test}"), "--nocapture"])
        .env(PARENT, temp)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn parent_folder() -> Option<PathBuf> {
    std::env::var_os(PARENT).map(PathBuf::from)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

fn start(options: &Options) -> Sandbox {
    support::block_on(|| Sandbox::start(options, &|_: Notice| {})).unwrap()
}

fn run_command(
    options: &Options,
    program: &str,
    args: &[&str],
) -> Result<u8, RunError<Infallible>> {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let prepare = async |_: &Sandbox| Ok(());
    support::block_on(|| run(options, program.as_ref(), &args, &|_: Notice| {}, prepare))
}

fn run_shell(options: &Options, text: &str) -> u8 {
    run_command(options, "sh", &["-c", text]).unwrap()
}

/// Whatever ended the parent, nothing is left of its sandbox.
fn assert_nothing_is_left(temp: &Path) {
    until("the folder to be removed", || is_empty(temp));
    until("the processes to end", || processes(temp).is_empty());
}

#[test]
fn parent_that_waits_for_ever() {
    let Some(temp) = parent_folder() else { return };
    let sandbox = start(&options(&temp));
    fs::write(temp.join("ready"), sandbox.dir.to_str().unwrap()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn parent_with_a_static() {
    let Some(temp) = parent_folder() else { return };
    // `TMPDIR` is this parent's folder.
    fs::write(temp.join("ready"), &support::servers().postgres_url).unwrap();
}

#[test]
fn parent_that_panics() {
    let Some(temp) = parent_folder() else { return };
    let _sandbox = start(&options(&temp));
    panic!("with servers running");
}

#[test]
fn parent_that_runs_a_command() {
    let Some(temp) = parent_folder() else { return };
    let command = format!("echo $$ >{}/ready; exec tail -f /dev/null", temp.display());
    let code = run_shell(&options(&temp), &command);
    fs::write(temp.join("code"), code.to_string()).unwrap();
}

fn killed_while_it_waits(with: Signal) {
    let temp = folder();
    let mut parent = parent("parent_that_waits_for_ever", temp.path());
    until("the servers to answer", || temp.path().join("ready").exists());
    assert!(processes(temp.path()).len() >= 3, "the reaper and two servers");
    signal(&parent, with);
    assert_eq!(parent.wait().unwrap().signal(), Some(with.as_raw()));
    fs::remove_file(temp.path().join("ready")).unwrap();
    assert_nothing_is_left(temp.path());
}

#[test]
fn nothing_is_left_of_a_parent_that_was_killed() {
    killed_while_it_waits(Signal::KILL);
}

#[test]
fn nothing_is_left_of_a_parent_that_was_interrupted() {
    killed_while_it_waits(Signal::INT);
}

#[test]
fn nothing_is_left_of_a_parent_that_was_terminated() {
    killed_while_it_waits(Signal::TERM);
}

/// Not only in the quiet of running servers: initdb, the first start and the
/// election are interrupted wherever they happen to be.
#[test]
fn nothing_is_left_of_a_parent_that_was_killed_while_its_servers_started() {
    for files in 1..=6 {
        let temp = folder();
        let mut parent = parent("parent_that_waits_for_ever", temp.path());
        // Moments of the start, told by what exists in the folder.
        until("the start to get there", || {
            let made = fs::read_dir(temp.path())
                .unwrap()
                .flatten()
                .map(|dir| fs::read_dir(dir.path()).map_or(0, |files| files.flatten().count()));
            made.max().unwrap_or(0) >= files || temp.path().join("ready").exists()
        });
        signal(&parent, Signal::KILL);
        parent.wait().unwrap();
        let _ = fs::remove_file(temp.path().join("ready"));
        assert_nothing_is_left(temp.path());
    }
}

#[test]
fn nothing_is_left_of_a_parent_that_panicked() {
    let temp = folder();
    let mut parent = parent("parent_that_panics", temp.path());
    assert!(!parent.wait().unwrap().success());
    assert_nothing_is_left(temp.path());
}

#[test]
fn nothing_is_left_of_servers_in_a_static() {
    let temp = folder();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leaving::parent_with_a_static"])
        .env(PARENT, temp.path())
        .env("TMPDIR", temp.path())
        .env_remove("LOCKSTEP_TEST_POSTGRES")
        .env_remove("LOCKSTEP_TEST_MONGO")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert!(parent.wait().unwrap().success());
    fs::remove_file(temp.path().join("ready")).unwrap();
    assert_nothing_is_left(temp.path());
}

#[test]
fn a_signal_goes_to_the_command_and_its_end_is_waited_for() {
    for (with, code) in [(Signal::TERM, "143"), (Signal::INT, "130")] {
        let temp = folder();
        let mut parent = parent("parent_that_runs_a_command", temp.path());
        until("the command to run", || temp.path().join("ready").exists());
        signal(&parent, with);
        assert!(parent.wait().unwrap().success());
        assert_eq!(fs::read_to_string(temp.path().join("code")).unwrap(), code);
        for file in ["ready", "code"] {
            fs::remove_file(temp.path().join(file)).unwrap();
        }
        // Not `until`: the parent itself had to wait for it.
        assert!(is_empty(temp.path()));
        assert_eq!(processes(temp.path()), [""; 0]);
    }
}

#[test]
fn a_command_left_behind_does_not_keep_the_servers() {
    let temp = folder();
    let mut parent = parent("parent_that_runs_a_command", temp.path());
    let ready = temp.path().join("ready");
    until("the command to run", || fs::read_to_string(&ready).is_ok_and(|pid| pid.ends_with('\n')));
    let command = fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
    let command = Pid::from_raw(command).unwrap();
    signal(&parent, Signal::KILL);
    parent.wait().unwrap();
    fs::remove_file(&ready).unwrap();
    assert_nothing_is_left(temp.path());
    assert!(test_kill_process(command).is_ok(), "it holds nothing that the reaper waits for");
    kill_process(command, Signal::KILL).unwrap();
}

#[test]
fn a_command_finds_the_servers_and_its_exit_code_is_returned() {
    let temp = folder();
    let options = Options { stores: vec![StoreName::Postgres], ..options(temp.path()) };
    let text = "case $DATABASE_URL in postgres://postgres@127.0.0.1:*/app) ;; *) exit 1;; esac
                [ -z \"${MONGODB_URI+set}${POSTGRES_URL+set}\" ] || exit 2
                exit 42";
    assert_eq!(run_shell(&options, text), 42);
    assert_eq!(run_shell(&options, "kill -9 $$"), 137);
    assert!(is_empty(temp.path()));
}

#[test]
fn a_command_that_is_not_there_leaves_nothing() {
    let temp = folder();
    let options = Options { stores: vec![StoreName::Postgres], ..options(temp.path()) };
    let error = run_command(&options, "/nowhere/command", &[]).unwrap_err();
    assert_eq!(error.to_string(), "failed to run `/nowhere/command` in the sandbox");
    assert!(is_empty(temp.path()));
}

#[test]
fn servers_that_are_kept_are_removed_by_their_script() {
    let temp = folder();
    let options = Options { keep: true, ..options(temp.path()) };
    assert_eq!(run_shell(&options, "true"), 0);
    let dir = fs::read_dir(temp.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(processes(temp.path()).len(), 2, "two servers and no reaper");
    let stopped = Command::new("sh").arg(dir.join("stop")).status().unwrap();
    assert!(stopped.success());
    assert_nothing_is_left(temp.path());
}

/// A number is not a process: it may have been given to another one since.
#[test]
fn a_stranger_with_the_number_of_a_server_is_left_alone() {
    let temp = folder();
    let options = Options { keep: true, stores: vec![StoreName::Postgres], ..options(temp.path()) };
    let sandbox = start(&options);
    let mut stranger = Command::new("tail").args(["-f", "/dev/null"]).spawn().unwrap();
    fs::write(sandbox.dir.join("pids/mongo"), format!("{}\n", stranger.id())).unwrap();
    assert!(Command::new("sh").arg(sandbox.dir.join("stop")).status().unwrap().success());
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert_nothing_is_left(temp.path());
}

#[test]
fn a_server_that_cannot_be_told_to_stop_is_killed() {
    let temp = folder();
    let stubborn = temp_with_stubborn_postgres();
    let options = Options { stores: vec![StoreName::Postgres], ..options(temp.path()) };
    let mut stubborn_options = options.clone();
    stubborn_options.programs.postgres = Some(stubborn.path().to_owned());
    let sandbox = start(&stubborn_options);
    let segment = shared_memory(&sandbox);
    support::block_on(async || sandbox.stop().await).unwrap();
    assert_nothing_is_left(temp.path());
    // It could not give it back itself.
    if let Ok(segments) = fs::read_to_string("/proc/sysvipc/shm") {
        let left = segments.lines().any(|line| line.split_whitespace().nth(1) == Some(&segment));
        assert!(!left, "segment {segment} is left:\n{segments}");
    }
}

/// The segment of shared memory that a Postgres holds, as it wrote it down.
fn shared_memory(sandbox: &Sandbox) -> String {
    let text = fs::read_to_string(sandbox.dir.join("postgres/data/postmaster.pid")).unwrap();
    text.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Programs that start a real Postgres as a child, and do not listen.
fn temp_with_stubborn_postgres() -> tempfile::TempDir {
    let dir = folder();
    let real = super::options(dir.path()).programs.postgres.unwrap();
    script(dir.path(), "initdb", &format!("exec {}/initdb \"$@\"", real.display()));
    let text = format!("trap '' QUIT INT TERM\n{}/postgres \"$@\" &\nwait", real.display());
    script(dir.path(), "postgres", &text);
    dir
}
