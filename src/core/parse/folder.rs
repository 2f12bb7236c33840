//! A migration folder: bytes in, a [`Migration`] out.

mod name;
mod named;
mod script;

pub use name::{folder as parse_name, is_hidden, is_ignored};
pub use script::of_nothing;

use crate::core::checksum::{Checksum, normalize};
use crate::core::id::{Direction, Phase, StoreName, Version};
use crate::core::migration::{Migration, OnFailure, Options, Rollback};
use crate::core::parse::manifest::{self, Manifest};
use crate::core::parse::sql::Transaction;
use crate::core::problem::Problem;
use crate::core::step::{Body, Commit, Step, Timeouts};
use crate::core::template::{self, Vars};
use name::{Form, MANIFEST, Script};
use script::{Manner, script_steps};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The form in which the history keeps what reverts a migration.
const ROLLBACK_FORMAT: u32 = 1;

/// In the order in which they go up.
const PHASES: [Phase; 5] =
    [Phase::Up, Phase::Prepare, Phase::Execute, Phase::Validate, Phase::Cleanup];

/// A migration folder as it is on disk.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Folder {
    /// Its name: `001-add-user-preferences`.
    pub name: String,
    /// Its files by name, relative to it, with `/` between the parts.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Reads a folder.
///
/// # Errors
/// Everything that is wrong with it, by file and place. Where the folder's name
/// is wrong, just that: its files may not be what they seem.
pub fn read(folder: &Folder) -> Result<Migration, Vec<Problem>> {
    read_with(folder, &())
}

/// The same, with variables for one that is a template.
///
/// # Errors
/// As [`read`], and names that stand for nothing.
pub fn read_with(folder: &Folder, vars: &dyn Vars) -> Result<Migration, Vec<Problem>> {
    let (version, name) = name::folder(&folder.name).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    let templates = texts(folder, &mut problems);
    let texts = rendered(folder, &templates, vars)?;
    let manifest = match texts.get(MANIFEST).map(|text| manifest::read(text)) {
        None => Some(Manifest::default()),
        Some(Ok(manifest)) => Some(manifest),
        Some(Err(found)) => {
            problems.extend(found.into_iter().map(|problem| problem.file(path(folder, MANIFEST))));
            None
        }
    };
    // Which files belong here, and how scripts are read, is said by the manifest:
    // where it cannot be read, half of what could be said now would be wrong.
    let Some(manifest) = manifest else { return Err(sorted(problems)) };

    let scripts = scripts(&texts);
    problems.extend(strays(folder, &texts, &manifest));
    problems.extend(shape(folder, &scripts, &manifest));
    // A file that cannot be read, or has a wrong name, may be what there is to do.
    if problems.is_empty() {
        problems.extend(nothing_to_apply(folder, &texts, &scripts, &manifest));
    }
    let (steps, found) = steps(folder, &texts, &scripts, &manifest);
    problems.extend(found);
    if problems.is_empty() {
        problems.extend(unguarded(folder, &steps, &manifest));
    }
    if !problems.is_empty() {
        return Err(sorted(problems));
    }
    let unready = unfinished(folder, &texts, &scripts);
    Ok(Migration {
        version,
        name: name.to_owned(),
        folder: folder.name.clone(),
        description: manifest.description.clone().unwrap_or_else(|| name.replace(['-', '_'], " ")),
        checksum: Checksum::of_files(templates.iter().map(|(file, text)| (*file, text.as_str()))),
        steps,
        rollback: rollback(&texts, &scripts, &manifest),
        options: Options {
            on_failure: manifest.on_failure.map_or(OnFailure::Stop, |at| at.value),
            irreversible: manifest.irreversible,
            requires: manifest.requires,
            cleanup: manifest.cleanup.map(|at| at.value),
            independent: manifest.independent.is_some_and(|at| at.value),
            phase_pause: manifest.phase_pause.map_or(Duration::ZERO, |at| at.value),
        },
        is_template: is_template(&templates),
        unready,
    })
}

/// With this begins a comment that says what somebody has to write in its place. A
/// script that has one is not applied.
pub const UNFINISHED: &str = "lockstep:unfinished";

/// What the scripts leave to a person, both ways: what goes up would keep its way back.
fn unfinished(folder: &Folder, texts: &BTreeMap<&str, String>, scripts: &[Script]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for script in scripts {
        let file = script.file();
        let opening = match script.form {
            Form::Sql => "--",
            Form::Mongosh => "//",
            Form::Json => continue,
        };
        let Some(text) = texts.get(file.as_str()) else { continue };
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let said = line.trim_start();
            let start = at + line.len() - said.len();
            at += line.len();
            let said = said.trim_end();
            let Some(rest) = said.strip_prefix(opening) else { continue };
            let Some(rest) = rest.trim_start().strip_prefix(UNFINISHED) else { continue };
            if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
                continue;
            }
            let what = match rest.trim() {
                "" => "something is left for a person".to_owned(),
                what => format!("left for a person: {what}"),
            };
            let hint = "write in its place what that does, or nothing if it is not needed, and delete this comment: a script that has one is not applied";
            let problem = Problem::at(text, start..start + said.len(), what);
            problems.push(problem.hint(hint).file(path(folder, &file)));
        }
    }
    sorted(problems)
}

/// Whether it is a template that cannot be filled in with these variables.
pub fn lacks_variables(folder: &Folder, vars: &dyn Vars) -> bool {
    !lacking(folder, vars).is_empty()
}

/// The names in a template that these variables have no value for.
pub fn lacking(folder: &Folder, vars: &dyn Vars) -> Vec<Problem> {
    let templates = texts(folder, &mut Vec::new());
    rendered(folder, &templates, vars).err().unwrap_or_default()
}

