//! A run that failed, was mended and went on ends where an undisturbed one does.

use serde_json::{Map, Value};

use crate::project::Project;

/// As it should be. What each test breaks first is replaced in it.
const FILES: [(&str, &str); 8] = [
    (
        "001-users/up.sql",
        "CREATE TABLE users (id integer PRIMARY KEY, email text);\n\
         INSERT INTO users VALUES (1, 'a'), (2, 'b');\n\
         CREATE UNIQUE INDEX CONCURRENTLY users_email ON users (email);\n\
         ALTER TABLE users ADD COLUMN name text DEFAULT 'nobody';",
    ),
    ("001-users/down.sql", "DROP TABLE users;"),
    (
        "001-users/up.mongodb.js",
        "db.createCollection(\"users\", { validator: { n: { $type: \"int\" } } });\n\
         db.users.createIndex({ n: 1 }, { unique: true, name: \"n\" });\n\
         db.users.insertMany([{ _id: 1, n: 1 }, { _id: 2, n: 2 }]);\n\
         db.users.updateMany({}, { $inc: { n: 10 } });\n\
         db.users.createIndex({ m: 1 }, { name: \"m\" });",
    ),
    ("001-users/down.mongodb.js", "db.users.drop();"),
    ("002-more/up.sql", "CREATE TABLE more (id integer REFERENCES users);"),
    ("002-more/down.sql", "DROP TABLE more;"),
    ("002-more/up.mongodb.js", "db.users.insertOne({ _id: 3, n: 3 });"),
    ("002-more/down.mongodb.js", "db.users.deleteOne({ _id: 3 });"),
];

/// Everything there is, but for what is another at each run.
fn end(project: &Project) -> (String, Vec<String>, String, Vec<Map<String, Value>>) {
    let mut history = project.database.history();
    for row in &mut history {
        for field in ["executed_at", "finished_at", "execution_time_ms", "run_id"] {
            assert!(row.remove(field).is_some_and(|value| !value.is_null()), "{field}");
        }
    }
    let rows = project.database.sql("SELECT * FROM users ORDER BY id");
    let documents = format!("{:?}", project.database.documents("users"));
    (project.database.objects(), rows, documents, history)
}

/// Breaks one statement after the other, runs `up`, mends it, and goes on.
#[test]
fn the_end_is_the_same_wherever_it_failed() {
    let undisturbed = Project::new("undisturbed", &FILES);
    undisturbed.ok(&["up"]);
    let expected = end(&undisturbed);

    for (at, (file, good, bad)) in [
        (
            "001-users/up.sql",
            "INSERT INTO users VALUES (1, 'a')",
            "INSERT INTO users VALUES (2, 'a')",
        ),
        ("001-users/up.sql", "ON users (email)", "ON users ((1))"),
        ("001-users/up.sql", "ADD COLUMN name text", "ADD COLUMN email text"),
        ("001-users/up.mongodb.js", "$type: \"int\"", "$type: \"integer\""),
        (
            "001-users/up.mongodb.js",
            "{ n: 1 }, { unique",
            "{ n: 1 }, { partialFilterExpression: { n: { $regex: \"x\" } }, unique",
        ),
        ("001-users/up.mongodb.js", "{ _id: 2, n: 2 }", "{ _id: 2, n: 1 }"),
        ("001-users/up.mongodb.js", "{ _id: 2, n: 2 }", "{ _id: 2, n: \"2\" }"),
        ("001-users/up.mongodb.js", "{ $inc: { n: 10 } }", "{ $inc: { _id: 1 } }"),
        ("001-users/up.mongodb.js", "{ m: 1 }, { name", "{ m: \"nonsense\" }, { name"),
        ("002-more/up.sql", "REFERENCES users", "REFERENCES usres"),
        ("002-more/up.mongodb.js", "_id: 3", "_id: 2"),
    ]
    .into_iter()
    .enumerate()
    {
        let project = Project::new(&format!("mended_{at}"), &FILES);
        let (_, text) = FILES.iter().find(|(name, _)| *name == file).expect("it is there");
        assert!(text.contains(good), "{good}");
        project.write(file, &text.replacen(good, bad, 1));
        let ran = project.fails(1, &["up"]);
        assert!(ran.stderr.contains(&format!("--> migrations/{file}:")), "{bad}: {ran}");
        assert!(ran.stderr.contains("next: correct the statement"), "{bad}: {ran}");
        assert_eq!(project.database.holders(), Vec::<String>::new());
        let states = project.json(3, &["status", "--exit-code"])[0]["migrations"].clone();
        let state = &states[usize::from(file.starts_with("002"))]["state"];
        assert!(["partial", "pending"].contains(&state.as_str().expect("a word")), "{states}");
        project.write(file, text);
        project.ok(&["up"]);
        assert_eq!(end(&project), expected, "{bad}");
        project.ok(&["down", "--to", "0", "--yes"]);
        assert_eq!(project.database.objects(), "", "{bad}");
        assert_eq!(project.database.history().len(), 0);
    }
}

/// Or: what there is of it is reverted, and it begins anew.
#[test]
fn a_part_of_it_can_be_reverted() {
    let project = Project::new("partly", &FILES);
    let (_, text) = FILES[2];
    project.write("001-users/up.mongodb.js", &text.replace("n: 2", "n: 1"));
    project.fails(1, &["up"]);
    project.ok(&["down", "--yes"]);
    assert_eq!(project.database.objects(), "");
    assert_eq!(project.database.history().len(), 0);
    project.write("001-users/up.mongodb.js", text);
    project.ok(&["up"]);
    assert_eq!(project.database.history().len(), 2);
}
