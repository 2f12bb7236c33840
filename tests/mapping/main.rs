//! The type table on real servers: what Postgres sends becomes documents, MongoDB
//! stores them, and what it gives back goes through COPY into a table of the same
//! type. What is there then is what was there before.

#[path = "../support/mod.rs"]
mod support;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::{SinkExt, TryStreamExt};
use lockstep::core::mapping::{Column, Form, Kind, PgType, canonical, document, kept, row};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::error::Error;
use tokio_postgres::types::{FromSql, Kind as TypeKind, Type};
use tokio_postgres::{Client, NoTls};

/// Values of one type, as texts that Postgres reads.
struct Line {
    /// As a column is declared.
    sql: &'static str,
    /// What could go wrong.
    traps: &'static [&'static str],
    /// More of them.
    any: BoxedStrategy<String>,
    /// What of `v` comes back, where it is not all.
    kept: &'static str,
}

/// So many values of each type are made up.
const GENERATED: usize = 64;

fn lines() -> Vec<Line> {
    let line = |sql, traps, any| Line { sql, traps, any, kept: "v" };
    let floored = |sql, traps, any| Line { sql, traps, any, kept: "date_trunc('milliseconds', v)" };
    vec![
        line(
            "smallint",
            &["0", "-32768", "32767"],
            any::<i16>().prop_map(|v| v.to_string()).boxed(),
        ),
        line(
            "integer",
            &["0", "-2147483648", "2147483647"],
            any::<i32>().prop_map(|v| v.to_string()).boxed(),
        ),
        line(
            "bigint",
            &["0", "9007199254740993", "-9223372036854775808", "9223372036854775807"],
            any::<i64>().prop_map(|v| v.to_string()).boxed(),
        ),
        line(
            "numeric",
            &[
                "0",
                "0.00",
                "1.50",
                "-0.000001",
                "NaN",
                "Infinity",
                "-Infinity",
                "10000",
                "1e40",
                "1e-40",
                "1e6144",
                "1e-6176",
                "9999999999999999999999999999999999",
                "0.1234567890123456789012345678901234",
                "123456789012345678901234567890.1234",
                "100000000000000000000",
            ],
            "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,15})?(e-?[0-9]{1,2})?".boxed(),
        ),
        line(
            "numeric(12,2)",
            &["0", "1.5", "-9999999999.99"],
            "-?[0-9]{1,10}\\.[0-9]{1,2}".boxed(),
        ),
        line(
            "real",
            &["0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45"],
            any::<f32>().prop_map(|v| format!("{v:?}")).boxed(),
        ),
        line(
            "double precision",
            &[
                "0",
                "-0",
                "0.1",
                "NaN",
                "Infinity",
                "-Infinity",
                "1e308",
                "5e-324",
                "9007199254740993",
            ],
            any::<f64>().prop_map(|v| format!("{v:?}")).boxed(),
        ),
        line("boolean", &["true", "false"], any::<bool>().prop_map(|v| v.to_string()).boxed()),
        line(
            "text",
            &["", " a ", "\u{1}\t\n\\", "é😀", "NULL", "$where", "\u{10ffff}"],
            "[^\\x00]{0,20}".boxed(),
        ),
        line("varchar(5)", &["", "äöüßé", "a    "], "[^\\x00]{0,5}".boxed()),
        line("citext", &["", "Ada", "ADA"], "[a-zA-Z]{0,9}".boxed()),
        line("mood", &["sad", "it's ok"], prop_oneof!["sad", "it's ok"].boxed()),
        line("short", &["", "abc"], "[a-z]{0,3}".boxed()),
        line("char(5)", &["", "ab", "ab   ", "äöüßé"], "[a-z ]{0,5}".boxed()),
        floored(
            "timestamptz",
            &[
                "2026-11-20 10:00:00.123456+02",
                "1969-12-31 23:59:59.999999+00",
                "1999-12-31 23:59:59.999999+00",
                "0001-01-01 00:00:00+00",
                "0044-03-15 12:00:00.0005+00 BC",
                "4713-01-01 00:00:00+00 BC",
                "10000-01-01 00:00:00.0019+00",
                "294276-12-31 23:59:59.999999+00",
                "epoch",
            ],
            any_time().boxed(),
        ),
        floored(
            "timestamp",
            &[
                "2026-11-20 10:00:00.123456",
                "1969-12-31 23:59:59.999999",
                "4713-01-01 00:00:00 BC",
                "294276-12-31 23:59:59.999999",
            ],
            any_time().boxed(),
        ),
        line("timestamp(0)", &["2026-11-20 10:00:00"], any_time().boxed()),
        line(
            "date",
            &[
                "2000-01-01",
                "1969-12-31",
                "0001-01-01",
                "0001-12-31 BC",
                "4713-01-01 BC",
                "9999-12-31",
                "5874897-12-31",
            ],
            (1i32..20_000, 1u8..13, 1u8..29, prop_oneof!["", " BC"])
                .prop_map(|(year, month, day, era)| {
                    let year = if era.is_empty() { year } else { year % 4_700 + 1 };
                    format!("{year:04}-{month:02}-{day:02}{era}")
                })
                .boxed(),
        ),
        line(
            "time",
            &["00:00:00", "24:00:00", "23:59:59.999999", "13:05:00.25"],
            (0u32..24, 0u32..60, 0u32..60, 0u32..1_000_000)
                .prop_map(|(h, m, s, f)| format!("{h}:{m}:{s}.{f:06}"))
                .boxed(),
        ),
        line(
            "interval",
            &[
                "0",
                "1 year 2 mons -3 days -04:05:06.7",
                "-178000000 years",
                "-00:00:00.5",
                "30 days",
                "1 mon",
                "2562047788 hours",
                "P1Y2M3W4DT5H",
            ],
            (-9_999i32..9_999, any::<i16>(), -999_999_999_999i64..999_999_999_999)
                .prop_map(|(months, days, micros)| {
                    format!("{months} mons {days} days {micros} microseconds")
                })
                .boxed(),
        ),
        line(
            "uuid",
            &["00000000-0000-0000-0000-000000000000"],
            any::<[u8; 16]>().prop_map(|v| uuid::Uuid::from_bytes(v).to_string()).boxed(),
        ),
        line("bytea", &["\\x", "\\x00ff", "\\xdeadbeef"], "\\\\x([0-9a-f]{2}){0,20}".boxed()),
        Line { sql: "jsonb", traps: JSON, any: any_json(), kept: "NULLIF(v, 'null')" },
        // Its text does not come back, its value does.
        Line { sql: "json", traps: JSON, any: any_json(), kept: "NULLIF(v::jsonb, 'null')" },
        line(
            "integer[]",
            &[
                "{}",
                "{1}",
                "{NULL}",
                "{1,NULL,3}",
                "{{1,2},{3,NULL}}",
                "{{{1}},{{2}}}",
                "{{{{{{7}}}}}}",
            ],
            "\\{[0-9]{1,5}(,([0-9]{1,9}|NULL)){0,12}\\}".boxed(),
        ),
        line(
            "text[]",
            &["{}", "{\"\",\"NULL\",NULL,\"a\\\"b\"}", "{{a,b},{c,d}}"],
            "\\{[a-z]{1,5}(,\"[a-zé {},]{0,9}\"){0,5}\\}".boxed(),
        ),
        line("varchar(3)[]", &["{abc,NULL}"], "\\{[a-z]{1,3}(,[a-m]{1,3}){0,5}\\}".boxed()),
        line(
            "mood[]",
            &["{}", "{sad,\"it's ok\",NULL}"],
            prop_oneof!["\\{sad(,sad){0,3}\\}", "\\{\\}"].boxed(),
        ),
        line(
            "numeric[]",
            &["{}", "{1.50,NULL,NaN}", "{{1},{-2.25}}"],
            "\\{[0-9]{1,5}(\\.[0-9]{1,3}){0,1}(,[0-9]{1,9}){0,5}\\}".boxed(),
        ),
        line(
            "uuid[]",
            &["{00000000-0000-0000-0000-000000000000,NULL}"],
            Just("{}".to_owned()).boxed(),
        ),
        line("date[]", &["{2026-11-20,NULL,0044-03-15 BC}"], Just("{}".to_owned()).boxed()),
        line("bytea[]", &["{\"\\\\x00ff\",NULL}"], Just("{}".to_owned()).boxed()),
        line(
            "jsonb[]",
            &["{}", "{\"[1,2]\",NULL,\"{}\",\"[]\"}"],
            Just("{\"{\\\"a\\\": 1}\"}".to_owned()).boxed(),
        ),
    ]
}

