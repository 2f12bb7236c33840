//! `[[invariant]]`.

use super::Name;
use super::backfill::MongoSource;
use super::embedded;
use super::table::{Table, Text, Value};
use crate::core::id::StoreName;
use bson::{Bson, Document};
use std::fmt;
use std::time::Duration;
use toml::de::DeValue;

/// What must be true before `cleanup`.
#[derive(Clone, Debug, PartialEq)]
pub struct Invariant {
    /// What it is called.
    pub name: Name,
    /// What is asked.
    pub check: Check,
    /// What shows rows that offend against it.
    pub sample: Option<Sample>,
    /// Checked once more inside the cleanup transaction, behind its locks.
    pub locked: bool,
    /// Still true when the migration is finished: `migrate verify` checks it.
    pub lasting: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// A query of one value.
    Postgres {
        /// The query.
        query: String,
        /// What the value must be.
        expect: Expect,
    },
    /// A count or another single value.
    Mongo {
        /// The question.
        answer: MongoAnswer,
        /// What the value must be.
        expect: Expect,
    },
    /// The two answers must be equal.
    Equal {
        /// The query.
        postgres: String,
        /// The question.
        mongo: MongoAnswer,
    },
    /// Row by row.
    Compare {
        /// The rows.
        postgres: String,
        /// The documents that they must equal.
        mongo: MongoSource,
        /// What says which belong together.
        key: Vec<String>,
        /// How old the comparison may be when `cleanup` runs.
        max_age: Option<Duration>,
    },
}

impl Check {
    /// The store that remembers that it held. What asks both is remembered in
    /// Postgres.
    pub fn store(&self) -> StoreName {
        match self {
            Check::Postgres { .. } | Check::Equal { .. } | Check::Compare { .. } => {
                StoreName::Postgres
            }
            Check::Mongo { .. } => StoreName::Mongo,
        }
    }

    /// What it asks, for people: a line for each store.
    pub fn questions(&self) -> Vec<String> {
        match self {
            Check::Postgres { query, expect } => vec![format!("{query}, expected {expect}")],
            Check::Mongo { answer, expect } => vec![format!("{answer}, expected {expect}")],
            Check::Equal { postgres, mongo } => vec![postgres.clone(), format!("equals {mongo}")],
            Check::Compare { postgres, mongo, .. } => {
                vec![postgres.clone(), format!("equals db.{}, row by row", mongo.collection)]
            }
        }
    }
}

/// As the shell has it.
impl fmt::Display for MongoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MongoAnswer::Count { collection, filter } => {
                write!(f, "db.{collection}.countDocuments({filter})")
            }
            MongoAnswer::Pipeline { collection, pipeline } => {
                let stages: Vec<String> = pipeline.iter().map(ToString::to_string).collect();
                write!(f, "db.{collection}.aggregate([{}])", stages.join(", "))
            }
        }
    }
}

/// A question whose answer is one value.
#[derive(Clone, Debug, PartialEq)]
pub enum MongoAnswer {
    /// How many documents.
    Count {
        /// The collection.
        collection: String,
        /// Which documents.
        filter: Document,
    },
    /// The only value of the only document.
    Pipeline {
        /// The collection.
        collection: String,
        /// The stages.
        pipeline: Vec<Document>,
    },
}

/// What shows rows that offend.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A query.
    Postgres(String),
    /// A read of documents.
    Mongo(MongoSource),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// How it is compared.
    pub relation: Relation,
    /// With what.
    pub value: Bson,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect { relation: Relation::Equal, value: Bson::Int32(0) }
    }
}

