//! Backups that somebody recorded, and whether a cleanup may begin with them.
//!
//! A backup is recorded in the store that it is of: a store that was restored from
//! an older one has forgotten those that came later, and so it should.

use crate::core::duration::show;
use crate::core::history::Timestamp;
use crate::core::id::{Direction, Phase, StoreName, Version};
use crate::core::plan::Work;
use crate::core::step::Body;
use std::fmt;
use std::time::Duration;

/// The clock of whoever made the backup may be ahead of the server's by this much.
/// A time that lies further ahead is a mistake, or made up, and would keep the gate
/// open for ever.
pub const CLOCK_SLACK: Duration = Duration::from_mins(1);

/// So much of the pair's UUID stands in the record: enough to tell two of them apart.
const PAIR_DIGITS: usize = 8;

/// A backup of one store, as its audit log has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backup {
    /// The command that recorded it.
    pub run_id: String,
    /// When it was taken: what was written later is not in it.
    pub taken_at: Timestamp,
    /// When it was recorded, by the server's clock.
    pub recorded_at: Timestamp,
    /// `user@host`.
    pub by: String,
    /// The newest migration that was applied when it was recorded.
    pub version: Option<Version>,
    /// What else is known of it.
    pub label: Label,
}

/// What the record of a backup says about it, in the audit log's `reason`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Label {
    /// Where it is.
    pub location: Option<String>,
    /// In bytes.
    pub size: Option<u64>,
    /// The beginning of the UUID of the pair that the store belonged to.
    pub pair: Option<String>,
}

impl Label {
    /// Of a store of this pair.
    pub fn new(location: Option<String>, size: Option<u64>, pair: &str) -> Label {
        Label { location, size, pair: Some(beginning(pair)) }
    }

    /// Reads what `Display` wrote. What it did not write is a location.
    pub fn read(text: &str) -> Label {
        let known = || {
            let inner = text.strip_suffix(')')?;
            let (location, inner) = match inner.rsplit_once(" (") {
                Some((location, inner)) => (Some(location.to_owned()), inner),
                None => (None, inner.strip_prefix('(')?),
            };
            let mut label = Label { location, ..Label::default() };
            for part in inner.split(", ") {
                if let Some(pair) = part.strip_prefix("pair ") {
                    label.pair = Some(pair.to_owned());
                } else {
                    label.size = Some(part.strip_suffix(" bytes")?.parse().ok()?);
                }
            }
            label.pair.is_some().then_some(label)
        };
        known().unwrap_or_else(|| Label { location: Some(text.to_owned()), ..Label::default() })
    }

    /// Whether it is of a store of this pair.
    fn is_of(&self, pair: Option<&str>) -> bool {
        self.pair.is_some() && self.pair == pair.map(beginning)
    }
}

fn beginning(pair: &str) -> String {
    pair.chars().take(PAIR_DIGITS).collect()
}

/// `/backups/shop.dump (18234 bytes, pair 5be1c0de)`.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Label { location, size, pair } = self;
        let size = size.map(|size| format!("{size} bytes"));
        let pair = pair.as_ref().map(|pair| format!("pair {pair}"));
        let inner: Vec<String> = size.into_iter().chain(pair).collect();
        match (location, inner.is_empty()) {
            (Some(location), true) => f.write_str(location),
            (Some(location), false) => write!(f, "{location} ({})", inner.join(", ")),
            (None, _) => write!(f, "({})", inner.join(", ")),
        }
    }
}

/// What one store says of its backups.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Backups {
    /// What the server's clock says.
    pub clock: Timestamp,
    /// The pair that the store belongs to.
    pub pair: Option<String>,
    /// Newest first.
    pub backups: Vec<Backup>,
}

/// Whether there is a backup of a store that is young enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// There is.
    Fresh {
        /// How old.
        age: Duration,
    },
    /// The newest is too old.
    Old {
        /// How old.
        age: Duration,
    },
    /// There are only those whose time is still to come.
    Ahead {
        /// By how much.
        by: Duration,
    },
    /// They were recorded when this store belonged to another pair.
    OtherPair,
    /// None was ever recorded.
    Never,
}

