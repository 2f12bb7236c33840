//! A column that is called otherwise from one moment to the next.

use crate::core::id::{Direction, Phase};
use crate::core::lint::known::Known;
use crate::core::lint::view::{Anchor, Hit, Sql, Subject, named};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "rename-column",
    level: Level::Warn,
    about: About::Postgres,
    what: "A column of a table in use that is renamed.",
    why: "The release that is running asks for the old name, and each of its queries fails from that moment on; the next release fails until then.",
    instead: "Add a column of the new name in `prepare`, keep both alike with a trigger, and drop the old one in the cleanup.",
    bad: &[
        ("up.sql", "ALTER TABLE users RENAME COLUMN mail TO email;\n"),
        ("down.sql", "ALTER TABLE users RENAME COLUMN email TO mail;\n"),
    ],
    good: &[
        ("prepare.sql", "ALTER TABLE users ADD COLUMN email text;\n"),
        ("prepare.down.sql", "ALTER TABLE users DROP COLUMN email;\n"),
    ],
    check,
};

const CLEANUP: &str = "Leave the column the name that `prepare` gave it. Or let the release that runs by then ask for either name, and say so: `-- lockstep:ignore rename-column the release that is left asks for either name`.";

/// Of a `prepare` another rule says more.
fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let found = subject.known(Known::RenameColumn);
    let found = found.filter(|(statement, _)| {
        statement.direction == Direction::Up && statement.phase != Phase::Prepare
    });
    let say = |(statement, anchor): (&Sql, &Anchor)| {
        let hit = Hit::new(
            anchor,
            format!(
                "a release that asks {} for the old name fails from this moment on",
                named(statement)
            ),
        );
        // The old column is gone already, and a new one of its name would be no help.
        match statement.phase {
            Phase::Cleanup => hit.help(CLEANUP),
            _ => hit,
        }
    };
    found.map(say).collect()
}
