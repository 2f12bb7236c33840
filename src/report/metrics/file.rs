//! Metrics in a file, for the node exporter's textfile collector.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The exporter runs as somebody else.
const MODE: u32 = 0o644;

/// Writes the whole text to a file beside it and gives that its name: whoever reads
/// at that moment finds the old text or the new one.
///
/// # Errors
/// What the system says. Nothing is left behind, and what was there stays.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    // A name of a device or of a pipe would be taken away from it.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("something is there that is no file"));
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    // The collector reads what ends with `.prom`; two runs do not write the same one.
    let beside = format!(".{}.{}.tmp", name.to_string_lossy(), uuid::Uuid::new_v4().simple());
    let beside = path.with_file_name(beside);
    let done = write_to(&beside, text).and_then(|()| fs::rename(&beside, path));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done
}

fn write_to(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    // Whatever the umask of this process is.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file"));
        let mut names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_there_as_a_whole_and_everybody_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lockstep.prom");
        write(&path, "a much longer text than the next\n").expect("written");
        write(&path, "second\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "second\n");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        assert_eq!(names(folder.path()), ["lockstep.prom"]);
    }

    #[test]
    fn nothing_is_left_when_it_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("taken")).expect("a folder");
        write(&folder.path().join("taken"), "text").expect_err("it is a folder");
        write(&folder.path().join("no/such/folder.prom"), "text").expect_err("there is none");
        write(&folder.path().join(".."), "text").expect_err("no name");
        assert_eq!(names(folder.path()), ["taken"]);
    }
}
