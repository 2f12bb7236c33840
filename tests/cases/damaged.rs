//! What the tests of damaged histories share: migrations whose loss or repetition
//! would show, backups that are put back, and the way from the damage to the end.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use serde_json::{Map, Value};

use crate::databases::OURS;
use crate::project::{Project, Ran, until};
use crate::support::{block_on, servers};

/// Of every kind of step; none of it is harmless to repeat.
pub const FILES: [(&str, &str); 10] = [
    (
        "001-users/up.sql",
        "CREATE TABLE users (id integer PRIMARY KEY, n integer NOT NULL);\n\
         INSERT INTO users VALUES (1, 1), (2, 2);\n\
         CREATE INDEX CONCURRENTLY users_n ON users (n);\n\
         UPDATE users SET n = n * 2;",
    ),
    ("001-users/down.sql", "DROP TABLE users;"),
    (
        "001-users/up.mongodb.js",
        "db.createCollection(\"users\");\n\
         db.users.insertMany([{ _id: 1, n: 1 }, { _id: 2, n: 2 }]);\n\
         db.users.updateMany({}, { $mul: { n: 2 } });",
    ),
    ("001-users/down.mongodb.js", "db.users.drop();"),
    (
        "002-orders/up.sql",
        "CREATE TABLE orders (id integer PRIMARY KEY, n integer NOT NULL);\n\
         INSERT INTO orders VALUES (1, 5);\n\
         CREATE INDEX CONCURRENTLY orders_n ON orders (n);\n\
         UPDATE orders SET n = n + 1;",
    ),
    ("002-orders/down.sql", "DROP TABLE orders;"),
    (
        "002-orders/up.mongodb.js",
        "db.orders.insertOne({ _id: 1, n: 5 });\n\
         db.orders.createIndex({ n: 1 }, { name: \"n\" });\n\
         db.orders.updateMany({}, { $inc: { n: 1 } });",
    ),
    ("002-orders/down.mongodb.js", "db.orders.drop();"),
    ("003-more/up.sql", "UPDATE users SET n = n + 100;"),
    ("003-more/down.sql", "UPDATE users SET n = n - 100;"),
];

/// A project in which everything is applied, but for `003` if it says so.
pub fn applied(name: &str, arguments: &[&str]) -> Project {
    let project = Project::new(name, &FILES);
    project.ok(&[&["up"], arguments].concat());
    project
}

/// Everything there is, but for what is another at each run.
#[derive(Debug, PartialEq)]
pub struct End {
    objects: String,
    data: Vec<String>,
    history: Vec<Map<String, Value>>,
}

/// As it is now.
#[track_caller]
pub fn end(project: &Project) -> End {
    let mut history = project.database.history();
    for row in &mut history {
        for field in ["executed_at", "finished_at", "execution_time_ms", "run_id"] {
            assert!(row.remove(field).is_some_and(|value| !value.is_null()), "{field}");
        }
    }
    let mut data = Vec::new();
    for table in ["users", "orders"] {
        let sql = format!("SELECT * FROM {table} ORDER BY id");
        data.extend(project.database.try_sql(&sql).unwrap_or_default());
        data.extend(project.database.documents(table).iter().map(ToString::to_string));
    }
    End { objects: project.database.objects(), data, history }
}

/// The end of an undisturbed history.
pub fn undisturbed() -> End {
    end(&applied("undisturbed", &[]))
}

/// What somebody reads who runs `up`, `status` and `verify`, all of which say the
/// same, change nothing, and end with 5.
#[track_caller]
pub fn refused(project: &Project, code: &str, fragments: &[&str]) -> String {
    let before = format!("{:?}", everything(project));
    let up = project.fails(5, &["up"]);
    let status = project.fails(5, &["status"]);
    let verify = project.fails(5, &["verify"]);
    let repair = project.fails(5, &["repair"]);
    for ran in [&up, &status, &verify, &repair] {
        for fragment in fragments {
            assert!(ran.said().contains(fragment), "{fragment}\n{ran}");
        }
    }
    assert_eq!(verify.stdout, repair.stdout, "repair without a flag says what verify says");
    let json = project.json(5, &["verify"]);
    let [object] = &json[..] else { panic!("one object") };
    assert_eq!((&object["ok"], &object["event"]), (&Value::Bool(false), &"verify".into()));
    let findings = object["findings"].as_array().unwrap();
    let found = findings.iter().find(|it| it["code"] == code);
    let found = found.unwrap_or_else(|| panic!("no {code} among {findings:#?}"));
    let up = project.json(5, &["up"]).pop().unwrap();
    assert_eq!(up["error"]["code"], code, "{up:#}");
    assert_eq!(up["error"]["message"], found["message"]);
    assert_eq!(up["error"]["next"], found["next"]);
    assert_eq!(format!("{:?}", everything(project)), before, "nothing was changed");
    found["next"].as_str().unwrap().to_owned()
}

/// The one command, which the message names, and after which all is well.
#[track_caller]
pub fn mended_by(project: &Project, next: &str, command: &str, expected: &End) {
    let whole = format!("`migrate {command}`");
    assert!(next.contains(&whole), "the message names {whole}: {next}");
    let arguments: Vec<&str> = command.split_whitespace().collect();
    let unconfirmed = project.fails(9, &arguments);
    assert!(unconfirmed.stderr.contains("--yes"), "{unconfirmed}");
    let arguments = [&arguments[..], &["--yes", "--reason", "a test"]].concat();
    let repaired = project.ok(&arguments);
    let verify = project.migrate(&["verify"]);
    assert_eq!(verify.code, 0, "{repaired}\n{verify}");
    goes_on(project, expected);
    let history = project.ok(&["history"]);
    assert!(history.stdout.contains("repair"), "{history}");
    assert!(history.stdout.contains("reason: a test"), "{history}");
}

