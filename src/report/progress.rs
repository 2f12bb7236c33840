//! How far long work is: a bar where something can move, a line elsewhere.

use crate::core::grouped::grouped;
use crate::core::notice::{BackfillProgress, BackfillState, ComparisonProgress, StepProgress};
use crate::report::human::{Look, clip, duration, wrap};
use std::time::Duration;

/// A bar is not wider than this: nobody reads more off it.
const BAR_MAX: usize = 40;

/// Nor narrower.
const BAR_MIN: usize = 8;

/// What most figures take: ` 41 %  29,825/s  1 min 51 s left`.
const FIGURES: usize = 32;

/// How far one thing is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Meter {
    /// What it is called.
    pub name: String,
    /// How much of it is done.
    pub percent: Option<u64>,
    /// `5,300/s`.
    pub rate: Option<String>,
    /// About how long it still takes.
    pub left: Option<Duration>,
    /// In numbers.
    pub counts: String,
    /// Why it is slow, or stands still.
    pub held_up: Option<String>,
}

impl Meter {
    /// Of a backfill or a copy.
    pub fn of_backfill(progress: &BackfillProgress) -> Meter {
        let BackfillProgress { rows, passed, estimate, rate_now, batch, rejected, .. } = progress;
        let mut counts = format!(
            "{} of about {} keys, {} rows",
            grouped(*passed),
            grouped(*estimate),
            grouped(*rows)
        );
        if *rejected > 0 {
            counts.push_str(&format!(", {} put aside", grouped(*rejected)));
        }
        let held_up = match &progress.state {
            BackfillState::Running => None,
            BackfillState::Slow(why) => Some(format!("slow: {why}")),
            BackfillState::Stopped(why) => Some(format!("stands still: {why}")),
        };
        let stands = matches!(progress.state, BackfillState::Stopped(_));
        if !stands {
            counts.push_str(&format!(", batch {}", grouped(*batch)));
        }
        Meter {
            name: progress.step.to_string(),
            percent: Some(progress.percent()),
            rate: (!stands).then(|| format!("{}/s", grouped(*rate_now))),
            left: progress.left.filter(|left| !left.is_zero()),
            counts,
            held_up,
        }
    }

    /// Of a comparison.
    pub fn of_comparison(progress: &ComparisonProgress) -> Meter {
        let left = progress.estimate.saturating_sub(progress.rows).checked_div(progress.rate);
        let held_up = match progress.undecided {
            0 => None,
            1 => Some("1 difference is looked at again".to_owned()),
            more => Some(format!("{more} differences are looked at again")),
        };
        Meter {
            name: progress.name.clone(),
            percent: Some(progress.percent()),
            rate: Some(format!("{}/s", grouped(progress.rate))),
            left: left.filter(|_| !progress.is_read).map(Duration::from_secs),
            counts: format!(
                "{} of about {} rows compared",
                grouped(progress.rows),
                grouped(progress.estimate)
            ),
            held_up,
        }
    }

    /// Of a statement, where the server counts.
    pub fn of_step(progress: &StepProgress) -> Option<Meter> {
        let doing = progress.doing.as_ref()?;
        let of = match doing.total {
            0 => String::new(),
            total => {
                format!(", {} of {} {}", grouped(doing.done), grouped(total), doing.unit)
            }
        };
        Some(Meter {
            name: progress.step.to_string(),
            percent: doing.percent(),
            rate: (progress.rate > 0).then(|| format!("{}/s", grouped(progress.rate))),
            left: progress.left,
            counts: format!("{}{of}, for {}", doing.what, duration(progress.took)),
            held_up: None,
        })
    }

    /// `41 %  123 of 400 blocks  5,300/s  1 min 51 s left`, without its name.
    pub fn line(&self) -> String {
        let percent = self.percent.map(|percent| format!("{percent} %"));
        let left = self.left.map(|left| format!("{} left", duration(left)));
        let parts = [percent, Some(self.counts.clone()), self.rate.clone(), left];
        let parts = parts.into_iter().chain([self.held_up.clone()]).flatten();
        parts.collect::<Vec<_>>().join("  ")
    }