impl Standing {
    /// Whether a cleanup may begin.
    pub fn is_enough(self) -> bool {
        matches!(self, Standing::Fresh { .. })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Fresh { age } | Standing::Old { age } => {
                write!(f, "last one {} ago", about(*age))
            }
            Standing::Ahead { by } => write!(f, "the last one is dated {} ahead", about(*by)),
            Standing::OtherPair => f.write_str("recorded only for another pair"),
            Standing::Never => f.write_str("none is recorded"),
        }
    }
}

/// How it stands with the backups of one store, where each may have this age.
pub fn standing(seen: &Backups, limit: Duration) -> Standing {
    let ours: Vec<&Backup> =
        seen.backups.iter().filter(|it| it.label.is_of(seen.pair.as_deref())).collect();
    let ahead = |it: &&&Backup| between(seen.clock, it.taken_at);
    let newest = ours.iter().filter(|it| ahead(it) <= CLOCK_SLACK).map(|it| it.taken_at).max();
    match newest.map(|taken_at| between(taken_at, seen.clock)) {
        Some(age) if age < limit => Standing::Fresh { age },
        Some(age) => Standing::Old { age },
        None => match (ours.iter().min_by_key(|it| it.taken_at), seen.backups.is_empty()) {
            (Some(first), _) => Standing::Ahead { by: between(seen.clock, first.taken_at) },
            (None, false) => Standing::OtherPair,
            (None, true) => Standing::Never,
        },
    }
}

/// From one time to another; nothing, if they are the other way round.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// `40 s`, `12 min`, `3 h`, `2 days`.
pub fn about(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// The stores that the cleanup in this work touches; none, if there is no cleanup in
/// it. A program may touch every store that there is.
pub fn touched(work: &Work, configured: &[StoreName]) -> Vec<StoreName> {
    let cleanup: Vec<_> = work
        .steps()
        .filter(|step| step.direction() == Direction::Up && step.phase() == Phase::Cleanup)
        .collect();
    let touches = |store: &StoreName| {
        cleanup.iter().any(|step| match &step.body {
            Body::Check(_) => false,
            Body::Program(_) => true,
            Body::Postgres(_) | Body::Mongo(_) | Body::Backfill(_) => step.store() == *store,
        })
    };
    configured.iter().copied().filter(touches).collect()
}

/// What a cleanup needs before it begins, and what there is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Required {
    /// No backup may be older.
    pub limit: Duration,
    /// Each store that it touches.
    pub stores: Vec<(StoreName, Standing)>,
}

impl Required {
    /// Whether the cleanup may begin.
    pub fn is_met(&self) -> bool {
        self.stores.iter().all(|(_, standing)| standing.is_enough())
    }

    /// The stores of which there is no backup that is young enough.
    pub fn lacking(&self) -> Vec<StoreName> {
        let lacking = self.stores.iter().filter(|(_, standing)| !standing.is_enough());
        lacking.map(|(store, _)| *store).collect()
    }
}