/// `0`, `>= 1000`.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = &self.value;
        match self.relation {
            Relation::Equal => write!(f, "{value}"),
            relation => {
                let sign = RELATIONS.iter().find(|(_, other)| *other == relation);
                write!(f, "{} {value}", sign.map_or("", |(sign, _)| sign))
            }
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

/// Longest first, so that `>=` is not read as `>`.
const RELATIONS: [(&str, Relation); 8] = [
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    ("!=", Relation::NotEqual),
    ("<>", Relation::NotEqual),
    ("==", Relation::Equal),
    ("=", Relation::Equal),
    (">", Relation::More),
    ("<", Relation::Less),
];

/// Reads one. `None` is a problem that was told.
pub(super) fn read(mut table: Table<'_>) -> Option<Invariant> {
    let name = Name::need(&mut table);
    let (postgres, mongo, compare) =
        (table.get("postgres"), table.get("mongo"), table.get("compare"));
    let (expect, sample) = (table.get("expect"), table.get("sample"));
    let (locked, lasting) = (table.get("locked"), table.get("lasting"));
    let max_age = table.get("max_age");
    let misplaced = |value: Option<&Value<'_>>, message: &str, hint: &str| {
        if let Some(value) = value {
            value.sink.at(value.key.clone(), message, hint);
        }
    };
    let alone = compare.is_none() && (postgres.is_none() || mongo.is_none());
    if !alone {
        let message = "`expect` has no place where two answers are compared with each other";
        misplaced(expect.as_ref(), message, "leave it out: they must be equal");
    }
    if compare.is_none() {
        let hint = "leave it out: this invariant is checked immediately before `cleanup`";
        misplaced(max_age.as_ref(), "`max_age` belongs to `compare`", hint);
    }
    if compare.is_some() || mongo.is_some() {
        let hint = "leave it out, or ask Postgres alone";
        misplaced(locked.as_ref(), "`locked` needs an invariant of Postgres alone", hint);
    }
    let check = match (postgres, mongo, compare) {
        (Some(postgres), None, None) => {
            let query = embedded::query(&postgres);
            query
                .zip(expect_or_zero(expect.as_ref()))
                .map(|(query, expect)| Check::Postgres { query, expect })
        }
        (None, Some(mongo), None) => {
            let answer = answer(&mongo);
            answer
                .zip(expect_or_zero(expect.as_ref()))
                .map(|(answer, expect)| Check::Mongo { answer, expect })
        }
        (Some(postgres), Some(mongo), None) => {
            let postgres = embedded::query(&postgres);
            postgres.zip(answer(&mongo)).map(|(postgres, mongo)| Check::Equal { postgres, mongo })
        }
        (None, None, Some(compare)) => compared(&compare, max_age.as_ref()),
        (None, None, None) => {
            let hint = "write `postgres`, `mongo`, both of them, or `compare`";
            table.complain(format!("{} does not say what it checks", table.title()), hint);
            None
        }
        (_, _, Some(compare)) => {
            let hint = "write both questions inside `compare`, or leave `compare` out";
            let message = "`compare` stands for itself";
            compare.sink.at(compare.key.clone(), message, hint);
            None
        }
    };
    let sample = sample.map(|value| self::sample(&value));
    let flag = |value: Option<Value<'_>>| value.and_then(|value| value.boolean()).unwrap_or(false);
    let (locked, lasting) = (flag(locked), flag(lasting));
    table.finish();
    Some(Invariant { name: name?, check: check?, sample: sample.flatten(), locked, lasting })
}

fn answer(value: &Value<'_>) -> Option<MongoAnswer> {
    let mut fields = value.table("{ collection = \"profiles\", count = \"{}\" }")?;
    let collection = fields.need("collection", "name the collection that is asked");
    let collection = collection.and_then(|value| embedded::collection(&value));
    let answer = match (fields.get("count"), fields.get("pipeline")) {
        (Some(count), None) => embedded::filter(&count).and_then(|filter| {
            collection.map(|collection| MongoAnswer::Count { collection, filter })
        }),
        (None, Some(pipeline)) => embedded::pipeline(&pipeline).and_then(|pipeline| {
            collection.map(|collection| MongoAnswer::Pipeline { collection, pipeline })
        }),
        (None, None) => {
            let hint = "for example `count = \"{}\"`, or a `pipeline` that ends in one value";
            fields.complain("`mongo` has neither `count` nor `pipeline`", hint);
            None
        }
        (Some(_), Some(pipeline)) => {
            let message = "`mongo` has both `count` and `pipeline`";
            pipeline.sink.at(pipeline.key.clone(), message, "keep one of them");
            None
        }
    };
    fields.finish();
    answer
}

fn compared(value: &Value<'_>, max_age: Option<&Value<'_>>) -> Option<Check> {
    let example =
        "{ postgres = \"SELECT …\", mongo = { collection = \"profiles\" }, key = \"_id\" }";
    let mut fields = value.table(example)?;
    let postgres = fields.need("postgres", "write the SELECT whose columns are the fields");
    let postgres = postgres.and_then(|value| embedded::query(&value));
    let mongo = fields.need("mongo", "for example `mongo = { collection = \"profiles\" }`");
    let mongo = mongo.and_then(|value| source(&value));
    let key = fields.need("key", "name the column and field that both have: `key = \"_id\"`");
    let key = key.and_then(|value| embedded::fields(&value));
    fields.finish();
    let max_age = max_age.and_then(|value| value.duration("\"1h\""));
    Some(Check::Compare { postgres: postgres?, mongo: mongo?, key: key?, max_age })
}

