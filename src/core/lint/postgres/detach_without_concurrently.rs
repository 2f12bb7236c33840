//! A partition that is detached while everybody waits.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "detach-without-concurrently",
    level: Level::Warn,
    about: About::Postgres,
    what: "`DETACH PARTITION` without `CONCURRENTLY`.",
    why: "It takes an ACCESS EXCLUSIVE lock on the partitioned table: all reads and writes of all partitions wait behind it, and it waits for every query that is running there.",
    instead: "Write `DETACH PARTITION … CONCURRENTLY` (Postgres 14 and newer).",
    bad: &[
        ("up.sql", "ALTER TABLE events DETACH PARTITION events_2019;\n"),
        ("down.sql", "SELECT 1;\n"),
    ],
    good: &[
        ("up.sql", "ALTER TABLE events DETACH PARTITION events_2019 CONCURRENTLY;\n"),
        ("down.sql", "SELECT 1;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    subject.hits(Known::DetachWithoutConcurrently, |table| {
        format!(
            "detaching a partition locks {table} and all its partitions against reads and writes (ACCESS EXCLUSIVE lock)"
        )
    })
}
