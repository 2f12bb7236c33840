//! `[[backfill]]`.

use super::Name;
use super::embedded::{self, Update};
use super::table::{Table, Value};
use crate::core::id::{Direction, StoreName};
use crate::core::parse::mongosh::kind::settles;
use crate::core::step::{Call, QualifiedName, Repeat};
use bson::Document;
use std::time::Duration;

/// A batch has this many rows at most: it is one transaction.
const BATCH_MAX: u64 = 1_000_000;

/// More workers than this on one backfill would only wait for each other.
const WORKERS_MAX: u64 = 64;

/// Many rows that are rewritten or copied in batches.
#[derive(Clone, Debug, PartialEq)]
pub struct Backfill {
    /// What it is called.
    pub name: Name,
    /// `Down` runs when a finished migration is reverted.
    pub direction: Direction,
    /// What it does.
    pub work: Work,
    /// How fast.
    pub pace: Pace,
    /// So many rows that cannot be mapped are put aside; one more stops it.
    pub max_bad: u64,
}

/// What a backfill does.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Rewrites rows of a table.
    Update {
        /// The table.
        table: QualifiedName,
        /// The assignments.
        set: String,
        /// Which rows; all of them if it is not there.
        condition: Option<String>,
        /// The columns of the key that it goes along; the primary key if empty.
        key: Vec<String>,
    },
    /// Any statement, with `{batch}` where the key range belongs.
    Sql {
        /// The statement.
        sql: String,
        /// The table whose key it goes along.
        table: QualifiedName,
        /// The columns of the key; the primary key if empty.
        key: Vec<String>,
    },
    /// Calls a function of the program around this library for each batch of a table.
    Call {
        /// The function.
        call: Call,
        /// The table.
        table: QualifiedName,
        /// Which rows; all of them if it is not there.
        condition: Option<String>,
        /// The columns of the key that it goes along; the primary key if empty.
        key: Vec<String>,
    },
    /// Changes or deletes documents.
    Documents {
        /// The collection.
        collection: String,
        /// Which documents.
        filter: Document,
        /// What happens to them.
        change: Change,
    },
    /// Postgres to MongoDB.
    CopyToMongo {
        /// The rows; their columns are the fields.
        query: String,
        /// The collection.
        to: String,
        /// How a row finds its document.
        by: By,
    },
    /// MongoDB to Postgres.
    CopyToPostgres {
        /// The documents; their fields are the columns.
        from: MongoSource,
        /// The table.
        to: QualifiedName,
        /// The columns of its key.
        key: Vec<String>,
    },
}

impl Work {
    /// The store that it writes, and that remembers how far it is.
    pub fn store(&self) -> StoreName {
        match self {
            Work::Update { .. }
            | Work::Sql { .. }
            | Work::Call { .. }
            | Work::CopyToPostgres { .. } => StoreName::Postgres,
            Work::Documents { .. } | Work::CopyToMongo { .. } => StoreName::Mongo,
        }
    }

    /// The store whose rows it goes through.
    pub fn source(&self) -> StoreName {
        match self.is_copy() {
            true => self.store().other(),
            false => self.store(),
        }
    }

    /// Whether it reads one store and writes the other.
    pub fn is_copy(&self) -> bool {
        match self {
            Work::CopyToMongo { .. } | Work::CopyToPostgres { .. } => true,
            Work::Update { .. } | Work::Sql { .. } | Work::Call { .. } | Work::Documents { .. } => {
                false
            }
        }
    }

    /// The function that it calls for each batch, if it does.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Work::Call { call, .. } | Work::Documents { change: Change::Call(call), .. } => {
                Some(call)
            }
            Work::Update { .. }
            | Work::Sql { .. }
            | Work::Documents { .. }
            | Work::CopyToMongo { .. }
            | Work::CopyToPostgres { .. } => None,
        }
    }
}

/// What happens to documents.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// They are updated.
    Update(Update),
    /// They are deleted.
    Delete,
    /// A function of the program around this library is called for each batch of them.
    Call(Call),
}

impl Change {
    /// Whether a batch that is done twice is done once, by its shape alone.
    pub fn repeat(&self) -> Repeat {
        match self {
            Change::Update(Update::Operators(update)) if settles(update) => Repeat::Harmless,
            // Nobody can see what a function does.
            Change::Update(_) | Change::Call(_) => Repeat::Harmful,
            Change::Delete => Repeat::Harmless,
        }
    }
}

/// How a row finds its document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum By {
    /// This column becomes `_id`.
    Id(String),
    /// These fields are equal.
    Fields(Vec<String>),
}