fn source(value: &Value<'_>) -> Option<MongoSource> {
    let mut fields = value.table("{ collection = \"profiles\" }")?;
    let source = MongoSource::read(&mut fields);
    fields.finish();
    source
}

fn sample(value: &Value<'_>) -> Option<Sample> {
    if value.is_table() {
        source(value).map(Sample::Mongo)
    } else {
        embedded::query(value).map(Sample::Postgres)
    }
}

fn expect_or_zero(value: Option<&Value<'_>>) -> Option<Expect> {
    let Some(value) = value else { return Some(Expect::default()) };
    let equal = |value| Some(Expect { relation: Relation::Equal, value });
    match value.raw() {
        DeValue::Boolean(flag) => equal(Bson::Boolean(*flag)),
        DeValue::Integer(number) => {
            let Ok(number) = i64::from_str_radix(number.as_str(), number.radix()) else {
                let hint = "write it as a string: \"NumberDecimal('…')\"";
                value.complain(format!("{number} does not fit into 64 bits"), hint);
                return None;
            };
            equal(i32::try_from(number).map_or(Bson::Int64(number), Bson::Int32))
        }
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => equal(Bson::Double(number)),
            _ => {
                value.complain(format!("nothing equals {number}"), "write a finite number");
                None
            }
        },
        DeValue::String(_) => relation(value),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            value.wrong("a number, true, false or a string", "\">= 1000\"")
        }
    }
}

/// `">= 1000"`, `"true"`, `"'a text'"`.
fn relation(value: &Value<'_>) -> Option<Expect> {
    let text = value.string("\">= 1000\"")?;
    let said = text.value.trim();
    let found = RELATIONS.iter().find_map(|(sign, relation)| {
        said.strip_prefix(sign).map(|rest| (*relation, rest.trim_start()))
    });
    let (relation, rest) = found.unwrap_or((Relation::Equal, said));
    let hint = "write a number, `true`, `false` or a text in quotes of its own (`\"'paid'\"`), with `=`, `!=`, `<`, `<=`, `>` or `>=` in front if you like";
    if rest.is_empty() {
        text.complain("`expect` has nothing to compare with", hint);
        return None;
    }
    let rest = Text { value: rest, ..text.clone() };
    let operand = match crate::core::parse::mongosh::literal(rest.value) {
        Ok(operand) => operand,
        Err(problem) => {
            rest.lift(problem.hint(hint), 0);
            return None;
        }
    };
    let ordered = matches!(relation, Relation::Equal | Relation::NotEqual)
        || matches!(
            operand,
            Bson::Int32(_)
                | Bson::Int64(_)
                | Bson::Double(_)
                | Bson::Decimal128(_)
                | Bson::DateTime(_)
                | Bson::String(_)
        );
    if !ordered {
        text.complain(format!("`{said}` compares what has no order"), "use `=` or `!=`");
        return None;
    }
    Some(Expect { relation, value: operand })
}

#[cfg(test)]
mod tests {
    use super::super::{check as check_manifest, read as read_manifest};
    use super::*;
    use expect_test::{Expect as Expected, expect};

    fn check(keys: &str, expected: &Expected) {
        check_manifest(&format!("[[invariant]]\nname = 'x'\n{keys}"), expected);
    }

    fn invariant(keys: &str) -> Invariant {
        let text = format!("[[invariant]]\nname = 'x'\n{keys}");
        read_manifest(&text).expect("it is right").invariants.remove(0)
    }

