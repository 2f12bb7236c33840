//! The check before a deployment: what was found out about both databases goes
//! in, what somebody should know and do comes out.

use crate::core::id::StoreName;
use crate::core::migration::{Migration, MigrationSet};
use crate::core::parse::manifest::{Change, Work};
use crate::core::parse::sql::needs::{SqlNeed, needs};
use crate::core::plan;
use crate::core::server::{MongoServer, PostgresServer, Servers, Topology};
use crate::core::status::Line;
use crate::core::step::{Body, Command, CommandTarget, QualifiedName, Step};
use bson::raw::RawDocument;
use std::collections::BTreeSet;

/// The clocks may differ by this much. Leases last 30 s by the servers' clocks;
/// more than this confuses the people who read the times.
const SKEW_MAX_MS: i64 = 2_000;

/// A standby that is further behind is told of.
const LAG_MAX_MS: i64 = 10_000;

/// An answer that takes longer is worth knowing about: each step costs a few.
const LATENCY_MAX_MS: u64 = 100;

/// Less room than this share of a disk is told of.
const FREE_PERCENT_MIN: u64 = 15;

/// So many names of one kind are told; the rest is counted.
const NAMES_MAX: usize = 5;

/// The five names in both stores.
pub const HISTORY: [&str; 5] = [
    "migration_control",
    "migration_steps",
    "migration_history",
    "migration_runs",
    "migration_rejects",
];

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// It works, until it does not.
    Warning,
    /// `up` would fail, or did.
    Problem,
}

impl Level {
    /// The word in `doctor --output json`.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// What a check is about. Each has its section in docs/doctor.md.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Check {
    /// The database answers.
    Reachable,
    /// The connection is encrypted.
    Tls,
    /// Whether pending migrations can be applied as they are.
    Migrations,
    /// The versions that pending migrations require.
    Requires,
    /// Whether the server takes writes.
    Writable,
    /// Standalone, replica set or sharded; a majority.
    Topology,
    /// What our role may do.
    Privileges,
    /// Whether a dead run's statements can be found and ended.
    Orphans,
    /// Something between us and the server.
    Pooler,
    /// How far standbys are behind.
    Replication,
    /// The three clocks.
    Clock,
    /// What a backfill may look at to slow down.
    Pace,
    /// Room on the disk.
    Room,
    /// Indexes that a build left invalid.
    InvalidIndexes,
    /// Transactions that hold up index builds and locks.
    OldTransactions,
    /// The histories: readable, and of one pair.
    History,
}

impl Check {
    /// The word in `doctor --output json`.
    pub fn word(self) -> &'static str {
        match self {
            Check::Reachable => "reachable",
            Check::Tls => "tls",
            Check::Migrations => "migrations",
            Check::Requires => "requires",
            Check::Writable => "writable",
            Check::Topology => "topology",
            Check::Privileges => "privileges",
            Check::Orphans => "orphans",
            Check::Pooler => "pooler",
            Check::Replication => "replication",
            Check::Clock => "clock",
            Check::Pace => "pace",
            Check::Room => "room",
            Check::InvalidIndexes => "invalid-indexes",
            Check::OldTransactions => "old-transactions",
            Check::History => "history",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub check: Check,
    /// Where; `None` when it is about both.
    pub store: Option<StoreName>,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do about it; `None` only when it is [`Level::Ok`].
    pub next: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: Check, store: Option<StoreName>, message: impl Into<String>) -> Finding {
        Finding { check, store, level: Level::Ok, message: message.into(), next: None }
    }

    /// Something to do.
    pub fn new(
        check: Check,
        store: Option<StoreName>,
        level: Level,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding { check, store, level, message: message.into(), next: Some(next.into()) }
    }
}

/// What all findings add up to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// No problem.
    Fine,
    /// A database does not answer.
    Unreachable,
    /// A server lacks what a pending migration requires.
    Unmet,
    /// Any other problem.
    Problem,
}

/// What all findings add up to: the first that keeps anything from working.
pub fn verdict(findings: &[Finding]) -> Verdict {
    let has = |check: Option<Check>| {
        findings.iter().any(|finding| {
            finding.level == Level::Problem && check.is_none_or(|check| check == finding.check)
        })
    };
    match (has(Some(Check::Reachable)), has(Some(Check::Requires)), has(None)) {
        (true, _, _) => Verdict::Unreachable,
        (false, true, _) => Verdict::Unmet,
        (false, false, true) => Verdict::Problem,
        (false, false, false) => Verdict::Fine,
    }
}

// --- what is needed ----------------------------------------------------------

/// What pending migrations need.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// In Postgres.
    pub postgres: BTreeSet<SqlNeed>,
    /// In MongoDB: the action on the collection (empty: the database).
    pub mongo: BTreeSet<(String, &'static str)>,
}

impl Needs {
    /// What every migration needs that still has something to do.
    pub fn of(set: &MigrationSet, lines: &[Line]) -> Needs {
        let mut found = Needs::default();
        for line in lines.iter().filter(|line| line.state.is_pending()) {
            let steps = set.get(line.version).map(|migration| migration.steps.as_slice());
            steps.unwrap_or_default().iter().for_each(|step| found.add(step));
        }
        found
    }

