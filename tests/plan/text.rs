//! The little language of these tests.
//!
//! Files, a line for each migration:
//! ```text
//! with standalone                  the servers, see `server`
//! 001 p m* m                       p is a step for Postgres, m one for MongoDB,
//! 002 p~b m! | folder~b            * journaled, ! dropDatabase, - only comments,
//!                                  & calls a function; another text after ~
//! 003 p | down m* p | order mongo | irreversible why | requires postgres 16.0
//! ```
//! Without `down`, every store that has a step has a down script: `p` and `m*`.
//!
//! ```text
//! 004 prepare:p execute:p execute:m validate:p cleanup:p | down prepare:p cleanup:p
//! 005 prepare:p | cleanup hold | independent | pause 5s | down prepare:p execute:p
//! ```
//! A step of a phase has it in front; one of `execute` is a backfill, one of
//! `validate` an invariant, called `p1`, `m2` after its store and its place.
//!
//! History, in any order:
//! ```text
//! 001 done                         every step of the file, and both rows
//! 001 up/postgres/1 applied        in the store of the step
//! 002 up/mongo/1#2 started applied several events; the second attempt
//! 002 accepted both                so is `baseline`, also as `baseline:started`
//! row 002 running mongo            in `postgres`, `mongo` or `both`
//! stored 003 p m*                  the down scripts that both histories keep
//! ```
//! After each: `rank=2` (the version's number if nothing is said), `~old` (another
//! text of step and folder), `folder~old` (of the folder alone), `run=`, `release=`,
//! `name=` (the folder was called otherwise).

use expect_test::Expect;
use lockstep::core::checksum::Checksum;
use lockstep::core::duration;
use lockstep::core::history::{
    Entry, Event, Histories, History, Record, Row, RowStatus, Snapshot, Timestamp,
};
use lockstep::core::id::{Direction, Phase, StepId, StepName, StoreName, Version};
use lockstep::core::migration::{Migration, MigrationSet, Options, Requires, Rollback};
use lockstep::core::parse::folder::{self, Folder};
use lockstep::core::parse::manifest::CleanupPolicy;
use lockstep::core::plan::{Down, Goal, Known, OutOfOrder, Plan, PlanError, Up};
use lockstep::core::plan::{Stamp, baseline, needs_rollbacks, plan, up_to};
use lockstep::core::server::{MongoServer, PostgresServer, Servers, Topology};
use lockstep::core::status;
use lockstep::core::step::{
    Body, Commit, MongoKind, MongoStep, PgStep, Repeat, SqlKind, SqlStatement, Step,
};
use std::collections::BTreeMap;

/// All that a plan is made of, as it was written down.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub set: MigrationSet,
    pub servers: Servers,
    pub postgres: Snapshot,
    pub mongo: Snapshot,
    /// The down scripts that the histories keep.
    pub stored: BTreeMap<Version, Rollback>,
    /// What the checksums in messages stand for.
    labels: BTreeMap<String, String>,
}

impl World {
    pub fn new(files: &str, history: &str) -> World {
        let mut world =
            World { servers: servers("postgres 15.4, mongo 7.0.2"), ..World::default() };
        let mut migrations = Vec::new();
        for line in lines(files) {
            match line.strip_prefix("with ") {
                Some(text) => world.servers = servers(text),
                None => migrations.push(world.migration(line)),
            }
        }
        world.set = MigrationSet::new(migrations).expect("each version once");
        for line in lines(history) {
            world.remember(line);
        }
        world
    }

    pub fn snapshot(&mut self, store: StoreName) -> &mut Snapshot {
        match store {
            StoreName::Postgres => &mut self.postgres,
            StoreName::Mongo => &mut self.mongo,
        }
    }

    pub fn histories(&self) -> Histories {
        Histories {
            postgres: History::replay(self.postgres.clone()),
            mongo: History::replay(self.mongo.clone()),
        }
    }

