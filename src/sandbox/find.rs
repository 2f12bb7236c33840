//! Which servers this machine can start.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Looks a variable of the environment up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The folder with Postgres' server programs.
pub const POSTGRES_VARIABLE: &str = "LOCKSTEP_POSTGRES_BIN";
/// The program `mongod`.
pub const MONGOD_VARIABLE: &str = "LOCKSTEP_MONGOD";

/// Where Debian and Ubuntu keep the versions of Postgres.
const DEBIAN: &str = "/usr/lib/postgresql";

/// What was found. Nothing was started, and nothing is known to work.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Programs {
    /// The folder with `initdb` and `postgres`.
    pub postgres: Option<PathBuf>,
    /// The program `mongod`.
    pub mongod: Option<PathBuf>,
    /// The program `docker`, which may have no daemon to talk to.
    pub docker: Option<PathBuf>,
}

/// Looks for server programs: named by `LOCKSTEP_POSTGRES_BIN` and
/// `LOCKSTEP_MONGOD`, on the `PATH`, in Debian's folders (the newest version),
/// in `.tools` of this project, where `scripts/setup` puts them.
///
/// What a variable names is taken as it is, so that a typing error is told
/// and not papered over with another version.
pub fn find(env: Lookup) -> Programs {
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let starts: Vec<&Path> = starts.iter().flatten().map(PathBuf::as_path).collect();
    find_from(env, Path::new(DEBIAN), &starts)
}

fn find_from(env: Lookup, debian: &Path, starts: &[&Path]) -> Programs {
    let path = env("PATH").unwrap_or_default();
    let path: Vec<PathBuf> =
        std::env::split_paths(OsStr::new(&path)).filter(|dir| dir.is_absolute()).collect();
    let tools = |inside: &str| tools(starts).into_iter().map(move |dir| dir.join(inside)).next();
    let given = |variable: &str| env(variable).filter(|value| !value.is_empty()).map(PathBuf::from);

    let postgres = given(POSTGRES_VARIABLE).or_else(|| {
        path.iter()
            .cloned()
            .chain(newest(debian).map(|dir| dir.join("bin")))
            .chain(tools("postgres/bin"))
            .find(|dir| is_program(&dir.join("initdb")) && is_program(&dir.join("postgres")))
    });
    let mongod = given(MONGOD_VARIABLE).or_else(|| {
        path.iter()
            .map(|dir| dir.join("mongod"))
            .chain(tools("mongod/bin/mongod"))
            .find(|program| is_program(program))
    });
    let docker = path.iter().map(|dir| dir.join("docker")).find(|program| is_program(program));
    Programs { postgres, mongod, docker }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Version folders, newest first: 9 comes after 16.
fn newest(debian: &Path) -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort_unstable();
    versions.into_iter().rev().map(|(_, path)| path)
}

/// Every `.tools` in the given places and above them.
fn tools(starts: &[&Path]) -> Vec<PathBuf> {
    starts
        .iter()
        .flat_map(|start| start.ancestors())
        .map(|dir| dir.join(".tools"))
        .filter(|dir| is_trusted(dir))
        .collect()
}

/// Anybody can put a `.tools` into `/tmp`; programs of a stranger are not run.
fn is_trusted(tools: &Path) -> bool {
    let (Ok(dir), Some(parent)) = (fs::metadata(tools), tools.parent()) else { return false };
    let own = dir.uid() == rustix::process::geteuid().as_raw();
    let public = fs::metadata(parent).is_ok_and(|parent| parent.mode() & 0o002 != 0);
    dir.is_dir() && (own || !public)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine: its files, empty but executable.
    fn machine(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    /// What is found there, with the machine's own folder left out of paths.
    fn found(files: &[&str], env: &[(&str, &str)], start: &str) -> String {
        let machine = machine(files);
        let root = machine.path();
        let env = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.replace('~', root.to_str().unwrap()))
        };
        let start = root.join(start);
        let programs = find_from(&env, &root.join("debian"), &[&start]);
        let show = |path: Option<PathBuf>| {
            path.map_or("none".to_owned(), |path| {
                path.strip_prefix(root).unwrap_or(&path).display().to_string()
            })
        };
        format!("{} {} {}", show(programs.postgres), show(programs.mongod), show(programs.docker))
    }

    #[test]
    fn the_path_comes_before_the_folders_of_debian_and_of_this_project() {
        let files = [
            "bin/initdb",
            "bin/postgres",
            "bin/mongod",
            "bin/docker",
            "debian/16/bin/initdb",
            "debian/16/bin/postgres",
            "p/.tools/mongod/bin/mongod",
        ];
        assert_eq!(found(&files, &[("PATH", "~/none:~/bin")], "p"), "bin bin/mongod bin/docker");
        assert_eq!(
            found(&files, &[("PATH", "~/none")], "p"),
            "debian/16/bin p/.tools/mongod/bin/mongod none"
        );
    }

    #[test]
    fn the_newest_version_is_taken_by_number() {
        let files = [
            "debian/9/bin/initdb",
            "debian/9/bin/postgres",
            "debian/16/bin/initdb",
            "debian/16/bin/postgres",
            "debian/17/bin/psql",
        ];
        assert_eq!(found(&files, &[], ""), "debian/16/bin none none");
    }

    #[test]
    fn tools_are_found_from_a_folder_deep_in_the_project() {
        let files = ["p/.tools/postgres/bin/initdb", "p/.tools/postgres/bin/postgres"];
        assert_eq!(found(&files, &[], "p/target/debug/deps/x"), "p/.tools/postgres/bin none none");
    }

    #[test]
    fn a_variable_is_taken_at_its_word() {
        let env = [(POSTGRES_VARIABLE, "~/nowhere"), (MONGOD_VARIABLE, ""), ("PATH", "~/bin")];
        let files = ["bin/initdb", "bin/postgres", "bin/mongod"];
        assert_eq!(found(&files, &env, ""), "nowhere bin/mongod none");
    }

    #[test]
    fn a_client_without_its_server_is_not_enough() {
        assert_eq!(found(&["bin/initdb"], &[("PATH", "~/bin")], ""), "none none none");
    }

    #[test]
    fn programs_that_a_stranger_could_have_put_there_are_not_run() {
        let machine = machine(&["tmp/.tools/mongod/bin/mongod"]);
        let public = machine.path().join("tmp");
        let tools = public.join(".tools");
        assert!(is_trusted(&tools));
        fs::set_permissions(&public, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(is_trusted(&tools), "our own folder");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&tools, Some(65534), None).unwrap();
            assert!(!is_trusted(&tools));
        }
    }
}
