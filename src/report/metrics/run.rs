//! The figures of one run: a reader of the engine's notices, and how it ended.

use super::text::{Family, count, truth};
use crate::core::history::Timestamp;
use crate::core::id::{StoreName, Version};
use crate::core::notice::Notice;
use crate::core::status::without_number;
use std::collections::BTreeMap;
use std::time::Duration;

/// Of so many steps, and of so many migrations, it is said how long each took: those
/// that took longest. A first run of a thousand migrations is no thousand things to
/// watch.
const SLOWEST: usize = 500;

/// A step, in its store.
type Place = (Version, String, StoreName);

/// What a run did, in figures.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    migrations: BTreeMap<(Version, String), Duration>,
    migrations_done: u64,
    steps: BTreeMap<Place, Duration>,
    steps_done: u64,
    rows: BTreeMap<Place, u64>,
    holds: BTreeMap<(Version, String), bool>,
    differences: BTreeMap<(Version, String), u64>,
}

/// How a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End<'a> {
    /// `up`.
    pub command: &'a str,
    /// The run's id; nothing if it ended before there was a run.
    pub run_id: &'a str,
    /// `--release`, or nothing.
    pub release: &'a str,
    /// The version of this program.
    pub version: &'a str,
    /// Nothing went wrong; something may be left to do.
    pub success: bool,
    /// The exit code.
    pub code: u8,
    /// From the beginning of the command.
    pub took: Duration,
    /// Now.
    pub at: Timestamp,
}

