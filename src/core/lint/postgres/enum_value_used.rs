//! A value of an enum that is used too soon.

use crate::core::lint::view::{Hit, Sql, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::{Act, has_constant};

pub(super) static RULE: Rule = Rule {
    name: "enum-value-used",
    level: Level::Error,
    about: About::Postgres,
    what: "A value that is added to an enum and used in the same transaction.",
    why: "Postgres refuses it: `unsafe use of new value`. A value can be used only after the transaction that added it.",
    instead: "Put what uses it into the next migration, or into a later phase; or write `transaction = false` in migration.toml.",
    bad: &[
        (
            "up.sql",
            "ALTER TYPE status ADD VALUE 'returned';\nUPDATE orders SET status = 'returned' WHERE returned_at IS NOT NULL;\n",
        ),
        ("migration.toml", "irreversible = \"a value cannot be taken out of an enum\"\n"),
    ],
    good: &[
        ("up.sql", "ALTER TYPE status ADD VALUE 'returned';\n"),
        ("migration.toml", "irreversible = \"a value cannot be taken out of an enum\"\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for (at, adds) in subject.view.sql.iter().enumerate() {
        let Act::AddValue { of, value } = &adds.act else { continue };
        let is_new = |other: &Sql| {
            let made = matches!(&other.act, Act::Create { what, name } if what == "type" && name.name == of.name);
            made && other.step == adds.step
        };
        if subject.view.sql.iter().any(is_new) {
            continue;
        }
        let later = subject.view.sql[at + 1..].iter().filter(|it| it.step == adds.step);
        let uses = later.filter(|it| has_constant(&it.text, value));
        let message = format!(
            "`{value}` was added to `{of}` in this transaction, and Postgres refuses its use before that is committed"
        );
        hits.extend(uses.map(|it| it.hit(message.clone())));
    }
    hits
}