    fn add(&mut self, step: &Step) {
        match &step.body {
            Body::Postgres(body) => {
                for statement in &body.statements {
                    self.postgres.extend(needs(&statement.text));
                }
            }
            Body::Mongo(body) => {
                for command in &body.commands {
                    self.mongo.extend(actions(command));
                }
            }
            Body::Backfill(backfill) => match &backfill.work {
                Work::Update { .. } | Work::CopyToPostgres { .. } | Work::Sql { .. } => {
                    self.postgres.extend(needs(&backfill.statement()));
                }
                // What its function does there, nobody can see.
                Work::Call { table, .. } => {
                    self.postgres.extend(needs(&format!("SELECT FROM {table}")));
                }
                Work::Documents { collection, change: Change::Call(_), .. } => {
                    self.mongo.insert((collection.clone(), "find"));
                }
                Work::Documents { collection, change, .. } => {
                    let action = if *change == Change::Delete { "remove" } else { "update" };
                    self.mongo.extend(["find", action].map(|action| (collection.clone(), action)));
                }
                Work::CopyToMongo { to, .. } => {
                    let actions = ["find", "insert", "update"];
                    self.mongo.extend(actions.map(|action| (to.clone(), action)));
                }
            },
            // What they ask is known to the server alone, or to nobody.
            Body::Check(_) | Body::Program(_) => {}
        }
    }
}

/// The privileges of a command, by its name.
fn actions(command: &Command) -> Vec<(String, &'static str)> {
    let Ok(body) = RawDocument::from_bytes(&command.body) else { return Vec::new() };
    let Some(Ok((name, value))) = body.iter().next() else { return Vec::new() };
    let Some(collection) = value.as_str() else { return Vec::new() };
    let text = |field: &str| body.get_str(field.to_owned().as_str()).ok().map(str::to_owned);
    let one = |action: &'static str| vec![(collection.to_owned(), action)];
    match (name.as_str(), command.on) {
        ("create", CommandTarget::Database) => one("createCollection"),
        ("createIndexes", CommandTarget::Database) => one("createIndex"),
        ("collMod", CommandTarget::Database) => one("collMod"),
        ("drop", CommandTarget::Database) => one("dropCollection"),
        ("dropIndexes", CommandTarget::Database) => one("dropIndex"),
        ("insert", CommandTarget::Database) => one("insert"),
        ("update" | "findAndModify", CommandTarget::Database) => one("update"),
        ("delete", CommandTarget::Database) => one("remove"),
        ("aggregate", CommandTarget::Database) => one("find"),
        ("renameCollection", _) => {
            let mut needed = one("find");
            needed.push((collection.to_owned(), "dropCollection"));
            needed.extend(text("to").map(|to| (to, "insert")));
            needed
        }
        _ => Vec::new(),
    }
}

// --- what was found out ------------------------------------------------------

/// What was found out about a Postgres. All of it may be `None` where the role
/// may not look.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is the answer to a question of its own")]
pub struct PostgresFacts {
    /// `host:port/database`.
    pub place: String,
    /// As it calls itself.
    pub version: String,
    /// Of one question.
    pub latency_ms: u64,
    /// The version of TLS; `None` without.
    pub tls: Option<String>,
    /// On this machine.
    pub local: bool,
    /// Server minus this machine.
    pub skew_ms: i64,
    /// A standby.
    pub in_recovery: bool,
    /// `default_transaction_read_only`.
    pub read_only: bool,
    /// Our role.
    pub role: String,
    /// The database's name.
    pub database: String,
    /// Our name arrived in `application_name`.
    pub named: bool,
    /// Two transactions of one connection ran in two sessions, or one session
    /// served two connections.
    pub pooled: bool,
    /// May create schemas in the database.
    pub create_in_database: bool,
    /// May see what the sessions of other roles do.
    pub sees_others: bool,
    /// May end the sessions of other roles.
    pub ends_others: bool,
    /// In bytes.
    pub database_bytes: i64,
    /// Of the history.
    pub history: HistoryFacts,
    /// Schemas in which pending migrations create, as they were named.
    pub schemas: Vec<SchemaFacts>,
    /// Tables and indexes that pending migrations name and that are there.
    pub relations: Vec<RelationFacts>,
    /// Standbys; `None` when we may not look.
    pub standbys: Option<Vec<StandbyFacts>>,
    /// Invalid, and not being built right now.
    pub invalid_indexes: Vec<String>,
    /// Transactions that are open for more than five minutes.
    pub old_transactions: Vec<String>,
    /// Sessions of others that we cannot see into.
    pub hidden_sessions: i64,
}

/// The schema of the history tables, and what is there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HistoryFacts {
    /// Its name, and whether we may create in it; `create` is `None` when the
    /// schema does not exist.
    pub schema: SchemaFacts,
    /// Tables that are there.
    pub present: Vec<String>,
    /// Privileges on them that we lack: `INSERT on public.migration_steps`.
    pub lacking: Vec<String>,
}

/// A schema.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SchemaFacts {
    /// Its name.
    pub name: String,
    /// Whether we may create in it; `None` when it does not exist.
    pub create: Option<bool>,
}

/// A table or an index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RelationFacts {
    /// As it was named.
    pub named: QualifiedName,
    /// With its schema.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// We are its owner, or a member of the role that is.
    pub ours: bool,
    /// `INSERT`, `UPDATE`, …: those that we have.
    pub privileges: Vec<String>,
    /// In bytes.
    pub bytes: i64,
}

/// A standby.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StandbyFacts {
    /// Its name.
    pub name: String,
    /// How far behind; `None` when nothing was written lately.
    pub lag_ms: Option<i64>,
}

/// What was found out about a MongoDB.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MongoFacts {
    /// `host:port/database`.
    pub place: String,
    /// The database.
    pub database: String,
    /// As it calls itself.
    pub version: String,
    /// How it is set up.
    pub topology: Topology,
    /// Of one question.
    pub latency_ms: u64,
    /// Asked for in the URL.
    pub tls: bool,
    /// On this machine.
    pub local: bool,
    /// Server minus this machine.
    pub skew_ms: i64,
    /// Takes writes.
    pub writable: bool,
    /// What we may do; `None` when the server does not check.
    pub grants: Option<Vec<Grant>>,
    /// Collections of the history that are there.
    pub present: Vec<String>,
    /// `replSetGetStatus`; the error when it may not be read.
    pub members: Result<MembersFacts, String>,
    /// `serverStatus`; the error when it may not be read.
    pub server_status: Result<(), String>,
    /// Free and total bytes of the disk, and the bytes of the database; `None`
    /// when it may not be read.
    pub disk: Option<DiskFacts>,
}

