//! A database that goes.

use crate::core::lint::view::{Hit, Sql, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;
use crate::core::step::MongoKind;

pub(super) static RULE: Rule = Rule {
    name: "drop-database",
    level: Level::Error,
    about: About::Postgres,
    what: "`DROP DATABASE`, or `dropDatabase`.",
    why: "Everything in it is gone, the history of migrations too if it is this one, and no `down` brings it back.",
    instead: "Drop the tables and collections that are not needed, by name. A whole database is dropped by a person, not by a migration.",
    bad: &[("up.sql", "DROP DATABASE reports;\n"), ("down.sql", "SELECT 1;\n")],
    good: &[
        (
            "migration.toml",
            "[[invariant]]\nname = \"the report is empty\"\npostgres = \"SELECT count(*) FROM reports\"\n",
        ),
        ("cleanup.sql", "DROP TABLE reports;\n"),
        ("cleanup.down.sql", "CREATE TABLE reports (id bigint PRIMARY KEY);\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let message = "everything in this database is gone, and no `down` brings it back";
    let is_drop =
        |statement: &&Sql| matches!(&statement.act, Act::Drop { what, .. } if what == "database");
    let sql = subject.sql().filter(is_drop).map(|statement| statement.hit(message));
    let mongo = subject.view.mongo.iter();
    let mongo = mongo.filter(|statement| statement.kind == MongoKind::DropDatabase);
    sql.chain(mongo.map(|statement| statement.hit(message))).collect()
}
