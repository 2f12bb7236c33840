//! Backfills in Postgres: each row once, whatever is killed and whenever.

use crate::postgres::{Server, connect, step};
use crate::proxy::{Cut, cutting_after};
use crate::subject::{Recorded, Subject, fate, leased, outcome, record, take, until};
use lockstep::core::backfill::{Batch, Key, Shard, Survey};
use lockstep::core::history::Event;
use lockstep::core::pace::{AtLimit, Level, Limits, Reading, Steer, Steering};
use lockstep::core::parse::manifest::Work;
use lockstep::core::step::QualifiedName;
use lockstep::store::backfill::{Backfills, is_passing};
use lockstep::store::postgres::{Postgres, PostgresConfig};
use lockstep::store::{Fate, Run, Store, StoreError};
use serde_json::json;
use std::time::Duration;

fn named(table: &str) -> QualifiedName {
    match table.split_once('.') {
        Some((schema, name)) => {
            QualifiedName { schema: Some(schema.to_owned()), name: name.to_owned() }
        }
        None => QualifiedName { schema: None, name: table.to_owned() },
    }
}

fn update_along(key: &[&str], table: &str, set: &str, condition: Option<&str>) -> Recorded {
    Recorded::new(Work::Update {
        table: named(table),
        set: set.to_owned(),
        condition: condition.map(str::to_owned),
        key: key.iter().map(|&column| column.to_owned()).collect(),
    })
}

fn update(table: &str, set: &str, condition: Option<&str>) -> Recorded {
    update_along(&[], table, set, condition)
}

fn statement(table: &str, sql: &str) -> Recorded {
    Recorded::new(Work::Sql { sql: sql.to_owned(), table: named(table), key: Vec::new() })
}

/// Surveys, and writes the shards down.
async fn begin(store: &mut Postgres, task: &Recorded, shards: usize) -> Survey {
    let survey = store.survey(task.job(), shards, &[]).await.unwrap();
    store.begin(task.job(), &survey.shards, &[]).await.unwrap();
    survey
}

async fn claimed(store: &mut Postgres, task: &Recorded) -> Shard {
    store.claim(task.job()).await.unwrap().expect("a shard is free")
}

async fn next(store: &mut Postgres, task: &Recorded, shard: &Shard, rows: u64) -> Batch {
    store.batch(task.job(), shard, rows).await.unwrap().expect("the shard is ours")
}

/// Takes every shard that is to be had and goes through it, in batches of these
/// sizes in turn. How many rows were rewritten.
async fn go_through(store: &mut Postgres, task: &Recorded, sizes: &[u64]) -> u64 {
    let mut sizes = sizes.iter().cycle();
    let mut rewritten = 0;
    while let Some(mut shard) = store.claim(task.job()).await.unwrap() {
        while !shard.done {
            let batch = next(store, task, &shard, *sizes.next().unwrap()).await;
            rewritten += batch.rows;
            shard = batch.shard;
        }
    }
    rewritten
}

/// The survey's refusal, with its hint.
async fn refusal(store: &mut Postgres, task: &Recorded) -> String {
    let error = store.survey(task.job(), 1, &[]).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused, "{error}");
    format!("{} → {}", error.said.message, error.said.hint.expect("it says what to do"))
}

/// `t` with 100 rows and the key `id`.
async fn hundred() -> (Server, Postgres) {
    let world = Server::new().await;
    world.run("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text)").await;
    world.run("INSERT INTO t SELECT g FROM generate_series(1, 100) AS g").await;
    let store = leased(&world, "a").await;
    (world, store)
}

fn add_one() -> Recorded {
    let mut task = update("t", "n = n + 1", None);
    task.record.rank = 9;
    task
}

async fn values(world: &Server) -> Vec<String> {
    world.texts("SELECT n || ' × ' || count(*) FROM t GROUP BY n ORDER BY n").await
}

#[tokio::test]
async fn each_row_is_rewritten_once_in_batches_of_odd_sizes() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    let survey = begin(&mut store, &task, 1).await;
    assert_eq!((survey.key.as_str(), survey.estimate), ("id integer", 100));
    let mut shard = claimed(&mut store, &task).await;
    assert_eq!((shard.index, shard.round, shard.claimed), (1, 0, true));
    assert_eq!((shard.after.clone(), shard.upto.clone()), (None, Key(json!(["100"]))));
    let mut after = Vec::new();
    for rows in [1, 2, 3, 5, 7, 11, 13, 17, 19, 100] {
        let batch = next(&mut store, &task, &shard, rows).await;
        assert_eq!((batch.rows, batch.passed), (rows.min(100 - shard.rows), batch.rows));
        shard = batch.shard;
        after.push(shard.after.clone().unwrap().to_string());
        assert_eq!(store.shards(task.job()).await.unwrap(), std::slice::from_ref(&shard));
    }
    assert_eq!(after, ["1", "3", "6", "11", "18", "29", "42", "59", "78", "100"]);
    assert!(shard.done && !shard.claimed);
    assert_eq!((shard.rows, shard.passed), (100, 100));
    assert_eq!(values(&world).await, ["1 × 100"]);
    assert_eq!(store.claim(task.job()).await.unwrap(), None);
    assert_eq!(store.batch(task.job(), &shard, 10).await.unwrap(), None, "it is done");
}

