//! A table that goes while it is in use.

use crate::core::id::Phase;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;

pub(super) static RULE: Rule = Rule {
    name: "drop-table",
    level: Level::Warn,
    about: About::Postgres,
    what: "A table, a materialized view or a schema that is dropped by a migration without phases.",
    why: "The release that is running still asks for it, and each of those queries fails from that moment on. Its rows are gone.",
    instead: "Drop it in the `cleanup` of a migration with phases: that runs when the releases that need it are gone and the invariants hold.",
    bad: &[
        ("up.sql", "DROP TABLE carts;\n"),
        ("down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    good: &[
        (
            "migration.toml",
            "cleanup = \"next-release\"\n\n[[invariant]]\nname = \"every cart was copied\"\npostgres = \"SELECT count(*) FROM carts\"\nmongo = { collection = \"carts\", count = \"{}\" }\n",
        ),
        ("cleanup.sql", "DROP TABLE carts;\n"),
        ("cleanup.down.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql_up().filter(|statement| statement.phase == Phase::Up) {
        let Act::Drop { what, names } = &statement.act else { continue };
        let holds_rows = ["table", "materialized view", "schema"].contains(&what.as_str());
        let old = names.iter().find(|name| what == "schema" || !subject.is_new_table(name));
        if let (true, Some(name)) = (holds_rows, old) {
            let message = format!(
                "dropping `{name}` breaks the release that is running, and its rows are gone"
            );
            hits.push(statement.hit(message));
        }
    }
    hits
}