    fn expected(value: &str) -> Expect {
        match invariant(&format!("postgres = 'SELECT 1'\n{value}")).check {
            Check::Postgres { expect, .. } => expect,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_query_gives_what_is_expected() {
        let value = |relation, value| Expect { relation, value };
        assert_eq!(expected(""), value(Relation::Equal, Bson::Int32(0)));
        assert_eq!(expected("expect = 7"), value(Relation::Equal, Bson::Int32(7)));
        assert_eq!(expected("expect = 0xff"), value(Relation::Equal, Bson::Int32(255)));
        let large = value(Relation::Equal, Bson::Int64(5_000_000_000));
        assert_eq!(expected("expect = 5_000_000_000"), large);
        assert_eq!(expected("expect = 1.5"), value(Relation::Equal, Bson::Double(1.5)));
        assert_eq!(expected("expect = true"), value(Relation::Equal, Bson::Boolean(true)));
        assert_eq!(expected("expect = 'true'"), value(Relation::Equal, Bson::Boolean(true)));
        assert_eq!(expected("expect = '= 0'"), value(Relation::Equal, Bson::Int32(0)));
        assert_eq!(expected("expect = '== 0'"), value(Relation::Equal, Bson::Int32(0)));
        assert_eq!(expected("expect = '>= 1000'"), value(Relation::AtLeast, Bson::Int32(1000)));
        assert_eq!(expected("expect = '<=-1'"), value(Relation::AtMost, Bson::Int32(-1)));
        assert_eq!(expected("expect = '> 1'"), value(Relation::More, Bson::Int32(1)));
        assert_eq!(expected("expect = '< 1'"), value(Relation::Less, Bson::Int32(1)));
        assert_eq!(expected("expect = '<> null'"), value(Relation::NotEqual, Bson::Null));
        let text = value(Relation::NotEqual, Bson::String("a b".to_owned()));
        assert_eq!(expected("expect = '!= \"a b\"'"), text);
    }

    #[test]
    fn mongodb_is_asked_too() {
        let keys =
            "mongo = { collection = 'a', count = '{ n: 1 }' }\nexpect = '> 0'\nlasting = true";
        let found = invariant(keys);
        let filter = bson::doc! { "n": 1 };
        let answer = MongoAnswer::Count { collection: "a".to_owned(), filter };
        let expect = Expect { relation: Relation::More, value: Bson::Int32(0) };
        assert_eq!(found.check, Check::Mongo { answer, expect });
        assert!(found.lasting && !found.locked);
        let keys = "mongo = { collection = 'a', pipeline = '[{ $count: \"n\" }]' }";
        let pipeline = vec![bson::doc! { "$count": "n" }];
        let answer = MongoAnswer::Pipeline { collection: "a".to_owned(), pipeline };
        assert_eq!(invariant(keys).check, Check::Mongo { answer, expect: Expect::default() });
    }

    #[test]
    fn two_answers_are_compared_and_rows_are_too() {
        let keys = "postgres = 'SELECT 1'\nmongo = { collection = 'a', count = '{}' }";
        assert!(matches!(invariant(keys).check, Check::Equal { .. }));
        let keys = "max_age = '2h'\n[invariant.compare]\npostgres = 'SELECT 1 AS a'\nmongo = { collection = 'b' }\nkey = ['a', 'c']";
        let mongo =
            MongoSource { collection: "b".to_owned(), find: Document::new(), pipeline: Vec::new() };
        let check = Check::Compare {
            postgres: "SELECT 1 AS a".to_owned(),
            mongo,
            key: vec!["a".to_owned(), "c".to_owned()],
            max_age: Some(Duration::from_hours(2)),
        };
        assert_eq!(invariant(keys).check, check);
    }

    #[test]
    fn a_sample_is_a_query_or_documents() {
        let keys = "postgres = 'SELECT 1'\nlocked = true\nsample = 'SELECT 2'";
        let found = invariant(keys);
        assert_eq!(found.sample, Some(Sample::Postgres("SELECT 2".to_owned())));
        assert!(found.locked);
        let keys = "mongo = { collection = 'a', count = '{}' }\nsample = { collection = 'a', find = '{ n: 1 }' }";
        assert!(matches!(invariant(keys).sample, Some(Sample::Mongo(_))));
    }

    #[test]
    fn an_invariant_asks_something() {
        check(
            "",
            &expect![
                ":1:1: this `[[invariant]]` does not say what it checks; write `postgres`, `mongo`, both of them, or `compare`"
            ],
        );
        check(
            "postgres = 7",
            &expect![[
                r#":3:12: `postgres` must be a string, not a whole number; for example `postgres = "SELECT …"`"#
            ]],
        );
        check(
            "postgres = 'DELETE FROM a'",
            &expect![":3:12: `postgres` must be a query, and `DELETE` is none; write a SELECT"],
        );
        check(
            "postgres = 'SELECT 1; SELECT 2'",
            &expect![":3:12: `postgres` must be one statement, and these are 2; keep one of them"],
        );
        check(
            "postgres = '-- nothing'",
            &expect![":3:12: `postgres` says nothing; write one statement"],
        );
        check(
            "mongo = { }",
            &expect![[r#"
            :3:1: `mongo` has no `collection`; name the collection that is asked
            :3:1: `mongo` has neither `count` nor `pipeline`; for example `count = "{}"`, or a `pipeline` that ends in one value"#]],
        );
        check(
            "mongo = { collection = 'a', count = '{}', pipeline = '[]' }",
            &expect![":3:43: `mongo` has both `count` and `pipeline`; keep one of them"],
        );
        check(
            "mongo = { collection = 'a', pipeline = '[]' }",
            &expect![
                ":3:40: `pipeline` must be a list of stages; for example `[{ $match: { stock: 0 } }, { $count: 'n' }]`"
            ],
        );
        check(
            "mongo = { collection = 'a', count = '7' }",
            &expect![
                ":3:37: `count` must be a document; for example `{ stock: { $exists: false } }`; `{}` is every document"
            ],
        );
        check(
            "compare = { }",
            &expect![[r#"
            :3:1: `compare` has no `postgres`; write the SELECT whose columns are the fields
            :3:1: `compare` has no `mongo`; for example `mongo = { collection = "profiles" }`
            :3:1: `compare` has no `key`; name the column and field that both have: `key = "_id"`"#]],
        );
        check(
            "postgres = 'SELECT 1'\ncompare = { }",
            &expect![
                ":4:1: `compare` stands for itself; write both questions inside `compare`, or leave `compare` out"
            ],
        );
        check(
            "postgres = 'SELECT 1'\nsample = 7",
            &expect![[
                r#":4:10: `sample` must be a string, not a whole number; for example `sample = "SELECT …"`"#
            ]],
        );
        check(
            "postgres = 'SELECT 1'\nexpected = 7",
            &expect![":4:1: unknown key `expected` in `[[invariant]]`; did you mean `expect`?"],
        );
    }

    #[test]
    fn keys_that_mean_nothing_here_are_refused() {
        let both = "postgres = 'SELECT 1'\nmongo = { collection = 'a', count = '{}' }";
        check(
            &format!("{both}\nexpect = 0\nlocked = true\nmax_age = '1h'"),
            &expect![[r#"
            :5:1: `expect` has no place where two answers are compared with each other; leave it out: they must be equal
            :6:1: `locked` needs an invariant of Postgres alone; leave it out, or ask Postgres alone
            :7:1: `max_age` belongs to `compare`; leave it out: this invariant is checked immediately before `cleanup`"#]],
        );
    }

    #[test]
    fn what_nothing_can_be_is_not_expected() {
        let check = |value: &str, expected: Expected| {
            super::super::check(
                &format!("[[invariant]]\nname = 'x'\npostgres = 'SELECT 1'\nexpect = {value}"),
                &expected,
            );
        };
        check(
            "[]",
            expect![[
                r#":4:10: `expect` must be a number, true, false or a string, not a list; for example `expect = ">= 1000"`"#
            ]],
        );
        check("nan", expect![":4:10: nothing equals nan; write a finite number"]);
        check(
            "99999999999999999999",
            expect![[
                r#":4:10: 99999999999999999999 does not fit into 64 bits; write it as a string: "NumberDecimal('…')""#
            ]],
        );
        check(
            "''",
            expect![[
                r#":4:10: `expect` is empty; write something, for example `expect = ">= 1000"`"#
            ]],
        );
        check(
            "'>='",
            expect![[
                r#":4:10: `expect` has nothing to compare with; write a number, `true`, `false` or a text in quotes of its own (`"'paid'"`), with `=`, `!=`, `<`, `<=`, `>` or `>=` in front if you like"#
            ]],
        );
        check("'> true'", expect![":4:10: `> true` compares what has no order; use `=` or `!=`"]);
    }

    #[test]
    fn a_text_that_is_expected_has_quotes_of_its_own() {
        let text = "[[invariant]]\nname = 'x'\npostgres = 'SELECT 1'\nexpect = '= paid'";
        let problems = read_manifest(text).expect_err("paid is no literal");
        let at = problems[0].at.clone().expect("it has a place");
        assert_eq!((at.line, at.column, at.width), (4, 13, 4));
        expect![[r#"write a number, `true`, `false` or a text in quotes of its own (`"'paid'"`), with `=`, `!=`, `<`, `<=`, `>` or `>=` in front if you like"#]].assert_eq(problems[0].hint.as_deref().expect("it has one"));
    }
}