    pub fn plan(&self, goal: &Goal) -> Result<Plan, Box<PlanError>> {
        let histories = self.histories();
        let wanted = needs_rollbacks(&histories, goal)?;
        // A row carries the scripts; where no row is, there are none.
        let rollbacks = wanted
            .into_iter()
            .filter(|version| histories.row(*version).is_some())
            .filter_map(|version| Some((version, self.stored.get(&version)?.clone())))
            .collect();
        let known = Known {
            set: &self.set,
            histories: &histories,
            rollbacks: &rollbacks,
            servers: &self.servers,
        };
        Ok(plan(&known, goal)?)
    }

    /// What `migrate baseline` writes, a line for each write.
    fn baseline(&self, version: Version) -> String {
        let (histories, rollbacks) = (self.histories(), BTreeMap::new());
        let known = Known {
            set: &self.set,
            histories: &histories,
            rollbacks: &rollbacks,
            servers: &self.servers,
        };
        let stamp = Stamp {
            at: Timestamp(3),
            who: "me@here".to_owned(),
            run_id: "run".to_owned(),
            tool_version: "1.0.0".to_owned(),
        };
        let decided = up_to(&self.set, version).and_then(|it| baseline(&known, &it, &stamp));
        let left = match decided {
            Ok(left) => left,
            Err(error) => return format!("error: {error}\nhint: {}", error.hint()),
        };
        let record = |entry: &Entry| match entry {
            Entry::Record(Record { step, event, rank, attempt, .. }) => match attempt {
                1 => format!("{} {event} rank={rank}", step.version),
                attempt => format!("{}#{attempt} {event} rank={rank}", step.version),
            },
            Entry::Row(row, _) => format!("row {} {} rank={}", row.version, row.status, row.rank),
            Entry::RowGone(version) => format!("no row {version}"),
        };
        let records = left.records.iter().map(|(store, entries)| {
            let entries: Vec<String> = entries.iter().map(record).collect();
            format!("{store}: {}", entries.join(", "))
        });
        let rows = left.rows.iter().map(|(store, entry)| format!("{store}: {}", record(entry)));
        let lines: Vec<String> = records.chain(rows).collect();
        if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") }
    }

    fn sum(&mut self, subject: &str, text: &str) -> Checksum {
        let sum = Checksum::of(format!("{subject} {text}").as_bytes());
        let label = if text.is_empty() { "<the text>" } else { &format!("<{text}>") };
        self.labels.insert(sum.short(), label.to_owned());
        sum
    }

    fn step_sum(&mut self, version: Version, name: &StepName, text: &str) -> Checksum {
        self.sum(&format!("{version} {name}"), text)
    }

    fn folder_sum(&mut self, version: Version, text: &str) -> Checksum {
        self.sum(&format!("{version} folder"), text)
    }

    fn migration(&mut self, line: &str) -> Migration {
        let mut parts = line.split('|').map(str::trim);
        let first = parts.next().expect("split gives one part at least");
        let (version, up) = first.split_once(' ').unwrap_or((first, ""));
        let version: Version = version.parse().expect("a version");
        let folder = folder_name(version);
        let mut steps = Vec::new();
        for token in up.split_whitespace() {
            let (kind, text) = token.split_once('~').unwrap_or((token, ""));
            let mut step = up_step(kind, &steps);
            step.checksum = self.step_sum(version, &step.name, text);
            step.file = format!("{folder}/{}", step.file);
            steps.push(step);
        }
        let mut down = Vec::new();
        for (store, token) in [(StoreName::Postgres, "p"), (StoreName::Mongo, "m*")] {
            if steps.iter().any(|step| step.phase() == Phase::Up && step.store() == store) {
                down.push(token);
            }
        }
        let mut rollback = scripts(&down);
        let mut options = Options::default();
        let mut folder_text = "";
        for part in parts {
            let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
            match word {
                "down" => rollback = scripts(&rest.split_whitespace().collect::<Vec<_>>()),
                "order" if rest == "mongo" => rollback.order.reverse(),
                "irreversible" => rollback.irreversible = Some(rest.to_owned()),
                "requires" => options.requires = requires(rest),
                "cleanup" => {
                    options.cleanup = Some(match rest {
                        "auto" => CleanupPolicy::Auto,
                        "hold" => CleanupPolicy::Hold,
                        "next-release" => CleanupPolicy::NextRelease,
                        _ => panic!("not a policy: {rest}"),
                    });
                }
                "independent" => options.independent = true,
                "pause" => options.phase_pause = duration::parse(rest).expect("a duration"),
                text => folder_text = text.strip_prefix("folder~").expect("a part of a file"),
            }
        }
        options.irreversible.clone_from(&rollback.irreversible);
        rollback.has_cleanup = steps.iter().any(|step| step.phase() == Phase::Cleanup);
        self.stored.insert(version, rollback.clone());
        Migration {
            version,
            name: "name".to_owned(),
            description: "name".to_owned(),
            checksum: self.folder_sum(version, folder_text),
            folder,
            steps,
            rollback,
            options,
            is_template: false,
            unready: Vec::new(),
        }
    }

