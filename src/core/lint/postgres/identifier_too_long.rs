//! A name that Postgres cuts.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "identifier-too-long",
    level: Level::Warn,
    about: About::Postgres,
    what: "A name of more than 63 bytes.",
    why: "Postgres cuts it and says nothing but a notice. Two long names may become one, and whoever looks for the whole name does not find it.",
    instead: "Find a shorter name.",
    bad: &[
        (
            "up.sql",
            "CREATE TABLE a_table_with_a_name_that_says_everything_there_is_to_say_about_it (id bigint PRIMARY KEY);\n",
        ),
        (
            "down.sql",
            "DROP TABLE a_table_with_a_name_that_says_everything_there_is_to_say_about_it;\n",
        ),
    ],
    good: &[
        ("up.sql", "CREATE TABLE shorter (id bigint PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE shorter;\n"),
    ],
    check,
};

/// A new table's name is as long as an old one's.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let statements = subject.view.sql.iter();
    let found = statements.flat_map(|statement| &statement.known);
    let found = found.filter(|(known, _)| *known == Known::IdentifierTooLong);
    let message = "this name has more than 63 bytes, and Postgres cuts it";
    found.map(|(_, anchor)| Hit::new(anchor, message)).collect()
}
