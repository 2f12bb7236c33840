//! The throttle: after every batch, how large the next one is, how long to wait
//! for it, and whether to stand still.

use super::{AtLimit, Level, Limits, Reading, Steering, Window};
use crate::core::id::StoreName;
use crate::core::parse::manifest;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The first batch of a copy, while nothing is known.
const BATCH_FIRST: u64 = 1_000;

/// The first batch of what locks rows of the application, and the largest but where
/// larger ones pay. On a server of two processors the 99th percentile of an application
/// of Postgres is 0.9 to 1.5 ms beside batches of 100 rows with as much time between them,
/// 2.8 ms beside batches as large as 100 ms allow, and 0.5 to 0.9 ms beside nothing.
const BATCH_LOCKS: u64 = 100;

/// What locks rows of the application leaves it as much time as it takes; a copy only
/// reads what the application has.
const NICE_LOCKS: f64 = 1.0;

/// Larger batches stall the application for longer than they save: its p99 is
/// 50 ms with batches of 10,000 rows, and 517 ms with these.
const BATCH_MAX: u64 = 50_000;

/// A batch that locks rows of the application is larger than the first one only where
/// that pays: while the rows themselves are one part in so many of the time it takes.
/// The rest is round trips and its commit, which take as long for no row at all.
const ROWS_SHARE: u32 = 20;

/// Without a throttle, every batch.
const BATCH_UNTHROTTLED: u64 = 5_000;

/// A copy locks nothing that the application waits for, so that a batch may take
/// that many times as long.
const COPY_TIMES: u32 = 5;

/// A batch that takes that many times as long as it should is a stall, not noise.
const STALL_TIMES: u32 = 5;

/// Below this part of its limit, the worst probe lets us go faster.
const FASTER_BELOW: f64 = 0.4;

/// Up to this part of its limit, the speed is right.
const HOLD_TO: f64 = 0.7;

/// A probe that stopped us lets us go on at this part of its limit.
const GO_ON_AT: f64 = 0.8;

/// Near a limit, each look takes a tenth of the speed.
const SLOWER: f64 = 0.9;

/// At a limit, each look takes half of it.
const HALF: f64 = 0.5;

/// Far from all limits, half of it comes back.
const FASTER: f64 = 1.5;

/// So long after a change of the speed it may rise: a server needs time to show
/// what the last change did to it.
const BETWEEN_INCREASES: Duration = Duration::from_secs(15);

/// Both stores are probed each second, and each change needs one look of both.
const BETWEEN_LOOKS: Duration = Duration::from_millis(900);

/// Slower than this is standing still.
const SPEED_MIN: f64 = 1.0 / 32.0;

/// What people may ask for, in times the speed.
pub const SPEED: RangeInclusive<f64> = 0.01..=100.0;

/// Nobody knows how a server is that has said nothing for so long.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// Whatever the speed, the next batch comes after this.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// How fast a backfill may go: `[throttle]`, and what it says for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Without: no probes, no pauses; only what people ask for counts.
    pub throttled: bool,
    /// Rows in every batch; `None`: as many as take `batch_time`.
    pub batch: Option<u64>,
    /// What a batch should take.
    pub batch_time: Duration,
    /// Batches lock rows of the application: they are no larger than pays.
    pub locks: bool,
    /// Between batches.
    pub pause: Duration,
    /// Sleep that many times the batch's own time; `None`: 1 where rows are locked, 0
    /// beside a copy.
    pub nice: Option<f64>,
    /// Keys that are passed per second, by all workers together.
    pub rate: Option<u64>,
    /// The hours in which batches run.
    pub window: Option<Window>,
    /// Limits of the probes.
    pub limits: Limits,
}

/// Those of a project that says nothing.
impl Default for Settings {
    fn default() -> Settings {
        Settings {
            throttled: true,
            batch: None,
            batch_time: Duration::from_millis(100),
            locks: true,
            pause: Duration::ZERO,
            nice: None,
            rate: None,
            window: None,
            limits: Limits {
                replication_lag: Duration::from_secs(5),
                commit_latency: Duration::from_millis(100),
                active_backends: None,
            },
        }
    }
}

impl Settings {
    /// The project's, with what one backfill says for itself.
    #[must_use]
    pub fn of(mut self, pace: &manifest::Pace, work: &manifest::Work) -> Settings {
        self.batch = pace.batch.or(self.batch);
        self.pause = pace.pause.unwrap_or(self.pause);
        self.nice = pace.nice.or(self.nice);
        self.rate = pace.rate.or(self.rate).filter(|rate| *rate > 0);
        self.locks = match work {
            manifest::Work::CopyToMongo { .. } | manifest::Work::CopyToPostgres { .. } => false,
            manifest::Work::Update { .. }
            | manifest::Work::Sql { .. }
            | manifest::Work::Call { .. }
            | manifest::Work::Documents { .. } => true,
        };
        if !self.locks {
            self.batch_time *= COPY_TIMES;
        }
        self
    }
}