/// `a backup younger than 24h: Postgres last one 3 h ago, MongoDB none is recorded`.
impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores: Vec<String> = self
            .stores
            .iter()
            .map(|(store, standing)| match self.stores.len() {
                1 => standing.to_string(),
                _ => format!("{}: {standing}", store.title()),
            })
            .collect();
        let what = match self.stores.as_slice() {
            [(store, _)] => format!("a backup of {}", store.title()),
            _ => "backups".to_owned(),
        };
        write!(f, "{what} younger than {}; {}", show(self.limit), stores.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checksum::Checksum;
    use crate::core::migration::Rollback;
    use crate::core::parse::folder::{self, Folder};
    use crate::core::plan::{Action, Attempt};

    const NOW: i64 = 1_795_290_423_000;
    const PAIR: &str = "5be1c0de-0c90-4129-81bf-dd57ffa48f61";
    const HOUR: i64 = 3_600_000;

    fn backup(taken_at: i64, pair: &str) -> Backup {
        Backup {
            run_id: "r".to_owned(),
            taken_at: Timestamp(taken_at),
            recorded_at: Timestamp(NOW),
            by: "tester@here".to_owned(),
            version: Some(Version(7)),
            label: Label::new(Some("/backups/a (1)".to_owned()), Some(7), pair),
        }
    }

    fn of(backups: &[Backup]) -> String {
        let seen = Backups {
            clock: Timestamp(NOW),
            pair: Some(PAIR.to_owned()),
            backups: backups.to_vec(),
        };
        let standing = standing(&seen, Duration::from_hours(24));
        let word = if standing.is_enough() { "goes on" } else { "refused" };
        format!("{word}: {standing}")
    }

    #[test]
    fn a_backup_counts_as_long_as_it_is_young_enough() {
        assert_eq!(of(&[]), "refused: none is recorded");
        assert_eq!(of(&[backup(NOW - 3 * HOUR, PAIR)]), "goes on: last one 3 h ago");
        assert_eq!(of(&[backup(NOW - 24 * HOUR + 1, PAIR)]), "goes on: last one 23 h ago");
        assert_eq!(of(&[backup(NOW - 24 * HOUR, PAIR)]), "refused: last one 24 h ago");
        let several = [backup(NOW - 70 * HOUR, PAIR), backup(NOW - HOUR, PAIR)];
        assert_eq!(of(&several), "goes on: last one 60 min ago");
    }

    #[test]
    fn a_time_that_is_still_to_come_does_not_count() {
        let far = backup(NOW + 9 * HOUR, PAIR);
        assert_eq!(of(std::slice::from_ref(&far)), "refused: the last one is dated 9 h ahead");
        // Nor does it hide one that does.
        assert_eq!(of(&[far.clone(), backup(NOW - HOUR, PAIR)]), "goes on: last one 60 min ago");
        assert_eq!(of(&[far, backup(NOW - 99 * HOUR, PAIR)]), "refused: last one 4 days ago");
        // Clocks differ a little.
        assert_eq!(of(&[backup(NOW + 60_000, PAIR)]), "goes on: last one 0 s ago");
        assert_eq!(of(&[backup(NOW + 60_001, PAIR)]), "refused: the last one is dated 60 s ahead");
    }

    #[test]
    fn a_backup_of_another_pair_does_not_count() {
        let other = "00000000-0c90-4129-81bf-dd57ffa48f61";
        assert_eq!(of(&[backup(NOW, other)]), "refused: recorded only for another pair");
        let mut nameless = backup(NOW, PAIR);
        nameless.label = Label::read("somewhere");
        assert_eq!(of(&[nameless]), "refused: recorded only for another pair");
    }

    #[test]
    fn a_label_is_read_as_it_was_written() {
        for (location, size) in [
            (None, None),
            (Some("s3://shop/a b (2), old"), Some(18_234)),
            (Some("(odd)"), None),
            (None, Some(0)),
        ] {
            let label = Label::new(location.map(str::to_owned), size, PAIR);
            assert_eq!(Label::read(&label.to_string()), label, "{label}");
        }
        let label = Label::new(Some("/backups/a.dump".to_owned()), Some(18_234), PAIR);
        assert_eq!(label.to_string(), "/backups/a.dump (18234 bytes, pair 5be1c0de)");
        for text in ["", "by hand", "in (a vault)", "(pair", "a (x bytes, pair 5be1c0de)"] {
            let location = Some(text.to_owned());
            assert_eq!(Label::read(text), Label { location, ..Label::default() });
        }
    }

    /// The stores that the cleanup of a migration of these files touches.
    fn stores(files: &[(&str, &str)], configured: &[StoreName]) -> Vec<StoreName> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
        let folder = Folder { name: "002-b".to_owned(), files: files.collect() };
        let migration = folder::read(&folder).expect("they are right");
        let actions = migration
            .steps
            .iter()
            .map(|step| Action::Run(Attempt { step: step.clone(), attempt: 1 }))
            .collect();
        let work = Work {
            version: Version(2),
            folder: "002-b".to_owned(),
            description: String::new(),
            direction: Direction::Up,
            checksum: Checksum::of(b""),
            rank: 1,
            rollback: Rollback::default(),
            row: None,
            actions,
        };
        touched(&work, configured)
    }

    #[test]
    fn each_store_that_the_cleanup_touches_needs_one() {
        let both = StoreName::BOTH;
        let prepare = ("prepare.sql", "CREATE TABLE b ();");
        assert_eq!(stores(&[prepare], &both), []);
        let sql = ("cleanup.sql", "DROP TABLE a;");
        assert_eq!(stores(&[prepare, sql], &both), [StoreName::Postgres]);
        let mongo = ("cleanup.mongodb.js", "db.a.drop()");
        assert_eq!(stores(&[prepare, mongo], &both), [StoreName::Mongo]);
        assert_eq!(stores(&[prepare, sql, mongo], &both), both);
    }
}