impl Figures {
    /// Takes a notice.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::MigrationFinished { version, folder, took, .. } => {
                let name = without_number(folder).to_owned();
                *self.migrations.entry((*version, name)).or_default() += *took;
                self.migrations_done += 1;
            }
            Notice::StepFinished { version, step, store, took } => {
                // What is done again, after it was rolled back, takes its time again.
                let place = (*version, step.to_string(), *store);
                *self.steps.entry(place).or_default() += *took;
                self.steps_done += 1;
            }
            Notice::BackfillProgress(progress) => {
                let place = (progress.version, progress.step.to_string(), progress.store);
                self.rows.insert(place, progress.rows);
            }
            Notice::InvariantChecked { version, name, holds, count, .. } => {
                // It is asked again right before a cleanup: the last answer counts.
                self.holds.insert((*version, name.clone()), *holds);
                if let Some(count) = count {
                    self.differences.insert((*version, name.clone()), *count);
                }
            }
            Notice::RunStarted { .. }
            | Notice::Waiting { .. }
            | Notice::MigrationStarted { .. }
            | Notice::StepStarted { .. }
            | Notice::StepDelayed { .. }
            | Notice::StepProgress(_)
            | Notice::BatchFinished { .. }
            | Notice::ComparisonProgress(_)
            | Notice::ProgramSaid { .. }
            | Notice::HookStarted { .. }
            | Notice::HookSaid { .. }
            | Notice::HookFinished { .. }
            | Notice::Remark(_) => {}
        }
    }

    /// All of it. Each value says of which command it is: two commands that leave
    /// their figures in one place do not mix them up.
    pub fn families(&self, end: &End<'_>) -> Vec<Family> {
        let command = || ("command", end.command.to_owned());
        let one = |name, help, value| Family::gauge(name, help).with(vec![command()], value);
        let of_migration = |(version, name): &(Version, String)| {
            vec![command(), ("version", version.to_string()), ("name", name.clone())]
        };
        let of_step = |(version, step, store): &Place| {
            let store = ("store", store.word().to_owned());
            vec![command(), ("version", version.to_string()), ("step", step.clone()), store]
        };
        let mut info = vec![command()];
        for (name, value) in
            [("run_id", end.run_id), ("version", end.version), ("release", end.release)]
        {
            info.push((name, value.to_owned()));
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of our time are exact")]
        let now = end.at.0 as f64 / 1000.0;
        let mut families = vec![
            Family::gauge("lockstep_run_info", "The last run that ended; always 1.")
                .with(info, 1.0),
            one("lockstep_run_success", "Whether the last run succeeded.", truth(end.success)),
            one("lockstep_run_exit_code", "How the last run ended.", f64::from(end.code)),
            one(
                "lockstep_run_duration_seconds",
                "How long the last run took, waiting included.",
                end.took.as_secs_f64(),
            ),
            one(
                "lockstep_run_finished_timestamp_seconds",
                "When the last run ended, in seconds since 1970.",
                now,
            ),
            one(
                "lockstep_run_migrations",
                "Migrations that the last run finished.",
                count(self.migrations_done),
            ),
            one("lockstep_run_steps", "Steps that the last run did.", count(self.steps_done)),
        ];
        let mut add = |name, help, samples: Vec<(Vec<(&'static str, String)>, f64)>| {
            let mut family = Family::gauge(name, help);
            for (labels, value) in samples {
                family.add(labels, value);
            }
            families.push(family);
        };
        let seconds = |took: Duration| took.as_secs_f64();
        let steps = slowest(&self.steps).map(|(place, took)| (of_step(place), seconds(took)));
        add(
            "lockstep_run_step_duration_seconds",
            "How long a step took in the last run; of the slowest ones.",
            steps.collect(),
        );
        let migrations =
            slowest(&self.migrations).map(|(place, took)| (of_migration(place), seconds(took)));
        add(
            "lockstep_run_migration_duration_seconds",
            "How long a migration took in the last run; of the slowest ones.",
            migrations.collect(),
        );
        let rows = self.rows.iter().map(|(place, rows)| (of_step(place), count(*rows)));
        add(
            "lockstep_run_backfill_rows",
            "Rows that a backfill has written when the last run ended, in all runs.",
            rows.collect(),
        );
        let holds = self.holds.iter().map(|(place, holds)| (of_migration(place), truth(*holds)));
        add(
            "lockstep_run_invariant_holds",
            "Whether an invariant held when the last run asked it.",
            holds.collect(),
        );
        let differences = self.differences.iter();
        let differences = differences.map(|(place, number)| (of_migration(place), count(*number)));
        add(
            "lockstep_run_comparison_differences",
            "Rows that are not the same in both stores, when the last run compared them.",
            differences.collect(),
        );
        families
    }
}

/// Those that took longest, in order.
fn slowest<K: Ord>(all: &BTreeMap<K, Duration>) -> impl Iterator<Item = (&K, Duration)> {
    let mut times: Vec<Duration> = all.values().copied().collect();
    times.sort_unstable_by(|one, other| other.cmp(one));
    let least = times.get(SLOWEST).copied();
    // Of those that took as long as the first one too many, none.
    let is_among = move |took: &Duration| least.is_none_or(|least| *took > least);
    all.iter().map(|(key, took)| (key, *took)).filter(move |(_, took)| is_among(took))
}

#[cfg(test)]
mod tests {
    use super::super::text::render;
    use super::*;
    use crate::core::id::{Direction, StepName};
    use crate::core::notice::{BackfillProgress, BackfillState};
    use expect_test::expect;

    fn end() -> End<'static> {
        End {
            command: "up",
            run_id: "r-1",
            release: "",
            version: "0.1.0",
            success: true,
            code: 0,
            took: Duration::from_millis(1500),
            at: Timestamp(1_763_740_000_250),
        }
    }

    fn name(text: &str) -> StepName {
        text.parse().expect("a step")
    }

    fn finished(version: u64, step: &str, millis: u64) -> Notice {
        Notice::StepFinished {
            version: Version(version),
            step: name(step),
            store: StoreName::Postgres,
            took: Duration::from_millis(millis),
        }
    }

    fn checked(text: &str, holds: bool, count: Option<u64>) -> Notice {
        Notice::InvariantChecked {
            version: Version(7),
            name: text.to_owned(),
            holds,
            expected: String::new(),
            found: String::new(),
            sample: Vec::new(),
            differences: Vec::new(),
            count,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn a_run_that_did_nothing_says_so() {
        expect![[r##"
            # HELP lockstep_run_info The last run that ended; always 1.
            # TYPE lockstep_run_info gauge
            lockstep_run_info{command="up",run_id="r-1",version="0.1.0",release=""} 1
            # HELP lockstep_run_success Whether the last run succeeded.
            # TYPE lockstep_run_success gauge
            lockstep_run_success{command="up"} 1
            # HELP lockstep_run_exit_code How the last run ended.
            # TYPE lockstep_run_exit_code gauge
            lockstep_run_exit_code{command="up"} 0
            # HELP lockstep_run_duration_seconds How long the last run took, waiting included.
            # TYPE lockstep_run_duration_seconds gauge
            lockstep_run_duration_seconds{command="up"} 1.5
            # HELP lockstep_run_finished_timestamp_seconds When the last run ended, in seconds since 1970.
            # TYPE lockstep_run_finished_timestamp_seconds gauge
            lockstep_run_finished_timestamp_seconds{command="up"} 1763740000.25
            # HELP lockstep_run_migrations Migrations that the last run finished.
            # TYPE lockstep_run_migrations gauge
            lockstep_run_migrations{command="up"} 0
            # HELP lockstep_run_steps Steps that the last run did.
            # TYPE lockstep_run_steps gauge
            lockstep_run_steps{command="up"} 0
        "##]].assert_eq(&render(&Figures::default().families(&end())));
    }

    #[test]
    fn what_a_run_did_is_counted() {
        let mut figures = Figures::default();
        figures.notice(&finished(7, "up/postgres/1", 250));
        figures.notice(&finished(7, "up/postgres/1", 250));
        figures.notice(&Notice::MigrationFinished {
            version: Version(7),
            folder: "007-add-users".to_owned(),
            direction: Direction::Up,
            took: Duration::from_millis(750),
        });
        for rows in [10, 30] {
            figures.notice(&Notice::BackfillProgress(Box::new(BackfillProgress {
                version: Version(7),
                step: name("up/postgres/1"),
                store: StoreName::Postgres,
                rows,
                passed: 40,
                rejected: 0,
                estimate: 50,
                rate_now: 0,
                rate: 0,
                left: None,
                batch: 10,
                state: BackfillState::Running,
                unwatched: Vec::new(),
            })));
        }
        figures.notice(&checked("all \"there\"", true, None));
        figures.notice(&checked("the same", true, Some(0)));
        figures.notice(&checked("the same", false, Some(3)));
        let text = render(&figures.families(&End { release: "2.0", ..end() }));
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            lockstep_run_info{command="up",run_id="r-1",version="0.1.0",release="2.0"} 1
            lockstep_run_success{command="up"} 1
            lockstep_run_exit_code{command="up"} 0
            lockstep_run_duration_seconds{command="up"} 1.5
            lockstep_run_finished_timestamp_seconds{command="up"} 1763740000.25
            lockstep_run_migrations{command="up"} 1
            lockstep_run_steps{command="up"} 2
            lockstep_run_step_duration_seconds{command="up",version="007",step="up/postgres/1",store="postgres"} 0.5
            lockstep_run_migration_duration_seconds{command="up",version="007",name="add-users"} 0.75
            lockstep_run_backfill_rows{command="up",version="007",step="up/postgres/1",store="postgres"} 30
            lockstep_run_invariant_holds{command="up",version="007",name="all \"there\""} 1
            lockstep_run_invariant_holds{command="up",version="007",name="the same"} 0
            lockstep_run_comparison_differences{command="up",version="007",name="the same"} 3"#]].assert_eq(&values.join("\n"));
    }

    #[test]
    fn of_many_steps_the_slowest_are_told() {
        let mut figures = Figures::default();
        for version in 1..=1000 {
            figures.notice(&finished(version, "up/postgres/1", version));
        }
        let families = figures.families(&end());
        let told = families.iter().find(|it| it.name == "lockstep_run_step_duration_seconds");
        let samples = &told.expect("it is there").samples;
        assert_eq!(samples.len(), SLOWEST);
        assert!(samples.iter().all(|sample| sample.value > 0.5), "{samples:?}");
        let done = families.iter().find(|it| it.name == "lockstep_run_steps").expect("there");
        assert!((done.samples[0].value - 1000.0).abs() < f64::EPSILON);
    }
}