/// What the throttle decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Rows in the next batch.
    pub batch: u64,
    /// How long the worker that asks waits before it.
    pub wait: Duration,
    /// Why there is no next batch for now.
    pub stopped: Option<String>,
    /// Why it is slower than it could be.
    pub slowed: Option<String>,
}

/// What a worker has just done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum After {
    /// Nothing: it looks whether it may begin.
    Nothing,
    /// A batch.
    Batch(Ran),
    /// A batch that did not happen, because somebody else was in the way.
    Passing {
        /// Rows that it was to have.
        asked: u64,
    },
}

/// What a batch did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ran {
    /// Rows that it might have had.
    pub asked: u64,
    /// Keys that were passed.
    pub passed: u64,
    /// Rows that were rewritten.
    pub rows: u64,
    /// How long it took.
    pub took: Duration,
    /// How much of that its round trips take, but for the commit's; about.
    pub trips: Duration,
    /// How much of that the server took to make it durable.
    pub commit: Duration,
}

/// Decides the pace of one backfill, for all its workers: a batch of each tells
/// how large the next of any may be, and the rate is shared.
#[derive(Clone, Debug)]
pub struct Throttle {
    settings: Settings,
    size: Size,
    probes: BTreeMap<(StoreName, &'static str), Probe>,
    /// The part of the full speed that the probes leave us.
    speed: f64,
    /// When it changed, and when the probes were last asked about it.
    changed: Option<Duration>,
    looked: Option<Duration>,
    /// Why it is not 1.
    why: Option<String>,
    /// A probe had stopped us when they were last asked.
    stood: bool,
    steering: Steering,
    /// Until then the rate is used up.
    spent_until: Duration,
}

/// A probe that tells nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unwatched {
    /// Its store and its name, and why.
    pub says: String,
    /// It could be read if we had the right, or the server an answer.
    pub is_lack: bool,
}

/// What is known of one probe.
#[derive(Clone, Debug)]
struct Probe {
    at_limit: AtLimit,
    /// The last value over its limit, with its sentence.
    last: Option<(f64, String)>,
    /// When it was last read.
    heard: Option<Duration>,
    /// Why it is not read now.
    off: Option<String>,
    /// Why there is nothing to read.
    nothing: Option<String>,
    /// It reached its limit, and is not at 80 % yet.
    stops: bool,
}

impl Probe {
    /// One of which nothing is known.
    fn of(at_limit: AtLimit) -> Probe {
        Probe { at_limit, last: None, heard: None, off: None, nothing: None, stops: false }
    }
}

impl Throttle {
    /// Nothing is known yet.
    pub fn new(settings: Settings) -> Throttle {
        let size = match (settings.throttled, settings.batch) {
            (_, Some(batch)) => Size::new(batch, Some(batch)),
            (false, None) => Size::new(BATCH_UNTHROTTLED, Some(BATCH_UNTHROTTLED)),
            (true, None) if settings.locks => Size::new(BATCH_LOCKS, None),
            (true, None) => Size::new(BATCH_FIRST, None),
        };
        Throttle {
            settings,
            size,
            probes: BTreeMap::new(),
            speed: 1.0,
            changed: None,
            looked: None,
            why: None,
            stood: false,
            steering: Steering::default(),
            spent_until: Duration::ZERO,
        }
    }

    /// What the probes are asked against; `None`: they are not asked.
    pub fn limits(&self) -> Option<Limits> {
        self.settings.throttled.then_some(self.settings.limits)
    }

    /// Takes what the probes of one store say.
    pub fn read(&mut self, now: Duration, store: StoreName, readings: &[Reading]) {
        for reading in readings {
            let Reading { probe, at_limit, level } = reading;
            let probe = self.probes.entry((store, probe)).or_insert_with(|| Probe::of(*at_limit));
            probe.nothing = None;
            match level {
                // A standby that was taken away is no silence.
                Level::Nothing(why) => {
                    *probe = Probe { nothing: Some(why.clone()), ..Probe::of(*at_limit) };
                }
                Level::At { ratio, says } => {
                    probe.stops = match at_limit {
                        AtLimit::Stop if *ratio >= 1.0 => true,
                        AtLimit::Stop => probe.stops && *ratio > GO_ON_AT,
                        AtLimit::Slower => false,
                    };
                    probe.last = Some((*ratio, says.clone()));
                    probe.heard = Some(now);
                    probe.off = None;
                }
                Level::Off(why) => probe.off = Some(why.clone()),
            }
        }
        if self.looked.is_none_or(|looked| now >= looked + BETWEEN_LOOKS) {
            self.looked = Some(now);
            self.adjust(now);
        }
    }