#[tokio::test]
async fn keys_of_every_kind_are_gone_along_in_their_order() {
    let keys = [
        ("smallint", "SELECT g::smallint FROM generate_series(-50, 49) AS g"),
        (
            "bigint",
            "SELECT g FROM generate_series(1, 98) AS g UNION SELECT 9223372036854775807 \
             UNION SELECT -9223372036854775808",
        ),
        (
            "numeric",
            "SELECT g / 7.0 FROM generate_series(-48, 48) AS g UNION SELECT 'NaN' \
             UNION SELECT 1e300 UNION SELECT -1e-30",
        ),
        (
            "double precision",
            "SELECT g / 7.0::float8 FROM generate_series(-48, 48) AS g UNION SELECT 'NaN' \
             UNION SELECT 'Infinity' UNION SELECT '-Infinity'",
        ),
        ("uuid", "SELECT md5(g::text)::uuid FROM generate_series(1, 100) AS g"),
        (
            "text COLLATE \"C\"",
            "SELECT chr(31 + g) || E'é\\'\"\\\\ ' || g FROM generate_series(1, 99) AS g \
             UNION SELECT ''",
        ),
        (
            "text COLLATE \"en-x-icu\"",
            "SELECT chr(64 + g) || 'ä' FROM generate_series(1, 100) AS g",
        ),
        ("varchar(20)", "SELECT 'x' || g FROM generate_series(1, 100) AS g"),
        ("char(8)", "SELECT 'x' || g FROM generate_series(1, 100) AS g"),
        (
            "timestamptz",
            "SELECT '2024-03-31 00:30 UTC'::timestamptz + g * interval '7 minutes 0.000001 s' \
             FROM generate_series(1, 97) AS g UNION SELECT 'infinity' UNION SELECT '-infinity' \
             UNION SELECT '0044-03-15 BC'",
        ),
        (
            "timestamp",
            "SELECT '2024-03-31'::timestamp + g * interval '1 day' \
             FROM generate_series(1, 99) AS g UNION SELECT 'infinity'",
        ),
        (
            "date",
            "SELECT '2024-01-01'::date + g FROM generate_series(1, 99) AS g \
             UNION SELECT '12024-01-01'",
        ),
        ("interval", "SELECT g * interval '-1 day 3 hours' FROM generate_series(1, 100) AS g"),
        ("bytea", "SELECT decode(md5(g::text), 'hex') FROM generate_series(1, 100) AS g"),
        ("int[]", "SELECT ARRAY[g % 7, g] FROM generate_series(1, 100) AS g"),
        ("\"Odd Type\"", "SELECT g FROM generate_series(1, 100) AS g"),
        ("inet", "SELECT '10.0.0.0'::inet + g FROM generate_series(1, 100) AS g"),
    ];
    let world = Server::new().await;
    world.run("CREATE DOMAIN \"Odd Type\" AS integer CHECK (VALUE > 0)").await;
    // What a session is set to must not change what a key is.
    let database = &world.database.name;
    for set in [
        "datestyle = 'SQL, DMY'",
        "timezone = 'America/St_Johns'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "intervalstyle = 'sql_standard'",
    ] {
        world.run(&format!("ALTER DATABASE \"{database}\" SET {set}")).await;
    }
    let mut store = leased(&world, "a").await;
    for (at, (kind, rows)) in keys.into_iter().enumerate() {
        world.run("DROP TABLE IF EXISTS t").await;
        world
            .run(&format!("CREATE TABLE t (\"the key\" {kind} PRIMARY KEY, n int DEFAULT 0)"))
            .await;
        world.run(&format!("INSERT INTO t {rows}")).await;
        let mut task = update("t", "n = n + 1", None);
        task.record.attempt = u32::try_from(at).unwrap() + 1;
        task.record.step.name = format!("execute/kind-{at}").parse().unwrap();
        let survey = begin(&mut store, &task, 3).await;
        assert_eq!(survey.shards.len(), 3, "{kind}");
        assert_eq!(go_through(&mut store, &task, &[7, 1, 11]).await, 100, "{kind}");
        assert_eq!(values(&world).await, ["1 × 100"], "{kind}");
        let shards = store.shards(task.job()).await.unwrap();
        assert!(shards.iter().all(|shard| shard.done && shard.rows == shard.passed), "{kind}");
        assert_eq!(shards.iter().map(|shard| shard.rows).sum::<u64>(), 100, "{kind}");
        assert!(shards.iter().all(|shard| (20..=50).contains(&shard.rows)), "{kind}: {shards:?}");
    }
}

#[tokio::test]
async fn a_statement_sees_the_settings_that_a_script_would_see() {
    let (world, mut store) = hundred().await;
    let database = &world.database.name;
    world.run(&format!("ALTER DATABASE \"{database}\" SET datestyle = 'SQL, DMY'")).await;
    world.run(&format!("ALTER DATABASE \"{database}\" SET timezone = 'Asia/Tokyo'")).await;
    drop(std::mem::replace(&mut store, world.open("looks").await));
    world.expire().await;
    let mut store = leased(&world, "b").await;
    let set = "note = concat_ws(' ', '2024-05-31 20:00Z'::timestamptz, \
               current_setting('enable_seqscan'), current_setting('lockstep.backfill'))";
    let task = update("t", set, None);
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[30]).await, 100);
    assert_eq!(world.texts("SELECT DISTINCT note FROM t").await, ["01/06/2024 05:00:00 JST on on"]);
}

#[tokio::test]
async fn composite_keys_are_compared_as_rows() {
    let world = Server::new().await;
    world.run("CREATE TABLE t (tenant text, day date, id int, n int DEFAULT 0, PRIMARY KEY (tenant, day, id))").await;
    world
        .run(
            "INSERT INTO t SELECT chr(65 + g % 3), '2024-01-01'::date + g % 5, g \
             FROM generate_series(1, 1000) AS g",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let task = update("t", "n = n + 1", None);
    let survey = begin(&mut store, &task, 4).await;
    assert_eq!(survey.key, "tenant text, day date, id integer");
    assert_eq!(survey.shards.len(), 4);
    assert_eq!(go_through(&mut store, &task, &[13, 67, 1, 200]).await, 1000);
    assert_eq!(values(&world).await, ["1 × 1000"]);
}

#[tokio::test]
async fn an_update_that_shrinks_its_own_filter_skips_nothing() {
    let (world, mut store) = hundred().await;
    let task = update("t", "note = 'done' -- all of them", Some("note IS NULL -- not yet"));
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[10]).await, 100);
    assert!(world.yes("SELECT bool_and(note = 'done') FROM t").await);
}