/// A template as far as it is known without values, and what it lacks: its name and its
/// checksum, which is that of the template. It has no steps.
///
/// # Errors
/// What is wrong with the folder's name.
pub fn unfilled(folder: &Folder, lacking: Vec<Problem>) -> Result<Migration, Problem> {
    let (version, name) = name::folder(&folder.name)?;
    let templates = texts(folder, &mut Vec::new());
    Ok(Migration {
        version,
        name: name.to_owned(),
        folder: folder.name.clone(),
        description: name.replace(['-', '_'], " "),
        checksum: Checksum::of_files(templates.iter().map(|(file, text)| (*file, text.as_str()))),
        steps: Vec::new(),
        rollback: Rollback::default(),
        options: Options::default(),
        is_template: true,
        unready: lacking,
    })
}

/// The names of all variables in a folder's texts, if it is a template.
pub fn variables(folder: &Folder) -> BTreeSet<String> {
    let templates = texts(folder, &mut Vec::new());
    match is_template(&templates) {
        true => templates.values().flat_map(|text| template::names(text)).collect(),
        false => BTreeSet::new(),
    }
}

/// The texts of a folder as the databases get them: with its variables filled in, if
/// it is a template. Of one that cannot be read, nothing.
pub fn texts_with(folder: &Folder, vars: &dyn Vars) -> BTreeMap<String, String> {
    let texts = rendered(folder, &texts(folder, &mut Vec::new()), vars);
    texts.unwrap_or_default().into_iter().map(|(file, text)| (file.to_owned(), text)).collect()
}

fn is_template(texts: &BTreeMap<&str, String>) -> bool {
    texts.get(MANIFEST).is_some_and(|text| manifest::is_template(text))
}

/// The texts as the databases get them.
fn rendered<'a>(
    folder: &Folder,
    texts: &BTreeMap<&'a str, String>,
    vars: &dyn Vars,
) -> Result<BTreeMap<&'a str, String>, Vec<Problem>> {
    match is_template(texts) {
        true => filled_in(folder, texts, vars),
        false => Ok(texts.clone()),
    }
}

/// The files of a template, with values in place of names: its scripts and its
/// manifest. What its programs read is theirs.
fn filled_in<'a>(
    folder: &Folder,
    templates: &BTreeMap<&'a str, String>,
    vars: &dyn Vars,
) -> Result<BTreeMap<&'a str, String>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut texts = BTreeMap::new();
    for (file, text) in templates {
        let is_read = *file == MANIFEST || Script::of(file).is_some();
        let text = match if is_read { template::render(text, vars) } else { Ok(text.clone()) } {
            Ok(text) => text,
            Err(found) => {
                problems.extend(found.into_iter().map(|it| it.file(path(folder, file))));
                continue;
            }
        };
        texts.insert(*file, text);
    }
    if problems.is_empty() { Ok(texts) } else { Err(sorted(problems)) }
}

/// The steps that revert a migration, from what the history keeps, in the order
/// in which they run.
///
/// # Errors
/// What cannot be read. The history is input too: it may have been written by a
/// later release, or edited.
pub fn down_steps(
    version: Version,
    folder_name: &str,
    rollback: &Rollback,
) -> Result<Vec<Step>, Vec<Problem>> {
    if rollback.format != ROLLBACK_FORMAT {
        let format = rollback.format;
        let message = format!(
            "the history keeps the down of version {version} in form {format}, and this release reads form {ROLLBACK_FORMAT}"
        );
        return Err(vec![
            Problem::whole(folder_name, message).hint("revert it with the release that applied it"),
        ]);
    }
    let mut problems = Vec::new();
    let mut scripts = BTreeMap::new();
    for (file, text) in &rollback.scripts {
        match Script::of(file) {
            Some(script) if script.direction == Direction::Down => {
                scripts.insert((script.phase, script.form.store()), (script, text));
            }
            _ => problems.push(
                Problem::whole(
                    format!("{folder_name}/{file}"),
                    format!(
                        "the history keeps this with version {version}, and it is no down script"
                    ),
                )
                .hint("revert it with the release that applied it"),
            ),
        }
    }
    let manner = Manner {
        transaction: if rollback.transaction { Transaction::On } else { Transaction::Off },
        timeouts: Timeouts {
            lock: rollback.lock_timeout_ms.map(Duration::from_millis),
            statement: rollback.statement_timeout_ms.map(Duration::from_millis),
        },
    };
    let manifest = match &rollback.manifest {
        None => Manifest::default(),
        Some(text) => manifest::read(text).unwrap_or_else(|found| {
            let file = format!("{folder_name}/{MANIFEST}");
            problems.extend(found.into_iter().map(|problem| problem.file(&file)));
            Manifest::default()
        }),
    };
    let found = scripts.values().map(|(script, _)| *script).collect::<Vec<_>>();
    let named = Named { folder_name, manifest: &manifest, store: program_store(&found, &manifest) };
    let mut steps = Vec::new();
    for phase in PHASES.into_iter().rev() {
        // In the order in which they are written: it is the order in which somebody
        // wants them to run.
        steps.extend(named.steps(phase, Direction::Down));
        for store in rollback.stores().into_iter().rev() {
            let Some((script, text)) = scripts.get(&(phase, store)) else { continue };
            let file = format!("{folder_name}/{}", script.file());
            match script_steps(&file, *script, text, manner) {
                Ok(found) => steps.extend(found),
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() { Ok(steps) } else { Err(sorted(problems)) }
}

/// The store that remembers a migration's programs: one that it has a part for.
fn program_store(scripts: &[Script], manifest: &Manifest) -> StoreName {
    let scripts = scripts.iter().map(|script| script.form.store());
    let backfills = manifest.backfills.iter().map(|backfill| backfill.work.store());
    let mut stores = scripts.chain(backfills).peekable();
    match stores.peek().is_some() && stores.all(|store| store == StoreName::Mongo) {
        true => StoreName::Mongo,
        false => StoreName::Postgres,
    }
}

/// What `migration.toml` names.
struct Named<'a> {
    folder_name: &'a str,
    manifest: &'a Manifest,
    store: StoreName,
}

impl Named<'_> {
    /// Those of a phase, in the order in which they are written.
    fn steps(&self, phase: Phase, direction: Direction) -> Vec<Step> {
        let file = format!("{}/{MANIFEST}", self.folder_name);
        let timeouts = self.manifest.timeouts;
        let mut steps = Vec::new();
        if phase == Phase::Execute {
            let backfills = self.manifest.backfills.iter();
            let backfills = backfills.filter(|backfill| backfill.direction == direction);
            steps
                .extend(backfills.map(|it| (&it.name.place, named::backfill(&file, it, timeouts))));
        }
        if (phase, direction) == (Phase::Validate, Direction::Up) {
            let invariants = self.manifest.invariants.iter();
            steps.extend(invariants.map(|it| (&it.name.place, named::check(&file, it))));
        }
        let runs = self.manifest.runs.iter();
        let runs = runs.filter(|run| (run.phase, run.direction) == (phase, direction));
        steps.extend(
            runs.map(|it| {
                (&it.name.place, named::program(&file, self.folder_name, self.store, it))
            }),
        );
        steps.sort_by_key(|(place, _)| (place.line, place.column));
        steps.into_iter().map(|(_, step)| step).collect()
    }
}

/// Invariants that are to be asked inside the transaction of a cleanup that has
/// none.
fn unguarded(folder: &Folder, steps: &[Step], manifest: &Manifest) -> Vec<Problem> {
    let mut cleanup = steps.iter().filter(|step| step.phase() == Phase::Cleanup);
    let is_guard =
        |step: &Step| step.commit == Commit::Atomic && matches!(step.body, Body::Postgres(_));
    if cleanup.any(is_guard) {
        return Vec::new();
    }
    let locked = manifest.invariants.iter().filter(|invariant| invariant.locked);
    let problem = |invariant: &manifest::Invariant| {
        Problem {
        file: path(folder, MANIFEST),
        at: Some(invariant.name.place.clone()),
        message: format!(
            "`{}` is to be asked inside the transaction of the cleanup, and the cleanup has none in Postgres",
            invariant.name.text
        ),
        hint: Some(
            "leave out `locked`, or put what needs it into `cleanup.sql`, in front of statements that run alone"
                .to_owned(),
        ),
    }
    };
    locked.map(problem).collect()
}

fn path(folder: &Folder, file: &str) -> String {
    format!("{}/{file}", folder.name)
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by(|a, b| {
        let key = |problem: &Problem| problem.at.as_ref().map(|at| (at.line, at.column));
        (&a.file, key(a)).cmp(&(&b.file, key(b)))
    });
    problems
}

/// The files that count, normalized.
fn texts<'a>(folder: &'a Folder, problems: &mut Vec<Problem>) -> BTreeMap<&'a str, String> {
    let mut texts = BTreeMap::new();
    for (file, bytes) in &folder.files {
        if is_ignored(file) {
            continue;
        }
        match text(bytes) {
            Ok(text) => {
                texts.insert(file.as_str(), normalize(text));
            }
            Err(problem) => problems.push(problem.file(path(folder, file))),
        }
    }
    texts
}