/// Room, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DiskFacts {
    /// Data and indexes of the database.
    pub database: u64,
    /// Free on the disk.
    pub free: u64,
    /// The disk.
    pub total: u64,
}

/// The members of a replica set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MembersFacts {
    /// `host:port STATE` of those that are down.
    pub down: Vec<String>,
    /// Members that hold data and vote, and are up.
    pub up: i64,
    /// How many of them a majority write needs.
    pub needed: i64,
    /// How many there are.
    pub all: usize,
    /// The secondary that is furthest behind.
    pub lag_ms: i64,
}

/// A privilege in MongoDB.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// On what.
    pub on: GrantOn,
    /// `find`, `insert`, …
    pub actions: Vec<String>,
}

/// On what a privilege is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GrantOn {
    /// `anyResource`.
    Anything,
    /// `cluster`.
    Cluster,
    /// An empty text is any.
    Collection {
        /// The database.
        database: String,
        /// The collection.
        collection: String,
    },
}

impl MongoFacts {
    fn may(&self, collection: &str, action: &str) -> bool {
        let Some(grants) = &self.grants else { return true };
        grants.iter().any(|grant| {
            let there = match &grant.on {
                GrantOn::Anything => true,
                GrantOn::Cluster => false,
                GrantOn::Collection { database, collection: granted } => {
                    (database.is_empty() || *database == self.database)
                        && (granted == collection
                            || granted.is_empty() && !collection.starts_with("system."))
                }
            };
            there && grant.actions.iter().any(|granted| granted == action)
        })
    }

    fn may_in_cluster(&self, action: &str) -> bool {
        let Some(grants) = &self.grants else { return true };
        grants.iter().any(|grant| {
            matches!(grant.on, GrantOn::Anything | GrantOn::Cluster)
                && grant.actions.iter().any(|granted| granted == action)
        })
    }
}

// --- what follows from it ----------------------------------------------------

/// What the versions of both servers mean for what is pending.
pub fn requires(
    set: &MigrationSet,
    lines: &[Line],
    postgres: Option<&PostgresFacts>,
    mongo: Option<&MongoFacts>,
) -> Vec<Finding> {
    let servers = Servers {
        postgres: postgres.map(|it| PostgresServer { version: it.version.clone() }),
        mongo: mongo.map(|it| MongoServer { version: it.version.clone(), topology: it.topology }),
    };
    let pending: Vec<_> = lines.iter().filter(|line| line.state.is_pending()).collect();
    let mut findings = Vec::new();
    for line in &pending {
        let Some(migration) = set.get(line.version) else { continue };
        if let Some((required, found)) = servers.unmet(&migration.options.requires) {
            findings.push(Finding::new(
                Check::Requires,
                None,
                Level::Problem,
                format!("{} requires {required}, but this is {found}", migration.folder),
                "upgrade or change the server before this migration is deployed",
            ));
        }
    }
    if findings.is_empty() {
        let message = format!("{} pending, and the servers have what they require", pending.len());
        findings.push(Finding::ok(Check::Requires, None, message));
    }
    findings
}

/// Pending migrations that `up` would refuse as they are: templates without all of their
/// values, and what is left for a person.
pub fn ready(set: &MigrationSet, lines: &[Line]) -> Vec<Finding> {
    let unready = lines.iter().filter(|line| line.unready.is_some());
    let unready = unready.filter_map(|line| set.get(line.version));
    let finding = |migration: &Migration| {
        let next = match migration.is_unfilled() {
            true => {
                "set what it lacks as it is set where it is deployed (`--var NAME=VALUE`, MIGRATE_VAR_NAME, [vars] in migrate.toml); what the migration needs of the servers was not looked at"
            }
            false => {
                "complete its scripts; if all of it is applied already, `migrate baseline` records it"
            }
        };
        let message =
            format!("{} cannot be applied: {}", migration.folder, plan::told(&migration.unready));
        Finding::new(Check::Migrations, None, Level::Problem, message, next)
    };
    unready.map(finding).collect()
}

/// What the clocks of both servers say about each other.
pub fn clocks(postgres: Option<&PostgresFacts>, mongo: Option<&MongoFacts>) -> Vec<Finding> {
    let skew = |what: &str, store: Option<StoreName>, skew_ms: i64| {
        let seconds = tenths(skew_ms.unsigned_abs());
        if skew_ms.abs() <= SKEW_MAX_MS {
            return Finding::ok(Check::Clock, store, format!("{what} agree to {seconds} s"));
        }
        Finding::new(
            Check::Clock,
            store,
            Level::Warning,
            format!("{what} differ by {seconds} s"),
            "let NTP set both; leases go by the servers' clocks, and the times in the history are not comparable",
        )
    };
    let mut findings = Vec::new();
    if let Some(postgres) = postgres {
        let store = Some(StoreName::Postgres);
        findings.push(skew("the clocks of this machine and Postgres", store, postgres.skew_ms));
    }
    if let Some(mongo) = mongo {
        let store = Some(StoreName::Mongo);
        findings.push(skew("the clocks of this machine and MongoDB", store, mongo.skew_ms));
    }
    if let (Some(postgres), Some(mongo)) = (postgres, mongo) {
        let apart = postgres.skew_ms.saturating_sub(mongo.skew_ms);
        findings.push(skew("the clocks of Postgres and MongoDB", None, apart));
    }
    findings
}

fn tenths(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}