#[tokio::test]
async fn only_rows_of_the_condition_are_rewritten_and_all_keys_are_passed() {
    let (world, mut store) = hundred().await;
    let task = update("t", "n = 1", Some("id % 10 = 0 OR id = 1"));
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[9]).await, 11);
    assert_eq!(values(&world).await, ["0 × 89", "1 × 11"]);
    let shards = store.shards(task.job()).await.unwrap();
    assert_eq!((shards[0].rows, shards[0].passed), (11, 100));
}

#[tokio::test]
async fn a_statement_of_ones_own_has_the_range_where_it_says_batch() {
    let (world, mut store) = hundred().await;
    let task = statement(
        "t",
        "WITH gone AS (DELETE FROM t WHERE id % 2 = 0 AND {batch} RETURNING id) \
         INSERT INTO things SELECT id FROM gone",
    );
    begin(&mut store, &task, 2).await;
    assert_eq!(go_through(&mut store, &task, &[7]).await, 50);
    assert_eq!(values(&world).await, ["0 × 50"]);
    assert!(world.yes("SELECT count(*) = 50 AND bool_and(a % 2 = 0) FROM things").await);
}

#[tokio::test]
async fn a_partitioned_table_is_rewritten_leaf_by_leaf() {
    let world = Server::new().await;
    world
        .run(
            "CREATE SCHEMA \"Shop\"; CREATE TABLE \"Shop\".t (id int, n int DEFAULT 0) \
             PARTITION BY RANGE (id);
             CREATE TABLE \"Shop\".\"Low\" PARTITION OF \"Shop\".t FOR VALUES FROM (0) TO (50);
             CREATE TABLE high PARTITION OF \"Shop\".t FOR VALUES FROM (50) TO (1000) \
             PARTITION BY LIST (id);
             CREATE TABLE rest PARTITION OF high DEFAULT;
             CREATE TABLE none PARTITION OF high FOR VALUES IN (999);
             ALTER TABLE rest ADD PRIMARY KEY (id);
             ALTER TABLE none ADD PRIMARY KEY (id);
             ALTER TABLE \"Shop\".\"Low\" ADD PRIMARY KEY (id);
             INSERT INTO \"Shop\".t SELECT g FROM generate_series(0, 99) AS g",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let task = update("Shop.t", "n = t.n + 1", Some("t.id >= 0"));
    let survey = begin(&mut store, &task, 1).await;
    let tables: Vec<&str> = survey.shards.iter().map(|shard| shard.table.as_str()).collect();
    assert_eq!(tables, ["\"Shop\".\"Low\"", "\"public\".\"rest\""], "nothing is in `none`");
    assert_eq!(survey.estimate, 100);
    assert_eq!(go_through(&mut store, &task, &[7]).await, 100);
    assert!(world.yes("SELECT bool_and(n = 1) FROM \"Shop\".t").await);

    // A sweep finds what appeared behind the ranges, and in new partitions.
    world.run("INSERT INTO \"Shop\".t VALUES (100), (999)").await;
    let past = store.shards(task.job()).await.unwrap();
    let sweep = store.survey(task.job(), 1, &past).await.unwrap();
    let seen: Vec<_> =
        sweep.shards.iter().map(|s| (s.index, s.round, s.table.as_str(), s.estimate)).collect();
    assert_eq!(seen, [(3, 1, "\"public\".\"none\"", 1), (4, 1, "\"public\".\"rest\"", 1)]);
    store.begin(task.job(), &sweep.shards, &[]).await.unwrap();
    assert_eq!(go_through(&mut store, &task, &[7]).await, 2);
    assert!(world.yes("SELECT bool_and(n = 1) AND count(*) = 102 FROM \"Shop\".t").await);
    let past = store.shards(task.job()).await.unwrap();
    assert_eq!(store.survey(task.job(), 1, &past).await.unwrap().shards, []);
}

#[tokio::test]
async fn a_statement_goes_through_a_partitioned_table_as_a_whole() {
    let world = Server::new().await;
    world
        .run(
            "CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY HASH (id);
             CREATE TABLE t0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE t1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO t SELECT g FROM generate_series(1, 30000) AS g",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let task = statement("t", "UPDATE t SET n = n + 1 WHERE {batch}");
    let survey = begin(&mut store, &task, 1).await;
    assert_eq!((survey.shards.len(), survey.shards[0].table.as_str()), (1, "\"public\".\"t\""));
    assert_eq!(go_through(&mut store, &task, &[7001]).await, 30000);
    assert_eq!(values(&world).await, ["1 × 30000"]);
}

#[tokio::test]
async fn without_a_key_it_is_refused_with_what_to_do() {
    let world = Server::new().await;
    world
        .run(
            "CREATE TABLE t (a int, b int NOT NULL, c text NOT NULL);
             CREATE UNIQUE INDEX ON t (a);
             CREATE UNIQUE INDEX ON t (b) WHERE b > 0;
             CREATE UNIQUE INDEX ON t (lower(c));
             CREATE UNIQUE INDEX ON t (b DESC, c);
             CREATE UNIQUE INDEX ON t (c text_pattern_ops);
             CREATE INDEX ON t (c)",
        )
        .await;
    let mut store = leased(&world, "a").await;
    let text = refusal(&mut store, &update("t", "b = 1", None)).await;
    assert!(text.starts_with("public.t has no primary key"), "{text}");
    assert!(text.contains("add a primary key in `prepare`"), "{text}");
    for (key, says) in [
        (&["x"][..], "public.t has no column `x`"),
        (&["a"], "column `a` of public.t may be NULL"),
        (&["b"], "no index of public.t begins with (b)"),
        (&["c", "b"], "no index of public.t begins with (c, b)"),
    ] {
        let text = refusal(&mut store, &update_along(key, "t", "b = 1", None)).await;
        assert!(text.starts_with(says), "{text}");
    }
    world
        .run(
            "CREATE TABLE u (id int PRIMARY KEY, b int NOT NULL, c int); CREATE INDEX ON u (b, id)",
        )
        .await;
    let text = refusal(&mut store, &update_along(&["b"], "u", "b = 1", None)).await;
    assert!(text.starts_with("no unique index says that (b) is a key of public.u"), "{text}");
    let both = update_along(&["b", "id"], "u", "c = b", None);
    assert_eq!(store.survey(both.job(), 1, &[]).await.unwrap().key, "b integer, id integer");
    let c = update_along(&["c"], "t", "b = 1", None);
    assert_eq!(store.survey(c.job(), 1, &[]).await.unwrap().key, "c text", "in the order of `<`");
}

/// A row that moves would be found again behind the cursor, and by each sweep.
#[tokio::test]
async fn a_backfill_that_moves_its_own_keys_is_refused() {
    let (world, mut store) = hundred().await;
    world.run("CREATE UNIQUE INDEX ON t (n, id); UPDATE t SET n = id").await;
    for task in [
        update("t", "note = 'x', id = id + 1000", None),
        update("t", "(note, \"id\") = ('x', id + 1000)", None),
        statement("t", "UPDATE t AS a SET id = a.id + 1000 WHERE {batch}"),
        update_along(&["n", "id"], "t", "n = n + 1000", None),
    ] {
        let text = refusal(&mut store, &task).await;
        assert!(text.starts_with("the backfill changes "), "{text}");
        assert!(text.contains("may be rewritten twice → go along a unique index"), "{text}");
    }
    // Other columns are nothing to it.
    for task in [update("t", "n = id", None), statement("t", "DELETE FROM t WHERE {batch}")] {
        store.survey(task.job(), 1, &[]).await.unwrap();
    }
    assert_eq!(world.texts("SELECT max(id)::text FROM t").await, ["100"]);
}

#[tokio::test]
async fn what_is_no_plain_table_is_refused() {
    let world = Server::new().await;
    world
        .run(
            "CREATE TABLE parent (id int PRIMARY KEY);
             CREATE TABLE child (id int PRIMARY KEY) INHERITS (parent);
             CREATE VIEW v AS SELECT * FROM parent",
        )
        .await;
    let mut store = leased(&world, "a").await;
    for (table, says) in [
        ("missing", "there is no table missing"),
        ("parent", "other tables inherit from public.parent"),
        ("v", "public.v is a view"),
    ] {
        let text = refusal(&mut store, &update(table, "id = id", None)).await;
        assert!(text.starts_with(says), "{text}");
    }
    let delete = statement("child", "DELETE FROM child WHERE {batch}");
    store.survey(delete.job(), 1, &[]).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_would_read_the_whole_table_is_refused() {
    let world = Server::new().await;
    world.run("CREATE TABLE t (id int PRIMARY KEY, n int, filler char(500) DEFAULT '')").await;
    world.run("INSERT INTO t SELECT g, 0 FROM generate_series(1, 20000) AS g").await;
    let mut store = leased(&world, "a").await;
    for sql in [
        "UPDATE t SET n = 1 WHERE n = 0 OR {batch}",
        "UPDATE t SET n = 1 WHERE EXISTS (SELECT 1 FROM t WHERE {batch})",
    ] {
        let text = refusal(&mut store, &statement("t", sql)).await;
        assert!(text.starts_with("each batch would read all of public.t"), "{text}");
    }
    let joined = statement("t", "DELETE FROM t USING t AS u WHERE {batch}");
    let text = refusal(&mut store, &joined).await;
    assert!(text.contains("ambiguous") && text.contains("subqueries"), "{text}");
    let fine = statement("t", "UPDATE t SET n = 1 WHERE n = 0 AND {batch}");
    let survey = store.survey(fine.job(), 4, &[]).await.unwrap();
    assert_eq!((survey.shards.len(), survey.estimate), (4, 20000), "it was analyzed");
    assert!(survey.shards.windows(2).all(|pair| Some(&pair[0].upto) == pair[1].after.as_ref()));
    let uuid = Server::new().await;
    uuid.run("CREATE TABLE t (id uuid PRIMARY KEY, n int, filler char(500) DEFAULT '')").await;
    uuid.run("INSERT INTO t SELECT md5(g::text)::uuid, 0 FROM generate_series(1, 20000) AS g")
        .await;
    let mut store = leased(&uuid, "a").await;
    store.survey(update("t", "n = 1", None).job(), 1, &[]).await.unwrap();
}

/// For the plan, before `prepare` made anything, and before anybody ran ANALYZE.
#[tokio::test]
async fn how_many_rows_there_are_is_estimated_without_changing_anything() {
    let (world, mut store) = hundred().await;
    let estimate = store.estimate(add_one().job()).await.unwrap().unwrap();
    assert!((10..10_000).contains(&estimate), "{estimate}, never analysed");
    world.run("ANALYZE t").await;
    assert_eq!(store.estimate(add_one().job()).await.unwrap(), Some(100));
    let later = update("made_by_prepare", "n = 1", None);
    assert_eq!(store.estimate(later.job()).await.unwrap(), None);
}

#[tokio::test]
async fn nothing_to_rewrite_is_no_shards() {
    let world = Server::new().await;
    world.run("CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    let mut store = leased(&world, "a").await;
    let task = update("t", "n = id", None);
    let survey = begin(&mut store, &task, 4).await;
    assert_eq!((survey.shards, survey.estimate), (Vec::new(), 0));
    assert_eq!(store.shards(task.job()).await.unwrap(), []);
    assert_eq!(store.claim(task.job()).await.unwrap(), None);
}

#[tokio::test]
async fn shards_are_unknown_before_the_history_is_founded() {
    let world = Server::new().await;
    let mut store = world.open("a").await;
    let task = add_one();
    assert_eq!(store.shards(task.job()).await.unwrap(), []);
    assert_eq!(store.steering().await.unwrap(), Steering::default());
}

#[tokio::test]
async fn progress_is_no_step_of_the_history_but_for_the_first_shard() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    let survey = store.survey(task.job(), 3, &[]).await.unwrap();
    let started = record(1, Event::Started);
    store.begin(task.job(), &survey.shards, &[started]).await.unwrap();
    assert_eq!(
        world.texts("SELECT step FROM migration_steps ORDER BY 1").await,
        ["execute/rows", "execute/rows#2", "execute/rows#3", "up/postgres/1"]
    );
    let records = store.read().await.unwrap().records;
    assert!(records.contains(&task.record), "{records:?}");
    assert_eq!(records.len(), 2);
    assert_eq!(store.records_of(task.record.step.version).await.unwrap().len(), 2);
    // A run that died after it has begun leaves what the next one begins.
    store.begin(task.job(), &survey.shards, &[]).await.unwrap();
    assert_eq!(store.shards(task.job()).await.unwrap(), survey.shards);
}

#[tokio::test]
async fn what_was_recorded_is_gone_along_whatever_indexes_were_made_since() {
    let world = Server::new().await;
    world.run("CREATE TABLE t (id int PRIMARY KEY, o int NOT NULL UNIQUE, n int DEFAULT 0)").await;
    world.run("INSERT INTO t SELECT g, 1000 - g FROM generate_series(1, 100) AS g").await;
    let mut store = leased(&world, "a").await;
    let task = update("t", "n = n + 1", None);
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    next(&mut store, &task, &shard, 10).await;
    store.release(&outcome("failed")).await.unwrap();
    world
        .run("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (o); CREATE UNIQUE INDEX ON t (id)")
        .await;
    let mut other = leased(&world, "b").await;
    assert_eq!(go_through(&mut other, &task, &[9]).await, 90);
    assert_eq!(values(&world).await, ["1 × 100"]);
    world.run("INSERT INTO t VALUES (200, 0)").await;
    let past = other.shards(task.job()).await.unwrap();
    let sweep = other.survey(task.job(), 1, &past).await.unwrap();
    assert_eq!((sweep.key.as_str(), &sweep.shards[0].upto), ("id integer", &Key(json!(["200"]))));
}

#[tokio::test]
async fn a_reply_that_is_lost_at_the_commit_is_told_by_the_cursor() {
    for (cut, happened) in [(Cut::Reply, true), (Cut::Request, false)] {
        let (world, mut first) = hundred().await;
        let task = add_one();
        begin(&mut first, &task, 1).await;
        first.release(&outcome("failed")).await.unwrap();
        // Armed by the batch itself: taking the shard ends with a COMMIT too.
        let address = cutting_after(world.address(), "n = n + 1", "COMMIT", cut).await;
        let mut store = world.open_at(&address, "b").await;
        take(&mut store, "b").await;
        let shard = claimed(&mut store, &task).await;
        assert_eq!(fate(store.batch(task.job(), &shard, 30).await), Fate::Unknown, "{cut:?}");
        until("the session is gone", async || world.sessions("b").await == 0).await;
        world.expire().await;
        let mut again = world.open("c").await;
        take(&mut again, "c").await;
        let seen = again.shards(task.job()).await.unwrap().remove(0);
        assert_eq!(seen.rows, if happened { 30 } else { 0 }, "{cut:?}");
        assert_eq!(go_through(&mut again, &task, &[30]).await, 100 - seen.rows, "{cut:?}");
        assert_eq!(values(&world).await, ["1 × 100"], "{cut:?}");
    }
}

#[tokio::test]
async fn a_shard_that_another_run_has_taken_is_left_alone() {
    let (world, mut old) = hundred().await;
    let task = add_one();
    begin(&mut old, &task, 1).await;
    let shard = claimed(&mut old, &task).await;
    assert!(old.keep(task.job(), &shard).await.unwrap());
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    let stolen = claimed(&mut new, &task).await;
    assert_eq!(stolen, shard);
    assert_eq!(old.batch(task.job(), &shard, 10).await.unwrap(), None);
    assert!(!old.keep(task.job(), &shard).await.unwrap());
    old.yield_shard(task.job(), &shard).await.unwrap();
    assert_eq!(values(&world).await, ["0 × 100"]);
    let kept = new.shards(task.job()).await.unwrap();
    assert_eq!(kept, std::slice::from_ref(&stolen), "it is not given back");
    next(&mut new, &task, &stolen, 10).await;
}

#[tokio::test]
async fn a_run_that_lost_its_lease_rewrites_nothing() {
    let (world, mut old) = hundred().await;
    let task = add_one();
    begin(&mut old, &task, 2).await;
    let shard = claimed(&mut old, &task).await;
    world.expire().await;
    let mut new = world.open("b").await;
    take(&mut new, "b").await;
    assert_eq!(fate(old.batch(task.job(), &shard, 10).await), Fate::Fenced);
    assert_eq!(fate(old.claim(task.job()).await), Fate::Fenced);
    let more = [Shard { index: 9, ..shard.clone() }];
    assert_eq!(fate(old.begin(task.job(), &more, &[]).await), Fate::Fenced);
    assert_eq!(values(&world).await, ["0 × 100"]);
    let shards = new.shards(task.job()).await.unwrap();
    assert_eq!(shards.iter().map(|shard| shard.claimed).collect::<Vec<_>>(), [true, false]);
    assert_eq!(go_through(&mut new, &task, &[30]).await, 100);
}

#[tokio::test]
async fn a_shard_is_given_out_once_until_it_is_given_back_or_grows_stale() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    begin(&mut store, &task, 3).await;
    let mut other = store.another().await.unwrap();
    let first = claimed(&mut store, &task).await;
    let second = claimed(&mut other, &task).await;
    let third = claimed(&mut store, &task).await;
    assert_eq!([first.index, second.index, third.index], [1, 2, 3]);
    assert_eq!(store.claim(task.job()).await.unwrap(), None);
    other.yield_shard(task.job(), &second).await.unwrap();
    assert_eq!(claimed(&mut store, &task).await.index, 2);

    // A run that has joined, and has its own row.
    world
        .run(
            "INSERT INTO migration_runs (run_id, command, started_by, pid, fence, outcome, tool_version) \
             SELECT 'joined', 'up', 'x', 1, fence, 'running', '0' FROM migration_control",
        )
        .await;
    world.run("UPDATE migration_steps SET run_id = 'joined' WHERE step ~ '#[23]$'").await;
    assert_eq!(store.claim(task.job()).await.unwrap(), None, "it is alive");
    world
        .run(
            "UPDATE migration_steps SET recorded_at = clock_timestamp() - interval '46 s' \
             WHERE step LIKE '%#2'",
        )
        .await;
    assert_eq!(claimed(&mut store, &task).await.index, 2, "it said nothing for too long");
    assert_eq!(store.claim(task.job()).await.unwrap(), None);
    world.run("UPDATE migration_runs SET outcome = 'failed' WHERE run_id = 'joined'").await;
    assert_eq!(claimed(&mut store, &task).await.index, 3, "its run is over");
    world
        .run("UPDATE migration_steps SET recorded_at = clock_timestamp() - interval '1 day'")
        .await;
    assert_eq!(store.claim(task.job()).await.unwrap(), None, "all are our own");
}

#[tokio::test]
async fn workers_take_different_shards_and_rewrite_each_row_once() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    let survey = begin(&mut store, &task, 12).await;
    assert_eq!(survey.shards.len(), 12);
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(store.another().await.unwrap());
    }
    let rewritten = futures_util::future::join_all(
        workers.iter_mut().map(async |worker| go_through(worker, &task, &[2, 3]).await),
    )
    .await;
    assert_eq!(rewritten.iter().sum::<u64>(), 100);
    assert_eq!(values(&world).await, ["1 × 100"]);
}