/// Bytes as the text that they must be.
fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let (at, text) = match std::str::from_utf8(bytes) {
        // NUL separates files in the checksum, and neither database stores it.
        Ok(text) => match text.find('\0') {
            None => return Ok(text),
            Some(at) => (at, String::from_utf8_lossy(bytes)),
        },
        Err(error) => (error.valid_up_to(), String::from_utf8_lossy(bytes)),
    };
    let what = match bytes[at] {
        0 => "is a NUL, which no text has".to_owned(),
        byte => format!("(0x{byte:02x}) is not UTF-8"),
    };
    let utf_16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) || bytes[at] == 0;
    let hint = if utf_16 {
        "it looks like UTF-16; save the file as UTF-8"
    } else {
        "save the file as UTF-8"
    };
    // The replacement character takes the place of the byte, so what is in front
    // of it has the same length in both.
    Err(Problem::at(&text, at..at + 1, format!("byte {} of the file {what}", at + 1)).hint(hint))
}

fn scripts(texts: &BTreeMap<&str, String>) -> Vec<Script> {
    texts.keys().filter_map(|file| Script::of(file)).collect()
}

/// Files that no migration has, and files that a program needs and that are not there.
fn strays(folder: &Folder, texts: &BTreeMap<&str, String>, manifest: &Manifest) -> Vec<Problem> {
    let known = |file: &str| {
        file == MANIFEST
            || Script::of(file).is_some()
            || manifest.runs.iter().any(|run| run.has_file(file))
    };
    let strays = texts.keys().filter(|file| !known(file));
    let strays = strays.map(|file| name::stray(&path(folder, file), file));
    let files = manifest.runs.iter().flat_map(|run| &run.files);
    let lost = files.filter(|at| !folder.files.contains_key(&at.value)).map(|at| Problem {
        file: path(folder, MANIFEST),
        at: Some(at.place.clone()),
        message: format!("there is no file `{}` in the migration's folder", at.value),
        hint: Some("names are relative to the folder".to_owned()),
    });
    strays.chain(lost).collect()
}

/// Which scripts may stand beside each other.
fn shape(folder: &Folder, scripts: &[Script], manifest: &Manifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    let plain = scripts.iter().find(|script| script.phase == Phase::Up);
    if let Some(plain) = plain.map(|script| script.file()) {
        let both = |phased: &str| {
            format!(
                "a migration is plain or phased, and this one has both `{plain}` and `{phased}`"
            )
        };
        let hint = "move what is in `up` and `down` into `prepare` and `prepare.down`, or make two migrations of it";
        let phased = scripts.iter().find(|script| script.phase != Phase::Up);
        let phased = phased.map(|script| Problem::whole(&folder.name, both(&script.file())));
        let key = manifest.phased().map(|(key, place)| Problem {
            at: Some(place.clone()),
            ..Problem::whole(path(folder, MANIFEST), both(key))
        });
        problems.extend(phased.or(key).map(|problem| problem.hint(hint)));
    }
    let mut refuse = |file: String, message: String, hint: String| {
        problems.push(Problem::whole(file, message).hint(hint));
    };
    for script in scripts {
        let other = Script { form: Form::Mongosh, ..*script };
        if script.form == Form::Json && scripts.contains(&other) {
            refuse(
                path(folder, &script.file()),
                format!("`{}` is there for the same step", other.file()),
                "keep one of the two files".to_owned(),
            );
        }
        let up = Script { direction: Direction::Up, ..*script };
        let is_up = |other: &Script| {
            (other.phase, other.direction, other.form.store())
                == (up.phase, up.direction, up.form.store())
        };
        if script.direction == Direction::Down && !scripts.iter().any(is_up) {
            let up = up.file();
            refuse(
                path(folder, &script.file()),
                format!("there is no `{up}` that it could revert"),
                format!("add `{up}`, or delete this file"),
            );
        }
    }
    problems
}

