//! A trigger that changes what writes do from one moment to the next.

use crate::core::id::Phase;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;

pub(super) static RULE: Rule = Rule {
    name: "create-trigger",
    level: Level::Warn,
    about: About::Postgres,
    what: "A trigger that is put on a table in use by a migration without phases.",
    why: "`CREATE TRIGGER` takes a SHARE ROW EXCLUSIVE lock: it waits for every writer that is at work, and all writers wait behind it. From then on each write of the release that is running does more than it was tested for.",
    instead: "Make it in the `prepare` of a migration with phases, with short statements only around it, and drop it in the cleanup if it only bridges two releases.",
    bad: &[
        (
            "up.sql",
            "CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();\n",
        ),
        ("down.sql", "DROP TRIGGER orders_touch ON orders;\n"),
    ],
    good: &[
        (
            "prepare.sql",
            "CREATE TRIGGER orders_touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();\n",
        ),
        ("prepare.down.sql", "DROP TRIGGER orders_touch ON orders;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in subject.sql_up().filter(|statement| statement.phase == Phase::Up) {
        if let Act::CreateTrigger { table, .. } = &statement.act {
            hits.push(statement.hit(format!("this waits for every writer of `{table}`, all writers wait behind it, and from then on their writes do more (SHARE ROW EXCLUSIVE lock)")));
        }
    }
    hits
}