#[tokio::test]
async fn a_cursor_that_was_moved_since_is_not_moved_again() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    next(&mut store, &task, &shard, 10).await;
    assert_eq!(store.batch(task.job(), &shard, 10).await.unwrap(), None);
    assert_eq!(values(&world).await, ["0 × 90", "1 × 10"]);
}

#[tokio::test]
async fn a_trigger_can_look_whether_a_backfill_is_at_work() {
    let (world, mut store) = hundred().await;
    world
        .run(
            "CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'the trigger ran'; END $$;
             CREATE TRIGGER forbid BEFORE UPDATE ON t FOR EACH ROW WHEN \
             (current_setting('lockstep.backfill', true) IS DISTINCT FROM 'on') \
             EXECUTE FUNCTION forbid()",
        )
        .await;
    let task = add_one();
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[30]).await, 100);
    let error = store.commit(&step("UPDATE t SET n = 5"), &[]).await.unwrap_err();
    assert!(error.said.message.contains("the trigger ran"), "{error}");
}

#[tokio::test]
async fn what_a_trigger_sets_does_not_reach_what_follows() {
    let (world, mut store) = hundred().await;
    world
        .run(
            "CREATE SCHEMA elsewhere; CREATE FUNCTION leak() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM set_config('search_path', 'elsewhere', false); \
             PERFORM set_config('statement_timeout', '1', false); RETURN NEW; END $$;
             CREATE TRIGGER leak BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION public.leak()",
        )
        .await;
    let task = add_one();
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[1, 30]).await, 100);
    store.commit(&step("INSERT INTO things SELECT 1 FROM pg_sleep(0.05)"), &[]).await.unwrap();
}