/// `up` goes on, and the end is that of an undisturbed history.
#[track_caller]
pub fn goes_on(project: &Project, expected: &End) {
    let up = project.ok(&["up"]);
    assert_eq!(end(project), *expected, "{up}");
    let verify = project.migrate(&["verify"]);
    assert_eq!(verify.code, 0, "{up}\n{verify}");
    let status = project.ok(&["status", "--exit-code"]);
    assert!(status.stdout.contains("nothing pending"), "{status}");
    assert_eq!(project.database.holders(), Vec::<String>::new());
    let nothing = project.ok(&["up"]);
    assert!(nothing.stderr.contains("nothing to do"), "{nothing}");
}

/// What `verify` names and `up` writes again by itself.
#[track_caller]
pub fn healed_by_up(project: &Project, code: &str, fragments: &[&str], expected: &End) {
    let verify = project.fails(5, &["verify"]);
    for fragment in fragments {
        assert!(verify.said().contains(fragment), "{fragment}\n{verify}");
    }
    let object = project.json(5, &["verify"]).pop().unwrap();
    let findings = object["findings"].as_array().unwrap();
    assert!(!findings.is_empty());
    for finding in findings {
        assert_eq!(finding["code"], code, "{finding}");
        let next = finding["next"].as_str().unwrap();
        assert!(next.starts_with("`migrate up`"), "{next}");
    }
    goes_on(project, expected);
}

fn everything(project: &Project) -> (String, Vec<String>, Vec<Document>) {
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for name in OURS.into_iter().chain(["users", "orders"]) {
        let sql = format!("SELECT to_jsonb(t) FROM {name} AS t ORDER BY 1");
        rows.extend(project.database.try_sql(&sql).unwrap_or_default());
        documents.extend(project.database.documents(name));
    }
    (project.database.objects(), rows, documents)
}

/// All of one store, as it was once.
pub enum Backup {
    /// The name of a database that is a copy.
    Postgres(String),
    /// Every collection: its name, its options, its indexes, its documents.
    Mongo(Vec<(String, Document, Vec<Document>, Vec<Document>)>),
}

impl Backup {
    /// As it is now.
    pub fn of_postgres(project: &Project) -> Backup {
        Backup::of_postgres_as(project, "backup")
    }

    /// Beside another backup.
    pub fn of_postgres_as(project: &Project, name: &str) -> Backup {
        let name = format!("{}_{name}", project.database.name);
        copy_database(&project.database.name, &name);
        Backup::Postgres(name)
    }

    /// As it is now.
    pub fn of_mongo(project: &Project) -> Backup {
        let collections = project.database.mongo(async |database| {
            let list = database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap();
            let list: Vec<Document> = list.try_collect().await.unwrap();
            let mut collections = Vec::new();
            for it in list {
                let name = it.get_str("name").unwrap().to_owned();
                let options = it.get_document("options").cloned().unwrap_or_default();
                let indexes = doc! { "listIndexes": &name };
                let indexes = database.run_cursor_command(indexes).await.unwrap();
                let indexes: Vec<Document> = indexes.try_collect().await.unwrap();
                let found = database.collection::<Document>(&name).find(doc! {}).await.unwrap();
                let documents: Vec<Document> = found.try_collect().await.unwrap();
                collections.push((name, options, indexes, documents));
            }
            collections
        });
        Backup::Mongo(collections)
    }

    /// Puts it back, in place of what is there.
    pub fn restore(&self, project: &Project) {
        match self {
            Backup::Postgres(name) => copy_database(name, &project.database.name),
            Backup::Mongo(collections) => {
                let collections = collections.clone();
                project.database.mongo(async |database| {
                    database.drop().await.unwrap();
                    for (name, options, indexes, documents) in collections {
                        let mut create = doc! { "create": &name };
                        create.extend(options);
                        database.run_command(create).await.unwrap();
                        let indexes: Vec<Document> = indexes
                            .into_iter()
                            .filter(|index| index.get_str("name").is_ok_and(|name| name != "_id_"))
                            .collect();
                        if !indexes.is_empty() {
                            let create = doc! { "createIndexes": &name, "indexes": indexes };
                            database.run_command(create).await.unwrap();
                        }
                        if !documents.is_empty() {
                            let collection = database.collection::<Document>(&name);
                            collection.insert_many(documents).await.unwrap();
                        }
                    }
                });
            }
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if let Backup::Postgres(name) = self {
            let drop = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
            assert!(admin(&drop) || std::thread::panicking());
        }
    }
}

/// Makes one database all that another is.
fn copy_database(from: &str, to: &str) {
    assert!(admin(&format!("DROP DATABASE IF EXISTS \"{to}\" WITH (FORCE)")));
    // Sessions that have ended may still be seen for a moment.
    until("a database to be copied", || {
        admin(&format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\""))
    });
}

/// Runs a statement in the database that every server has. Says whether it could.
fn admin(sql: &str) -> bool {
    let url = &servers().postgres_url;
    block_on(async || {
        let (client, connection) =
            tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres answers");
        let connection = tokio::spawn(connection);
        let done = client.batch_execute(sql).await.is_ok();
        drop(client);
        let _ = connection.await;
        done
    })
}

/// A command, as it is written.
#[track_caller]
pub fn ran(project: &Project, command: &str) -> Ran {
    project.migrate(&command.split_whitespace().collect::<Vec<_>>())
}
