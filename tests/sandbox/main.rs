//! Throwaway servers: they answer, they do not collide, and nothing of them is
//! left, whatever ended the process that started them.

#[path = "../support/mod.rs"]
mod support;

mod leaving;
mod starting;

use std::path::{Path, PathBuf};

use lockstep::sandbox::Options;
use support::wait::until;

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// As a user would start one, in a folder of its own.
fn options(temp: &Path) -> Options {
    Options { temp: temp.to_owned(), ..Options::new(&env) }
}

/// A folder for sandboxes that the account of a server can pass through.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn is_empty(dir: &Path) -> bool {
    dir.read_dir().unwrap().next().is_none()
}

/// Processes whose command line names the folder. One that ended and was not
/// waited for has no command line.
fn processes(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mut lines = all_processes();
    lines.retain(|line| line.contains(dir.to_str().unwrap()));
    lines
}

/// The number and the command line of every process of this machine.
fn all_processes() -> Vec<String> {
    if let Ok(entries) = std::fs::read_dir("/proc") {
        let line = |entry: std::fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bytes = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some(format!("{pid} {}", String::from_utf8_lossy(&bytes).replace('\0', " ")))
        };
        return entries.flatten().filter_map(line).collect();
    }
    let ps = std::process::Command::new("ps").args(["-A", "-o", "pid=,args="]).output().unwrap();
    assert!(ps.status.success(), "ps works");
    let text = String::from_utf8_lossy(&ps.stdout);
    text.lines().map(|line| line.trim_start().to_owned()).collect()
}

/// A program made of a shell script.
fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