#[tokio::test]
async fn a_locked_row_is_a_passing_failure_that_leaves_nothing() {
    let (world, mut store) = hundred().await;
    let mut task = add_one();
    task.timeouts.lock = Some(Duration::from_millis(100));
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    let shard = next(&mut store, &task, &shard, 10).await.shard;
    let holder = connect(&world.database.postgres_url).await;
    holder.batch_execute("BEGIN; UPDATE t SET note = 'held' WHERE id = 15").await.unwrap();
    let error = store.batch(task.job(), &shard, 10).await.unwrap_err();
    assert_eq!(error.fate, Fate::Refused, "{error}");
    assert!(is_passing(&error), "{error}");
    let detail = error.said.detail.unwrap();
    assert!(detail.contains("keys after 10 up to 20 of \"public\".\"t\""), "{detail}");
    assert_eq!(values(&world).await, ["0 × 90", "1 × 10"]);
    assert_eq!(store.shards(task.job()).await.unwrap(), std::slice::from_ref(&shard));
    let before = next(&mut store, &task, &shard, 4).await;
    holder.batch_execute("ROLLBACK").await.unwrap();
    next(&mut store, &task, &before.shard, 100).await;
    assert_eq!(values(&world).await, ["1 × 100"]);
}

#[tokio::test]
async fn a_row_that_violates_a_constraint_stops_with_its_keys_and_leaves_nothing() {
    let (world, mut store) = hundred().await;
    world.run("ALTER TABLE t ADD CHECK (n <> 1 OR id <> 42)").await;
    let task = add_one();
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    let shard = next(&mut store, &task, &shard, 40).await.shard;
    let error = store.batch(task.job(), &shard, 40).await.unwrap_err();
    assert_eq!(error.said.code.as_deref(), Some("SQLSTATE 23514"));
    assert!(!is_passing(&error));
    let detail = error.said.detail.unwrap();
    assert!(
        detail.contains("Failing row") && detail.contains("keys after 40 up to 80"),
        "{detail}"
    );
    assert_eq!(values(&world).await, ["0 × 60", "1 × 40"]);
    world.run("ALTER TABLE t DROP CONSTRAINT t_check").await;
    let last = next(&mut store, &task, &shard, 100).await;
    assert!(last.shard.done);
}

