//! `migrate import`: another tool's folder in our format, and what that tool had
//! applied as a baseline.
//!
//! Everything that can be wrong is found before anything is recorded: the files, the
//! folders that are there already, the tool's history, ours. Folders get their names when
//! the history is there, so that `up` never finds one whose history is not.

use crate::cli::args::{self, Global};
use crate::cli::commands::baseline::{numbers, record};
use crate::cli::config::Config;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{
    Project, Ways, configure, connect, folder, read_set, stop_on_signals, this_run,
};
use crate::core::id::{StoreName, Version};
use crate::core::import::{self, Adopted, Applied, Foreign, Import, Note, Refused, Tool, Wishes};
use crate::core::migration::MigrationSet;
use crate::core::parse::folder::{self as parse, UNFINISHED};
use crate::core::plan;
use crate::core::problem::Problem;
use crate::engine::baseline as engine;
use crate::engine::lock;
use crate::failpoint::reach;
use crate::source::{self, SourceError, Unfillable};
use crate::store::Stores;
use crate::store::mongo::Mongo;
use crate::store::postgres::Postgres;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub async fn run(global: &Global, args: &args::Import, output: &Output) -> Result<Exit, Failure> {
    let tool = Tool::from(args.tool);
    let config = configure(global)?;
    let from = args.from.display().to_string();
    let files = foreign_files(&args.from, tool)?;
    let wishes = Wishes { strip_transactions: args.strip_transactions };
    let mut import = import::read(tool, &files, wishes)
        .map_err(|problems| Failure::of_problems(problems).in_folder(&from))?;
    if import.migrations.is_empty() {
        let message = format!("{from} has no migration of {}", tool.word());
        return Err(Failure::new(Exit::Usage, "NOTHING_TO_IMPORT", message)
            .next("name the folder that has the tool's own files with `--from`"));
    }
    if args.renumber {
        import.renumber(&there(&config)?);
    }
    let (set, new) = match args.history_only {
        true => (known(&import, read_set(&config)?, &config)?, Vec::new()),
        false => planned(&import, &config)?,
    };

    let lacks = lacking(tool, &import, &config);
    let records = !args.files_only && lacks.is_none();
    let mut done = Done::default();
    let mut project = None;
    if records {
        let table = args.table.as_deref().unwrap_or_else(|| tool.table());
        let mut opened = open(global, config.clone(), set.clone()).await?;
        opened.run.reason = Some(format!("{} from {from}", tool.word()));
        let theirs = Theirs { tool, files: &files, import: &import };
        let applied = history(&mut opened.stores, &theirs, table, &mut done).await?;
        check(&mut opened, &applied.versions).await?;
        done.unknown = applied.unknown;
        project = Some((opened, applied.versions));
    }
    // A folder that `up` could find is there only when its history is: whoever dies here
    // leaves nothing that would be run a second time.
    let mut written = Written::default();
    if !new.is_empty() {
        written = Written::of(&config.dir, &new)?;
    }
    let mut there = BTreeSet::new();
    if let Some((mut project, versions)) = project {
        if !versions.is_empty() {
            done.recorded = record(&mut project, &versions, output).await?;
        }
        let histories = lock::read(&mut project.stores).await?.histories;
        there = plan::lives(&histories).into_iter().map(|life| life.version).collect();
    }
    written.name(|name| {
        let path = format!("{}/{name}", folder(&config));
        output.remark(&format!("wrote {path}"));
        done.written.push(path);
    })?;
    if !records {
        let why = match (&lacks, args.files_only) {
            (Some(store), false) => format!("no {} is configured", store.title()),
            _ => "--files-only".to_owned(),
        };
        done.remarks.push(format!("{why}: what {} had applied is not recorded. On a database where it was at work, `migrate import {} --from {from} --history-only` records it, and so does `migrate baseline VERSION`", tool.word(), tool.word()));
    }
    tell(&import, &done, records.then_some(&there), tool, &from, output);
    Ok(Exit::Ok)
}

/// What came of it, for people and for machines.
#[derive(Debug, Default)]
struct Done {
    written: Vec<String>,
    recorded: Vec<Version>,
    unknown: Vec<String>,
    edited: Vec<Note>,
    remarks: Vec<String>,
}