    /// Its lines on a terminal, none of them wider than that.
    pub fn bar(&self, look: Look) -> String {
        let percent = self.percent.map_or_else(String::new, |it| format!("{it:>3} %"));
        let rate = self.rate.clone().unwrap_or_default();
        let left = self.left.map(|left| format!("{} left", duration(left))).unwrap_or_default();
        let figures = [percent, rate, left].into_iter().filter(|it| !it.is_empty());
        let figures = figures.collect::<Vec<_>>().join("  ");
        // Bars do not jump when a number gets shorter.
        let figures_room = figures.chars().count().max(FIGURES);
        let room = look.width.saturating_sub(figures_room + 8);
        // Where there is no room, the name has a line of its own.
        let narrow = room < 2 * BAR_MIN;
        let (name, length) = match narrow {
            true => (
                format!("{}\n  ", clip(&self.name, look.width.saturating_sub(2))),
                look.width.saturating_sub(figures_room + 8).max(1),
            ),
            false => {
                let name = clip(&self.name, room - BAR_MIN);
                let length = (room - name.chars().count()).clamp(BAR_MIN, BAR_MAX);
                (format!("{name}  "), length)
            }
        };
        let done = usize::try_from(self.percent.unwrap_or(0)).unwrap_or(0) * length / 100;
        let arrow = usize::from(done < length);
        let bar = format!(
            "{}{}{}",
            "=".repeat(done),
            ">".repeat(arrow),
            " ".repeat(length - done - arrow)
        );
        let mut text = match self.percent {
            Some(_) => format!("  {name}[{}]  {figures}", look.good(&bar)),
            // Nobody knows how much there is.
            None => format!("  {name}{figures}").trim_end().to_owned(),
        };
        let room = look.width.saturating_sub(5);
        for part in wrap(&self.counts, room) {
            text.push_str(&format!("\n    {}", look.dim(&part)));
        }
        for part in self.held_up.iter().flat_map(|why| wrap(why, room)) {
            text.push_str(&format!("\n    {}", look.warn(&part)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::{StoreName, Version};
    use crate::core::notice::Doing;
    use expect_test::expect;

    fn meters() -> Vec<Meter> {
        let mut backfill = BackfillProgress {
            rejected: 3,
            version: Version(2),
            step: "execute/roles".parse().expect("a name"),
            store: StoreName::Postgres,
            rows: 400_112,
            passed: 412_000,
            estimate: 1_000_000,
            rate_now: 5_300,
            rate: 999,
            left: Some(Duration::from_secs(111)),
            batch: 2_400,
            state: BackfillState::Slow("a standby is 4.1 s behind (limit 5 s)".to_owned()),
            unwatched: Vec::new(),
        };
        let slow = Meter::of_backfill(&backfill);
        backfill.state = BackfillState::Stopped("paused: lunch".to_owned());
        backfill.left = None;
        let comparison = ComparisonProgress {
            version: Version(2),
            name: "users are the same in both stores".to_owned(),
            rows: 800_000,
            estimate: 1_000_000,
            rate: 310_000,
            undecided: 12,
            is_read: false,
        };
        let doing = Doing {
            what: "building index: scanning table".to_owned(),
            done: 123,
            total: 400,
            unit: "blocks",
        };
        let step = StepProgress {
            version: Version(3),
            step: "up/postgres/1".parse().expect("a name"),
            store: StoreName::Postgres,
            took: Duration::from_secs(41),
            doing: Some(doing),
            rate: 3,
            left: Some(Duration::from_secs(92)),
        };
        let step = Meter::of_step(&step).expect("the server counts");
        vec![slow, Meter::of_backfill(&backfill), Meter::of_comparison(&comparison), step]
    }

    #[test]
    fn bars_fit_and_say_all() {
        let at = |width| {
            let look = Look { colour: false, terminal: true, width };
            let bars: Vec<String> = meters().iter().map(|meter| meter.bar(look)).collect();
            let text = bars.join("\n");
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            text.lines().map(|line| format!("|{line}")).collect::<Vec<_>>().join("\n")
        };
        expect![[r#"
            |  execute/roles  [===========>               ]   41 %  5,300/s  1 min 51 s left
            |    412,000 of about 1,000,000 keys, 400,112 rows, 3 put aside, batch 2,400
            |    slow: a standby is 4.1 s behind (limit 5 s)
            |  execute/roles  [===========>               ]   41 %
            |    412,000 of about 1,000,000 keys, 400,112 rows, 3 put aside
            |    stands still: paused: lunch
            |  users are the same in both stor…  [======> ]   80 %  310,000/s  0 ms left
            |    800,000 of about 1,000,000 rows compared
            |    12 differences are looked at again
            |  up/postgres/1  [========>                  ]   30 %  3/s  1 min 32 s left
            |    building index: scanning table, 123 of 400 blocks, for 41.0 s"#]]
        .assert_eq(&at(80));
        expect![[r#"
            |  execute/roles
            |  [==>   ]   41 %  5,300/s  1 min 51 s left
            |    412,000 of about 1,000,000 keys,
            |    400,112 rows, 3 put aside, batch 2,400
            |    slow: a standby is 4.1 s behind (limit 5
            |    s)
            |  execute/roles
            |  [==>   ]   41 %
            |    412,000 of about 1,000,000 keys,
            |    400,112 rows, 3 put aside
            |    stands still: paused: lunch
            |  users are the same in both stores
            |  [====> ]   80 %  310,000/s  0 ms left
            |    800,000 of about 1,000,000 rows compared
            |    12 differences are looked at again
            |  up/postgres/1
            |  [=>    ]   30 %  3/s  1 min 32 s left
            |    building index: scanning table, 123 of
            |    400 blocks, for 41.0 s"#]]
        .assert_eq(&at(46));
    }

    #[test]
    fn lines_say_the_same() {
        let lines: Vec<String> = meters().iter().map(Meter::line).collect();
        expect![[r#"
            41 %  412,000 of about 1,000,000 keys, 400,112 rows, 3 put aside, batch 2,400  5,300/s  1 min 51 s left  slow: a standby is 4.1 s behind (limit 5 s)
            41 %  412,000 of about 1,000,000 keys, 400,112 rows, 3 put aside  stands still: paused: lunch
            80 %  800,000 of about 1,000,000 rows compared  310,000/s  0 ms left  12 differences are looked at again
            30 %  building index: scanning table, 123 of 400 blocks, for 41.0 s  3/s  1 min 32 s left"#]].assert_eq(&lines.join("\n"));
    }
}