impl By {
    /// The columns that are the key of the rows.
    pub fn columns(&self) -> &[String] {
        match self {
            By::Id(column) => std::slice::from_ref(column),
            By::Fields(columns) => columns,
        }
    }
}

/// Documents to read.
#[derive(Clone, Debug, PartialEq)]
pub struct MongoSource {
    /// The collection.
    pub collection: String,
    /// Which documents; all of them if it is empty.
    pub find: Document,
    /// What is made of them.
    pub pipeline: Vec<Document>,
}

/// How fast a backfill goes; what is not there is the project's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pace {
    /// Shards that run at once.
    pub workers: Option<u64>,
    /// Rows in a batch.
    pub batch: Option<u64>,
    /// Between batches.
    pub pause: Option<Duration>,
    /// Sleeps that many times a batch's own time.
    pub nice: Option<f64>,
    /// Rows per second; 0 is without limit.
    pub rate: Option<u64>,
}

/// Reads one. `None` is a problem that was told.
pub(super) fn read(mut table: Table<'_>) -> Option<Backfill> {
    let name = Name::need(&mut table);
    let direction = super::direction(&mut table);
    let work = work(&mut table);
    let pace = Pace {
        workers: table.get("workers").and_then(|value| value.whole(1, WORKERS_MAX, "4")),
        batch: table.get("batch").and_then(|value| value.whole(1, BATCH_MAX, "1000")),
        pause: table.get("pause").and_then(|value| value.duration("\"100ms\"")),
        nice: table.get("nice").and_then(|value| value.fraction("1.0")),
        rate: table.get("rate").and_then(|value| value.whole(0, u64::MAX, "5000")),
    };
    let max_bad = table.get("max_bad").and_then(|value| value.whole(0, u64::MAX, "10"));
    table.finish();
    Some(Backfill { name: name?, direction, work: work?, pace, max_bad: max_bad.unwrap_or(0) })
}

fn work(table: &mut Table<'_>) -> Option<Work> {
    let hint = "write one of `postgres`, `mongo` and `copy`; each is a table of its own";
    match (table.get("postgres"), table.get("mongo"), table.get("copy")) {
        (Some(value), None, None) => postgres(&value),
        (None, Some(value), None) => mongo(&value),
        (None, None, Some(value)) => copy(&value),
        (None, None, None) => {
            table.complain(format!("{} does not say what it does", table.title()), hint);
            None
        }
        (postgres, mongo, copy) => {
            let last = [copy, mongo, postgres].into_iter().flatten().next()?;
            let message = format!("{} does more than one thing", table.title());
            last.sink.at(last.key.clone(), message, "make a backfill of each");
            None
        }
    }
}

fn postgres(value: &Value<'_>) -> Option<Work> {
    let example = "{ table = \"users\", set = \"active = true\", where = \"active IS NULL\" }";
    let mut fields = value.table(example)?;
    let table = fields.need("table", "name the table whose rows are rewritten");
    let table = table.and_then(|value| embedded::table_name(&value));
    let key = fields.get("key");
    let key = key.map_or_else(|| Some(Vec::new()), |value| embedded::columns(&value));
    let (set, sql, call) = (fields.get("set"), fields.get("sql"), fields.get("call"));
    let condition = fields.get("where");
    if let (Some(condition), true) = (&condition, sql.is_some()) {
        let message = "`where` belongs to `set` or `call`, not to `sql`";
        condition.sink.at(condition.key.clone(), message, "write the condition into `sql`");
    }
    let condition = condition.map_or(Some(None), |value| embedded::condition(&value).map(Some));
    let work = match (set, sql, call) {
        (Some(set), None, None) => match (embedded::assignments(&set), table, condition, key) {
            (Some(set), Some(table), Some(condition), Some(key)) => {
                Some(Work::Update { table, set, condition, key })
            }
            _ => None,
        },
        (None, Some(sql), None) => match (embedded::batched(&sql), table, key) {
            (Some(sql), Some(table), Some(key)) => Some(Work::Sql { sql, table, key }),
            _ => None,
        },
        (None, None, Some(call)) => match (embedded::call(&call), table, condition, key) {
            (Some(call), Some(table), Some(condition), Some(key)) => {
                Some(Work::Call { call, table, condition, key })
            }
            _ => None,
        },
        (set, sql, Some(call)) if set.is_some() || sql.is_some() => {
            let other = if set.is_some() { "set" } else { "sql" };
            let message = format!("`postgres` has both `{other}` and `call`");
            let hint = format!("keep `{other}`, or let the function do what it does");
            call.sink.at(call.key.clone(), message, hint);
            None
        }
        (Some(_), Some(sql), _) => {
            let hint = "keep `set`, or write the whole statement in `sql`";
            sql.sink.at(sql.key.clone(), "`postgres` has both `set` and `sql`", hint);
            None
        }
        (..) => {
            let hint = "for example `set = \"active = true\"`, or a whole statement in `sql`, or `call` for a function of a service";
            fields.complain("`postgres` has neither `set` nor `sql`", hint);
            None
        }
    };
    fields.finish();
    work
}