fn tell(
    import: &Import,
    done: &Done,
    there: Option<&BTreeSet<Version>>,
    tool: Tool,
    from: &str,
    output: &Output,
) {
    let is_pending = |version: &Version| there.is_some_and(|there| !there.contains(version));
    let versions = import.migrations.iter().map(|migration| migration.version);
    let pending: Vec<Version> = versions.filter(is_pending).collect();
    let notes: Vec<&Note> = import.notes.iter().chain(&done.edited).collect();
    let note = |note: &Note| {
        json!({
            "file": format!("{from}/{}", note.file), "line": note.line,
            "version": note.version.map(|version| version.0), "message": note.what,
        })
    };
    output.object(
        "import",
        &json!({
            "tool": tool.word(),
            "written": done.written,
            "history": there.is_some(),
            "recorded": numbers(&done.recorded),
            "pending": numbers(&pending),
            "unknown": done.unknown,
            "renumbered": import
                .renumbered
                .iter()
                .map(|(key, version)| json!({ "from": key, "version": version.0 }))
                .collect::<Vec<Value>>(),
            "by_hand": notes.iter().map(|it| note(it)).collect::<Vec<Value>>(),
        }),
    );
    for (key, version) in &import.renumbered {
        output.remark(&format!("version {key} of {} is {version} from now on", tool.word()));
    }
    for remark in &done.remarks {
        output.remark(remark);
    }
    for key in &done.unknown {
        output.remark(&format!("{} has applied {key}, of which {from} has no file", tool.word()));
    }
    let name = |version: &Version| {
        let found = import.migrations.iter().find(|migration| migration.version == *version);
        format!("  {}", found.map_or("", |migration| migration.folder.name.as_str()))
    };
    let list = |versions: &[Version]| versions.iter().map(name).collect::<Vec<_>>().join("\n");
    if there.is_some() {
        if !done.recorded.is_empty() {
            output.remark(&format!(
                "recorded as already there, without running anything:\n{}",
                list(&done.recorded)
            ));
        }
        if !pending.is_empty() {
            output.remark(&format!(
                "pending, because {} has not applied them:\n{}",
                tool.word(),
                list(&pending)
            ));
        }
    }
    if !notes.is_empty() {
        let left = notes.iter().filter(|note| note.version.is_some_and(|it| is_pending(&it)));
        let left = left.count();
        output.result("for a person to look at:");
        for note in notes {
            output.result(&format!("  {from}/{note}"));
        }
        if left > 0 {
            output.result(&format!("{left} of these are in migrations that are pending: `migrate up` refuses those until somebody has completed their scripts and deleted the comments that begin with `{UNFINISHED}`"));
        }
    }
}

/// The tool's files, by their paths below its folder.
fn foreign_files(from: &Path, tool: Tool) -> Result<Vec<Foreign>, Failure> {
    let mut files = Vec::new();
    collect(from, "", tool.is_recursive(), 0, &mut files).map_err(|(path, error)| {
        let message = format!("failed to read {}: {error}", path.display());
        Failure::new(Exit::Usage, "NO_MIGRATIONS", message)
            .next("name the folder that has the tool's own files with `--from`")
    })?;
    Ok(files)
}

/// Folders below one another are followed so deep, so that a symlink to a folder above
/// it ends.
const DEPTH_MAX: usize = 8;

fn collect(
    folder: &Path,
    prefix: &str,
    is_recursive: bool,
    depth: usize,
    files: &mut Vec<Foreign>,
) -> Result<(), (std::path::PathBuf, std::io::Error)> {
    let failed = |error| (folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if parse::is_hidden(&name) {
            continue;
        }
        let kind = fs::metadata(&path).map_err(|error| (path.clone(), error))?.file_type();
        if kind.is_dir() && is_recursive && depth < DEPTH_MAX {
            collect(&path, &format!("{prefix}{name}/"), true, depth + 1, files)?;
        } else if kind.is_file() {
            let bytes = fs::read(&path).map_err(|error| (path.clone(), error))?;
            files.push(Foreign { path: format!("{prefix}{name}"), bytes });
        }
    }
    Ok(())
}

/// The migrations that are there; none where there is no folder yet.
fn there(config: &Config) -> Result<MigrationSet, Failure> {
    match source::read(&config.dir) {
        Err(SourceError::Missing { .. }) => Ok(MigrationSet::default()),
        _ => read_set(config),
    }
}