/// A folder that would do nothing is a mistake.
fn nothing_to_apply(
    folder: &Folder,
    texts: &BTreeMap<&str, String>,
    scripts: &[Script],
    manifest: &Manifest,
) -> Option<Problem> {
    if scripts.iter().any(|script| script.direction == Direction::Up) || manifest.applies() {
        return None;
    }
    let message = if texts.is_empty() {
        "the migration folder is empty"
    } else {
        "there is nothing to apply in the migration folder"
    };
    let hint = "add an `up.sql` or `up.mongodb.js`, or delete the folder";
    Some(Problem::whole(&folder.name, message).hint(hint))
}

/// The steps that go up, in order. Down scripts are read too: that one cannot be
/// read has to be known before its up is applied.
fn steps(
    folder: &Folder,
    texts: &BTreeMap<&str, String>,
    scripts: &[Script],
    manifest: &Manifest,
) -> (Vec<Step>, Vec<Problem>) {
    let manner = Manner { transaction: manifest.transaction, timeouts: manifest.timeouts };
    let mut steps = Vec::new();
    let mut problems = Vec::new();
    let store = program_store(scripts, manifest);
    let named = Named { folder_name: &folder.name, manifest, store };
    let of = |phase, store, direction| {
        scripts.iter().find(move |script| {
            (script.phase, script.form.store(), script.direction) == (phase, store, direction)
        })
    };
    for phase in PHASES {
        for (store, direction) in manifest
            .order
            .into_iter()
            .flat_map(|store| [(store, Direction::Up), (store, Direction::Down)])
        {
            let Some(script) = of(phase, store, direction) else { continue };
            let file = script.file();
            let Some(text) = texts.get(file.as_str()) else { continue };
            match script_steps(&path(folder, &file), *script, text, manner) {
                Ok(found) if direction == Direction::Up => steps.extend(found),
                Ok(_) => {}
                Err(found) => problems.extend(found),
            }
        }
        steps.extend(named.steps(phase, Direction::Up));
    }
    (steps, problems)
}