const JSON: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1.50",
    "5.0",
    "1e300",
    "1e400",
    "0.1",
    "9223372036854775807",
    "9223372036854775808",
    "9007199254740993.5",
    "0.12345678901234567890",
    "\"\"",
    "\"a\\\"\\\\\\n\\u00e9\\ud83d\\ude00\"",
    "[]",
    "{}",
    "[[], {}, null, [1, [2]]]",
    r#"{"b": 1, "a": {"": [1.5, {"c": null}]}, "$set": 1, "x.y": 2}"#,
    r#"{"a": 1, "b": 2, "a": 3}"#,
];

fn any_time() -> impl Strategy<Value = String> {
    (1i32..12_000, 1u8..13, 1u8..29, 0u32..86_400, 0u32..1_000_000, prop_oneof!["", " BC"])
        .prop_map(|(year, month, day, second, micros, era)| {
            let year = if era.is_empty() { year } else { year % 4_700 + 1 };
            let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
            format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}.{micros:06}{era}")
        })
}

fn any_json() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        prop_oneof!["null", "true", "false"],
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,10})?(e-?[0-9]{1,2})?",
        "\"[a-zé€😀 ]{0,9}\"",
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(", "))),
            proptest::collection::vec(("[a-d]{0,2}", inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> =
                    fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", fields.join(", "))
            }),
        ]
    })
    .boxed()
}