/// The migrations as they will be, and those of them that are to be written. What is
/// there already and says the same is left as it is.
fn planned<'a>(
    import: &'a Import,
    config: &Config,
) -> Result<(MigrationSet, Vec<&'a Adopted>), Failure> {
    let there = there(config)?;
    let mut problems = Vec::new();
    let mut all: Vec<_> = there.iter().cloned().collect();
    let mut new = Vec::new();
    for adopted in &import.migrations {
        let name = &adopted.folder.name;
        let read = match parse::read(&adopted.folder) {
            Ok(read) => read,
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        match there.get(adopted.version) {
            None if config.dir.join(name).exists() => problems.push(taken(name)),
            None => {
                all.push(read);
                new.push(adopted);
            }
            Some(other) if other.folder == *name && other.checksum == read.checksum => {}
            Some(other) if other.folder == *name => problems.push(taken(name)),
            Some(other) => problems.push(
                Problem::whole(name, format!("version {} is already that of {}", adopted.version, other.folder))
                    .hint("`--renumber` gives what is imported numbers behind those that are there; `--dir` writes elsewhere"),
            ),
        }
    }
    let set = match MigrationSet::new(all) {
        Ok(set) if problems.is_empty() => set,
        Ok(_) => return Err(Failure::of_problems(problems).in_folder(&folder(config))),
        Err(problem) => {
            problems.push(problem);
            return Err(Failure::of_problems(problems).in_folder(&folder(config)));
        }
    };
    let set = if config.postgres.is_none() { set.remembered_in_mongo() } else { set };
    Ok((set, new))
}

fn taken(name: &str) -> Problem {
    Problem::whole(name, "is already there, and says something else than what would be written")
        .hint("nothing is overwritten: `--history-only` records what is applied and leaves the files as they are, `--renumber` gives what is imported other numbers, `--dir` writes elsewhere")
}

/// The migrations that are there, of which the import must be a part.
fn known(import: &Import, there: MigrationSet, config: &Config) -> Result<MigrationSet, Failure> {
    let lacks = import.migrations.iter().filter(|it| there.get(it.version).is_none());
    let problems: Vec<Problem> = lacks
        .map(|it| {
            Problem::whole(&it.folder.name, "is not there, and `--history-only` writes nothing")
                .hint("leave `--history-only` away")
        })
        .collect();
    match problems.is_empty() {
        true => Ok(there),
        false => Err(Failure::of_problems(problems).in_folder(&folder(config))),
    }
}

/// The stores in which the tool's history is.
fn stores(tool: Tool, import: &Import) -> Vec<StoreName> {
    match tool {
        Tool::MigrateMongo => vec![StoreName::Mongo],
        Tool::GolangMigrate => {
            StoreName::BOTH.into_iter().filter(|store| import.has(*store)).collect()
        }
        Tool::Flyway | Tool::Dbmate | Tool::Sqlx | Tool::Refinery | Tool::Goose => {
            vec![StoreName::Postgres]
        }
    }
}

/// The first store with a history of the tool that is not configured.
fn lacking(tool: Tool, import: &Import, config: &Config) -> Option<StoreName> {
    stores(tool, import).into_iter().find(|store| match store {
        StoreName::Postgres => config.postgres.is_none(),
        StoreName::Mongo => config.mongo.is_none(),
    })
}

async fn open(global: &Global, config: Config, set: MigrationSet) -> Result<Project, Failure> {
    let run = this_run("import");
    let lock_wait = global.lock_wait.unwrap_or(config.lock_wait);
    let (stores, servers) = connect(&config, &run.id, global.wait).await?;
    let unfillable = Unfillable::new();
    Ok(Project { config, set, unfillable, stores, servers, run, lock_wait })
}

/// What the tool has.
struct Theirs<'a> {
    tool: Tool,
    files: &'a [Foreign],
    import: &'a Import,
}