fn rollback(texts: &BTreeMap<&str, String>, scripts: &[Script], manifest: &Manifest) -> Rollback {
    let milliseconds = |duration: Duration| {
        u64::try_from(duration.as_millis()).expect("a timeout is below 25 days")
    };
    let down = scripts.iter().filter(|script| script.direction == Direction::Down);
    Rollback {
        format: ROLLBACK_FORMAT,
        scripts: down
            .map(|script| script.file())
            .filter_map(|file| texts.get(file.as_str()).cloned().map(|text| (file, text)))
            .collect(),
        order: manifest.order.iter().map(ToString::to_string).collect(),
        transaction: manifest.transaction == Transaction::On,
        irreversible: manifest.irreversible.clone(),
        lock_timeout_ms: manifest.timeouts.lock.map(milliseconds),
        statement_timeout_ms: manifest.timeouts.statement.map(milliseconds),
        has_cleanup: scripts.iter().any(|script| script.phase == Phase::Cleanup)
            || manifest.runs.iter().any(|run| run.phase == Phase::Cleanup),
        manifest: texts.get(MANIFEST).filter(|_| manifest.reverts()).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn folder(files: &[(&str, &str)]) -> Folder {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
        Folder { name: "007-product_stock".to_owned(), files: files.collect() }
    }

    /// Problems as they are printed; of a migration, its steps.
    fn check_folder(folder: &Folder, expected: &Expect) {
        let actual = match read(folder) {
            Ok(migration) => show(&migration.steps),
            Err(problems) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            }
        };
        expected.assert_eq(&actual);
    }

    fn check(files: &[(&str, &str)], expected: &Expect) {
        check_folder(&folder(files), expected);
    }

    /// Where the problems are; what they say is the business of the readers.
    fn check_places(files: &[(&str, &str)], expected: &[(&str, u32, u32)]) {
        let problems = read(&folder(files)).expect_err("something is wrong");
        let places = problems.iter().filter_map(|problem| {
            let at = problem.at.as_ref()?;
            Some((problem.file.strip_prefix("007-product_stock/")?, at.line, at.column))
        });
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    fn show(steps: &[Step]) -> String {
        let step = |step: &Step| {
            let text = match &step.body {
                Body::Postgres(body) => {
                    let texts = body.statements.iter().map(|statement| statement.text.as_str());
                    texts.collect::<Vec<_>>().join("; ")
                }
                Body::Mongo(body) => body.text.clone(),
                Body::Backfill(backfill) => backfill.statement(),
                Body::Check(invariant) => invariant.check.questions().join("; "),
                Body::Program(program) => program.command.join(" "),
            };
            format!("{} {:?} {}:{} {text}", step.name, step.commit, step.file, step.line)
        };
        steps.iter().map(step).collect::<Vec<_>>().join("\n")
    }

    fn migration(files: &[(&str, &str)]) -> Migration {
        read(&folder(files)).expect("the folder is right")
    }

    #[test]
    fn a_plain_migration_is_its_up_scripts_postgres_first() {
        check(
            &[
                ("up.mongodb.js", "db.a.insertOne({a: 1});\n\ndb.a.createIndex({a: 1});\n"),
                ("up.sql", "SELECT 1;\nSELECT 2;\nVACUUM;\n\nSELECT 3"),
                ("down.sql", "SELECT 4"),
                ("README.md", "\u{feff}anything"),
                (".donw.sql.swp", "x"),
            ],
            &expect![[r#"
                up/postgres/1 Atomic 007-product_stock/up.sql:1 SELECT 1; SELECT 2
                up/postgres/2 Journaled 007-product_stock/up.sql:3 VACUUM
                up/postgres/3 Atomic 007-product_stock/up.sql:5 SELECT 3
                up/mongo/1 Atomic 007-product_stock/up.mongodb.js:1 db.a.insertOne({a: 1})
                up/mongo/2 Journaled 007-product_stock/up.mongodb.js:3 db.a.createIndex({a: 1})"#]],
        );
    }

    #[test]
    fn order_in_the_manifest_turns_the_stores_round() {
        check(
            &[
                ("migration.toml", "order = ['mongo', 'postgres']"),
                ("up.mongodb.json", "[\n{\"insert\": \"a\", \"documents\": [{\"_id\": 1}]}\n]"),
                ("up.sql", "SELECT 1"),
            ],
            &expect![[r#"
                up/mongo/1 Atomic 007-product_stock/up.mongodb.json:2 {"insert": "a", "documents": [{"_id": 1}]}
                up/postgres/1 Atomic 007-product_stock/up.sql:1 SELECT 1"#]],
        );
    }

    #[test]
    fn without_transaction_each_statement_is_a_step() {
        check(
            &[("migration.toml", "transaction = false"), ("up.sql", "SELECT 1;\nSELECT 2")],
            &expect![[r#"
                up/postgres/1 Atomic 007-product_stock/up.sql:1 SELECT 1
                up/postgres/2 Atomic 007-product_stock/up.sql:2 SELECT 2"#]],
        );
    }

    #[test]
    fn a_script_of_comments_is_a_step_of_nothing() {
        check(
            &[("up.sql", "-- nothing yet\n"), ("up.mongodb.js", "// nothing yet\n")],
            &expect![[r#"
                up/postgres/1 Atomic 007-product_stock/up.sql:1 
                up/mongo/1 Atomic 007-product_stock/up.mongodb.js:1 "#]],
        );
        for step in migration(&[("up.sql", "-- later"), ("up.mongodb.json", "[]")]).steps {
            assert!(step.is_nothing() && step.checksum == of_nothing(step.store()), "{step:?}");
        }
    }

    #[test]
    fn an_empty_folder_is_refused() {
        check(
            &[],
            &expect![
                "007-product_stock: the migration folder is empty; add an `up.sql` or `up.mongodb.js`, or delete the folder"
            ],
        );
        check(
            &[("README.md", "x"), (".gitkeep", "")],
            &expect![
                "007-product_stock: the migration folder is empty; add an `up.sql` or `up.mongodb.js`, or delete the folder"
            ],
        );
    }

    #[test]
    fn a_folder_with_nothing_to_apply_is_refused() {
        check(
            &[("migration.toml", "description = 'x'")],
            &expect![
                "007-product_stock: there is nothing to apply in the migration folder; add an `up.sql` or `up.mongodb.js`, or delete the folder"
            ],
        );
        check(
            &[("down.sql", ""), ("down.mongodb.js", "")],
            &expect![[r#"
                007-product_stock/down.mongodb.js: there is no `up.mongodb.js` that it could revert; add `up.mongodb.js`, or delete this file
                007-product_stock/down.sql: there is no `up.sql` that it could revert; add `up.sql`, or delete this file"#]],
        );
    }

    #[test]
    fn a_down_without_its_up_is_refused() {
        check(
            &[("up.sql", ""), ("down.sql", ""), ("down.mongodb.js", "")],
            &expect![
                "007-product_stock/down.mongodb.js: there is no `up.mongodb.js` that it could revert; add `up.mongodb.js`, or delete this file"
            ],
        );
        check(
            &[("up.mongodb.js", ""), ("down.mongodb.json", "[]")],
            &expect!["up/mongo/1 Atomic 007-product_stock/up.mongodb.js:1 "],
        );
    }

    #[test]
    fn both_forms_of_a_mongodb_script_are_one_too_many() {
        check(
            &[("up.mongodb.js", ""), ("up.mongodb.json", "[]")],
            &expect![
                "007-product_stock/up.mongodb.json: `up.mongodb.js` is there for the same step; keep one of the two files"
            ],
        );
    }

    #[test]
    fn a_stray_file_is_refused() {
        check(
            &[("up.sql", ""), ("donw.sql", ""), ("lib/run.js", "")],
            &expect![[r#"
            007-product_stock/donw.sql: no file of a migration has this name; did you mean `down.sql`?
            007-product_stock/lib/run.js: no file of a migration has this name; a migration has `up.sql`, `down.sql`, `up.mongodb.js`, `down.mongodb.js`, `migration.toml` and `README.md`; a program's files are named in `files` of its `[[run]]`"#]],
        );
    }

    #[test]
    fn a_wrong_folder_name_is_all_that_is_said() {
        let folder = Folder { name: "7".to_owned(), ..folder(&[("donw.sql", "")]) };
        check_folder(
            &folder,
            &expect![
                "7: the folder's name has a version and nothing else; a migration folder is called `<version>-<name>`, for example `7-add-user-preferences`"
            ],
        );
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_refused_with_its_place() {
        let mut latin = folder(&[]);
        latin.files.insert("up.sql".to_owned(), b"SELECT 1;\nSELECT 'Gr\xf6\xdfe'\n".to_vec());
        check_folder(
            &latin,
            &expect![
                "007-product_stock/up.sql:2:11: byte 21 of the file (0xf6) is not UTF-8; save the file as UTF-8"
            ],
        );
        let mut utf_16 = folder(&[]);
        utf_16.files.insert("up.sql".to_owned(), b"\xff\xfeS\0E\0".to_vec());
        check_folder(
            &utf_16,
            &expect![
                "007-product_stock/up.sql:1:1: byte 1 of the file (0xff) is not UTF-8; it looks like UTF-16; save the file as UTF-8"
            ],
        );
        let mut no_mark = folder(&[]);
        no_mark.files.insert("up.sql".to_owned(), b"S\0E\0".to_vec());
        check_folder(
            &no_mark,
            &expect![
                "007-product_stock/up.sql:1:2: byte 2 of the file is a NUL, which no text has; it looks like UTF-16; save the file as UTF-8"
            ],
        );
    }

    #[test]
    fn plain_and_phased_do_not_mix() {
        check(
            &[("up.sql", ""), ("cleanup.mongodb.js", "")],
            &expect![
                "007-product_stock: a migration is plain or phased, and this one has both `up.sql` and `cleanup.mongodb.js`; move what is in `up` and `down` into `prepare` and `prepare.down`, or make two migrations of it"
            ],
        );
    }

    #[test]
    fn phases_come_in_their_order_whatever_the_files_are_called() {
        let manifest = "order = ['mongo', 'postgres']\n\
            [[run]]\nphase = 'execute'\ncommand = ['first']\n\
            [[backfill]]\nname = 'second'\npostgres = { table = 'a', set = 'b = 1' }\n\
            [[backfill]]\ndirection = 'down'\nname = 'back'\npostgres = { table = 'a', set = 'b = 0' }\n\
            [[invariant]]\nname = 'third'\npostgres = 'SELECT 0'\n\
            [[run]]\nphase = 'prepare'\ncommand = ['zeroth']";
        let files = [
            ("migration.toml", manifest),
            ("cleanup.sql", "SELECT 5"),
            ("prepare.sql", "SELECT 1"),
            ("prepare.mongodb.js", "db.a.drop()"),
            ("cleanup.mongodb.js", "db.b.drop()"),
        ];
        check(
            &files,
            &expect![[r#"
            prepare/mongo/1 Journaled 007-product_stock/prepare.mongodb.js:1 db.a.drop()
            prepare/postgres/1 Atomic 007-product_stock/prepare.sql:1 SELECT 1
            prepare/zeroth Journaled 007-product_stock/migration.toml:15 zeroth
            execute/first Journaled 007-product_stock/migration.toml:2 first
            execute/second Journaled 007-product_stock/migration.toml:5 UPDATE a SET b = 1
            validate/third Journaled 007-product_stock/migration.toml:12 SELECT 0, expected 0
            cleanup/mongo/1 Journaled 007-product_stock/cleanup.mongodb.js:1 db.b.drop()
            cleanup/postgres/1 Atomic 007-product_stock/cleanup.sql:1 SELECT 5"#]],
        );
    }

    #[test]
    fn scripts_of_phases_are_steps_of_phases() {
        check(
            &[("prepare.sql", ""), ("prepare.down.sql", ""), ("cleanup.mongodb.js", "")],
            &expect![[r#"
                prepare/postgres/1 Atomic 007-product_stock/prepare.sql:1 
                cleanup/mongo/1 Atomic 007-product_stock/cleanup.mongodb.js:1 "#]],
        );
    }

    #[test]
    fn what_is_wrong_in_a_phase_is_told() {
        let files = [
            ("prepare.sql", "SELECT 1;\n  COMMIT"),
            ("prepare.down.sql", "COMMIT"),
            ("cleanup.mongodb.js", "\nfor (;;) {}"),
        ];
        let places =
            [("cleanup.mongodb.js", 2, 1), ("prepare.down.sql", 1, 1), ("prepare.sql", 2, 3)];
        check_places(&files, &places);
    }

    #[test]
    fn a_backfill_or_a_run_beside_an_up_does_not_mix_either() {
        let backfill = "[[backfill]]\nname = 'a'\npostgres = { table = 'a', set = 'b = 1' }";
        check(
            &[("up.sql", ""), ("migration.toml", backfill)],
            &expect![
                "007-product_stock/migration.toml:1:1: a migration is plain or phased, and this one has both `up.sql` and `[[backfill]]`; move what is in `up` and `down` into `prepare` and `prepare.down`, or make two migrations of it"
            ],
        );
        let run = "\n[[run]]\ncommand = ['a']";
        check(
            &[("up.mongodb.js", ""), ("migration.toml", run)],
            &expect![
                "007-product_stock/migration.toml:2:1: a migration is plain or phased, and this one has both `up.mongodb.js` and `[[run]]`; move what is in `up` and `down` into `prepare` and `prepare.down`, or make two migrations of it"
            ],
        );
    }

    #[test]
    fn what_the_manifest_asks_for_and_happens_anyway_is_not_refused() {
        let manifest = "cleanup = 'auto'\nindependent = false\nphase_pause = '0s'\non_failure = 'stop'\ntemplate = false";
        check(
            &[("up.sql", "SELECT 1"), ("migration.toml", manifest)],
            &expect!["up/postgres/1 Atomic 007-product_stock/up.sql:1 SELECT 1"],
        );
    }

    #[test]
    fn a_plain_migration_may_have_invariants() {
        let manifest = "[[invariant]]\nname = 'a'\npostgres = 'SELECT 0'";
        check(
            &[("up.sql", ""), ("migration.toml", manifest)],
            &expect![[r#"
                up/postgres/1 Atomic 007-product_stock/up.sql:1 
                validate/a Journaled 007-product_stock/migration.toml:1 SELECT 0, expected 0"#]],
        );
    }

    #[test]
    fn an_invariant_that_is_locked_needs_a_cleanup_with_a_transaction() {
        let manifest = "[[invariant]]\nname = 'a'\npostgres = 'SELECT 0'\nlocked = true";
        let alone = [("migration.toml", manifest), ("cleanup.sql", "VACUUM a")];
        check(
            &alone,
            &expect![
                "007-product_stock/migration.toml:1:1: `a` is to be asked inside the transaction of the cleanup, and the cleanup has none in Postgres; leave out `locked`, or put what needs it into `cleanup.sql`, in front of statements that run alone"
            ],
        );
        check(
            &[("migration.toml", manifest), ("up.sql", "")],
            &expect![
                "007-product_stock/migration.toml:1:1: `a` is to be asked inside the transaction of the cleanup, and the cleanup has none in Postgres; leave out `locked`, or put what needs it into `cleanup.sql`, in front of statements that run alone"
            ],
        );
        check(
            &[("migration.toml", manifest), ("cleanup.sql", "VACUUM a; DROP TABLE a")],
            &expect![[r#"
                validate/a Journaled 007-product_stock/migration.toml:1 SELECT 0, expected 0
                cleanup/postgres/1 Journaled 007-product_stock/cleanup.sql:1 VACUUM a
                cleanup/postgres/2 Atomic 007-product_stock/cleanup.sql:1 DROP TABLE a"#]],
        );
    }

    struct Region(&'static str);

    impl Vars for Region {
        fn value(&self, name: &str) -> Option<&str> {
            (name == "region").then_some(self.0)
        }
        fn names(&self) -> Vec<&str> {
            vec!["region"]
        }
        fn is_secret(&self, _: &str) -> bool {
            false
        }
    }

    #[test]
    fn a_template_is_filled_in_and_its_checksum_is_not() {
        let files = [
            ("migration.toml", "template = true\ndescription = \"{{region}}\""),
            ("up.sql", "SELECT '{{region}}'"),
            ("down.sql", "SELECT '{{region}}-1'"),
        ];
        let read = |region| read_with(&folder(&files), &Region(region)).expect("it is right");
        let (eu, us) = (read("eu"), read("us"));
        assert!(eu.is_template);
        assert_eq!(eu.description, "eu");
        assert_eq!(eu.rollback.scripts["down.sql"], "SELECT 'eu-1'");
        assert_eq!(eu.checksum, us.checksum);
        assert_ne!(eu.steps[0].checksum, us.steps[0].checksum);
        expect!["up/postgres/1 Atomic 007-product_stock/up.sql:1 SELECT 'eu'"]
            .assert_eq(&show(&eu.steps));
        let several = read_with(&folder(&files), &Region("a'; VACUUM; SELECT 'b"));
        assert_eq!(several.map(|migration| migration.steps.len()), Ok(3));
    }

    #[test]
    fn names_in_a_template_that_stand_for_nothing_are_told_together() {
        check(
            &[("up.sql", "COMMIT {{a}}"), ("migration.toml", "\ntemplate = true # {{b}}")],
            &expect![[r"
                007-product_stock/migration.toml:2:19: there is no variable `b`; set it: `--var b=VALUE`, MIGRATE_VAR_B, or `b` in [vars] of migrate.toml
                007-product_stock/up.sql:1:8: there is no variable `a`; set it: `--var a=VALUE`, MIGRATE_VAR_A, or `a` in [vars] of migrate.toml"]],
        );
    }

    #[test]
    fn files_of_a_program_are_there_and_others_are_not() {
        let manifest = "[[run]]\ncommand = ['node', 'run.js']\nfiles = ['lib/a.js', 'README.md']";
        let files = [("migration.toml", manifest), ("run.js", ""), ("lib/b.js", "")];
        check(
            &files,
            &expect![[r#"
                007-product_stock/lib/b.js: no file of a migration has this name; a migration has `up.sql`, `down.sql`, `up.mongodb.js`, `down.mongodb.js`, `migration.toml` and `README.md`; a program's files are named in `files` of its `[[run]]`
                007-product_stock/migration.toml:3:10: there is no file `lib/a.js` in the migration's folder; names are relative to the folder
                007-product_stock/migration.toml:3:22: there is no file `README.md` in the migration's folder; names are relative to the folder"#]],
        );
    }

    #[test]
    fn a_folder_that_only_goes_down_has_nothing_to_apply() {
        let manifest = "[[backfill]]\ndirection = 'down'\nname = 'a'\npostgres = { table = 'a', set = 'b = 1' }";
        check(
            &[("migration.toml", manifest)],
            &expect![
                "007-product_stock: there is nothing to apply in the migration folder; add an `up.sql` or `up.mongodb.js`, or delete the folder"
            ],
        );
    }

    #[test]
    fn problems_of_all_files_are_told_at_once() {
        let files = [
            ("up.sql", "COMMIT"),
            ("down.sql", "\nCOMMIT"),
            ("up.mongodb.js", "for (;;) {}"),
            ("down.mongodb.js", "\n\n for (;;) {}"),
        ];
        let places = [
            ("down.mongodb.js", 3, 2),
            ("down.sql", 2, 1),
            ("up.mongodb.js", 1, 1),
            ("up.sql", 1, 1),
        ];
        check_places(&files, &places);
    }

    #[test]
    fn a_broken_manifest_is_told_alone() {
        check(
            &[("up.sql", "COMMIT"), ("migration.toml", "order = 1"), ("run.js", "")],
            &expect![[
                r#"007-product_stock/migration.toml:1:9: `order` must be a list of strings, not a whole number; for example `order = ["postgres", "mongo"]`"#
            ]],
        );
    }

    #[test]
    fn the_description_is_the_name_with_blanks_unless_the_manifest_has_one() {
        assert_eq!(migration(&[("up.sql", "")]).description, "product stock");
        let own = migration(&[("up.sql", ""), ("migration.toml", "description = 'Stock'")]);
        assert_eq!(own.description, "Stock");
        assert_eq!((own.version, own.name.as_str()), (Version(7), "product_stock"));
        assert_eq!(own.folder, "007-product_stock");
    }

    #[test]
    fn the_checksum_is_over_every_file_but_the_readme_and_hidden_ones() {
        let files = [("up.sql", "SELECT 1;\n"), ("down.sql", "")];
        let sum = migration(&files).checksum;
        assert_eq!(sum, Checksum::of(b"down.sql\0\0up.sql\0SELECT 1;\n\0"));
        let with =
            |more: (&'static str, &'static str)| migration(&[files[0], files[1], more]).checksum;
        assert_eq!(with(("README.md", "x")), sum);
        assert_eq!(with((".gitignore", "x")), sum);
        assert_ne!(with(("migration.toml", "")), sum);
        let crlf = migration(&[("up.sql", "\u{feff}SELECT 1;\r\n"), ("down.sql", "")]);
        assert_eq!(crlf.checksum, sum);
    }

    #[test]
    fn a_comment_between_statements_changes_the_migration_and_no_step() {
        let one = "db.a.insertOne({ _id: 1 });\n";
        let two = "db.a.insertOne({ _id: 2 });\n";
        let of =
            |sql: &str, mongosh: &str| migration(&[("up.sql", sql), ("up.mongodb.js", mongosh)]);
        let a = of("SELECT 1;\n-- one\nSELECT 2", &format!("{one}{two}"));
        let b = of("SELECT 1;\n\nSELECT 2", &format!("{one}// two\n{two}"));
        let c = of("SELECT 1;\nSELECT 3", &format!("{one}{two}"));
        let sums = |migration: &Migration| {
            migration.steps.iter().map(|step| step.checksum).collect::<Vec<_>>()
        };
        assert_ne!(a.checksum, b.checksum);
        assert_eq!(sums(&a), sums(&b));
        assert_ne!(sums(&a)[0], sums(&c)[0]);
        assert_eq!(sums(&a)[1..], sums(&c)[1..]);
        assert_ne!(sums(&a)[1], sums(&a)[2]);
        assert_eq!(sums(&a)[0], Checksum::of(b"sql\0SELECT 1;\nSELECT 2"));
        let Body::Mongo(step) = &a.steps[1].body else { panic!("Postgres comes first") };
        let bytes = [&b"mongo\0database\0"[..], &step.commands[0].body].concat();
        assert_eq!(sums(&a)[1], Checksum::of(&bytes));
    }

    #[test]
    fn what_the_history_keeps_gives_the_down_steps_in_reverse_order_of_the_stores() {
        let migration = migration(&[
            ("up.sql", ""),
            ("up.mongodb.js", ""),
            ("down.sql", "SELECT 1;\r\nVACUUM;SELECT 2"),
            ("down.mongodb.js", "db.a.deleteMany({})"),
            ("migration.toml", "irreversible = 'a'\n[timeouts]\nlock = '5s'\nstatement = '1h'"),
        ]);
        let kept = serde_json::to_string(&migration.rollback).expect("it is text and numbers");
        expect![[r#"{"format":1,"scripts":{"down.mongodb.js":"db.a.deleteMany({})","down.sql":"SELECT 1;\nVACUUM;SELECT 2"},"order":["postgres","mongo"],"transaction":true,"irreversible":"a","lock_timeout_ms":5000,"statement_timeout_ms":3600000}"#]].assert_eq(&kept);
        let kept: Rollback = serde_json::from_str(&kept).expect("it was written so");
        assert_eq!(kept, migration.rollback);
        let steps =
            down_steps(migration.version, &migration.folder, &kept).expect("it was read once");
        expect![[r#"
            down/mongo/1 Atomic 007-product_stock/down.mongodb.js:1 db.a.deleteMany({})
            down/postgres/1 Atomic 007-product_stock/down.sql:1 SELECT 1
            down/postgres/2 Journaled 007-product_stock/down.sql:2 VACUUM
            down/postgres/3 Atomic 007-product_stock/down.sql:2 SELECT 2"#]]
        .assert_eq(&show(&steps));
        let Body::Postgres(step) = &steps[1].body else { panic!("MongoDB comes first") };
        assert_eq!(step.timeouts.lock, Some(Duration::from_secs(5)));
        assert_eq!(step.timeouts.statement, Some(Duration::from_hours(1)));

        let turned = Rollback { order: vec!["mongo".to_owned()], transaction: false, ..kept };
        let steps = down_steps(migration.version, &migration.folder, &turned).expect("as before");
        expect![[r#"
            down/postgres/1 Atomic 007-product_stock/down.sql:1 SELECT 1
            down/postgres/2 Journaled 007-product_stock/down.sql:2 VACUUM
            down/postgres/3 Atomic 007-product_stock/down.sql:2 SELECT 2
            down/mongo/1 Atomic 007-product_stock/down.mongodb.js:1 db.a.deleteMany({})"#]]
        .assert_eq(&show(&steps));
    }

    #[test]
    fn what_the_history_cannot_have_kept_is_refused() {
        let check = |format, file: &str, expected: Expect| {
            let scripts = BTreeMap::from([(file.to_owned(), "SELECT 1".to_owned())]);
            let rollback = Rollback { format, scripts, transaction: true, ..Rollback::default() };
            let problems = down_steps(Version(7), "007-x", &rollback).expect_err("it is wrong");
            let lines = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            expected.assert_eq(&lines.join("\n"));
        };
        check(
            2,
            "down.sql",
            expect![
                "007-x: the history keeps the down of version 007 in form 2, and this release reads form 1; revert it with the release that applied it"
            ],
        );
        check(
            1,
            "up.sql",
            expect![
                "007-x/up.sql: the history keeps this with version 007, and it is no down script; revert it with the release that applied it"
            ],
        );
        check(
            1,
            "down.psql",
            expect![
                "007-x/down.psql: the history keeps this with version 007, and it is no down script; revert it with the release that applied it"
            ],
        );
    }

    #[test]
    fn a_down_that_this_release_cannot_read_is_told_with_its_place() {
        let scripts = BTreeMap::from([("down.sql".to_owned(), "\n COMMIT".to_owned())]);
        let rollback = Rollback { format: 1, scripts, ..Rollback::default() };
        let problems = down_steps(Version(7), "007-x", &rollback).expect_err("it is wrong");
        let at = problems[0].at.as_ref().expect("it has a place");
        assert_eq!((problems[0].file.as_str(), at.line, at.column), ("007-x/down.sql", 2, 2));
    }
}
