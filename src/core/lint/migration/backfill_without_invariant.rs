//! Rows that nobody counts again.

use crate::core::id::Direction;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::manifest::Work;
use crate::core::step::Body;

pub(super) static RULE: Rule = Rule {
    name: "backfill-without-invariant",
    level: Level::Warn,
    about: About::Migration,
    what: "A backfill that writes a table or collection that no invariant asks about.",
    why: "Nothing says whether it has reached every row: those that its filter missed, or that were written beside it, are found by the application.",
    instead: "Write an `[[invariant]]` that counts the rows that should not be there afterwards; its filter is often the backfill's own.",
    bad: &[
        (
            "migration.toml",
            "[[backfill]]\nname = \"orders of the shop\"\npostgres = { table = \"orders\", set = \"channel = 'web'\", where = \"channel IS NULL\" }\n",
        ),
        ("prepare.sql", "ALTER TABLE orders ADD COLUMN channel text;\n"),
        ("prepare.down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    good: &[
        (
            "migration.toml",
            "[[backfill]]\nname = \"orders of the shop\"\npostgres = { table = \"orders\", set = \"channel = 'web'\", where = \"channel IS NULL\" }\n\n[[invariant]]\nname = \"every order has a channel\"\npostgres = \"SELECT count(*) FROM orders WHERE channel IS NULL\"\n",
        ),
        ("prepare.sql", "ALTER TABLE orders ADD COLUMN channel text;\n"),
        ("prepare.down.sql", "ALTER TABLE orders DROP COLUMN channel;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (step, anchor) in &subject.view.named {
        let Body::Backfill(backfill) = &step.body else { continue };
        let target = match &backfill.work {
            Work::Update { table, .. } | Work::Sql { table, .. } | Work::Call { table, .. } => {
                table.to_string()
            }
            Work::CopyToPostgres { to, .. } => to.to_string(),
            Work::Documents { collection, .. } => collection.clone(),
            Work::CopyToMongo { to, .. } => to.clone(),
        };
        let is_up = step.direction() == Direction::Up;
        if is_up && !subject.is_asked(backfill.work.store(), &target) {
            hits.push(Hit::new(
                anchor,
                format!(
                    "no invariant asks about `{target}`, so nothing tells whether `{}` has reached all of it",
                    backfill.title
                ),
            ));
        }
    }
    hits
}