    /// The worst probe decides.
    fn adjust(&mut self, now: Duration) {
        // What stands still cannot go slower: half of the speed is taken once, or a
        // standby that was gone for five seconds would be paid for with minutes.
        let stands = self.probes.values().any(|probe| probe.stops && probe.off.is_none());
        if std::mem::replace(&mut self.stood, stands) && stands {
            return;
        }
        let read = self.probes.values().filter(|probe| probe.off.is_none());
        let worst = read
            .filter_map(|probe| probe.last.as_ref())
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .cloned();
        let (ratio, says) = worst.unwrap_or_default();
        let factor = match ratio {
            _ if ratio >= 1.0 => HALF,
            _ if ratio > HOLD_TO => SLOWER,
            _ if ratio >= FASTER_BELOW => return,
            _ if self.changed.is_some_and(|changed| now < changed + BETWEEN_INCREASES) => return,
            _ => FASTER,
        };
        let speed = (self.speed * factor).clamp(SPEED_MIN, 1.0);
        if factor < 1.0 {
            self.why = Some(says);
        }
        if speed >= 1.0 {
            self.why = None;
        }
        if speed.total_cmp(&self.speed).is_ne() {
            self.speed = speed;
            self.changed = Some(now);
        }
    }

    /// Takes what people ask for.
    pub fn steer(&mut self, steering: Steering) {
        self.steering = steering;
    }

    /// Probes that tell nothing.
    pub fn unwatched(&self) -> Vec<Unwatched> {
        let unwatched = self.probes.iter().filter_map(|((store, name), probe)| {
            let why = probe.off.as_ref().or(probe.nothing.as_ref())?;
            let says = format!("{} {name}: {why}", store.title());
            Some(Unwatched { says, is_lack: probe.off.is_some() })
        });
        unwatched.collect()
    }

    /// Decides. `minute` is that of the day, where the window is.
    pub fn pace(&mut self, now: Duration, minute: u16, after: After) -> Pace {
        let wait = match after {
            After::Nothing => Duration::ZERO,
            After::Batch(ran) => {
                self.size.ran(&ran, &self.settings);
                self.wait(now, &ran)
            }
            After::Passing { asked } => {
                self.size.shrink(asked / 2);
                Duration::ZERO
            }
        };
        // A second's worth at most: the waits between batches are short then.
        let rate = self.settings.rate.filter(|_| self.settings.throttled);
        let batch = match (self.settings.batch, rate) {
            (None, Some(rate)) => self.size.next().min(rate.max(1)),
            _ => self.size.next(),
        };
        Pace { batch, wait, stopped: self.stopped(now, minute), slowed: self.slowed() }
    }

    fn wait(&mut self, now: Duration, ran: &Ran) -> Duration {
        let asked = self.asked();
        let Settings { throttled, pause, nice, rate, .. } = &self.settings;
        let usual = if self.settings.locks { NICE_LOCKS } else { 0.0 };
        let (pause, nice, speed, rate) = match throttled {
            true => (*pause, nice.unwrap_or(usual), self.speed * asked, *rate),
            false => (Duration::ZERO, 0.0, asked, None),
        };
        // Where nothing was rewritten, nothing was locked.
        let nice = if ran.rows > 0 { nice } else { 0.0 };
        let pause = pause + ran.took.mul_f64(nice);
        let whole = (ran.took + pause).div_f64(speed);
        let wait = whole.saturating_sub(ran.took).min(WAIT_MAX.max(pause));
        let Some(rate) = rate else { return wait };
        let rows = u32::try_from(ran.passed).unwrap_or(u32::MAX);
        let rate = f64::from(u32::try_from(rate).unwrap_or(u32::MAX)) * speed;
        // Counted from when the batch began, so that time is not taken twice; never
        // from before, or a pause would be made up for by a burst.
        let began = now.saturating_sub(ran.took);
        self.spent_until =
            self.spent_until.max(began) + Duration::from_secs_f64(f64::from(rows) / rate);
        wait.max(self.spent_until.saturating_sub(now))
    }

    fn asked(&self) -> f64 {
        match self.steering.speed {
            speed if speed.is_nan() => 1.0,
            speed => speed.clamp(*SPEED.start(), *SPEED.end()),
        }
    }

    fn stopped(&self, now: Duration, minute: u16) -> Option<String> {
        if let Some(why) = &self.steering.paused {
            return Some(match why.trim() {
                "" => "paused".to_owned(),
                why => format!("paused: {why}"),
            });
        }
        if !self.settings.throttled {
            return None;
        }
        if let Some(window) = self.settings.window.filter(|window| !window.contains(minute)) {
            return Some(format!("outside of its window {window}"));
        }
        self.probes.iter().find_map(|((store, name), probe)| {
            let heard = probe.heard.filter(|_| probe.at_limit == AtLimit::Stop)?;
            if now >= heard + SILENT_AFTER {
                let why = probe.off.as_deref().unwrap_or("no answer");
                let seconds = now.saturating_sub(heard).as_secs();
                return Some(format!(
                    "{} has not told its {name} for {seconds} s: {why}",
                    store.title()
                ));
            }
            let (_, says) = probe.last.as_ref().filter(|_| probe.stops)?;
            Some(format!("{}: {says}", store.title()))
        })
    }