    fn remember(&mut self, line: &str) {
        let mut words = Vec::new();
        let mut extra = BTreeMap::new();
        for word in line.split_whitespace() {
            match word.split_once(['=', '~']) {
                Some((key, value)) => drop(extra.insert(key, value)),
                None => words.push(word),
            }
        }
        match words.as_slice() {
            ["stored", version, tokens @ ..] => {
                let version = version.parse().expect("a version");
                self.stored.insert(version, scripts(tokens));
            }
            ["row", version, status, place] => {
                let version = version.parse().expect("a version");
                self.row(version, status.parse().expect("a status"), place, &extra);
            }
            [version, "done"] => {
                let version = version.parse().expect("a version");
                let migration = self.set.get(version).expect("`done` is for what has a file");
                let names: Vec<_> = migration.steps.iter().map(|step| step.name.clone()).collect();
                for name in names {
                    self.record(
                        version,
                        name.clone(),
                        1,
                        Event::Applied,
                        &extra,
                        name_store(&name),
                    );
                }
                self.row(version, RowStatus::Completed, "both", &extra);
            }
            [version, word, place]
                if word.starts_with("baseline") || word.starts_with("accepted") =>
            {
                let version = version.parse().expect("a version");
                let (word, event) = word.split_once(':').unwrap_or((word, "applied"));
                let (name, attempt) = name_and_attempt(word);
                let event = event.parse().expect("an event");
                for store in places(place) {
                    self.record(version, name.clone(), attempt, event, &extra, store);
                }
            }
            [version, name, events @ ..] if !events.is_empty() => {
                let version = version.parse().expect("a version");
                let (name, attempt) = name_and_attempt(name);
                for event in events {
                    let event = event.parse().expect("an event");
                    self.record(version, name.clone(), attempt, event, &extra, name_store(&name));
                }
            }
            _ => panic!("not a line of a history: {line}"),
        }
    }

    fn record(
        &mut self,
        version: Version,
        step: StepName,
        attempt: u32,
        event: Event,
        extra: &BTreeMap<&str, &str>,
        store: StoreName,
    ) {
        let file = self.set.get(version);
        let own = file.and_then(|file| file.steps.iter().find(|it| it.name == step));
        let own = own.map(|step| step.checksum);
        let checksum = match (extra.get(""), own) {
            (Some(text), _) => self.step_sum(version, &step, text),
            (None, Some(sum)) => sum,
            (None, None) => self.step_sum(version, &step, ""),
        };
        let record = Record {
            step: StepId { version, name: step },
            attempt,
            event,
            rank: rank(version, extra),
            checksum,
            migration_checksum: self.folder_of(version, extra),
        };
        self.snapshot(store).records.push(record);
    }

    fn folder_of(&mut self, version: Version, extra: &BTreeMap<&str, &str>) -> Checksum {
        match extra.get("folder").or_else(|| extra.get("")) {
            Some(text) => self.folder_sum(version, text),
            None => match self.set.get(version) {
                Some(migration) => migration.checksum,
                None => self.folder_sum(version, ""),
            },
        }
    }

