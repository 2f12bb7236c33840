//! A statement that nobody can read before it runs.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "dynamic-sql",
    level: Level::Warn,
    about: About::Postgres,
    what: "`EXECUTE` of a text that is put together when it runs, in a `DO` block.",
    why: "No rule sees which tables it locks or what it destroys, and neither does `migrate plan`. What else the block does is looked at.",
    instead: "Write the statements out. If their number is not known beforehand, suppress this, and say what it does.",
    bad: &[
        (
            "up.sql",
            "DO $$\nDECLARE part regclass;\nBEGIN\n  FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'events'::regclass LOOP\n    EXECUTE format('ALTER TABLE %s ADD COLUMN source text', part);\n  END LOOP;\nEND $$;\n",
        ),
        ("down.sql", "SELECT 1;\n"),
    ],
    good: &[
        ("up.sql", "ALTER TABLE events ADD COLUMN source text;\n"),
        ("down.sql", "ALTER TABLE events DROP COLUMN source;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let message = "what this runs is put together when it runs: no rule and no plan can tell what it locks or destroys";
    let places = subject.sql().flat_map(|statement| &statement.dynamic);
    places.map(|anchor| Hit::new(anchor, message)).collect()
}