fn mongo(value: &Value<'_>) -> Option<Work> {
    let example = "{ collection = \"products\", filter = \"{ stock: null }\", update = \"{ $set: { stock: 0 } }\" }";
    let mut fields = value.table(example)?;
    let collection = fields.need("collection", "name the collection whose documents are changed");
    let collection = collection.and_then(|value| embedded::collection(&value));
    let given = fields.get("filter");
    let (update, delete, call) = (fields.get("update"), fields.get("delete"), fields.get("call"));
    let change = match (update, delete, call) {
        (Some(update), None, None) => embedded::update(&update).map(Change::Update),
        (None, None, Some(call)) => embedded::call(&call).map(Change::Call),
        (None, Some(delete), None) => match delete.boolean() {
            Some(true) if given.is_none() => {
                let hint = "add `filter`; `filter = \"{}\"` deletes every document";
                fields.complain("`mongo` deletes without a `filter`", hint);
                None
            }
            Some(true) => Some(Change::Delete),
            Some(false) => {
                delete.complain(
                    "`delete = false` does nothing",
                    "write `delete = true`, or `update`",
                );
                None
            }
            None => None,
        },
        (update, delete, Some(call)) if update.is_some() || delete.is_some() => {
            let other = if update.is_some() { "update" } else { "delete" };
            let message = format!("`mongo` has both `{other}` and `call`");
            call.sink.at(call.key.clone(), message, "make a backfill of each");
            None
        }
        (Some(_), Some(delete), _) => {
            let hint = "make a backfill of each";
            delete.sink.at(delete.key.clone(), "`mongo` has both `update` and `delete`", hint);
            None
        }
        (..) => {
            let hint = "for example `update = \"{ $set: { stock: 0 } }\"`, or `delete = true`, or `call` for a function of a service";
            fields.complain("`mongo` has neither `update` nor `delete`", hint);
            None
        }
    };
    let filter = given.map_or_else(|| Some(Document::new()), |value| embedded::filter(&value));
    fields.finish();
    Some(Work::Documents { collection: collection?, filter: filter?, change: change? })
}

fn copy(value: &Value<'_>) -> Option<Work> {
    let example = "{ from = \"postgres\", query = \"SELECT id, email FROM users\", key = \"id\", to = \"profiles\" }";
    let mut fields = value.table(example)?;
    let stores = StoreName::BOTH.map(|store| (store.word(), store));
    let from = fields.need("from", "write `from = \"postgres\"` or `from = \"mongo\"`")?;
    let work = match from.word(&stores)? {
        StoreName::Postgres => copy_to_mongo(&mut fields),
        StoreName::Mongo => copy_to_postgres(&mut fields),
    };
    fields.finish();
    work
}

fn copy_to_mongo(fields: &mut Table<'_>) -> Option<Work> {
    let query = fields.need("query", "write the SELECT whose columns are the fields");
    let query = query.and_then(|value| embedded::query(&value));
    let to = fields.need("to", "name the collection that is written");
    let to = to.and_then(|value| embedded::collection(&value));
    let by = match (fields.get("key"), fields.get("on")) {
        (Some(key), None) => key.string("\"id\"").map(|text| By::Id(text.value.to_owned())),
        (None, Some(on)) => embedded::fields(&on).map(By::Fields),
        (None, None) => {
            let hint =
                "write `key = \"id\"` for the column that becomes `_id`, or `on = [\"email\"]`";
            fields.complain("`copy` has neither `key` nor `on`", hint);
            None
        }
        (Some(_), Some(on)) => {
            let hint = "keep `key` where a column becomes `_id`, else `on`";
            on.sink.at(on.key.clone(), "`copy` has both `key` and `on`", hint);
            None
        }
    };
    Some(Work::CopyToMongo { query: query?, to: to?, by: by? })
}

fn copy_to_postgres(fields: &mut Table<'_>) -> Option<Work> {
    let pipeline = fields.peek("pipeline");
    let from = MongoSource::read(fields);
    if let (Some(value), Some(from)) = (&pipeline, &from) {
        refuse_stages_across_documents(value, &from.pipeline);
    }
    let to = fields.need("to", "name the table that is written");
    let to = to.and_then(|value| embedded::table_name(&value));
    let key = fields.need("key", "name the columns of the table's key: `key = \"id\"`");
    let key = key.and_then(|value| embedded::columns(&value));
    Some(Work::CopyToPostgres { from: from?, to: to?, key: key? })
}

