//! A statement whose hazards nobody can tell.

use crate::core::lint::known;
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};

pub(super) static RULE: Rule = Rule {
    name: "unreadable-sql",
    level: Level::Warn,
    about: About::Postgres,
    what: "A `CREATE`, `ALTER`, `DROP` or `REINDEX` that the parser of this program does not understand.",
    why: "Most rules see nothing in it, and `migrate plan` does not know what it locks. Postgres has the last word: it may be right, or fail when it is run.",
    instead: "Try it in `migrate sandbox`. If Postgres takes it, look up what it locks, and suppress this with what you found.",
    bad: &[
        ("up.sql", "ALTER TABLE users ADD COLUMN email text WITHOUT OVERLAP;\n"),
        ("down.sql", "ALTER TABLE users DROP COLUMN email;\n"),
    ],
    good: &[
        ("up.sql", "ALTER TABLE users ADD COLUMN email text;\n"),
        ("down.sql", "ALTER TABLE users DROP COLUMN email;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    for statement in &subject.view.sql {
        if let Some(why) = known::unread(&statement.text) {
            hits.push(statement.hit(format!(
                "nobody looked for hazards in this statement: {why}; what it locks is not known"
            )));
        }
    }
    hits
}