    fn row(
        &mut self,
        version: Version,
        status: RowStatus,
        place: &str,
        extra: &BTreeMap<&str, &str>,
    ) {
        let row = Row {
            version,
            rank: rank(version, extra),
            migration_name: match extra.get("name") {
                Some(name) => format!("{version}-{name}"),
                None => folder_name(version),
            },
            description: "name".to_owned(),
            checksum: self.folder_of(version, extra),
            status,
            executed_at: Timestamp(1),
            finished_at: (status != RowStatus::Running).then_some(Timestamp(2)),
            execution_time_ms: 1,
            applied_by: "me@here".to_owned(),
            release: extra.get("release").map(ToString::to_string),
            tool_version: "1.0.0".to_owned(),
            run_id: extra.get("run").copied().unwrap_or("run").to_owned(),
        };
        for store in places(place) {
            self.snapshot(store).rows.push(row.clone());
        }
    }

    /// What a plan says, or why there is none; checksums by what they stand for.
    fn show(&self, goal: &str) -> String {
        let text = match self.plan(&self::goal(goal)) {
            Ok(plan) if plan == Plan::default() => "nothing".to_owned(),
            Ok(plan) => {
                let ahead = plan.ahead.iter().map(|version| format!("ahead: {version}"));
                let is_empty = plan.work.is_empty() && plan.waiting.is_empty();
                let work = (!is_empty).then(|| plan.to_string());
                let held = plan.held.iter().map(|version| format!("held: {version}"));
                let open = plan.open.iter().map(|version| format!("open: {version}"));
                ahead.chain(work).chain(held).chain(open).collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("error: {error}\nhint: {}", error.hint()),
        };
        self.labels.iter().fold(text, |text, (sum, label)| text.replace(sum, label))
    }
}

/// Files and a history in, the plan out.
#[track_caller]
pub fn check(files: &str, history: &str, goal: &str, expected: &Expect) {
    expected.assert_eq(&World::new(files, history).show(goal));
}

/// Files and a history in, what `migrate baseline` writes out.
#[track_caller]
pub fn check_baseline(files: &str, history: &str, version: &str, expected: &Expect) {
    let world = World::new(files, history);
    expected.assert_eq(&world.baseline(version.parse().expect("a version")));
}

/// The same plan for each of several histories.
#[track_caller]
pub fn check_each(files: &str, histories: &[&str], goal: &str, expected: &Expect) {
    let plans = histories.iter().map(|history| World::new(files, history).show(goal));
    let mut plans: Vec<String> = plans.collect();
    plans.dedup();
    expected.assert_eq(&plans.join("\n-- but also --\n"));
}

/// Files and a history in, what `migrate status` says out.
#[track_caller]
pub fn check_status(files: &str, history: &str, expected: &Expect) {
    let world = World::new(files, history);
    let lines = status::lines(&world.set, &world.histories(), &world.servers.stores());
    let line = |line: &status::Line| {
        format!(
            "{} {}: postgres {}, mongo {}, file {}{}{}",
            line.version,
            line.state.word(),
            line.postgres.word(),
            line.mongo.word(),
            line.file.word(),
            line.phase.map_or(String::new(), |phase| format!(", next {phase}")),
            if line.is_open && line.state != status::State::Partial { ", open" } else { "" }
        )
    };
    expected.assert_eq(&lines.iter().map(line).collect::<Vec<_>>().join("\n"));
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn rank(version: Version, extra: &BTreeMap<&str, &str>) -> u32 {
    match extra.get("rank") {
        Some(rank) => rank.parse().expect("a rank"),
        None => u32::try_from(version.0).expect("a small version"),
    }
}

pub fn folder_name(version: Version) -> String {
    format!("{version}-name")
}

fn name_and_attempt(text: &str) -> (StepName, u32) {
    let (name, attempt) = text.split_once('#').unwrap_or((text, "1"));
    (name.parse().expect("a step"), attempt.parse().expect("an attempt"))
}

pub fn name_store(name: &StepName) -> StoreName {
    match name {
        StepName::Script { store, .. } => *store,
        StepName::Named { slug, .. } if slug.starts_with('m') => StoreName::Mongo,
        StepName::Named { .. } => StoreName::Postgres,
        StepName::Baseline | StepName::Accepted => {
            panic!("{name} does not say in which store it is")
        }
    }
}

fn places(text: &str) -> Vec<StoreName> {
    match text {
        "both" => StoreName::BOTH.to_vec(),
        store => vec![store.parse().expect("a store")],
    }
}

/// A step of `up`: what it says does not matter, only what it is.
fn up_step(token: &str, before: &[Step]) -> Step {
    let (stem, kind) = token.split_once(':').unwrap_or(("up", token));
    let phase = match stem {
        "up" => Phase::Up,
        "prepare" => Phase::Prepare,
        "execute" => Phase::Execute,
        "validate" => Phase::Validate,
        "cleanup" => Phase::Cleanup,
        _ => panic!("not a phase: {stem}"),
    };
    let store = if kind.starts_with('p') { StoreName::Postgres } else { StoreName::Mongo };
    let before = before.iter().filter(|step| step.phase() == phase);
    if matches!(phase, Phase::Execute | Phase::Validate) {
        return named_step(phase, store, before.count() + 1);
    }
    let index = before.filter(|step| step.store() == store).count() + 1;
    let postgres = |kind| {
        let statements =
            vec![SqlStatement { text: "UPDATE things SET a = 1".to_owned(), line: 1, kind }];
        Body::Postgres(PgStep { statements, ..PgStep::default() })
    };
    let mongo = |kind| {
        Body::Mongo(MongoStep { text: "db.t.drop()".to_owned(), commands: Vec::new(), kind })
    };
    let (commit, body) = match kind {
        "p" => (Commit::Atomic, postgres(SqlKind::Transactional)),
        "p*" => (Commit::Journaled, postgres(SqlKind::AloneRepeatable)),
        "m" => (Commit::Atomic, mongo(MongoKind::Write(Repeat::Harmless))),
        "m*" => (Commit::Journaled, mongo(MongoKind::Drop)),
        "m!" => (Commit::Journaled, mongo(MongoKind::DropDatabase)),
        "p-" => (Commit::Atomic, Body::Postgres(PgStep::default())),
        "p&" => (Commit::Atomic, postgres(SqlKind::Function { name: "fill".to_owned() })),
        "m-" => (Commit::Atomic, mongo(MongoKind::Nothing)),
        _ => panic!("not a kind of step: {kind}"),
    };
    Step {
        name: StepName::Script {
            phase,
            direction: Direction::Up,
            store,
            index: u32::try_from(index).expect("few steps"),
        },
        checksum: Checksum::of(b""),
        commit,
        body,
        file: match store {
            StoreName::Postgres => format!("{stem}.sql"),
            StoreName::Mongo => format!("{stem}.mongodb.js"),
        },
        line: 1,
    }
}

/// A backfill, or an invariant, as a folder of its own would have it.
fn named_step(phase: Phase, store: StoreName, index: usize) -> Step {
    let text = match (phase, store) {
        (Phase::Execute, StoreName::Postgres) => {
            format!("[[backfill]]\nname = 'p{index}'\npostgres = {{ table = 't', set = 'n = 1' }}")
        }
        (Phase::Execute, StoreName::Mongo) => format!(
            "[[backfill]]\nname = 'm{index}'\nmongo = {{ collection = 't', update = '{{ $set: {{ n: 1 }} }}' }}"
        ),
        (_, StoreName::Postgres) => {
            format!("[[invariant]]\nname = 'p{index}'\npostgres = 'SELECT 0'")
        }
        (_, StoreName::Mongo) => format!(
            "[[invariant]]\nname = 'm{index}'\nmongo = {{ collection = 't', count = '{{}}' }}"
        ),
    };
    let files = BTreeMap::from([("migration.toml".to_owned(), text.into_bytes())]);
    let folder = Folder { name: "001-name".to_owned(), files };
    let mut step = folder::read(&folder).expect("it is right").steps.remove(0);
    "migration.toml".clone_into(&mut step.file);
    step
}

/// Down scripts that are cut into these steps.
pub fn scripts(tokens: &[&str]) -> Rollback {
    let mut scripts = BTreeMap::new();
    let mut manifest = None;
    for token in tokens {
        let (stem, kind) = match token.split_once(':') {
            Some(("execute", "p")) => {
                let backfill = "[[backfill]]\ndirection = 'down'\nname = 'back'\n\
                     postgres = { table = 't', set = 'n = 0' }";
                manifest = Some(backfill.to_owned());
                continue;
            }
            Some((phase, kind)) => (format!("{phase}.down"), kind),
            None => ("down".to_owned(), *token),
        };
        let (form, text) = match kind {
            "p" => ("sql", "DROP TABLE t;\n"),
            "p*" => ("sql", "DROP INDEX CONCURRENTLY t_i;\n"),
            "m" => ("mongodb.js", "db.t.deleteOne({ _id: 1 });\n"),
            "m*" => ("mongodb.js", "db.t.drop();\n"),
            "p?" => ("sql", "BEGIN;\n"),
            "p&" => ("sql", "CALL lockstep.empty('1');\n"),
            _ => panic!("not a kind of down step: {token}"),
        };
        scripts.entry(format!("{stem}.{form}")).or_insert_with(String::new).push_str(text);
    }
    let order = StoreName::BOTH.map(|store| store.to_string()).to_vec();
    Rollback { format: 1, scripts, order, transaction: true, manifest, ..Rollback::default() }
}

/// `postgres 16.0`, `mongo 6.0`, `replica-set`.
fn requires(text: &str) -> Requires {
    let mut requires = Requires::default();
    let number = |text: &str| {
        let (major, minor) = text.split_once('.').expect("major.minor");
        Some((major.parse().expect("a number"), minor.parse().expect("a number")))
    };
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["postgres", least] => requires.postgres = number(least),
        ["mongo", least] => requires.mongo = number(least),
        ["replica-set"] => requires.replica_set = true,
        _ => panic!("not a requirement: {text}"),
    }
    requires
}

/// `standalone`, or what there is: `postgres 15.4, mongo 7.0.2`.
fn servers(text: &str) -> Servers {
    let mut servers = Servers::default();
    if text == "standalone" {
        servers = self::servers("postgres 15.4, mongo 7.0.2");
        servers.mongo.as_mut().expect("has one").topology = Topology::Standalone;
        return servers;
    }
    for server in text.split(", ") {
        match server.split_once(' ').expect("a server and its version") {
            ("postgres", version) => {
                servers.postgres = Some(PostgresServer { version: version.to_owned() });
            }
            ("mongo", version) => {
                let version = version.to_owned();
                servers.mongo = Some(MongoServer { version, topology: Topology::ReplicaSet });
            }
            _ => panic!("not a server: {server}"),
        }
    }
    servers
}

/// A command line without the program.
pub fn goal(text: &str) -> Goal {
    let words: Vec<&str> = text.split_whitespace().collect();
    let version = |text: &str| text.parse().expect("a version");
    let number = |text: &str| text.parse().expect("a number");
    match words.as_slice() {
        ["up", flags @ ..] => {
            let mut up = Up::default();
            let mut flags = flags.iter();
            while let Some(flag) = flags.next() {
                let mut value = || *flags.next().expect("a value");
                match *flag {
                    "--to" => up.to = Some(version(value())),
                    "--steps" => up.steps = Some(number(value())),
                    "--release" => up.release = Some(value().to_owned()),
                    "--through" => {
                        up.through = Some(match value() {
                            "prepare" => Phase::Prepare,
                            "execute" => Phase::Execute,
                            "validate" => Phase::Validate,
                            "cleanup" => Phase::Cleanup,
                            phase => panic!("not a phase: {phase}"),
                        });
                    }
                    // The project's, from `migrate.toml`.
                    "policy=hold" => up.policy = CleanupPolicy::Hold,
                    "--allow-out-of-order" => up.out_of_order = OutOfOrder::Allow,
                    _ => panic!("not a flag of up: {flag}"),
                }
            }
            Goal::Up(up)
        }
        ["cleanup"] => Goal::Cleanup(None),
        ["cleanup", only] => Goal::Cleanup(Some(version(only))),
        ["down"] => Goal::Down(Down::Steps(1)),
        ["down", "--to", to] => Goal::Down(Down::To(version(to))),
        ["down", "--steps", steps] => Goal::Down(Down::Steps(number(steps))),
        ["down", "--last-run"] => Goal::Down(Down::LastRun),
        ["down", "--release", release] => Goal::Down(Down::Release((*release).to_owned())),
        _ => panic!("not a goal: {text}"),
    }
}