/// Stages that make of each document what they make of it whichever others are there.
const ALONE: [&str; 11] = [
    "$addFields",
    "$graphLookup",
    "$lookup",
    "$match",
    "$project",
    "$redact",
    "$replaceRoot",
    "$replaceWith",
    "$set",
    "$unset",
    "$unwind",
];

/// A copy runs its pipeline on one batch of documents after another.
fn refuse_stages_across_documents(value: &Value<'_>, stages: &[Document]) {
    let across =
        stages.iter().flat_map(Document::keys).find(|name| !ALONE.contains(&name.as_str()));
    let Some(name) = across else { return };
    let (message, hint) = match name.as_str() {
        "$out" | "$merge" => (
            format!("`{name}` writes, and the pipeline of a copy only reads"),
            "leave it out: `to` and `key` say where the rows go".to_owned(),
        ),
        "$sort" => (
            format!("`{name}` sorts each batch for itself, and a table has no order"),
            "leave it out; add an index in `prepare` for what is read in that order".to_owned(),
        ),
        name => (
            format!(
                "`{name}` looks at several documents together, and a copy runs its pipeline on one \
                 batch of documents after another"
            ),
            format!(
                "copy the documents as they are, and let Postgres do what `{name}` would; or write \
                 its result into a collection first, with `$merge` in a script, and copy that"
            ),
        ),
    };
    value.complain(message, hint);
}