#[tokio::test]
async fn a_constraint_that_speaks_up_at_the_commit_of_a_batch_refuses_all_of_it() {
    let (world, mut store) = hundred().await;
    world.run("ALTER TABLE t ADD UNIQUE (note) DEFERRABLE INITIALLY DEFERRED").await;
    let task = update("t", "note = 'same', n = n + 1", None);
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    let shard = next(&mut store, &task, &shard, 1).await.shard;
    let error = store.batch(task.job(), &shard, 10).await.unwrap_err();
    assert_eq!((error.fate, error.said.code.as_deref()), (Fate::Refused, Some("SQLSTATE 23505")));
    assert_eq!(values(&world).await, ["0 × 99", "1 × 1"]);
    assert_eq!(store.shards(task.job()).await.unwrap(), [shard]);
}

#[tokio::test]
async fn half_a_batch_whose_caller_went_away_is_never_committed() {
    let (world, mut store) = hundred().await;
    let task = add_one();
    begin(&mut store, &task, 1).await;
    let shard = claimed(&mut store, &task).await;
    let holder = connect(&world.database.postgres_url).await;
    holder.batch_execute("BEGIN; UPDATE t SET note = 'held' WHERE id = 100").await.unwrap();
    tokio::select! {
        result = store.batch(task.job(), &shard, 100) => panic!("{result:?}"),
        () = world.wait_for("a", "wait_event_type = 'Lock'") => {}
    }
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.shards(task.job()).await.unwrap(), std::slice::from_ref(&shard));
    assert_eq!(next(&mut store, &task, &shard, 100).await.rows, 100);
    assert_eq!(values(&world).await, ["1 × 100"]);
}

