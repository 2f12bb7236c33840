//! A lock that is taken by hand.

use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::Act;

pub(super) static RULE: Rule = Rule {
    name: "lock-table",
    level: Level::Warn,
    about: About::Postgres,
    what: "`LOCK TABLE` in a mode that stops writers.",
    why: "The lock is kept to the end of the transaction: whatever else the script does, others wait for that long. And it waits for whoever is there, with everybody queueing behind it.",
    instead: "Leave it out: each statement takes the lock that it needs. To ask a question and act on the answer with nobody in between, use an invariant with `locked = true`.",
    bad: &[
        (
            "up.sql",
            "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;\nALTER TABLE orders ADD COLUMN channel text;\n",
        ),
        ("down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    good: &[
        ("up.sql", "ALTER TABLE orders ADD COLUMN channel text;\n"),
        ("down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    const WEAK: [&str; 4] =
        ["ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"];
    let mut hits = Vec::new();
    for statement in subject.sql() {
        let Act::Lock { tables, mode } = &statement.act else { continue };
        let old = tables.iter().find(|table| !subject.is_new_table(table));
        if let (false, Some(table)) = (WEAK.contains(&mode.as_str()), old) {
            let who = match mode.as_str() {
                "ACCESS EXCLUSIVE" => "reads and writes",
                _ => "writes",
            };
            hits.push(statement.hit(format!(
                "{who} of `{table}` wait from here to the end of the transaction ({mode})"
            )));
        }
    }
    hits
}
