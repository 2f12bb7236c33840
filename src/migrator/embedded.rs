//! Migrations that are compiled into the service.

use crate::core::parse::folder::{Folder, is_hidden, is_ignored};
use include_dir::{Dir, DirEntry};
use std::collections::BTreeMap;

/// Compiles a folder of migrations into the program: its path begins with
/// `$CARGO_MANIFEST_DIR`.
///
/// A file that changes compiles anew. For one that comes or goes, write a `build.rs` that
/// says `println!("cargo::rerun-if-changed=migrations");`.
#[macro_export]
macro_rules! embed {
    ($folder:tt) => {{
        use $crate::include_dir;
        include_dir::include_dir!($folder)
    }};
}

/// The migration folders in it, as they are on disk.
pub(super) fn folders(dir: &Dir<'_>) -> Vec<Folder> {
    let folders = dir.dirs().filter_map(|dir| {
        let name = dir.path().file_name()?.to_string_lossy().into_owned();
        if is_hidden(&name) {
            return None;
        }
        let mut files = BTreeMap::new();
        collect(dir, "", &mut files);
        Some(Folder { name, files })
    });
    folders.collect()
}

fn collect(dir: &Dir<'_>, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in dir.entries() {
        let Some(name) = entry.path().file_name() else { continue };
        let name = format!("{prefix}{}", name.to_string_lossy());
        if is_ignored(&name) {
            continue;
        }
        match entry {
            DirEntry::Dir(dir) => collect(dir, &format!("{name}/"), files),
            DirEntry::File(file) => {
                files.insert(name, file.contents().to_vec());
            }
        }
    }
}