/// Bytes for people.
fn bytes(count: u64) -> String {
    /// Each is 1024 of the one before.
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut scaled = count / 1024;
    while scaled >= 10 * 1024 && unit + 1 < UNITS.len() {
        scaled /= 1024;
        unit += 1;
    }
    format!("{scaled} {}", UNITS[unit])
}

fn names(all: &[String]) -> String {
    let shown = all[..all.len().min(NAMES_MAX)].join(", ");
    match all.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn reached(store: StoreName, version: &str, place: &str, latency_ms: u64) -> Finding {
    let message = format!("{} {version} at {place} answers in {latency_ms} ms", store.title());
    if latency_ms <= LATENCY_MAX_MS {
        return Finding::ok(Check::Reachable, Some(store), message);
    }
    Finding::new(
        Check::Reachable,
        Some(store),
        Level::Warning,
        message,
        "run migrate nearer to the database: each step takes a few answers, each batch of a backfill too",
    )
}

fn encrypted(store: StoreName, tls: Option<&str>, local: bool, next: &str) -> Finding {
    match (tls, local) {
        (Some(version), _) => {
            Finding::ok(Check::Tls, Some(store), format!("the connection is encrypted ({version})"))
        }
        (None, true) => Finding::new(
            Check::Tls,
            Some(store),
            Level::Note,
            "the connection is not encrypted, and does not leave this machine",
            format!("nothing here; in production, {next}"),
        ),
        (None, false) => Finding::new(
            Check::Tls,
            Some(store),
            Level::Warning,
            "the connection is not encrypted: password and data can be read on the way",
            next,
        ),
    }
}

/// What follows from the facts about Postgres.
pub fn postgres(facts: &PostgresFacts, needs: &Needs) -> Vec<Finding> {
    let store = Some(StoreName::Postgres);
    let mut findings = vec![
        reached(StoreName::Postgres, &facts.version, &facts.place, facts.latency_ms),
        encrypted(
            StoreName::Postgres,
            facts.tls.as_deref(),
            facts.local,
            "use sslmode=verify-full, with sslrootcert if the authority is your own",
        ),
        writable(facts),
    ];
    findings.extend(postgres_privileges(facts, needs));
    findings.push(match (facts.sees_others, facts.ends_others) {
        (true, true) => Finding::ok(
            Check::Orphans,
            store,
            "what a killed run leaves running can be found and ended",
        ),
        _ => Finding::new(
            Check::Orphans,
            store,
            Level::Note,
            format!("role {} finds and ends only its own sessions that a killed run leaves", facts.role),
            format!(
                "nothing if migrate always runs as {}; else GRANT pg_read_all_stats, pg_signal_backend TO {}",
                facts.role,
                ident(&facts.role)
            ),
        ),
    });
    findings.push(pooler(facts));
    findings.push(standbys(facts));
    findings.push(if facts.sees_others && facts.standbys.is_some() {
        Finding::ok(Check::Pace, store, "standbys and the sessions of others may be watched")
    } else {
        Finding::new(
            Check::Pace,
            store,
            Level::Note,
            "pg_stat_replication and the sessions of others may not be read: a backfill paces itself by its own latency alone",
            format!("GRANT pg_monitor TO {}", ident(&facts.role)),
        )
    });
    findings.push(postgres_room(facts, needs));
    findings.push(if facts.invalid_indexes.is_empty() {
        Finding::ok(Check::InvalidIndexes, store, "no index is invalid")
    } else {
        Finding::new(
            Check::InvalidIndexes,
            store,
            Level::Warning,
            format!(
                "invalid, so slowing writes and helping no query: {}",
                names(&facts.invalid_indexes)
            ),
            "DROP INDEX CONCURRENTLY it and build it again, or REINDEX INDEX CONCURRENTLY it; unless another role is building it right now, which we may not be able to see",
        )
    });
    findings.push(old_transactions(facts));
    findings
}

fn writable(facts: &PostgresFacts) -> Finding {
    let store = Some(StoreName::Postgres);
    if facts.in_recovery {
        return Finding::new(
            Check::Writable,
            store,
            Level::Problem,
            "this Postgres is a standby in recovery: nothing can be written",
            "connect to the primary (target_session_attrs=read-write picks it out of several hosts)",
        );
    }
    if facts.read_only {
        return Finding::new(
            Check::Writable,
            store,
            Level::Problem,
            format!(
                "default_transaction_read_only is on for role {} in {}",
                facts.role, facts.database
            ),
            format!(
                "ALTER ROLE {} SET default_transaction_read_only = off, or ALTER DATABASE {} SET …: whichever has it on; managed services switch it on when the disk is full",
                ident(&facts.role),
                ident(&facts.database)
            ),
        );
    }
    Finding::ok(Check::Writable, store, "the server takes writes")
}

fn postgres_privileges(facts: &PostgresFacts, needs: &Needs) -> Vec<Finding> {
    let store = Some(StoreName::Postgres);
    let role = &facts.role;
    let grantee = ident(role);
    let mut findings = Vec::new();
    let mut lack = |message: String, next: String| {
        findings.push(Finding::new(Check::Privileges, store, Level::Problem, message, next));
    };
    let history = &facts.history;
    let schema = &history.schema.name;
    if !history.lacking.is_empty() {
        lack(
            format!("role {role} lacks {}", names(&history.lacking)),
            format!(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {grantee}",
                HISTORY.map(|table| format!("{}.{table}", ident(schema))).join(", ")
            ),
        );
    }
    if history.present.len() < HISTORY.len() {
        match history.schema.create {
            Some(true) => {}
            Some(false) => lack(
                format!("role {role} may not create the history tables in schema {schema}"),
                format!("GRANT CREATE ON SCHEMA {} TO {grantee}", ident(schema)),
            ),
            None if facts.create_in_database => {}
            None => lack(
                format!(
                    "schema {schema} of the history does not exist, and role {role} may not create it"
                ),
                format!("CREATE SCHEMA {} AUTHORIZATION {grantee}", ident(schema)),
            ),
        }
    }
    for created in &facts.schemas {
        if created.create == Some(false) {
            lack(
                format!(
                    "pending migrations create things in schema {}, and role {role} may not",
                    created.name
                ),
                format!("GRANT CREATE ON SCHEMA {} TO {grantee}", ident(&created.name)),
            );
        }
    }
    if needs.postgres.contains(&SqlNeed::CreateInDatabase) && !facts.create_in_database {
        lack(
            format!(
                "pending migrations create a schema, an extension or a publication, and role {role} may not"
            ),
            format!("GRANT CREATE ON DATABASE {} TO {grantee}", ident(&facts.database)),
        );
    }
    let mut told = BTreeSet::new();
    for need in &needs.postgres {
        let relation = |name: &QualifiedName| facts.relations.iter().find(|it| it.named == *name);
        match need {
            SqlNeed::Own(name) | SqlNeed::Index(name) => {
                let Some(found) = relation(name).filter(|found| !found.ours) else { continue };
                if told.insert(found.name.clone()) {
                    lack(
                        format!(
                            "pending migrations change {}, which belongs to {}, not to role {role}",
                            found.name, found.owner
                        ),
                        format!(
                            "GRANT {} TO {grantee}, or run migrate as {}",
                            ident(&found.owner),
                            found.owner
                        ),
                    );
                }
            }
            SqlNeed::Table(name, privilege) => {
                let Some(found) = relation(name) else { continue };
                if !found.privileges.iter().any(|it| it == privilege) {
                    lack(
                        format!(
                            "pending migrations need {privilege} on {}, and role {role} lacks it",
                            found.name
                        ),
                        format!("GRANT {privilege} ON {} TO {grantee}", found.name),
                    );
                }
            }
            SqlNeed::CreateIn(_) | SqlNeed::CreateInDatabase => {}
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            Check::Privileges,
            store,
            format!("role {role} may do what migrate and the pending statements need, as far as their text tells"),
        ));
    }
    findings
}