/// What the tool has applied, in every store in which it has a part.
async fn history(
    stores: &mut Stores<Postgres, Mongo>,
    theirs: &Theirs<'_>,
    table: &str,
    done: &mut Done,
) -> Result<Applied, Failure> {
    let Theirs { tool, files, import } = *theirs;
    let mut found: Vec<(StoreName, Applied)> = Vec::new();
    for store in self::stores(tool, import) {
        let rows = match store {
            StoreName::Postgres => match &mut stores.postgres {
                Some(postgres) => postgres.foreign_rows(table).await?,
                None => None,
            },
            StoreName::Mongo => match &mut stores.mongo {
                Some(mongo) => mongo.foreign_rows(table).await?,
                None => None,
            },
        };
        if rows.is_none() {
            done.remarks.push(format!(
                "{} has no `{table}`: {} has applied nothing there (`--table` names another)",
                store.title(),
                tool.word()
            ));
        }
        let rows = rows.unwrap_or_default();
        done.edited.extend(import::edited(tool, &rows, files));
        let applied = import::applied(tool, &rows, import);
        found.push((store, applied.map_err(|error| refused(error, store))?));
    }
    let mut all = Applied::default();
    for migration in &import.migrations {
        let of: Vec<bool> = found
            .iter()
            .filter(|(store, _)| found.len() == 1 || migration.stores.contains(store))
            .map(|(_, applied)| applied.versions.contains(&migration.version))
            .collect();
        if of.iter().all(|is| *is) {
            all.versions.insert(migration.version);
        } else if of.iter().any(|is| *is) {
            let message = format!(
                "{} has applied {} in one store and not in the other",
                tool.word(),
                migration.folder.name
            );
            let hint = "apply it in the other store with that tool, and import again".to_owned();
            return Err(refused(Refused { message, hint }, StoreName::Postgres));
        }
    }
    all.unknown = found.into_iter().flat_map(|(_, applied)| applied.unknown).collect();
    Ok(all)
}

fn refused(error: Refused, store: StoreName) -> Failure {
    let mut failure = Failure::new(Exit::Conflict, "FOREIGN_HISTORY", error.message);
    failure.details.push(("store", store.title().to_owned()));
    failure.next(format!("nothing was written; {}", error.hint))
}

/// Whether what is applied can be recorded, before anything is written.
async fn check(project: &mut Project, versions: &BTreeSet<Version>) -> Result<(), Failure> {
    if versions.is_empty() {
        return Ok(());
    }
    let stop = stop_on_signals(None)?;
    let ways = Ways::of(&project.config, false);
    let (stores, settings) = project.parts(&ways, &stop);
    engine::baseline_now(stores, versions, &settings).await?;
    Ok(())
}

/// With this begins the name of a folder that is being written.
const BEING_WRITTEN: &str = ".import-";

/// Folders that are written, each under a name that nobody looks at until it gets its
/// own. What does not get it is removed.
#[derive(Debug, Default)]
struct Written {
    dir: PathBuf,
    names: VecDeque<String>,
    /// As long as it is open, no other import writes here.
    _alone: Option<File>,
}

impl Written {
    /// Writes these, and removes what an import that died left behind.
    fn of(dir: &Path, migrations: &[&Adopted]) -> Result<Written, Failure> {
        let alone = alone(dir).map_err(|error| cannot_write(dir, &error))?;
        let mut written =
            Written { dir: dir.to_owned(), names: VecDeque::new(), _alone: Some(alone) };
        for migration in migrations {
            let name = &migration.folder.name;
            written.names.push_back(name.clone());
            reach("import: a folder");
            let hidden = written.hidden(name);
            let files = &migration.folder.files;
            let all = fs::create_dir_all(&hidden).and_then(|()| {
                files.iter().try_for_each(|(file, bytes)| {
                    reach("import: a file");
                    fs::write(hidden.join(file), bytes)
                })
            });
            all.map_err(|error| cannot_write(&dir.join(name), &error))?;
        }
        Ok(written)
    }

    /// Gives each its own name, whole and never over another one, and tells it.
    fn name(mut self, mut tell: impl FnMut(&str)) -> Result<(), Failure> {
        while let Some(name) = self.names.front() {
            reach("import: the name of a folder");
            let path = self.dir.join(name);
            fs::rename(self.hidden(name), &path).map_err(|error| cannot_write(&path, &error))?;
            tell(name);
            self.names.pop_front();
        }
        reach("import: the name of a folder");
        Ok(())
    }

    fn hidden(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{BEING_WRITTEN}{}-{name}", std::process::id()))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for name in &self.names {
            // What is left of it is nobody's.
            let _ = fs::remove_dir_all(self.hidden(name));
        }
    }
}

/// The folder, in which no other import writes as long as this is open. Where a folder
/// cannot be locked, what lies about in it stays: it may be somebody's.
fn alone(dir: &Path) -> std::io::Result<File> {
    fs::create_dir_all(dir)?;
    let folder = File::open(dir)?;
    if folder.lock().is_ok() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(BEING_WRITTEN) {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    Ok(folder)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("failed to write {}: {error}", path.display());
    Failure::new(Exit::Usage, "CANNOT_WRITE", message)
        .next("see to it, and run the same command again: what is done already is left as it is")
}