#[tokio::test]
async fn a_table_is_found_in_the_schema_of_the_scripts() {
    let world = Server::new().await;
    world
        .run(
            "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, n int DEFAULT 0); \
             CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 0); CREATE TYPE app.mood AS ENUM ('ok'); \
             INSERT INTO app.t SELECT g FROM generate_series(1, 10) AS g; \
             INSERT INTO t SELECT g FROM generate_series(1, 10) AS g",
        )
        .await;
    let mut config = PostgresConfig::parse(&world.database.postgres_url).unwrap();
    config.schema = Some("app".to_owned());
    let mut store = Postgres::connect(config, "a").await.unwrap();
    store.found("pair").await.unwrap();
    take(&mut store, "a").await;
    let task = update("t", "n = 1", Some("'ok'::mood IS NOT NULL"));
    begin(&mut store, &task, 1).await;
    assert_eq!(go_through(&mut store, &task, &[4]).await, 10);
    assert_eq!(values(&world).await, ["0 × 10"]);
    assert!(world.yes("SELECT bool_and(n = 1) FROM app.t").await);
}

fn by(id: &str) -> Run {
    Run {
        id: id.to_owned(),
        command: "backfill".to_owned(),
        user: "ada".to_owned(),
        host: "h".to_owned(),
        pid: 1,
        release: None,
        from_version: None,
        reason: None,
    }
}

#[tokio::test]
async fn people_steer_while_somebody_else_has_the_lease() {
    let (world, mut store) = hundred().await;
    assert_eq!(store.steering().await.unwrap(), Steering::default());
    let mut person = world.open("person").await;
    person.steer(&Steer::Pause("a sale".to_owned()), &by("1")).await.unwrap();
    person.steer(&Steer::Speed(0.5), &by("2")).await.unwrap();
    let slow = Steering { paused: Some("a sale".to_owned()), speed: 0.5 };
    assert_eq!(store.steering().await.unwrap(), slow);
    person.steer(&Steer::Resume, &by("3")).await.unwrap();
    assert_eq!(store.steering().await.unwrap(), Steering { paused: None, speed: 0.5 });
    let runs: Vec<_> = world.runs().await.into_iter().rev().collect();
    let seen: Vec<_> = runs
        .iter()
        .map(|run| (run.command.as_str(), run.outcome.as_str(), run.reason.as_deref()))
        .collect();
    assert_eq!(
        seen,
        [
            ("up", "running", None),
            ("backfill pause", "ok", Some("a sale")),
            ("backfill speed", "ok", Some("speed 0.5")),
            ("backfill resume", "ok", None),
        ]
    );
    store.append(&[record(1, Event::Started)]).await.unwrap();
    let virgin = Server::new().await;
    let steered = virgin.open("x").await.steer(&Steer::Resume, &by("1")).await;
    assert_eq!(fate(steered), Fate::Refused);
}