/// A name as a person may paste it into SQL.
fn ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn pooler(facts: &PostgresFacts) -> Finding {
    let store = Some(StoreName::Postgres);
    match (facts.pooled, facts.named) {
        (true, _) => Finding::new(
            Check::Pooler,
            store,
            Level::Warning,
            "a pooler in transaction mode is in between: one connection does not stay in one session",
            "migrate works through it, but give it the server's own address if you can: a statement that runs long is cut off by the pooler's limits, and what a killed run leaves is harder to find",
        ),
        (false, false) => Finding::new(
            Check::Pooler,
            store,
            Level::Warning,
            "application_name does not arrive: something in between drops it, so what a killed run leaves cannot be found",
            "give migrate the server's own address, or let the pooler pass application_name on",
        ),
        (false, true) => {
            Finding::ok(Check::Pooler, store, "no pooler in transaction mode is in the way")
        }
    }
}

fn standbys(facts: &PostgresFacts) -> Finding {
    let store = Some(StoreName::Postgres);
    let Some(standbys) = &facts.standbys else {
        return Finding::new(
            Check::Replication,
            store,
            Level::Note,
            "how far standbys are behind may not be read",
            format!("GRANT pg_read_all_stats TO {}", ident(&facts.role)),
        );
    };
    let late: Vec<String> = standbys
        .iter()
        .filter_map(|standby| {
            let lag = standby.lag_ms.filter(|lag| *lag > LAG_MAX_MS)?;
            Some(format!("{} by {} s", standby.name, lag / 1000))
        })
        .collect();
    match (standbys.len(), late.is_empty()) {
        (0, _) => Finding::ok(Check::Replication, store, "no standby is attached"),
        (count, true) => {
            Finding::ok(Check::Replication, store, format!("{count} attached, none is late"))
        }
        (_, false) => Finding::new(
            Check::Replication,
            store,
            Level::Warning,
            format!("standbys are behind: {}", names(&late)),
            "wait until they have caught up before large changes; readers there see the old shape for as long",
        ),
    }
}

fn postgres_room(facts: &PostgresFacts, needs: &Needs) -> Finding {
    let store = Some(StoreName::Postgres);
    let size = bytes(facts.database_bytes.unsigned_abs());
    let indexed: Vec<&RelationFacts> = facts
        .relations
        .iter()
        .filter(|it| needs.postgres.contains(&SqlNeed::Index(it.named.clone())))
        .collect();
    let sum: u64 = indexed.iter().map(|it| it.bytes.unsigned_abs()).sum();
    let what = match indexed.len() {
        0 => {
            let message = format!(
                "the database has {size}; no pending index is on a table that is there already"
            );
            return Finding::ok(Check::Room, store, message);
        }
        count => format!("pending indexes are on {count} tables of {}", bytes(sum)),
    };
    Finding::new(
        Check::Room,
        store,
        Level::Note,
        format!(
            "the database has {size}; {what}; Postgres does not tell how much of the disk is free"
        ),
        "look at the disk: an index needs up to the size of its table, and as much again while it sorts",
    )
}

fn old_transactions(facts: &PostgresFacts) -> Finding {
    let store = Some(StoreName::Postgres);
    if !facts.old_transactions.is_empty() {
        return Finding::new(
            Check::OldTransactions,
            store,
            Level::Warning,
            format!("open for more than 5 minutes: {}", names(&facts.old_transactions)),
            "end them (SELECT pg_terminate_backend(PID), ROLLBACK PREPARED) or wait: CREATE INDEX CONCURRENTLY waits for each, ALTER TABLE for the locks they hold",
        );
    }
    if facts.hidden_sessions > 0 {
        return Finding::new(
            Check::OldTransactions,
            store,
            Level::Note,
            format!("{} sessions of other roles may not be looked into", facts.hidden_sessions),
            format!("GRANT pg_read_all_stats TO {}", ident(&facts.role)),
        );
    }
    Finding::ok(Check::OldTransactions, store, "no transaction is open for more than 5 minutes")
}

