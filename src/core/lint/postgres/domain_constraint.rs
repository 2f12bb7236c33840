//! A domain that looks at every row of every table.

use crate::core::lint::known::Known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::parse::sql::outline::names;

pub(super) static RULE: Rule = Rule {
    name: "domain-constraint",
    level: Level::Warn,
    about: About::Postgres,
    what: "A constraint that is added to a domain.",
    why: "Every column of the domain, in every table, is read behind a SHARE lock: writes to all those tables wait.",
    instead: "Add it `NOT VALID`, and `ALTER DOMAIN … VALIDATE CONSTRAINT` in a later migration; or put a CHECK constraint on the tables.",
    bad: &[
        ("up.sql", "ALTER DOMAIN email ADD CONSTRAINT has_at CHECK (VALUE LIKE '%@%');\n"),
        ("down.sql", "ALTER DOMAIN email DROP CONSTRAINT has_at;\n"),
    ],
    good: &[
        (
            "up.sql",
            "ALTER DOMAIN email ADD CONSTRAINT has_at CHECK (VALUE LIKE '%@%') NOT VALID;\n",
        ),
        ("down.sql", "ALTER DOMAIN email DROP CONSTRAINT has_at;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let found = subject.known(Known::DomainConstraint);
    // `NOT VALID` is found too, and looks at no row.
    let found = found.filter(|(statement, _)| !names(&statement.text, "valid"));
    let message = "every column of this domain is read, in every table, and writes to all of them wait (SHARE lock)";
    found.map(|(_, anchor)| Hit::new(anchor, message)).collect()
}