const LIMITS: Limits = Limits {
    replication_lag: Duration::from_secs(5),
    commit_latency: Duration::from_millis(100),
    active_backends: Some(10),
};

/// What a probe says; the servers of this process are everybody's, so only what
/// is of this database is looked at closely.
fn level<'a>(readings: &'a [Reading], probe: &str) -> &'a Level {
    &readings.iter().find(|reading| reading.probe == probe).expect(probe).level
}

#[tokio::test]
async fn sessions_that_wait_for_us_are_seen() {
    let (world, mut store) = hundred().await;
    let mut watcher = store.another().await.unwrap();
    let readings = watcher.probe(&LIMITS).await;
    let seen: Vec<_> = readings.iter().map(|reading| (reading.probe, reading.at_limit)).collect();
    assert_eq!(
        seen,
        [
            ("replication lag", AtLimit::Stop),
            ("sessions that wait for us", AtLimit::Stop),
            ("WAL kept for slots", AtLimit::Stop),
            ("active backends", AtLimit::Slower),
        ]
    );
    let none = Level::Nothing("there is no standby".to_owned());
    assert_eq!(*level(&readings, "replication lag"), none);
    assert!(matches!(level(&readings, "active backends"), Level::At { .. }));
    assert!(matches!(
        level(&readings, "sessions that wait for us"),
        Level::At { ratio, .. } if *ratio == 0.0
    ));

    let url = world.database.postgres_url.clone();
    let waiter = tokio::spawn(async move {
        connect(&url).await.batch_execute("UPDATE t SET note = 'mine' WHERE id = 1").await.unwrap();
    });
    let sleep = step("UPDATE t SET n = 7 WHERE id = 1; SELECT pg_sleep(600)");
    let seen = async {
        until("somebody waits for us", async || {
            let readings = watcher.probe(&LIMITS).await;
            match level(&readings, "sessions that wait for us") {
                Level::At { ratio, says } if *ratio >= 1.0 => {
                    assert!(says.contains("a session has waited for us for"), "{says}");
                    true
                }
                _ => false,
            }
        })
        .await;
    };
    tokio::select! {
        result = store.commit(&sleep, &[]) => panic!("{result:?}"),
        () = seen => {}
    }
    store.cancel().await;
    store.release(&outcome("stopped")).await.unwrap();
    waiter.await.unwrap();
}

#[tokio::test]
async fn what_a_role_may_not_see_is_off_and_says_which_grant_helps() {
    let world = Server::new().await;
    let role = format!("{}_r", world.database.name);
    world.run(&format!("CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}")).await;
    let (_, rest) = world.database.postgres_url.split_once('@').unwrap();
    let url = format!("postgres://{role}@{rest}");
    let config = PostgresConfig::parse(&url).unwrap();
    let mut store = Postgres::connect(config, "low").await.unwrap();
    let readings = store.probe(&LIMITS).await;
    let Level::Off(why) = level(&readings, "active backends") else { panic!("{readings:?}") };
    assert!(why.contains(&format!("GRANT pg_monitor TO \"{role}\"")), "{why}");
    // That there is none everybody may see.
    assert!(matches!(level(&readings, "replication lag"), Level::Nothing(_)), "{readings:?}");
    assert!(matches!(level(&readings, "sessions that wait for us"), Level::At { .. }));
    let unwatched = Limits { active_backends: None, ..LIMITS };
    let readings = store.probe(&unwatched).await;
    let Level::Nothing(why) = level(&readings, "active backends") else { panic!("{readings:?}") };
    assert!(why.contains("max_active_backends"), "{why}");
    drop(store);
    world.run(&format!("DROP OWNED BY {role}")).await;
    until("the role is gone", async || {
        connect(&world.database.postgres_url)
            .await
            .batch_execute(&format!("DROP ROLE {role}"))
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn slots_that_keep_wal_are_seen_where_it_is_limited() {
    const PROBE: &str = "WAL kept for slots";
    let (world, mut store) = hundred().await;
    let none = Level::Nothing("there are no replication slots".to_owned());
    assert_eq!(*level(&store.probe(&LIMITS).await, PROBE), none);
    let slot = &world.database.name;
    world.run(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)")).await;
    let readings = store.probe(&LIMITS).await;
    let Level::Nothing(why) = level(&readings, PROBE) else { panic!("{readings:?}") };
    assert!(why.contains("`max_slot_wal_keep_size` is not set"), "{why}");
    world.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'").await;
    world.run("SELECT pg_reload_conf()").await;
    until("the limit is known", async || {
        matches!(level(&store.probe(&LIMITS).await, PROBE), Level::At { .. })
    })
    .await;
    let readings = store.probe(&LIMITS).await;
    let Level::At { ratio, says } = level(&readings, PROBE) else { panic!("{readings:?}") };
    assert!((0.0..1.0).contains(ratio) && says.contains(slot), "{readings:?}");
    world.run("ALTER SYSTEM RESET max_slot_wal_keep_size").await;
    world.run(&format!("SELECT pg_reload_conf(), pg_drop_replication_slot('{slot}')")).await;
}

#[tokio::test]
async fn copies_are_refused() {
    let (_world, mut store) = hundred().await;
    let copy = Recorded::new(Work::CopyToMongo {
        query: "SELECT 1".to_owned(),
        to: "x".to_owned(),
        by: lockstep::core::parse::manifest::By::Id("id".to_owned()),
    });
    let refused: Result<Survey, StoreError> = store.survey(copy.job(), 1, &[]).await;
    assert_eq!(fate(refused), Fate::Refused);
}
