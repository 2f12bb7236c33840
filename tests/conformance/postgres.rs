//! Postgres, and what only Postgres can do wrong.

use crate::proxy::{Cut, cutting_after};
use crate::subject::{Subject, fate, leased, outcome, record, settle, take, until};
use crate::support::Database;
use lockstep::core::history::{Event, RunSeen};
use lockstep::core::id::StoreName;
use lockstep::core::parse::sql::{Transaction, cut, read};
use lockstep::core::step::PgStep;
use lockstep::store::postgres::{Postgres, PostgresConfig};
use lockstep::store::{Fate, Holds, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// A database in the Postgres of this process.
pub struct Server {
    pub database: Database,
    /// A stranger's session.
    sql: Client,
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The one step of a script.
pub fn step(script: &str) -> PgStep {
    let pieces = cut(read(script).unwrap(), Transaction::On);
    let [piece] = <[_; 1]>::try_from(pieces).expect("one step");
    PgStep { statements: piece.statements, ..PgStep::default() }
}

impl Server {
    pub async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The first column, as texts.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        let rows = self.sql.query(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub async fn yes(&self, sql: &str) -> bool {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub async fn open_at(&self, address: &str, run_id: &str) -> Postgres {
        let url = format!("postgres://postgres@{address}/{}?sslmode=disable", self.database.name);
        Postgres::connect(PostgresConfig::parse(&url).unwrap(), run_id).await.unwrap()
    }

    pub fn address(&self) -> &str {
        let (_, rest) = self.database.postgres_url.rsplit_once('@').unwrap();
        rest.split('/').next().unwrap()
    }

    /// Sessions of a run.
    pub async fn sessions(&self, run_id: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 \
                   AND datname = current_database()";
        self.sql.query_one(sql, &[&format!("lockstep/{run_id}")]).await.unwrap().get(0)
    }

    /// Waits until a session of a run is in a state.
    pub async fn wait_for(&self, run_id: &str, condition: &str) {
        until(condition, async || {
            self.yes(&format!(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
                 WHERE datname = current_database() \
                 AND application_name = 'lockstep/{run_id}' AND {condition})"
            ))
            .await
        })
        .await;
    }

    async fn invalidate(&self, index: &str) {
        self.run(&format!(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass"
        ))
        .await;
    }

    async fn indexes(&self) -> Vec<String> {
        self.texts(
            "SELECT indexrelid::regclass || CASE WHEN indisvalid THEN '' ELSE ' invalid' END \
             FROM pg_index WHERE indrelid::regclass::text ~ '^(app\\.)?(t|other)$' ORDER BY 1",
        )
        .await
    }
}

impl Subject for Server {
    type Store = Postgres;
    type Step = PgStep;
    const NAME: StoreName = StoreName::Postgres;

    async fn new() -> Server {
        let database = Database::new("conformance");
        let sql = connect(&database.postgres_url).await;
        sql.batch_execute("CREATE TABLE things (a int)").await.unwrap();
        Server { database, sql }
    }

    async fn open(&self, run_id: &str) -> Postgres {
        let config = PostgresConfig::parse(&self.database.postgres_url).unwrap();
        Postgres::connect(config, run_id).await.unwrap()
    }

    fn mark(&self, mark: &str) -> PgStep {
        step(&format!(
            "CREATE TABLE IF NOT EXISTS marks (mark text); INSERT INTO marks VALUES ('{mark}')"
        ))
    }

    fn mark_and_fail(&self, mark: &str) -> PgStep {
        let mut step = self.mark(mark);
        step.statements.extend(self::step("SELECT 1 / 0").statements);
        step
    }

    fn journaled(&self, name: &str) -> PgStep {
        step(&format!("CREATE INDEX CONCURRENTLY {name} ON things (a)"))
    }

    async fn marks(&self) -> Vec<String> {
        if self.yes("SELECT to_regclass('public.marks') IS NULL").await {
            return Vec::new();
        }
        self.texts("SELECT mark FROM public.marks ORDER BY 1").await
    }

    async fn expire(&self) {
        self.run(
            "UPDATE migration_control SET expires_at = clock_timestamp() - interval '1 second'",
        )
        .await;
    }

    async fn left(&self) -> Duration {
        let sql = "SELECT greatest(0, extract(epoch FROM expires_at - clock_timestamp()))::float8 \
                   FROM migration_control";
        Duration::from_secs_f64(self.sql.query_one(sql, &[]).await.unwrap().get(0))
    }

    async fn tables(&self) -> BTreeMap<String, BTreeSet<String>> {
        let sql = "SELECT c.relname::text, a.attname::text FROM pg_class c \
                   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema)' \
                   AND c.relname <> 'things' \
                   AND (c.relname, a.attname) <> ('migration_control', 'id')";
        let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for row in self.sql.query(sql, &[]).await.unwrap() {
            tables.entry(row.get(0)).or_default().insert(row.get(1));
        }
        tables
    }

    async fn spoil(&self) {
        self.run("UPDATE migration_steps SET checksum = 'sha256:x'").await;
    }

    async fn runs(&self) -> Vec<RunSeen> {
        self.open("looks").await.runs().await.unwrap()
    }
}

async fn with_tables() -> (Server, Postgres) {
    let world = Server::new().await;
    world.run("CREATE TABLE t (a int, b int); CREATE TABLE other (a int)").await;
    world.run("INSERT INTO t VALUES (1, 1), (1, 2)").await;
    let store = leased(&world, "a").await;
    (world, store)
}

#[tokio::test]
async fn the_first_the_last_or_any_statement_that_fails_is_named() {
    let (world, mut store) = with_tables().await;
    let good = "INSERT INTO t VALUES (5)";
    let bad = "SELECT 'é', nothing";
    for (at, len) in [(0, 1), (0, 3), (1, 3), (2, 3), (17, 40), (39, 40)] {
        let mut statements = vec![good; len];
        statements[at] = bad;
        let error = store
            .commit(&step(&statements.join(";")), &[record(1, Event::Applied)])
            .await
            .unwrap_err();
        assert_eq!(error.fate, Fate::Refused, "{error}");
        assert_eq!(error.said.statement, Some(at), "of {len}");
        assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 42703"));
        assert_eq!(error.said.position, Some(12), "in characters");
    }
    assert!(world.yes("SELECT NOT EXISTS (SELECT 1 FROM t WHERE a = 5)").await);
    assert_eq!(store.read().await.unwrap().records, []);
}

#[tokio::test]
async fn a_constraint_that_speaks_up_at_commit_refuses_the_whole_step() {
    let (world, mut store) = with_tables().await;
    world.run("ALTER TABLE other ADD UNIQUE (a) DEFERRABLE INITIALLY DEFERRED").await;
    let step = step("INSERT INTO other VALUES (1); INSERT INTO other VALUES (1)");
    let error = store.commit(&step, &[record(1, Event::Applied)]).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused, "{error}");
    assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 23505"));
    assert!(world.yes("SELECT NOT EXISTS (SELECT 1 FROM other)").await);
    assert_eq!(store.read().await.unwrap().records, []);
}

#[tokio::test]
async fn nothing_that_a_script_sets_reaches_what_follows() {
    let (world, mut store) = with_tables().await;
    let role = format!("{}_r", world.database.name);
    world.run(&format!("CREATE SCHEMA elsewhere; CREATE ROLE {role}")).await;
    world.run(&format!("GRANT ALL ON SCHEMA elsewhere TO {role}")).await;
    let leaks = format!(
        "SET search_path = elsewhere; SET statement_timeout = '59s'; SET lock_timeout = '58s';
         SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET timezone = 'Asia/Tokyo';
         SET datestyle = 'SQL, DMY'; SET standard_conforming_strings = off;
         CREATE TEMP TABLE migration_steps (x int); CREATE TEMP TABLE t (leaked int);
         PREPARE p AS SELECT 1; DECLARE c CURSOR WITH HOLD FOR SELECT 1; LISTEN l;
         SELECT pg_advisory_lock(77); SET ROLE {role}"
    );
    store.commit(&step(&leaks), &[record(1, Event::Applied)]).await.unwrap();
    store.append(&[record(2, Event::Started)]).await.unwrap();
    assert_eq!(store.read().await.unwrap().records.len(), 2);
    let look = "CREATE TABLE seen AS SELECT current_user::text AS who, \
                current_setting('search_path') AS path, current_setting('timezone') AS zone, \
                current_setting('statement_timeout') AS statement, \
                current_setting('default_transaction_read_only') AS read_only, \
                current_setting('standard_conforming_strings') AS strings, \
                (SELECT count(*) FROM pg_prepared_statements WHERE name = 'p') AS prepared, \
                (SELECT count(*) FROM pg_cursors WHERE name = 'c') AS cursors; \
                INSERT INTO t VALUES (77)";
    store.commit(&step(look), &[record(2, Event::Applied)]).await.unwrap();
    let zone = world.texts("SELECT current_setting('timezone')").await;
    assert_eq!(
        world.texts("SELECT concat_ws(' ', who, path, statement, read_only, strings, prepared, cursors) FROM public.seen").await,
        ["postgres \"$user\", public 0 off on 0 0"]
    );
    assert_eq!(world.texts("SELECT zone FROM public.seen").await, zone);
    assert!(world.yes("SELECT EXISTS (SELECT 1 FROM public.t WHERE a = 77)").await);
    assert!(world.yes("SELECT pg_try_advisory_lock(77)").await, "its lock is gone");
    drop(store);
    world.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_commit_leaves_nothing() {
    let world = Server::new().await;
    let address = cutting_after(world.address(), "", "cut here", Cut::Request).await;
    let mut store = world.open_at(&address, "a").await;
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let mut step = world.mark("one");
    step.statements.extend(self::step("SELECT 'cut here'").statements);
    assert_eq!(
        fate(store.commit(&step, &[record(1, Event::Applied)]).await),
        Fate::Unreachable,
        "nothing of it happened"
    );
    assert_eq!(world.marks().await, [""; 0]);
    assert_eq!(world.open("b").await.read().await.unwrap().records, []);
}

#[tokio::test]
async fn a_session_that_was_ended_does_not_hide_who_has_the_lease() {
    let world = Server::new().await;
    let mut store = leased(&world, "a").await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND application_name = 'lockstep/a'";
    world.run(end).await;
    until("the session to be gone", async || world.sessions("a").await == 0).await;
    assert_eq!(store.check_lease().await, Ok(()), "it is still ours");

    world.expire().await;
    let mut thief = world.open("b").await;
    take(&mut thief, "b").await;
    // As whoever takes a lease over does.
    thief.evict().await.unwrap();
    assert_eq!(fate(store.check_lease().await), Fate::Fenced);
    store.release(&outcome("locked")).await.unwrap();
    thief.check_lease().await.unwrap();
}

#[tokio::test]
async fn a_reply_that_is_lost_at_the_commit_leaves_the_fate_unknown() {
    for (cut, happened) in [(Cut::Reply, true), (Cut::Request, false)] {
        let world = Server::new().await;
        // Armed by the step itself: taking the lease ends with a COMMIT too.
        let address = cutting_after(world.address(), "armed", "COMMIT", cut).await;
        let mut store = world.open_at(&address, "a").await;
        store.found("pair").await.unwrap();
        take(&mut store, "a").await;
        let committed = store.commit(&world.mark("armed"), &[record(1, Event::Applied)]).await;
        assert_eq!(fate(committed), Fate::Unknown, "{cut:?}");
        let expected = usize::from(happened);
        // Without the client, the server ends the session when it notices.
        until("the session is gone", async || world.sessions("a").await == 0).await;
        assert_eq!(world.marks().await.len(), expected, "{cut:?}");
        let seen = world.open("b").await.read().await.unwrap();
        assert_eq!(seen.records.len(), expected, "both or neither: {cut:?}");
    }
}

#[tokio::test]
async fn a_commit_that_waits_for_a_lock_gives_up_and_tells_who_has_it() {
    let (world, mut store) = with_tables().await;
    let holder = connect(&world.database.postgres_url).await;
    holder.batch_execute("BEGIN; SELECT * FROM t").await.unwrap();
    let mut step = step("ALTER TABLE t ADD COLUMN c int");
    step.timeouts.lock = Some(Duration::from_secs(2));
    let others = async {
        // A read behind the waiting ALTER TABLE gets its turn while the first
        // reader is still there.
        world.wait_for("a", "wait_event_type = 'Lock'").await;
        world.texts("SELECT a::text FROM t").await;
    };
    let entries = [record(1, Event::Applied)];
    let (committed, ()) = tokio::join!(store.commit(&step, &entries), others);
    let error = committed.unwrap_err();
    assert_eq!(error.fate, Fate::Refused);
    let obstruction = store.obstruction(&error).expect("another session was in the way");
    assert_eq!(obstruction.lock.as_deref(), Some("AccessExclusiveLock on t"));
    let holder_is = obstruction.holder.expect("it can be asked");
    assert!(holder_is.contains("idle in transaction"), "{holder_is}");
    assert!(holder_is.contains("BEGIN; SELECT * FROM t"), "{holder_is}");

    holder.batch_execute("COMMIT").await.unwrap();
    store.commit(&step, &entries).await.unwrap();
    world.run("SELECT c FROM t").await;
    let error = store.commit(&step, &[record(2, Event::Applied)]).await.unwrap_err();
    assert_eq!(store.obstruction(&error), None, "{error}");
}

#[tokio::test]
async fn an_index_is_held_when_it_is_there_on_its_table_and_valid() {
    let (world, mut store) = with_tables().await;
    let step = step("CREATE INDEX CONCURRENTLY i ON t (a)");
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    settle(&mut store, &step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
    assert!(store.obstacle(&step).await.unwrap().is_some());

    world.invalidate("i").await;
    world.run("CREATE INDEX foreigner ON t (b); CREATE INDEX i2 ON t (b)").await;
    world.invalidate("foreigner").await;
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    store.clear(&step).await.unwrap();
    assert_eq!(world.indexes().await, ["foreigner invalid", "i2"]);
    store.perform(&step).await.unwrap();
    assert_eq!(world.indexes().await, ["foreigner invalid", "i", "i2"]);
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
}

#[tokio::test]
async fn a_unique_index_that_failed_is_cleared_and_built_again() {
    let (world, mut store) = with_tables().await;
    let step = step("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)");
    let error = store.perform(&step).await.unwrap_err();
    assert_eq!((error.fate, error.said.statement), (Fate::Refused, Some(0)), "{error}");
    assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 23505"));
    assert_eq!(world.indexes().await, ["i invalid"]);
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    store.clear(&step).await.unwrap();
    assert_eq!(world.indexes().await, [""; 0]);
    world.run("DELETE FROM t").await;
    store.perform(&step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
}

#[tokio::test]
async fn what_has_the_name_and_is_not_ours_is_an_obstacle_and_stays() {
    let (world, mut store) = with_tables().await;
    let step = step("CREATE INDEX CONCURRENTLY i ON t (a)");
    for (make, drop, valid) in [
        ("CREATE INDEX i ON other (a)", "DROP INDEX i", true),
        ("CREATE INDEX i ON other (a)", "DROP INDEX i", false),
        ("CREATE TABLE i ()", "DROP TABLE i", true),
    ] {
        world.run(make).await;
        if !valid {
            world.invalidate("i").await;
        }
        assert!(store.obstacle(&step).await.unwrap().is_some(), "{make}");
        assert_eq!(store.holds(&step).await.unwrap(), Holds::No, "{make}");
        store.clear(&step).await.unwrap();
        world.run(drop).await;
    }
}

#[tokio::test]
async fn an_old_run_clears_nothing() {
    let (world, mut old) = with_tables().await;
    let step = step("CREATE INDEX CONCURRENTLY i ON t (a)");
    old.perform(&step).await.unwrap();
    world.invalidate("i").await;
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(old.clear(&step).await), Fate::Fenced);
    assert_eq!(world.indexes().await, ["i invalid"]);
    settle(&mut new, &step).await.unwrap();
    assert_eq!(world.indexes().await, ["i"]);
}

#[tokio::test]
async fn an_index_to_drop_is_gone_or_is_dropped_again() {
    let (world, mut store) = with_tables().await;
    let step = step("DROP INDEX CONCURRENTLY i");
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
    world.run("CREATE INDEX i ON t (a)").await;
    for invalid in [false, true] {
        if invalid {
            world.run("CREATE INDEX i ON t (a)").await;
            world.invalidate("i").await;
        }
        assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
        settle(&mut store, &step).await.unwrap();
        assert_eq!(world.indexes().await, [""; 0]);
        assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
    }
}

#[tokio::test]
async fn a_reindex_is_repeated_after_its_own_leftovers_are_gone() {
    let (world, mut store) = with_tables().await;
    world.run("CREATE INDEX a_b ON t (a); CREATE INDEX a_b_c ON t (b)").await;
    let leftovers = ["a_b_ccnew", "a_b_ccnew1", "a_b_ccold", "a_b_c_ccnew", "axb_ccnew"];
    for leftover in leftovers {
        world.run(&format!("CREATE INDEX {leftover} ON t (a)")).await;
        world.invalidate(leftover).await;
    }
    world.run("CREATE INDEX o_ccnew ON other (a)").await;
    world.invalidate("o_ccnew").await;
    let index = step("REINDEX INDEX CONCURRENTLY a_b");
    assert_eq!(store.holds(&index).await.unwrap(), Holds::No);
    settle(&mut store, &index).await.unwrap();
    assert_eq!(
        world.indexes().await,
        ["a_b", "a_b_c", "a_b_c_ccnew invalid", "axb_ccnew invalid", "o_ccnew invalid"]
    );
    let table = step("REINDEX TABLE CONCURRENTLY t");
    store.clear(&table).await.unwrap();
    assert_eq!(world.indexes().await, ["a_b", "a_b_c", "o_ccnew invalid"]);
    store.perform(&table).await.unwrap();
}

#[tokio::test]
async fn a_partition_is_detached_or_its_detaching_is_finished() {
    let world = Server::new().await;
    world.run("CREATE TABLE p (a int) PARTITION BY LIST (a)").await;
    world.run("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)").await;
    let mut store = leased(&world, "a").await;
    let step = step("ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY");
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    settle(&mut store, &step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);

    // A reader keeps it waiting in its second transaction, where it is cancelled.
    world.run("ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)").await;
    let reader = connect(&world.database.postgres_url).await;
    reader.batch_execute("BEGIN; SELECT * FROM p").await.unwrap();
    let cancel = async || {
        let pending = "SELECT EXISTS (SELECT 1 FROM pg_inherits WHERE inhdetachpending)";
        until("the first half of the detaching", async || world.yes(pending).await).await;
        world
            .run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lockstep/a'")
            .await;
    };
    let (performed, ()) = tokio::join!(store.perform(&step), cancel());
    assert_eq!(fate(performed), Fate::Refused);
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::No);
    settle(&mut store, &step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);

    // Finished to be reverted, not to be applied: when it is applied again, it is
    // detached again.
    world.run("ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)").await;
    reader.batch_execute("BEGIN; SELECT * FROM p").await.unwrap();
    let (performed, ()) = tokio::join!(store.perform(&step), cancel());
    assert_eq!(fate(performed), Fate::Refused);
    reader.batch_execute("COMMIT").await.unwrap();
    store.clear(&step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
    world.run("ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1)").await;
    store.perform(&step).await.unwrap();
    assert_eq!(store.holds(&step).await.unwrap(), Holds::Yes);
}

#[tokio::test]
async fn names_are_found_in_the_schema_of_the_scripts() {
    let world = Server::new().await;
    world.run("CREATE SCHEMA app; CREATE TABLE app.t (a int); CREATE TABLE t (a int)").await;
    let mut config = PostgresConfig::parse(&world.database.postgres_url).unwrap();
    config.schema = Some("app".to_owned());
    let mut store = Postgres::connect(config, "a").await.unwrap();
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let create = step("CREATE INDEX CONCURRENTLY i ON t (a)");
    store.perform(&create).await.unwrap();
    world.invalidate("app.i").await;
    settle(&mut store, &create).await.unwrap();
    assert_eq!(world.indexes().await, ["app.i"]);
    world.run("CREATE INDEX i_ccnew ON app.t (a)").await;
    world.invalidate("app.i_ccnew").await;
    settle(&mut store, &step("REINDEX INDEX CONCURRENTLY i")).await.unwrap();
    assert_eq!(world.indexes().await, ["app.i"]);
}

#[tokio::test]
async fn what_runs_alone_is_repeated_or_asked_about() {
    let (_world, mut store) = with_tables().await;
    assert_eq!(store.holds(&step("VACUUM t")).await.unwrap(), Holds::No);
    settle(&mut store, &step("VACUUM t")).await.unwrap();
    assert_eq!(store.holds(&step("CREATE DATABASE x")).await.unwrap(), Holds::Ask);
}

#[tokio::test]
async fn what_a_dead_run_left_running_is_ended_and_nothing_else() {
    let (world, mut dead) = with_tables().await;
    let stranger = connect(&world.database.postgres_url).await;
    world.expire().await;
    let mut heart = dead.heart().await.unwrap();
    heart_beats(&mut heart).await;
    let sleep = step("SELECT pg_sleep(600)");
    let evict = async {
        world.wait_for("a", "query LIKE '%pg_sleep%' AND state = 'active'").await;
        world.expire().await;
        let mut new = world.open("b").await;
        take(&mut new, "b").await;
        let ended = new.evict().await.unwrap();
        assert_eq!(world.sessions("a").await, 0, "it returns when they are gone");
        // The dead run is at work again before it is told that it is dead, so that
        // what it asks then may be ended as well.
        let slept = ended.iter().filter(|line| line.contains("pg_sleep")).count();
        assert_eq!(slept, 1, "{ended:?}");
        assert_eq!(new.evict().await.unwrap(), [""; 0]);
        new.append(&[record(1, Event::Started)]).await.unwrap();
    };
    let (lost, ()) = tokio::join!(dead.commit(&sleep, &[]), evict);
    assert_eq!(fate(lost), Fate::Fenced);
    stranger.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(fate(dead.append(&[record(2, Event::Started)]).await), Fate::Fenced);
}

async fn heart_beats(heart: &mut impl lockstep::store::Heart) {
    heart.beat().await.unwrap();
}

#[tokio::test]
async fn what_was_cancelled_leaves_nothing_and_the_lease_is_given_back() {
    let (world, mut store) = with_tables().await;
    let sleep = step("INSERT INTO t VALUES (99); SELECT pg_sleep(600)");
    tokio::select! {
        result = store.commit(&sleep, &[]) => panic!("{result:?}"),
        () = world.wait_for("a", "query LIKE '%pg_sleep%' AND state = 'active'") => {}
    }
    store.cancel().await;
    store.release(&outcome("failed")).await.unwrap();
    assert_eq!(store.read().await.unwrap().lease, None);
    assert!(world.yes("SELECT NOT EXISTS (SELECT 1 FROM t WHERE a = 99)").await);
    assert!(world.yes("SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lockstep/a' AND state <> 'idle')").await);
}

#[tokio::test]
async fn half_a_step_whose_caller_went_away_is_never_committed() {
    let (world, mut store) = with_tables().await;
    let holder = connect(&world.database.postgres_url).await;
    holder.batch_execute("BEGIN; LOCK TABLE other").await.unwrap();
    let half = step("INSERT INTO t VALUES (99); INSERT INTO other VALUES (1)");
    tokio::select! {
        result = store.commit(&half, &[]) => panic!("{result:?}"),
        () = world.wait_for("a", "wait_event_type = 'Lock'") => {}
    }
    // Its last statement ends well, and then the session is used again.
    holder.batch_execute("COMMIT").await.unwrap();
    store.append(&[record(1, Event::Started)]).await.unwrap();
    store.release(&outcome("failed")).await.unwrap();
    assert!(world.yes("SELECT NOT EXISTS (SELECT 1 FROM t WHERE a = 99)").await);
}

#[tokio::test]
async fn giving_back_and_taking_over_do_not_wait_for_each_other_in_a_ring() {
    let (world, mut old) = with_tables().await;
    // As who takes over: the lease's row first, then the runs'.
    let thief = connect(&world.database.postgres_url).await;
    thief.batch_execute("BEGIN; SELECT * FROM migration_control FOR UPDATE").await.unwrap();
    let take_over = async {
        world.wait_for("a", "wait_event_type = 'Lock'").await;
        thief.batch_execute("UPDATE migration_runs SET writes = writes; ROLLBACK").await.unwrap();
    };
    let end = outcome("ok");
    let (released, ()) = tokio::join!(old.release(&end), take_over);
    released.unwrap();
}