/// What follows from the facts about MongoDB.
pub fn mongo(facts: &MongoFacts, needs: &Needs) -> Vec<Finding> {
    let store = Some(StoreName::Mongo);
    let mut findings = vec![
        reached(StoreName::Mongo, &facts.version, &facts.place, facts.latency_ms),
        encrypted(
            StoreName::Mongo,
            facts.tls.then_some("asked for in the URL"),
            facts.local,
            "add tls=true to the URL, with tlsCAFile if the authority is your own",
        ),
        if facts.writable {
            Finding::ok(Check::Writable, store, "the server takes writes")
        } else {
            Finding::new(
                Check::Writable,
                store,
                Level::Problem,
                "this member is not the primary: nothing can be written",
                "name the whole set in the URL (mongodb://a,b,c/NAME?replicaSet=SET) and leave directConnection out",
            )
        },
    ];
    findings.push(topology(facts));
    findings.extend(majority(facts));
    findings.push(mongo_privileges(facts, needs));
    let orphans = facts.may_in_cluster("inprog") && facts.may_in_cluster("killop");
    findings.push(if orphans {
        Finding::ok(
            Check::Orphans,
            store,
            "what a killed run leaves running can be found and ended",
        )
    } else {
        Finding::new(
            Check::Orphans,
            store,
            Level::Note,
            "this user finds and ends only its own operations that a killed run leaves",
            "nothing if migrate always uses this user; else grant the actions inprog and killop on the cluster (hostManager has both)",
        )
    });
    findings.push(match &facts.server_status {
        Ok(()) => Finding::ok(Check::Pace, store, "serverStatus may be read"),
        Err(why) => Finding::new(
            Check::Pace,
            store,
            Level::Note,
            format!("serverStatus may not be read ({why}): a backfill paces itself by its own latency alone"),
            "grant the role clusterMonitor",
        ),
    });
    findings.push(mongo_room(facts, needs));
    findings
}

fn topology(facts: &MongoFacts) -> Finding {
    let store = Some(StoreName::Mongo);
    match facts.topology {
        Topology::Standalone => Finding::new(
            Check::Topology,
            store,
            Level::Warning,
            "a standalone server: it has no transactions, so a write that is interrupted may need `migrate repair`",
            "make it a replica set of one (replication.replSetName, then rs.initiate()); that loses nothing",
        ),
        Topology::ReplicaSet => Finding::ok(Check::Topology, store, "a replica set"),
        Topology::Sharded => Finding::ok(Check::Topology, store, "sharded, behind mongos"),
    }
}

fn majority(facts: &MongoFacts) -> Vec<Finding> {
    let store = Some(StoreName::Mongo);
    if facts.topology != Topology::ReplicaSet {
        return Vec::new();
    }
    let members = match &facts.members {
        Ok(members) => members,
        Err(why) => {
            return vec![Finding::new(
                Check::Replication,
                store,
                Level::Note,
                format!(
                    "replSetGetStatus may not be read ({why}): neither majority nor lag are known"
                ),
                "grant the role clusterMonitor",
            )];
        }
    };
    let mut findings = Vec::new();
    if members.up < members.needed {
        findings.push(Finding::new(
            Check::Topology,
            store,
            Level::Problem,
            format!(
                "no majority: {} of {} needed members are up; down: {}",
                members.up,
                members.needed,
                names(&members.down)
            ),
            "bring the members back; migrate writes with majority and would wait",
        ));
    } else if !members.down.is_empty() {
        findings.push(Finding::new(
            Check::Topology,
            store,
            Level::Warning,
            format!("down: {}", names(&members.down)),
            "bring them back before large changes: one more and nothing can be written",
        ));
    }
    findings.push(if members.lag_ms > LAG_MAX_MS {
        Finding::new(
            Check::Replication,
            store,
            Level::Warning,
            format!("a secondary is behind by {} s", members.lag_ms / 1000),
            "wait until it has caught up before large changes: every write of migrate waits for a majority",
        )
    } else {
        Finding::ok(Check::Replication, store, format!("members: {}; none is late", members.all))
    });
    findings
}

fn mongo_privileges(facts: &MongoFacts, needs: &Needs) -> Finding {
    let store = Some(StoreName::Mongo);
    if facts.grants.is_none() {
        return Finding::new(
            Check::Privileges,
            store,
            Level::Note,
            "access control is off: anybody who reaches this server may do anything",
            "nothing here; in production, switch security.authorization on",
        );
    }
    if facts.grants.as_ref().is_some_and(Vec::is_empty) {
        return Finding::new(
            Check::Privileges,
            store,
            Level::Problem,
            "this server controls access, and we may do nothing here",
            format!(
                "put a user and its password into the URL, and grant it the roles readWrite and dbAdmin on {}",
                facts.database
            ),
        );
    }
    let mut lacking = BTreeSet::new();
    for name in HISTORY {
        let there = facts.present.iter().any(|present| present == name);
        let create = (!there).then_some("createCollection");
        // Only a migration's row is ever taken away again.
        let remove = (name == "migration_history").then_some("remove");
        for action in ["find", "insert", "update"].into_iter().chain(create).chain(remove) {
            if !facts.may(name, action) {
                lacking.insert(format!("{action} on {name}"));
            }
        }
    }
    for (collection, action) in &needs.mongo {
        if !facts.may(collection, action) {
            lacking.insert(format!("{action} on {collection}"));
        }
    }
    if lacking.is_empty() {
        let message =
            "this user may do what migrate and the pending statements need, as far as they tell";
        return Finding::ok(Check::Privileges, store, message);
    }
    let lacking: Vec<String> = lacking.into_iter().collect();
    Finding::new(
        Check::Privileges,
        store,
        Level::Problem,
        format!("this user lacks {}", names(&lacking)),
        format!("grant it the roles readWrite and dbAdmin on {}", facts.database),
    )
}