    fn slowed(&self) -> Option<String> {
        let asked = self.asked();
        let asked = (asked < 1.0).then(|| format!("speed {asked} was asked for"));
        let probes = self.why.as_ref().filter(|_| self.settings.throttled && self.speed < 1.0);
        match (asked, probes) {
            (Some(asked), Some(probes)) => Some(format!("{asked}; {probes}")),
            (asked, probes) => asked.or_else(|| probes.cloned()),
        }
    }
}

/// How many rows a batch has.
#[derive(Clone, Debug)]
struct Size {
    rows: u64,
    /// It is this, whatever batches take, unless somebody is in the way.
    fixed: Option<u64>,
    /// What batches did and took, each weighing three quarters of the next: how many
    /// they were and how many keys, in thousandths; and nanoseconds, of which so many
    /// went into round trips and commits.
    weight: u128,
    passed: u128,
    took: u128,
    trips: u128,
    commit: u128,
    /// How many keys may be passed where nothing is rewritten.
    stride: u64,
}

impl Size {
    fn new(rows: u64, fixed: Option<u64>) -> Size {
        let fixed = fixed.map(|fixed| fixed.max(1));
        let rows = rows.max(1);
        Size { rows, fixed, weight: 0, passed: 0, took: 0, trips: 0, commit: 0, stride: 1 }
    }

    /// Of the next batch.
    fn next(&self) -> u64 {
        self.rows.max(self.stride)
    }

    /// To so many rows at most. Several workers may tell of batches that began at
    /// one time: together they shrink it once.
    fn shrink(&mut self, rows: u64) {
        self.rows = self.rows.min(rows).max(1);
        self.stride = 1;
    }

    fn ran(&mut self, ran: &Ran, settings: &Settings) {
        let target = settings.batch_time;
        let half_more = (ran.asked + ran.asked / 2).max(ran.asked + 1);
        // What is fast because there was nothing to rewrite says nothing about the
        // rows that come next, and an end that was reached says nothing about more.
        let whole = ran.rows > 0 && ran.passed >= ran.asked;
        if let Some(fixed) = self.fixed {
            if whole {
                self.rows = self.rows.max(half_more).min(fixed);
            }
            return;
        }
        let is_empty = ran.rows == 0 && ran.passed >= ran.asked;
        self.stride = if is_empty { half_more.min(BATCH_FIRST) } else { 1 };
        // What round trips take, smaller batches take as well.
        let trips = ran.trips.min(ran.took);
        if ran.took.saturating_sub(trips) >= target * STALL_TIMES {
            // It waited for something: what it took is no measure of anything, nor is
            // what went before.
            (self.weight, self.passed, self.took) = (0, 0, 0);
            (self.trips, self.commit) = (0, 0);
            self.shrink(ran.asked / 4);
            return;
        }
        if ran.rows > 0 {
            self.weight = self.weight * 3 / 4 + 1_000;
            self.passed = self.passed * 3 / 4 + u128::from(ran.passed) * 1_000;
            self.took = self.took * 3 / 4 + ran.took.as_nanos();
            self.trips = self.trips * 3 / 4 + trips.as_nanos();
            self.commit = self.commit * 3 / 4 + ran.commit.as_nanos();
        }
        if self.passed == 0 {
            return;
        }
        // Far from a server, where they are more than a batch should take, the rest may
        // take as long again.
        let trips = self.trips * 1_000 / self.weight;
        let room = target.as_nanos().saturating_sub(trips).max(trips);
        let rest = (self.took - self.trips).max(1);
        let right = self.passed * room / rest / 1_000;
        let right = u64::try_from(right).unwrap_or(BATCH_MAX).clamp(1, BATCH_MAX);
        if right < self.rows {
            self.rows = right;
        } else if whole {
            let most = if settings.locks && !self.pays() { BATCH_LOCKS } else { BATCH_MAX };
            self.rows = self.rows.max(right.min(half_more).min(most));
        }
    }

