//! A migration without a way back that does not say why.

use crate::core::id::{Direction, Phase, StoreName};
use crate::core::lint::view::{Hit, Subject};
use crate::core::lint::{About, Level, Rule};
use crate::core::step::Step;

pub(super) static RULE: Rule = Rule {
    name: "irreversible-without-reason",
    level: Level::Warn,
    about: About::Migration,
    what: "An up script without its down script, or a migration of backfills alone without one that goes down, and no `irreversible` in migration.toml.",
    why: "`migrate down` refuses to start on a plan that has such a migration, and at three in the morning nobody knows whether that was meant.",
    instead: "Write the down script; or say why there is none: `irreversible = \"the old column's data is gone\"` in migration.toml.",
    bad: &[("up.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n")],
    good: &[
        ("up.sql", "CREATE TABLE carts (id bigint PRIMARY KEY);\n"),
        ("down.sql", "DROP TABLE carts;\n"),
    ],
    check,
};

fn check(subject: &Subject<'_>) -> Vec<Hit> {
    let view = subject.view;
    if view.migration.options.irreversible.is_some() {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for phase in [Phase::Up, Phase::Prepare, Phase::Cleanup] {
        for store in StoreName::BOTH {
            if !subject.has_script(phase, store) || subject.has_down(phase, store) {
                continue;
            }
            let stem = match phase {
                Phase::Up => "down".to_owned(),
                phase => format!("{}.down", phase.word()),
            };
            let kind = match store {
                StoreName::Postgres => "sql",
                StoreName::Mongo => "mongodb.js",
            };
            let message = format!(
                "there is no `{stem}.{kind}` for this, so `migrate down` refuses to revert it"
            );
            hits.extend(subject.script(phase, store).map(|anchor| Hit::new(&anchor, message)));
        }
    }
    // As the planner has it: what backfills have written goes with what `prepare`
    // added.
    let mut up = view.migration.steps.iter().map(Step::phase);
    let has = |wanted: Phase| view.migration.steps.iter().any(|step| step.phase() == wanted);
    let reverts = view.down.iter().any(|step| step.phase() == Phase::Execute);
    if up.any(|phase| phase == Phase::Execute) && !has(Phase::Prepare) && !reverts {
        let first = view
            .named
            .iter()
            .find(|(step, _)| step.phase() == Phase::Execute && step.direction() == Direction::Up);
        let message = "nothing takes back what this does, so `migrate down` refuses to revert it";
        let help = "Add a `[[backfill]]` or `[[run]]` with `direction = \"down\"`; or say why there is none: `irreversible = \"…\"` in migration.toml.";
        hits.extend(first.map(|(_, anchor)| Hit::new(anchor, message).help(help)));
    }
    hits
}