impl MongoSource {
    /// Reads `collection`, `find` and `pipeline` of a table.
    pub(super) fn read(fields: &mut Table<'_>) -> Option<MongoSource> {
        let collection = fields.need("collection", "name the collection that is read");
        let collection = collection.and_then(|value| embedded::collection(&value));
        let find = fields.get("find");
        let find = find.map_or_else(|| Some(Document::new()), |value| embedded::filter(&value));
        let pipeline = fields.get("pipeline");
        let pipeline =
            pipeline.map_or_else(|| Some(Vec::new()), |value| embedded::pipeline(&value));
        Some(MongoSource { collection: collection?, find: find?, pipeline: pipeline? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check as check_manifest, read as read_manifest};
    use super::*;
    use expect_test::{Expect, expect};

    fn check(keys: &str, expected: &Expect) {
        check_manifest(&format!("[[backfill]]\nname = 'x'\n{keys}"), expected);
    }

    fn backfill(keys: &str) -> Backfill {
        let text = format!("[[backfill]]\nname = 'x'\n{keys}");
        read_manifest(&text).expect("it is right").backfills.remove(0)
    }

    fn name(schema: Option<&str>, name: &str) -> QualifiedName {
        QualifiedName { schema: schema.map(str::to_owned), name: name.to_owned() }
    }

    #[test]
    fn rows_are_updated() {
        let keys = "postgres = { table = 'Shop.\"Us\"\"ers\"', set = 'n = n + 1', where = 'n < 9', key = ['Tenant', '\"Id\"'] }";
        let work = Work::Update {
            table: name(Some("shop"), "Us\"ers"),
            set: "n = n + 1".to_owned(),
            condition: Some("n < 9".to_owned()),
            key: vec!["tenant".to_owned(), "Id".to_owned()],
        };
        assert_eq!(backfill(keys).work, work);
        let work = Work::Update {
            table: name(None, "users"),
            set: "n = 1".to_owned(),
            condition: None,
            key: Vec::new(),
        };
        assert_eq!(backfill("postgres = { table = 'users', set = 'n = 1' }").work, work);
    }

    #[test]
    fn free_sql_has_the_batch_in_it() {
        let sql = "DELETE FROM sessions WHERE expired AND {batch}";
        let keys = format!("postgres = {{ sql = '{sql}', table = 'sessions', key = 'id' }}");
        let work = Work::Sql {
            sql: sql.to_owned(),
            table: name(None, "sessions"),
            key: vec!["id".to_owned()],
        };
        assert_eq!(backfill(&keys).work, work);
    }

    #[test]
    fn documents_are_updated_or_deleted() {
        let keys = "mongo = { collection = 'a.b', update = '{ $set: { n: 1 } }' }";
        let work = Work::Documents {
            collection: "a.b".to_owned(),
            filter: Document::new(),
            change: Change::Update(Update::Operators(bson::doc! { "$set": { "n": 1 } })),
        };
        assert_eq!(backfill(keys).work, work);
        let keys = "mongo = { collection = 'a', filter = '{ n: 1 }', delete = true }";
        let work = Work::Documents {
            collection: "a".to_owned(),
            filter: bson::doc! { "n": 1 },
            change: Change::Delete,
        };
        assert_eq!(backfill(keys).work, work);
        let keys = "mongo = { collection = 'a', update = '[{ $set: { n: 1 } }]' }";
        let pipeline = Change::Update(Update::Pipeline(vec![bson::doc! { "$set": { "n": 1 } }]));
        assert!(
            matches!(backfill(keys).work, Work::Documents { change, .. } if change == pipeline)
        );
    }

    #[test]
    fn a_function_is_called_for_batches_of_either_store() {
        let call =
            Call { name: "fill_names".to_owned(), text: "lockstep.Fill_Names('2')".to_owned() };
        let keys = "postgres = { table = 'shop.users', key = 'id', where = 'name IS NULL', call = \"lockstep.Fill_Names('2');\" }";
        let work = Work::Call {
            call: call.clone(),
            table: name(Some("shop"), "users"),
            condition: Some("name IS NULL".to_owned()),
            key: vec!["id".to_owned()],
        };
        assert_eq!(work.call(), Some(&call));
        assert_eq!(backfill(keys).work, work);
        let keys = "mongo = { collection = 'users', filter = '{ name: null }', call = \"lockstep.Fill_Names('2')\" }";
        let work = Work::Documents {
            collection: "users".to_owned(),
            filter: bson::doc! { "name": null },
            change: Change::Call(call.clone()),
        };
        assert_eq!(work.call(), Some(&call));
        assert_eq!(backfill(keys).work, work);
    }

    #[test]
    fn what_is_called_is_a_function_of_the_service_and_nothing_else() {
        for call in ["fill('1')", "app.fill('1')", "CALL lockstep.fill('1')"] {
            check(
                &format!("postgres = {{ table = 'a', call = \"{call}\" }}"),
                &expect![
                    ":3:34: `call` must name a function of the service, as `lockstep.fill_names('1')` does; write `lockstep.`, its name, and a revision between the parentheses, which changes when the function does"
                ],
            );
        }
        check(
            "postgres = { table = 'a', set = 'b = 1', call = \"lockstep.fill('1')\" }\n[[backfill]]\nname = 'y'\nmongo = { collection = 'a', delete = true, filter = '{}', call = \"lockstep.fill('1')\" }",
            &expect![[r#"
                :3:42: `postgres` has both `set` and `call`; keep `set`, or let the function do what it does
                :6:59: `mongo` has both `delete` and `call`; make a backfill of each"#]],
        );
        check(
            "postgres = { table = 'a', call = \"lockstep.fill('1'); SELECT 1\" }",
            &expect![":3:34: `call` must be one statement, and these are 2; keep one of them"],
        );
        check(
            "postgres = { table = 'a', sql = \"CALL lockstep.fill('1', {batch})\" }",
            &expect![[
                r#":3:33: `sql` calls `fill`, and has no batch for it; write `call = "lockstep.fill('1')"` instead of `sql`"#
            ]],
        );
    }

    #[test]
    fn rows_are_copied_both_ways() {
        let keys = "copy = { from = 'postgres', query = 'SELECT id, email FROM users;', key = 'id', to = 'profiles' }";
        let work = Work::CopyToMongo {
            query: "SELECT id, email FROM users".to_owned(),
            to: "profiles".to_owned(),
            by: By::Id("id".to_owned()),
        };
        assert_eq!(backfill(keys).work, work);
        let keys = "copy = { from = 'postgres', query = 'TABLE users', on = ['email'], to = 'p' }";
        let by = By::Fields(vec!["email".to_owned()]);
        assert!(matches!(backfill(keys).work, Work::CopyToMongo { by: found, .. } if found == by));
        let keys = "[backfill.copy]\nfrom = 'mongo'\ncollection = 'orders'\nfind = '{ n: 1 }'\npipeline = '[{ $unwind: \"$lines\" }]'\nto = 'shop.lines'\nkey = ['order', 'line']";
        let work = Work::CopyToPostgres {
            from: MongoSource {
                collection: "orders".to_owned(),
                find: bson::doc! { "n": 1 },
                pipeline: vec![bson::doc! { "$unwind": "$lines" }],
            },
            to: name(Some("shop"), "lines"),
            key: vec!["order".to_owned(), "line".to_owned()],
        };
        assert_eq!(backfill(keys).work, work);
    }

    #[test]
    fn its_pace_is_its_own() {
        let work = "postgres = { table = 'a', set = 'b = 1' }";
        let keys = format!(
            "workers = 4\nbatch = 1_000\npause = '100ms'\nnice = 1\nrate = 0\nmax_bad = 10\n{work}"
        );
        let found = backfill(&keys);
        let pace = Pace {
            workers: Some(4),
            batch: Some(1000),
            pause: Some(Duration::from_millis(100)),
            nice: Some(1.0),
            rate: Some(0),
        };
        assert_eq!((found.pace, found.max_bad), (pace, 10));
        assert_eq!((backfill(work).pace, backfill(work).max_bad), (Pace::default(), 0));
    }

    #[test]
    fn a_pace_has_limits() {
        let work = "postgres = { table = 'a', set = 'b = 1' }";
        check(
            &format!("{work}\nworkers = 0\nbatch = 2000000\npause = 5"),
            &expect![[r#"
            :4:11: `workers` must be from 1 to 64, not 0; for example `workers = 4`
            :5:9: `batch` must be from 1 to 1000000, not 2000000; for example `batch = 1000`
            :6:9: `pause` must be a duration, not a whole number; for example `pause = "100ms"`"#]],
        );
        check(
            &format!("{work}\nworkers = '4'\nnice = -1.5\nrate = -1\nmax_bad = 1.5"),
            &expect![[r#"
                :4:11: `workers` must be a whole number, not a string; for example `workers = 4`
                :5:8: `nice` must be a number of at least 0; for example `nice = 1.0`
                :6:8: `rate` must be at least 0, not -1; for example `rate = 5000`
                :7:11: `max_bad` must be a whole number, not a number with a fraction; for example `max_bad = 10`"#]],
        );
        check(
            &format!("{work}\nnice = inf"),
            &expect![":4:8: `nice` must be a number of at least 0; for example `nice = 1.0`"],
        );
        check(
            &format!("{work}\nnice = 'very'"),
            &expect![":4:8: `nice` must be a number, not a string; for example `nice = 1.0`"],
        );
    }

    #[test]
    fn it_does_exactly_one_thing() {
        check(
            "",
            &expect![
                ":1:1: this `[[backfill]]` does not say what it does; write one of `postgres`, `mongo` and `copy`; each is a table of its own"
            ],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1' }\nmongo = {}",
            &expect![":4:1: this `[[backfill]]` does more than one thing; make a backfill of each"],
        );
        check(
            "mongo = 'x'",
            &expect![[
                r#":3:9: `mongo` must be a table, not a string; for example `mongo = { collection = "products", filter = "{ stock: null }", update = "{ $set: { stock: 0 } }" }`"#
            ]],
        );
        check(
            "postgre = { table = 'a', set = 'b = 1' }",
            &expect![[r#"
            :1:1: this `[[backfill]]` does not say what it does; write one of `postgres`, `mongo` and `copy`; each is a table of its own
            :3:1: unknown key `postgre` in `[[backfill]]`; did you mean `postgres`?"#]],
        );
    }

    #[test]
    fn an_update_has_a_table_and_assignments() {
        check(
            "postgres = { }",
            &expect![[r#"
                :3:1: `postgres` has no `table`; name the table whose rows are rewritten
                :3:1: `postgres` has neither `set` nor `sql`; for example `set = "active = true"`, or a whole statement in `sql`, or `call` for a function of a service"#]],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1', sql = 'x' }",
            &expect![
                ":3:42: `postgres` has both `set` and `sql`; keep `set`, or write the whole statement in `sql`"
            ],
        );
        check(
            "postgres = { table = 'a b', set = 'b = 1' }",
            &expect![[
                r#":3:22: `a b` is not the name of a table; write `users` or `shop.users`; a name with capitals or blanks in double quotes: '"Users"'"#
            ]],
        );
        check(
            "postgres = { table = 'a.b.c', set = 'b = 1' }",
            &expect![[
                r#":3:22: `a.b.c` is not the name of a table; write `users` or `shop.users`; a name with capitals or blanks in double quotes: '"Users"'"#
            ]],
        );
        check(
            "postgres = { table = '\"a', set = 'b = 1' }",
            &expect![[
                r#":3:22: `"a` is not the name of a table; write `users` or `shop.users`; a name with capitals or blanks in double quotes: '"Users"'"#
            ]],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1', key = 'a.b' }",
            &expect![[
                r#":3:48: `a.b` is not the name of a column; write `"id"`, or `["tenant", "id"]` for a key of several columns"#
            ]],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1', key = 7 }",
            &expect![[
                r#":3:48: `key` must be a string, not a whole number; for example `key = "id"`"#
            ]],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1', wher = 'c' }",
            &expect![":3:42: unknown key `wher` in `postgres`; did you mean `where`?"],
        );
    }

    #[test]
    fn a_part_of_a_statement_has_no_semicolon() {
        check(
            "postgres = { table = 'a', set = 'b = 1;' }",
            &expect![
                ":3:33: `set` is a part of one statement, and has a `;` in it; leave the `;` out"
            ],
        );
        check(
            "postgres = { table = 'a', set = 'b = 1', where = 'c; DROP TABLE a' }",
            &expect![
                ":3:50: `where` is a part of one statement, and has a `;` in it; leave the `;` out"
            ],
        );
    }

    #[test]
    fn free_sql_without_a_batch_is_refused() {
        check(
            "postgres = { table = 'a', sql = 'DELETE FROM a' }",
            &expect![
                ":3:33: `sql` has no `{batch}` in it; write `{batch}` where the key range of each batch belongs: `DELETE FROM sessions WHERE expired AND {batch}`"
            ],
        );
        check(
            "postgres = { table = 'a', sql = 'DELETE FROM a WHERE {batch}; SELECT 1' }",
            &expect![":3:33: `sql` must be one statement, and these are 2; keep one of them"],
        );
        check(
            "postgres = { table = 'a', sql = 'VACUUM {batch}' }",
            &expect![
                ":3:33: `sql` cannot run inside a transaction; a batch is one transaction; put this statement into a script"
            ],
        );
        check(
            "postgres = { sql = 'DELETE FROM a WHERE {batch}', where = 'b' }",
            &expect![[r#"
                :3:1: `postgres` has no `table`; name the table whose rows are rewritten
                :3:51: `where` belongs to `set` or `call`, not to `sql`; write the condition into `sql`"#]],
        );
    }

    #[test]
    fn documents_need_a_collection_and_a_change() {
        check(
            "mongo = { }",
            &expect![[r#"
                :3:1: `mongo` has no `collection`; name the collection whose documents are changed
                :3:1: `mongo` has neither `update` nor `delete`; for example `update = "{ $set: { stock: 0 } }"`, or `delete = true`, or `call` for a function of a service"#]],
        );
        check(
            "mongo = { collection = 'system.users', update = '{ $set: { a: 1 } }' }",
            &expect![
                ":3:24: `system.users` is not the name of a collection; write the name that `db.getCollectionNames()` shows; it has no `$` and does not begin with `system.`"
            ],
        );
        check(
            "mongo = { collection = 'a$b', delete = true }",
            &expect![[r#"
            :3:1: `mongo` deletes without a `filter`; add `filter`; `filter = "{}"` deletes every document
            :3:24: `a$b` is not the name of a collection; write the name that `db.getCollectionNames()` shows; it has no `$` and does not begin with `system.`"#]],
        );
        check(
            "mongo = { collection = 'a', filter = '{}', delete = false }",
            &expect![":3:53: `delete = false` does nothing; write `delete = true`, or `update`"],
        );
        check(
            "mongo = { collection = 'a', delete = 'yes' }",
            &expect![
                ":3:38: `delete` must be true or false, not a string; for example `delete = true`"
            ],
        );
        check(
            "mongo = { collection = 'a', filter = '{}', delete = true, update = '{ $set: { a: 1 } }' }",
            &expect![":3:44: `mongo` has both `update` and `delete`; make a backfill of each"],
        );
        check(
            "mongo = { collection = 'a', filter = '[]', delete = true }",
            &expect![
                ":3:38: `filter` must be a document; for example `{ stock: { $exists: false } }`; `{}` is every document"
            ],
        );
    }

    #[test]
    fn an_update_of_documents_is_operators_or_stages() {
        check(
            "mongo = { collection = 'a', update = '{ a: 1 }' }",
            &expect![
                ":3:38: `update` must be update operators or a list of stages; for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`"
            ],
        );
        check(
            "mongo = { collection = 'a', update = '{}' }",
            &expect![
                ":3:38: `update` must be update operators or a list of stages; for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`"
            ],
        );
        check(
            "mongo = { collection = 'a', update = '[]' }",
            &expect![
                ":3:38: `update` must be update operators or a list of stages; for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`"
            ],
        );
        check(
            "mongo = { collection = 'a', update = '[{ $set: { a: 1 }, $unset: [\"b\"] }]' }",
            &expect![
                ":3:38: `update` must be update operators or a list of stages; for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`"
            ],
        );
        check(
            "mongo = { collection = 'a', update = '7' }",
            &expect![
                ":3:38: `update` must be update operators or a list of stages; for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`"
            ],
        );
    }

    #[test]
    fn a_stage_that_looks_at_several_documents_cannot_be_copied_in_batches() {
        let copy = |stages: &str| {
            format!(
                "[backfill.copy]\nfrom = 'mongo'\ncollection = 'a'\nto = 'b'\nkey = 'id'\n\
                 pipeline = \"\"\"[\n  {{ $unwind: '$lines' }},\n  {stages}\n]\"\"\""
            )
        };
        for fine in [
            "{ $project: { _id: 0, id: '$_id' } }, { $match: { id: 1 } }, { $set: { a: 1 } }",
            "{ $lookup: { from: 'c', pipeline: [{ $group: { _id: 1 } }], as: 'd' } }",
            "{ $replaceRoot: { newRoot: '$a' } }, { $unset: 'b' }, { $addFields: { a: 1 } }",
        ] {
            backfill(&copy(fine));
        }
        for across in [
            "{ $group: { _id: '$a' } }",
            "{ $limit: 5 }",
            "{ $skip: 5 }",
            "{ $count: 'n' }",
            "{ $facet: { a: [{ $limit: 1 }] } }",
            "{ $bucket: { groupBy: '$a', boundaries: [1] } }",
            "{ $sample: { size: 3 } }",
            "{ $setWindowFields: { output: {} } }",
            "{ $unionWith: 'c' }",
            "{ $somethingNew: 1 }",
        ] {
            let text = format!("[[backfill]]\nname = 'x'\n{}", copy(across));
            let problems = read_manifest(&text).expect_err(across);
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert!(problem.message.contains("looks at several documents together"), "{problem:?}");
            assert!(problem.hint.is_some() && problem.at.is_some());
        }
        check(
            &copy("{ $sort: { a: 1 } }, { $limit: 5 }"),
            &expect![
                ":8:12: `$sort` sorts each batch for itself, and a table has no order; leave it out; add an index in `prepare` for what is read in that order"
            ],
        );
        check(
            &copy("{ $out: 'c' }"),
            &expect![
                ":8:12: `$out` writes, and the pipeline of a copy only reads; leave it out: `to` and `key` say where the rows go"
            ],
        );
    }

    #[test]
    fn a_copy_says_from_where_to_where_and_by_what() {
        check(
            "copy = { }",
            &expect![[
                r#":3:1: `copy` has no `from`; write `from = "postgres"` or `from = "mongo"`"#
            ]],
        );
        check(
            "copy = { from = 'mysql' }",
            &expect![
                ":3:17: `mysql` is not a value of `from`; write one of `postgres` and `mongo`"
            ],
        );
        check(
            "copy = { from = 'postgres' }",
            &expect![[r#"
            :3:1: `copy` has no `query`; write the SELECT whose columns are the fields
            :3:1: `copy` has no `to`; name the collection that is written
            :3:1: `copy` has neither `key` nor `on`; write `key = "id"` for the column that becomes `_id`, or `on = ["email"]`"#]],
        );
        check(
            "copy = { from = 'mongo' }",
            &expect![[r#"
            :3:1: `copy` has no `collection`; name the collection that is read
            :3:1: `copy` has no `to`; name the table that is written
            :3:1: `copy` has no `key`; name the columns of the table's key: `key = "id"`"#]],
        );
        check(
            "copy = { from = 'postgres', query = 'DELETE FROM a', key = 'a', on = 'b', to = 'c' }",
            &expect![[r#"
                :3:37: `query` must be a query, and `DELETE` is none; write a SELECT
                :3:65: `copy` has both `key` and `on`; keep `key` where a column becomes `_id`, else `on`"#]],
        );
        check(
            "copy = { from = 'postgres', query = '-- none', key = 'a', to = 'c' }",
            &expect![":3:37: `query` says nothing; write one statement"],
        );
        check(
            "copy = { from = 'mongo', collection = 'a', pipeline = '{}', key = 'a', to = 'c', query = 'x' }",
            &expect![[r#"
                :3:55: `pipeline` must be a list of stages; for example `[{ $match: { stock: 0 } }, { $count: 'n' }]`
                :3:82: unknown key `query` in `copy`; the keys here are `from`, `collection`, `find`, `pipeline`, `to` and `key`"#]],
        );
    }

    #[test]
    fn a_problem_inside_a_literal_has_its_place_in_the_file() {
        let text = "[[backfill]]\nname = 'x'\n[backfill.mongo]\ncollection = 'a'\nupdate = '{ $set: { a: b } }'";
        let problems = read_manifest(text).expect_err("`b` is no literal");
        let at = problems[0].at.clone().expect("it has a place");
        assert_eq!((at.line, at.column, at.width), (5, 24, 1));
    }
}
