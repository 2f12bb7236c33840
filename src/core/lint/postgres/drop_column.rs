//! A column that goes while it is in use.

use crate::core::id::{Direction, Phase};
use crate::core::lint::known::Known;
use crate::core::lint::view::{Anchor, Hit, Sql, Subject, named};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "drop-column",
    level: Level::Warn,
    about: About::Postgres,
    what: "A column of a table in use that is dropped by a migration without phases.",
    why: "The release that is running still reads and writes it, and each of those queries fails from that moment on. Its data is gone.",
    instead: "Drop it in the `cleanup` of a migration with phases: that runs when the releases that need it are gone and the invariants hold.",
    bad: &[
        ("up.sql", "ALTER TABLE users DROP COLUMN role;\n"),
        ("down.sql", "ALTER TABLE users ADD COLUMN role text;\n"),
    ],
    good: &[
        (
            "migration.toml",
            "cleanup = \"next-release\"\n\n[[invariant]]\nname = \"no user lost a role\"\npostgres = \"SELECT count(*) FROM users WHERE role IS NOT NULL AND NOT (role = ANY (roles))\"\n",
        ),
        ("cleanup.sql", "ALTER TABLE users DROP COLUMN role;\n"),
        ("cleanup.down.sql", "ALTER TABLE users ADD COLUMN role text;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let found = subject.known(Known::DropColumn);
    let found = found.filter(|(statement, _)| {
        (statement.direction, statement.phase) == (Direction::Up, Phase::Up)
    });
    let say = |(statement, anchor): (&Sql, &Anchor)| {
        Hit::new(
            anchor,
            format!(
                "dropping a column of {} breaks the release that is running, and its data is gone",
                named(statement)
            ),
        )
    };
    found.map(say).collect()
}