    /// Larger batches would be faster by far: small ones spend their time in round trips
    /// and commits.
    fn pays(&self) -> bool {
        let share = u128::from(ROWS_SHARE);
        (self.trips + self.commit) * share > self.took * (share - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::duration;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn settings() -> Settings {
        Settings {
            throttled: true,
            batch: None,
            batch_time: Duration::from_millis(100),
            locks: true,
            pause: Duration::ZERO,
            nice: Some(0.0),
            rate: None,
            window: None,
            limits: Limits {
                replication_lag: Duration::from_secs(5),
                commit_latency: Duration::from_millis(100),
                active_backends: None,
            },
        }
    }

    /// A line each: settings first, then what happens.
    /// ```text
    /// set batch=500 pause=10ms nice=1 (or usual) rate=100 window=22:00-06:00 unthrottled copy
    /// ran 50ms                  a batch, as large as it was asked to be
    /// ran 50ms of 10            it passed 10 keys; `empty`: nothing was rewritten
    /// ran 50ms trips 9ms        how much of it went into round trips; or `commit 9ms`
    /// passing                   it did not happen
    /// lag 1.2 | load 0.5 | lag off | lag nothing
    /// pause why | resume | speed 0.5
    /// at 12:30                  the minute of the day
    /// after 15s                 time goes by
    /// ```
    /// Out comes the pace after each line that is not `set`, `at` or `after`.
    fn check(script: &str, expected: &Expect) {
        let mut settings = settings();
        let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
        while let Some(line) = lines.next_if(|line| line.starts_with("set ")) {
            for word in line.split_whitespace().skip(1) {
                let (key, value) = word.split_once('=').unwrap_or((word, ""));
                match key {
                    "unthrottled" => settings.throttled = false,
                    "copy" => settings.locks = false,
                    "batch" => settings.batch = Some(value.parse().expect("rows")),
                    "pause" => settings.pause = duration::parse(value).expect("a duration"),
                    "nice" => settings.nice = value.parse().ok(),
                    "rate" => settings.rate = Some(value.parse().expect("rows")),
                    "window" => settings.window = Window::parse(value),
                    other => panic!("{other}"),
                }
            }
        }
        let mut throttle = Throttle::new(settings);
        let (mut now, mut minute, mut asked) = (Duration::ZERO, 0, 0);
        let mut out = String::new();
        let mut steering = Steering::default();
        for line in std::iter::once("begin").chain(lines) {
            let mut after = After::Nothing;
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["begin"] => {}
                ["ran", took, rest @ ..] => {
                    let took = duration::parse(took).expect("a duration");
                    now += took;
                    let (mut trips, mut commit) = (Duration::ZERO, Duration::ZERO);
                    let rest = match rest {
                        [rest @ .., "trips", time] => {
                            trips = duration::parse(time).expect("a duration");
                            rest
                        }
                        [rest @ .., "commit", time] => {
                            commit = duration::parse(time).expect("a duration");
                            rest
                        }
                        rest => rest,
                    };
                    let passed = match rest {
                        ["of", passed, ..] => passed.parse().expect("rows"),
                        _ => asked,
                    };
                    let rows = if rest.last() == Some(&"empty") { 0 } else { passed };
                    after = After::Batch(Ran { asked, passed, rows, took, trips, commit });
                }
                ["passing"] => after = After::Passing { asked },
                [probe @ ("lag" | "load"), value] => {
                    let (probe, at_limit) = match *probe {
                        "lag" => ("replication lag", AtLimit::Stop),
                        _ => ("active backends", AtLimit::Slower),
                    };
                    let level = match *value {
                        "off" => Level::Off("may not be read".to_owned()),
                        "nothing" => Level::Nothing("there is no standby".to_owned()),
                        value => {
                            let ratio = value.parse().expect("a number");
                            Level::At { ratio, says: format!("{probe} at {ratio}") }
                        }
                    };
                    throttle.read(now, StoreName::Postgres, &[Reading { probe, at_limit, level }]);
                }
                ["pause", why @ ..] => steering.paused = Some(why.join(" ")),
                ["resume"] => steering.paused = None,
                ["speed", speed] => steering.speed = speed.parse().expect("a number"),
                ["at", at] => {
                    minute = crate::core::pace::minute(at).expect("a time");
                    continue;
                }
                ["after", time] => {
                    now += duration::parse(time).expect("a duration");
                    continue;
                }
                _ => panic!("{line}"),
            }
            throttle.steer(steering.clone());
            let pace = throttle.pace(now, minute, after);
            asked = pace.batch;
            out.push_str(&format!("{line:<18}"));
            out.push_str(&format!(" {}", pace.batch));
            if !pace.wait.is_zero() {
                let wait = Duration::from_millis(
                    u64::try_from(pace.wait.as_millis()).expect("is not that long"),
                );
                out.push_str(&format!(", wait {}", duration::show(wait)));
            }
            out.extend(pace.stopped.map(|why| format!(", stopped: {why}")));
            out.extend(pace.slowed.map(|why| format!(", slow: {why}")));
            out.push('\n');
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn batches_grow_by_half_until_they_take_their_time() {
        check(
            "set copy\n ran 10ms\n ran 15ms\n ran 20ms\n ran 30ms\n ran 45ms\n ran 90ms\n ran 120ms\n ran 110ms",
            &expect![[r#"
                begin              1000
                ran 10ms           1500
                ran 15ms           2250
                ran 20ms           3375
                ran 30ms           5062
                ran 45ms           7593
                ran 90ms           9571
                ran 120ms          8764
                ran 110ms          8459
            "#]],
        );
    }

    #[test]
    fn what_locks_rows_grows_only_while_nearly_all_of_it_is_round_trips() {
        check(
            "ran 50ms trips 48ms\n ran 50ms commit 48ms\n ran 50ms trips 48ms\n ran 50ms trips 45ms\n ran 50ms trips 45ms",
            &expect![[r#"
                begin              100
                ran 50ms trips 48ms 150
                ran 50ms commit 48ms 225
                ran 50ms trips 48ms 337
                ran 50ms trips 45ms 337
                ran 50ms trips 45ms 337
            "#]],
        );
        check(
            "set copy\n ran 10ms commit 1ms\n ran 15ms commit 1ms",
            &expect![[r#"
                begin              1000
                ran 10ms commit 1ms 1500
                ran 15ms commit 1ms 2250
            "#]],
        );
    }

    #[test]
    fn round_trips_that_take_too_long_do_not_make_batches_small() {
        // 60 ms away: what is asked of a batch is gone before a row is touched.
        check(
            "ran 241ms trips 240ms\n ran 241ms trips 240ms\n ran 242ms trips 240ms\n ran 243ms trips 240ms",
            &expect![[r#"
                begin              100
                ran 241ms trips 240ms 150
                ran 241ms trips 240ms 225
                ran 242ms trips 240ms 337
                ran 243ms trips 240ms 505
            "#]],
        );
        check(
            "set copy\n ran 245ms trips 240ms\n ran 247ms trips 240ms\n ran 400ms trips 240ms\n ran 500ms trips 240ms",
            &expect![[r#"
                begin              1000
                ran 245ms trips 240ms 1500
                ran 247ms trips 240ms 2250
                ran 400ms trips 240ms 3375
                ran 500ms trips 240ms 3934
            "#]],
        );
        // Near it, rows that are slow make them small all the same.
        check(
            "ran 401ms trips 1ms\n ran 101ms trips 1ms",
            &expect![[r#"
                begin              100
                ran 401ms trips 1ms 24
                ran 101ms trips 1ms 24
            "#]],
        );
    }

    #[test]
    fn the_application_gets_as_much_time_as_what_locks_its_rows() {
        check(
            "set nice=usual\n ran 10ms\n speed 4\n ran 10ms",
            &expect![[r#"
            begin              100
            ran 10ms           100, wait 10ms
            speed 4            100
            ran 10ms           100
        "#]],
        );
        check(
            "set copy nice=usual\n ran 10ms",
            &expect![[r#"
            begin              1000
            ran 10ms           1500
        "#]],
        );
        check(
            "ran 10ms",
            &expect![[r#"
            begin              100
            ran 10ms           100
        "#]],
        );
    }

    #[test]
    fn a_stall_leaves_a_quarter_and_what_is_in_the_way_half() {
        check(
            "set copy\n ran 500ms\n ran 25ms\n passing\n passing\n ran 10ms\n ran 10ms",
            &expect![[r#"
            begin              1000
            ran 500ms          250
            ran 25ms           375
            passing            187
            passing            93
            ran 10ms           139
            ran 10ms           208
        "#]],
        );
    }

    #[test]
    fn one_row_is_the_least_and_grows_again() {
        check(
            "set copy\n ran 90s\n ran 90s\n ran 90s\n ran 90s\n ran 90s\n ran 90s\n passing\n ran 1ms\n ran 1ms\n ran 1ms",
            &expect![[r#"
            begin              1000
            ran 90s            250
            ran 90s            62
            ran 90s            15
            ran 90s            3
            ran 90s            1
            ran 90s            1
            passing            1
            ran 1ms            2
            ran 1ms            3
            ran 1ms            4
        "#]],
        );
    }

    #[test]
    fn nothing_is_learnt_from_an_empty_range_or_an_end() {
        check(
            "set copy\n ran 1ms empty\n ran 1ms empty\n ran 1ms of 10\n ran 1ms of 0",
            &expect![[r#"
            begin              1000
            ran 1ms empty      1000
            ran 1ms empty      1000
            ran 1ms of 10      1000
            ran 1ms of 0       1000
        "#]],
        );
    }

    #[test]
    fn where_nothing_is_rewritten_steps_grow_and_nothing_is_waited_for() {
        check(
            "set nice=usual\n ran 1ms empty\n ran 1ms empty\n ran 1ms empty\n ran 5ms\n ran 1ms empty\n passing",
            &expect![[r#"
                begin              100
                ran 1ms empty      150
                ran 1ms empty      225
                ran 1ms empty      337
                ran 5ms            100, wait 5ms
                ran 1ms empty      150
                passing            75
            "#]],
        );
    }

    #[test]
    fn a_fixed_batch_shrinks_only_for_others() {
        check(
            "set batch=400\n ran 1ms\n ran 2s\n passing\n passing\n ran 1ms\n ran 1ms\n ran 1ms\n ran 1ms",
            &expect![[r#"
                begin              400
                ran 1ms            400
                ran 2s             400
                passing            200
                passing            100
                ran 1ms            150
                ran 1ms            225
                ran 1ms            337
                ran 1ms            400
            "#]],
        );
    }

    #[test]
    fn pauses_add_up_and_a_rate_outlasts_them() {
        check(
            "set batch=100 pause=20ms nice=1.5\n ran 100ms",
            &expect![[r#"
            begin              100
            ran 100ms          100, wait 170ms
        "#]],
        );
        check(
            "set batch=100 pause=20ms rate=200\n ran 100ms\n ran 700ms",
            &expect![[r#"
                begin              100
                ran 100ms          100, wait 400ms
                ran 700ms          100, wait 200ms
            "#]],
        );
        check(
            "set rate=200\n ran 100ms\n after 900ms\n ran 100ms",
            &expect![[r#"
                begin              100
                ran 100ms          100, wait 400ms
                ran 100ms          100, wait 400ms
            "#]],
        );
    }

    #[test]
    fn the_rate_is_that_of_all_workers_together() {
        // Two batches that ran at one time, of two workers.
        check(
            "set batch=100 rate=100\n ran 100ms\n ran 0ms\n after 2s\n ran 0ms",
            &expect![[r#"
            begin              100
            ran 100ms          100, wait 900ms
            ran 0ms            100, wait 1900ms
            ran 0ms            100, wait 1s
        "#]],
        );
    }

    #[test]
    fn a_speed_is_a_part_of_the_time() {
        check(
            "set batch=100\n speed 0.5\n ran 100ms\n speed 2\n ran 100ms\n speed 0\n ran 100ms",
            &expect![[r#"
                begin              100
                speed 0.5          100, slow: speed 0.5 was asked for
                ran 100ms          100, wait 100ms, slow: speed 0.5 was asked for
                speed 2            100
                ran 100ms          100
                speed 0            100, slow: speed 0.01 was asked for
                ran 100ms          100, wait 9900ms, slow: speed 0.01 was asked for
            "#]],
        );
        check(
            "set batch=100 pause=100ms rate=100\n speed 2\n ran 100ms\n",
            &expect![[r#"
            begin              100
            speed 2            100
            ran 100ms          100, wait 400ms
        "#]],
        );
    }

    #[test]
    fn near_a_limit_it_goes_slower_and_far_from_it_faster_but_not_soon() {
        check(
            "load 0.5\n after 1s\n load 0.71\n after 1s\n load 0.95\n ran 100ms\n after 1s\n load 1.0\n ran 100ms
             after 1s\n load 0.6\n after 14s\n load 0.3\n after 1s\n load 0.3\n after 1s\n load 0.3
             after 15s\n load 0.3\n after 15s\n load 0.3",
            &expect![[r#"
                begin              100
                load 0.5           100
                load 0.71          100, slow: active backends at 0.71
                load 0.95          100, slow: active backends at 0.95
                ran 100ms          100, wait 23ms, slow: active backends at 0.95
                load 1.0           100, slow: active backends at 1
                ran 100ms          100, wait 146ms, slow: active backends at 1
                load 0.6           100, slow: active backends at 1
                load 0.3           100, slow: active backends at 1
                load 0.3           100, slow: active backends at 1
                load 0.3           100, slow: active backends at 1
                load 0.3           100, slow: active backends at 1
                load 0.3           100
            "#]],
        );
    }

    #[test]
    fn a_stopping_probe_stops_until_it_is_at_80_percent() {
        check(
            "lag 0.9\n after 1s\n lag 1.0\n after 1s\n lag 0.9\n after 1s\n lag 0.8\n after 1s\n lag 0.9",
            &expect![[r#"
                begin              100
                lag 0.9            100, slow: replication lag at 0.9
                lag 1.0            100, stopped: Postgres: replication lag at 1, slow: replication lag at 1
                lag 0.9            100, stopped: Postgres: replication lag at 0.9, slow: replication lag at 1
                lag 0.8            100, slow: replication lag at 0.8
                lag 0.9            100, slow: replication lag at 0.9
            "#]],
        );
    }

    #[test]
    fn a_stopping_probe_that_goes_silent_stops_after_15_seconds() {
        check(
            "lag 0.1\n after 14s\n lag off\n after 1s\n lag off\n after 20s\n lag 0.2\n after 15s\n resume",
            &expect![[r#"
                begin              100
                lag 0.1            100
                lag off            100
                lag off            100, stopped: Postgres has not told its replication lag for 15 s: may not be read
                lag 0.2            100
                resume             100, stopped: Postgres has not told its replication lag for 15 s: no answer
            "#]],
        );
        check(
            "lag off\n load 0.1\n after 1m\n lag off\n load off\n",
            &expect![[r#"
                begin              100
                lag off            100
                load 0.1           100
                lag off            100
                load off           100
            "#]],
        );
    }

    #[test]
    fn a_long_stop_takes_half_of_the_speed_and_no_more() {
        check(
            "lag 1.5\n after 1s\n lag 2.5\n after 1s\n lag 3.5\n after 1s\n lag 0.5\n ran 100ms",
            &expect![[r#"
                begin              100
                lag 1.5            100, stopped: Postgres: replication lag at 1.5, slow: replication lag at 1.5
                lag 2.5            100, stopped: Postgres: replication lag at 2.5, slow: replication lag at 1.5
                lag 3.5            100, stopped: Postgres: replication lag at 3.5, slow: replication lag at 1.5
                lag 0.5            100, slow: replication lag at 1.5
                ran 100ms          100, wait 100ms, slow: replication lag at 1.5
            "#]],
        );
    }

    #[test]
    fn what_is_not_there_is_neither_silent_nor_behind() {
        check(
            "lag nothing\n after 1m\n ran 100ms\n lag 1.2\n after 1s\n lag nothing\n after 1m\n ran 100ms",
            &expect![[r#"
                begin              100
                lag nothing        100
                ran 100ms          100
                lag 1.2            100, stopped: Postgres: replication lag at 1.2, slow: replication lag at 1.2
                lag nothing        100, slow: replication lag at 1.2
                ran 100ms          100, wait 100ms, slow: replication lag at 1.2
            "#]],
        );
    }

    #[test]
    fn people_and_the_clock_stop_it() {
        check(
            "set window=22:00-06:00\n ran 100ms\n at 12:00\n ran 100ms\n pause lunch\n at 23:00\n ran 1ms\n resume",
            &expect![[r#"
                begin              100
                ran 100ms          100
                ran 100ms          100, stopped: outside of its window 22:00-06:00
                pause lunch        100, stopped: paused: lunch
                ran 1ms            100, stopped: paused: lunch
                resume             100
            "#]],
        );
    }

    #[test]
    fn unthrottled_only_people_count() {
        check(
            "set unthrottled pause=1s nice=3 rate=1 window=22:00-06:00\n at 12:00\n ran 3s\n lag 7\n ran 1ms\n passing
             ran 1ms\n pause stop\n resume\n speed 0.5\n ran 10ms",
            &expect![[r#"
                begin              5000
                ran 3s             5000
                lag 7              5000
                ran 1ms            5000
                passing            2500
                ran 1ms            3750
                pause stop         3750, stopped: paused: stop
                resume             3750
                speed 0.5          3750, slow: speed 0.5 was asked for
                ran 10ms           5000, wait 10ms, slow: speed 0.5 was asked for
            "#]],
        );
    }

    fn happening() -> impl Strategy<Value = (u8, u32, u32, f64)> {
        (0..6_u8, 0..2_000_000_u32, 0..60_000_u32, -1.0..3.0_f64)
    }

    proptest! {
        #[test]
        fn whatever_happens_a_batch_stays_in_its_bounds(
            happenings in prop::collection::vec(happening(), 0..200)
        ) {
            let mut throttle = Throttle::new(settings());
            let (mut now, mut asked) = (Duration::ZERO, BATCH_FIRST);
            for (what, micros, rows, ratio) in happenings {
                let took = Duration::from_micros(micros.into());
                now += took;
                let passed = u64::from(rows).min(asked);
                let level = Level::At { ratio, says: String::new() };
                let mut after = After::Nothing;
                match what {
                    0 => after = After::Passing { asked },
                    1 => {
                        let (probe, at_limit) = ("load", AtLimit::Slower);
                        let reading = Reading { probe, at_limit, level };
                        throttle.read(now, StoreName::Mongo, &[reading]);
                    }
                    2 => throttle.steer(Steering { paused: None, speed: ratio }),
                    _ => {
                        let (rows, trips, commit) = (passed, took / 3, took / 4);
                        after = After::Batch(Ran { asked, passed, rows, took, trips, commit });
                    }
                }
                let pace = throttle.pace(now, 0, after);
                prop_assert!((1..=BATCH_MAX).contains(&pace.batch));
                prop_assert!(pace.batch <= (asked + asked / 2).max(asked + 1));
                prop_assert!(pace.wait <= WAIT_MAX);
                prop_assert_eq!(pace.stopped, None);
                asked = pace.batch;
            }
        }

        /// Three workers whose batches overlap never go faster than the rate.
        #[test]
        fn a_rate_holds_whatever_batches_take(
            batches in prop::collection::vec(1..2_000_u64, 1..100), rate in 1..100_000_u64
        ) {
            let mut throttle =
                Throttle::new(Settings { batch: Some(1_000), rate: Some(rate), ..settings() });
            let mut free = [Duration::ZERO; 3];
            let mut passed = 0;
            for took in &batches {
                let took = Duration::from_millis(*took);
                let worker = (0..3).min_by_key(|worker| free[*worker]).expect("there are three");
                let now = free[worker] + took;
                let (trips, commit) = (took / 3, took / 4);
                let ran = Ran { asked: 1_000, passed: 1_000, rows: 1_000, took, trips, commit };
                passed += 1_000;
                free[worker] = now + throttle.pace(now, 0, After::Batch(ran)).wait;
            }
            let end = free.into_iter().max().expect("there are three").as_secs_f64();
            let passed = f64::from(u32::try_from(passed).expect("few"));
            let rate = f64::from(u32::try_from(rate).expect("few"));
            prop_assert!(passed / end <= rate * 1.001);
        }
    }
}