fn mongo_room(facts: &MongoFacts, needs: &Needs) -> Finding {
    let store = Some(StoreName::Mongo);
    let Some(disk) = facts.disk else {
        return Finding::new(
            Check::Room,
            store,
            Level::Note,
            "the size of the database may not be read (dbStats)",
            "look at the disk; or grant the role clusterMonitor",
        );
    };
    if disk.total == 0 {
        return Finding::new(
            Check::Room,
            store,
            Level::Note,
            format!(
                "the database has {}; the server does not tell how much of the disk is free",
                bytes(disk.database)
            ),
            "look at the disk before an index is built on a large collection",
        );
    }
    let message = format!(
        "the database has {}; {} of {} are free",
        bytes(disk.database),
        bytes(disk.free),
        bytes(disk.total)
    );
    let is_scarce =
        disk.free / (disk.total / 100).max(1) < FREE_PERCENT_MIN || disk.free < disk.database;
    // With nothing pending there is nothing to make room for.
    if is_scarce && !needs.mongo.is_empty() {
        return Finding::new(
            Check::Room,
            store,
            Level::Warning,
            message,
            "make room before an index is built or a collection is rewritten",
        );
    }
    Finding::ok(Check::Room, store, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn show(findings: &[Finding]) -> String {
        let line =
            |it: &Finding| format!("{} {}: {}\n", it.level.word(), it.check.word(), it.message);
        findings.iter().filter(|it| it.level != Level::Ok).map(line).collect()
    }

    fn facts() -> PostgresFacts {
        PostgresFacts {
            place: "db:5432/shop".to_owned(),
            version: "16.4".to_owned(),
            tls: Some("TLSv1.3".to_owned()),
            role: "app".to_owned(),
            database: "shop".to_owned(),
            named: true,
            create_in_database: true,
            sees_others: true,
            ends_others: true,
            history: HistoryFacts {
                schema: SchemaFacts { name: "public".to_owned(), create: Some(true) },
                ..HistoryFacts::default()
            },
            standbys: Some(Vec::new()),
            ..PostgresFacts::default()
        }
    }

    fn mongo_facts() -> MongoFacts {
        MongoFacts {
            place: "db:27017/shop".to_owned(),
            database: "shop".to_owned(),
            version: "7.0.1".to_owned(),
            topology: Topology::ReplicaSet,
            latency_ms: 1,
            tls: true,
            local: false,
            skew_ms: 0,
            writable: true,
            grants: Some(Vec::new()),
            present: Vec::new(),
            members: Ok(MembersFacts { up: 3, needed: 2, all: 3, ..MembersFacts::default() }),
            server_status: Ok(()),
            disk: Some(DiskFacts { database: 1, free: 1 << 40, total: 1 << 41 }),
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check(statements: &[&str], change: impl FnOnce(&mut PostgresFacts), expected: Expect) {
        let mut facts = facts();
        change(&mut facts);
        let needs = Needs {
            postgres: statements.iter().flat_map(|statement| super::needs(statement)).collect(),
            ..Needs::default()
        };
        let findings = postgres(&facts, &needs);
        assert!(findings.iter().all(|it| it.level == Level::Ok || it.next.is_some()));
        // Always there: Postgres never tells how much room there is.
        let findings: Vec<_> = findings.into_iter().filter(|it| it.check != Check::Room).collect();
        expected.assert_eq(&show(&findings));
    }

    #[expect(clippy::needless_pass_by_value, reason = "`expect![…]` reads better without `&`")]
    fn check_mongo(change: impl FnOnce(&mut MongoFacts), expected: Expect) {
        let mut facts = mongo_facts();
        change(&mut facts);
        let mut needs = Needs::default();
        needs.mongo.insert(("users".to_owned(), "createIndex"));
        let findings = mongo(&facts, &needs);
        assert!(findings.iter().all(|it| it.level == Level::Ok || it.next.is_some()));
        expected.assert_eq(&show(&findings));
    }

    fn table(name: &str, ours: bool, privileges: &[&str]) -> RelationFacts {
        RelationFacts {
            named: QualifiedName { schema: None, name: name.to_owned() },
            name: format!("public.{name}"),
            owner: if ours { "app" } else { "owner" }.to_owned(),
            ours,
            privileges: privileges.iter().map(|it| (*it).to_owned()).collect(),
            bytes: 0,
        }
    }

    #[test]
    fn all_is_well() {
        check(&["create table t (a int)"], |_| {}, expect![[r#""#]]);
    }

    #[test]
    fn what_cannot_be_written_is_a_problem() {
        check(
            &[],
            |it| it.in_recovery = true,
            expect![[r#"
            problem writable: this Postgres is a standby in recovery: nothing can be written
        "#]],
        );
        check(
            &[],
            |it| it.read_only = true,
            expect![[r#"
            problem writable: default_transaction_read_only is on for role app in shop
        "#]],
        );
    }

    #[test]
    fn each_privilege_that_lacks_is_named() {
        check(
            &[],
            |it| it.history.schema.create = Some(false),
            expect![[r#"
            problem privileges: role app may not create the history tables in schema public
        "#]],
        );
        check(
            &["create schema s", "create table s.t (a int)"],
            |it| {
                it.create_in_database = false;
                it.history.schema.create = None;
                it.schemas = vec![SchemaFacts { name: "s".to_owned(), create: Some(false) }];
            },
            expect![[r#"
                problem privileges: schema public of the history does not exist, and role app may not create it
                problem privileges: pending migrations create things in schema s, and role app may not
                problem privileges: pending migrations create a schema, an extension or a publication, and role app may not
            "#]],
        );
        check(
            &[
                "alter table a add b int",
                "drop table a",
                "insert into b values (1)",
                "alter table gone add b int",
            ],
            |it| it.relations = vec![table("a", false, &[]), table("b", false, &["SELECT"])],
            expect![[r#"
                problem privileges: pending migrations change public.a, which belongs to owner, not to role app
                problem privileges: pending migrations need INSERT on public.b, and role app lacks it
            "#]],
        );
    }

    #[test]
    fn history_tables_that_are_there_need_no_schema() {
        check(
            &[],
            |it| {
                it.history.schema.create = Some(false);
                it.history.present = HISTORY.map(str::to_owned).to_vec();
            },
            expect![[r#""#]],
        );
    }

    #[test]
    fn what_slows_and_hides_is_told() {
        check(
            &[],
            |it| {
                it.tls = None;
                it.pooled = true;
                it.latency_ms = 200;
                it.sees_others = false;
                it.invalid_indexes = vec!["public.i on public.t".to_owned()];
                it.old_transactions =
                    vec!["session 7 of app, idle in transaction for 9 min".to_owned()];
                it.standbys =
                    Some(vec![StandbyFacts { name: "b".to_owned(), lag_ms: Some(60_000) }]);
            },
            expect![[r#"
                warning reachable: Postgres 16.4 at db:5432/shop answers in 200 ms
                warning tls: the connection is not encrypted: password and data can be read on the way
                note orphans: role app finds and ends only its own sessions that a killed run leaves
                warning pooler: a pooler in transaction mode is in between: one connection does not stay in one session
                warning replication: standbys are behind: b by 60 s
                note pace: pg_stat_replication and the sessions of others may not be read: a backfill paces itself by its own latency alone
                warning invalid-indexes: invalid, so slowing writes and helping no query: public.i on public.t
                warning old-transactions: open for more than 5 minutes: session 7 of app, idle in transaction for 9 min
            "#]],
        );
        check(
            &[],
            |it| it.named = false,
            expect![[r#"
            warning pooler: application_name does not arrive: something in between drops it, so what a killed run leaves cannot be found
        "#]],
        );
    }

    #[test]
    fn mongodb_needs_privileges_and_a_majority() {
        let all = |collection: &str, actions: &[&str]| Grant {
            on: GrantOn::Collection {
                database: "shop".to_owned(),
                collection: collection.to_owned(),
            },
            actions: actions.iter().map(|it| (*it).to_owned()).collect(),
        };
        let write = ["find", "insert", "update", "remove", "createCollection"];
        check_mongo(
            |it| it.grants = None,
            expect![[r#"
            note privileges: access control is off: anybody who reaches this server may do anything
        "#]],
        );
        check_mongo(
            |it| it.grants = Some(vec![all("", &write)]),
            expect![[r#"
            problem privileges: this user lacks createIndex on users
            note orphans: this user finds and ends only its own operations that a killed run leaves
        "#]],
        );
        check_mongo(
            |it| {
                it.grants = None;
                it.members = Ok(MembersFacts {
                    down: vec!["b:27017 (not reachable/healthy)".to_owned()],
                    up: 1,
                    needed: 2,
                    all: 3,
                    lag_ms: 20_000,
                });
            },
            expect![[r#"
                problem topology: no majority: 1 of 2 needed members are up; down: b:27017 (not reachable/healthy)
                warning replication: a secondary is behind by 20 s
                note privileges: access control is off: anybody who reaches this server may do anything
            "#]],
        );
        check_mongo(
            |it| {
                it.topology = Topology::Standalone;
                it.grants = None;
                it.tls = false;
                it.writable = false;
                it.server_status = Err("not authorized".to_owned());
                it.disk = Some(DiskFacts { database: 1, free: 1, total: 1 << 30 });
            },
            expect![[r#"
                warning tls: the connection is not encrypted: password and data can be read on the way
                problem writable: this member is not the primary: nothing can be written
                warning topology: a standalone server: it has no transactions, so a write that is interrupted may need `migrate repair`
                note privileges: access control is off: anybody who reaches this server may do anything
                note pace: serverStatus may not be read (not authorized): a backfill paces itself by its own latency alone
                warning room: the database has 0 kB; 0 kB of 1024 MB are free
            "#]],
        );
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let postgres = |skew_ms| PostgresFacts { skew_ms, ..facts() };
        let mongo = |skew_ms| MongoFacts { skew_ms, ..mongo_facts() };
        assert_eq!(show(&clocks(Some(&postgres(1500)), Some(&mongo(-400)))), "");
        expect![[r#"
            warning clock: the clocks of Postgres and MongoDB differ by 3.0 s
        "#]]
        .assert_eq(&show(&clocks(Some(&postgres(1500)), Some(&mongo(-1500)))));
        expect![[r#"
            warning clock: the clocks of this machine and Postgres differ by 90.3 s
        "#]]
        .assert_eq(&show(&clocks(Some(&postgres(-90_300)), None)));
    }

    #[test]
    fn the_verdict_is_the_first_thing_in_the_way() {
        let problem = |check| Finding::new(check, None, Level::Problem, "", "");
        let warning = Finding::new(Check::Pooler, None, Level::Warning, "", "");
        assert_eq!(verdict(&[warning]), Verdict::Fine);
        assert_eq!(verdict(&[problem(Check::Tls)]), Verdict::Problem);
        assert_eq!(verdict(&[problem(Check::Tls), problem(Check::Requires)]), Verdict::Unmet);
        assert_eq!(
            verdict(&[problem(Check::Requires), problem(Check::Reachable)]),
            Verdict::Unreachable
        );
    }
}