/// A value as it was sent.
struct Raw<'a>(Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn kind(pg: &Type, modifier: i32) -> Option<Kind> {
    let plain = |form| PgType { oid: pg.oid(), name: pg.name(), modifier, form };
    match pg.kind() {
        TypeKind::Simple => Kind::of(&plain(Form::Plain)),
        TypeKind::Enum(labels) => Kind::of(&plain(Form::Enum(labels))),
        TypeKind::Array(element) => {
            let form = match element.kind() {
                TypeKind::Enum(labels) => Form::Enum(labels),
                TypeKind::Simple => Form::Plain,
                _ => Form::Other,
            };
            let element = PgType { oid: element.oid(), name: element.name(), modifier: -1, form };
            Kind::of(&plain(Form::Array(&element)))
        }
        _ => Kind::of(&plain(Form::Other)),
    }
}

struct Servers {
    database: support::Database,
    postgres: Client,
    mongo: mongodb::Client,
}

async fn servers(name: &str) -> Servers {
    let database = support::Database::new(name);
    let (postgres, connection) =
        tokio_postgres::connect(&database.postgres_url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let mongo = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
    Servers { database, postgres, mongo }
}

/// The rows of an answer, with the columns that the server says they have.
async fn rows(postgres: &Client, sql: &str) -> (Vec<Column>, Vec<Result<RawDocumentBuf, String>>) {
    let statement = postgres
        .prepare(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", support::chain(&error)));
    let columns: Vec<Column> = statement
        .columns()
        .iter()
        .map(|column| {
            let kind = kind(column.type_(), column.type_modifier());
            let kind = kind.unwrap_or_else(|| panic!("{sql}: {} has no kind", column.type_()));
            Column { name: column.name().to_owned(), kind }
        })
        .collect();
    let rows = postgres
        .query(&statement, &[])
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", support::chain(&error)));
    let documents = rows.iter().map(|row| {
        let values: Vec<Option<&[u8]>> =
            (0..columns.len()).map(|at| row.get::<_, Raw>(at).0).collect();
        document(&columns, values).map_err(|bad| bad.reason)
    });
    let documents = documents.collect();
    (columns, documents)
}

async fn copy_in(postgres: &Client, table: &str, columns: &[Column], documents: &[RawDocumentBuf]) {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for document in documents {
        row(columns, document, &mut bytes).unwrap_or_else(|bad| panic!("{table}: {bad}"));
    }
    bytes.extend((-1i16).to_be_bytes());
    let sql = format!("COPY {table} FROM STDIN (FORMAT binary)");
    let sink = postgres.copy_in::<_, std::io::Cursor<Vec<u8>>>(&sql).await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new(bytes)).await.unwrap();
    let copied =
        sink.finish().await.unwrap_or_else(|error| panic!("{table}: {}", support::chain(&error)));
    assert_eq!(copied, documents.len() as u64);
}

#[tokio::test]
async fn every_type_goes_to_mongodb_and_comes_back() {
    let Servers { database, postgres, mongo } = servers("mapping").await;
    postgres
        .batch_execute(
            "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
             CREATE DOMAIN short AS varchar(3); SET timezone = 'Asia/Kathmandu'",
        )
        .await
        .unwrap();
    let mut runner = TestRunner::default();
    for (index, line) in lines().into_iter().enumerate() {
        let Line { sql, traps, any, kept: comes_back } = line;
        let (source, target) = (format!("source_{index}"), format!("target_{index}"));
        postgres
            .batch_execute(&format!(
                "CREATE TABLE {source} (_id int PRIMARY KEY, v {sql}); CREATE TABLE {target} (LIKE {source});
                 INSERT INTO {source} VALUES (0, NULL)"
            ))
            .await
            .unwrap();
        let made_up = (0..GENERATED).map(|_| any.new_tree(&mut runner).unwrap().current());
        let values: Vec<String> =
            traps.iter().map(|&trap| trap.to_owned()).chain(made_up).collect();
        let insert = format!(
            "INSERT INTO {source} SELECT i, v::{sql} FROM unnest($1::text[]) WITH ORDINALITY AS u (v, i)"
        );
        postgres
            .execute(&insert, &[&values])
            .await
            .unwrap_or_else(|error| panic!("{sql} {values:?}: {}", support::chain(&error)));

        let (columns, documents) =
            rows(&postgres, &format!("SELECT _id, v FROM {source} ORDER BY _id")).await;
        let documents: Result<Vec<RawDocumentBuf>, String> = documents.into_iter().collect();
        let documents = documents.unwrap_or_else(|bad| panic!("{sql} {values:?}: {bad}"));
        let collection = mongo.database(&database.name).collection::<RawDocumentBuf>(&source);
        collection.insert_many(&documents).await.unwrap();
        let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        let found: Vec<RawDocumentBuf> = found.try_collect().await.unwrap();
        // MongoDB keeps every byte; what differs would be a difference.
        for (sent, found) in documents.iter().zip(&found) {
            assert_eq!(canonical::equal(sent, found), Ok(true), "{sql}");
            assert_eq!(canonical::hash(sent, &[]), canonical::hash(found, &[]), "{sql}");
        }
        assert_eq!(found.len(), values.len() + 1, "{sql}");

        copy_in(&postgres, &target, &columns, &found).await;
        let cast = if sql == "json" { "t.v::jsonb" } else { "t.v" };
        let differing = format!(
            "SELECT s._id, s.v::text, t.v::text FROM (SELECT _id, v, {comes_back} AS kept FROM {source}) s
             FULL JOIN {target} t USING (_id) WHERE s.kept IS DISTINCT FROM {cast} OR s._id IS NULL OR t._id IS NULL"
        );
        let differing = postgres
            .query(&differing, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {}", support::chain(&error)));
        let differing: Vec<(Option<String>, Option<String>)> =
            differing.iter().map(|row| (row.get(1), row.get(2))).collect();
        assert!(differing.is_empty(), "{sql}: {differing:?}");

        // What came back is sent as what was compared: nothing else is lost.
        let (_, again) =
            rows(&postgres, &format!("SELECT _id, v FROM {target} ORDER BY _id")).await;
        for (again, found) in again.into_iter().zip(&found) {
            let again = again.unwrap();
            assert_eq!(
                canonical::differing_fields(&again, found).unwrap(),
                Vec::<String>::new(),
                "{sql} {found:?}"
            );
            assert_eq!(
                kept(&columns, found).map(|kept| canonical::equal(&again, &kept)),
                Ok(Ok(true)),
                "{sql}"
            );
        }
    }
}

#[tokio::test]
async fn what_has_no_line_in_the_table_has_one_with_its_cast() {
    use lockstep::core::mapping::cast_hint;
    let Servers { database: _database, postgres, .. } = servers("mapping_casts").await;
    postgres
        .batch_execute("CREATE EXTENSION hstore; CREATE TYPE point_of AS (x int, y int)")
        .await
        .unwrap();
    for value in [
        "'10.0.0.1'::inet",
        "'10.0.0.0/8'::cidr",
        "'1.50'::money",
        "'10:00+02'::timetz",
        "'a'::\"char\"",
        "'1'::oid",
        "'101'::bit(3)",
        "'101'::varbit",
        "'(1,2)'::point",
        "'[1,3)'::int4range",
        "'{[1,3)}'::int4multirange",
        "'a=>1'::hstore",
        "'<a/>'::xml",
        "'a b'::tsvector",
        "'a & b'::tsquery",
        "'1 2'::int2vector",
        "'08:00:2b:01:02:03'::macaddr",
        "'$.a'::jsonpath",
        "'0/0'::pg_lsn",
        "'pg_class'::regclass",
        "'(1,2)'::point_of",
        "'{10.0.0.1}'::inet[]",
        "'{1.50}'::money[]",
        "array['(1,2)'::point_of]",
    ] {
        let statement = postgres.prepare(&format!("SELECT {value} AS v")).await.unwrap();
        let pg = statement.columns()[0].type_().clone();
        assert_eq!(kind(&pg, -1), None, "{value}");
        let cast = cast_hint(pg.name());
        let (columns, documents) = rows(&postgres, &format!("SELECT ({value}){cast} AS v")).await;
        assert!(documents[0].is_ok(), "{value}{cast}: {columns:?} {documents:?}");
    }
}

#[tokio::test]
async fn what_mongodb_cannot_hold_is_refused_row_by_row() {
    let Servers { database: _database, postgres, .. } = servers("mapping_refused").await;
    for (value, expected) in [
        ("'infinity'::timestamptz", "a timestamptz is infinite"),
        ("'-infinity'::timestamp", "a timestamp is infinite"),
        ("'infinity'::date", "a date is infinite"),
        ("12345678901234567890123456789012345::numeric", "more than the 34 digits"),
        ("'1e7000'::numeric", "its exponent is beyond"),
        ("'[0:1]={1,2}'::int[]", "begins at 0"),
        ("array[array['1'::jsonb]]", "has 2 dimensions"),
        ("'[12345678901234567890123456789012345]'::jsonb", "more than the 34 digits"),
        ("'\"\\ud800\"'::json", "half of a surrogate pair"),
        ("(repeat('[', 100) || repeat(']', 100))::jsonb", "nested more than 99 deep"),
    ] {
        let (_, documents) = rows(&postgres, &format!("SELECT {value} AS v")).await;
        let bad = documents[0].as_ref().expect_err(value);
        assert!(bad.starts_with("`v`: ") && bad.contains(expected), "{value}: {bad}");
    }
}

#[tokio::test]
async fn as_deep_as_mongodb_stores_it_is_as_deep_as_is_allowed() {
    let Servers { database, postgres, mongo } = servers("mapping_deep").await;
    let (_, documents) =
        rows(&postgres, "SELECT 1 AS _id, (repeat('[', 99) || repeat(']', 99))::jsonb AS v").await;
    let collection = mongo.database(&database.name).collection::<RawDocumentBuf>("c");
    collection.insert_one(documents[0].as_ref().unwrap()).await.unwrap();
    let found =
        mongo.database(&database.name).collection::<Document>("c").find_one(doc! {}).await.unwrap();
    assert!(found.is_some());
}

#[tokio::test]
async fn ids_of_mongodb_become_characters_or_bytes() {
    let Servers { database, postgres, mongo } = servers("mapping_ids").await;
    postgres
        .batch_execute("CREATE TABLE t (hex char(24), bytes bytea CHECK (length(bytes) = 12), doc jsonb, at timestamptz)")
        .await
        .unwrap();
    let id = bson::oid::ObjectId::new();
    let at = bson::DateTime::from_millis(1_763_632_800_123);
    let collection = mongo.database(&database.name).collection::<Document>("c");
    let inner = doc! { "id": id, "at": at, "bytes": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0, 255] } };
    collection.insert_one(doc! { "hex": id, "bytes": id, "doc": inner, "at": at }).await.unwrap();
    let project = collection
        .find(doc! {})
        .projection(doc! { "_id": 0 })
        .await
        .unwrap()
        .with_type::<RawDocumentBuf>();
    let found: Vec<RawDocumentBuf> = project.try_collect().await.unwrap();
    let (columns, _) = rows(&postgres, "SELECT * FROM t").await;
    copy_in(&postgres, "t", &columns, &found).await;
    let same = postgres
        .query_one(
            "SELECT hex = $1, bytes = decode($1, 'hex'), doc->>'id' = $1, (doc->>'at')::timestamptz = at,
                    decode(doc->>'bytes', 'base64') = '\\x00ff', at = '2025-11-20 10:00:00.123+00' FROM t",
            &[&id.to_hex()],
        )
        .await
        .unwrap();
    for at in 0..same.len() {
        assert!(same.get::<_, bool>(at), "{at}");
    }
    let (columns, rows) = rows(&postgres, "SELECT * FROM t").await;
    let kept = kept(&columns, &found[0]).unwrap();
    assert_eq!(
        canonical::differing_fields(rows[0].as_ref().unwrap(), &kept).unwrap(),
        Vec::<String>::new()
    );
}
