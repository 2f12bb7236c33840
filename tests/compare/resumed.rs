//! A comparison that was stopped goes on where it was.

use crate::pair::{Kept, Pair};
use bson::{Document, doc};
use lockstep::core::checksum::Checksum;
use lockstep::core::history::{Event, Record};
use lockstep::core::id::{Direction, Phase, StepId, StepName, Version};
use lockstep::core::notice::Notice;
use lockstep::engine::compare::Unanswered;
use lockstep::engine::{Stop, StopReason};
use lockstep::store::Run;
use std::time::Duration;

const COMPARE: &str =
    "{ postgres = 'SELECT id AS _id, n FROM t', mongo = { collection = 't' }, key = '_id' }";

const ROWS: u64 = 60_000;

async fn filled() -> Pair {
    let pair = Pair::new().await;
    pair.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, n int); \
         INSERT INTO t SELECT g, g FROM generate_series(1, {ROWS}) AS g; ANALYZE t"
    ))
    .await;
    let rows = i32::try_from(ROWS).unwrap();
    let documents: Vec<Document> = (1..=rows).map(|n| doc! { "_id": n, "n": n }).collect();
    pair.collection("t").insert_many(documents).await.unwrap();
    pair
}

fn run() -> Run {
    Run {
        id: "00000000-0000-0000-0000-00000000000a".to_owned(),
        command: "up".to_owned(),
        user: "tester".to_owned(),
        host: "here".to_owned(),
        pid: 1,
        release: None,
        from_version: None,
        reason: None,
    }
}

fn record(text: &[u8]) -> Record {
    let slug = "x".to_owned();
    let name = StepName::Named { phase: Phase::Validate, direction: Direction::Up, slug };
    Record {
        step: StepId { version: Version(1), name },
        attempt: 1,
        event: Event::Progress,
        rank: 1,
        checksum: Checksum::of(text),
        migration_checksum: Checksum::of(text),
    }
}

/// Compares until about so many rows are done; where it began.
async fn until(pair: &Pair, rows: u64, kept: Kept<'_>) -> (u64, Result<(), Unanswered>) {
    let (ask_to_stop, stop) = Stop::new();
    let mut begun = None;
    let mut listen = |notice: Notice| {
        if let Notice::ComparisonProgress(progress) = notice {
            begun.get_or_insert(progress.rows);
        }
        if rows == 0 {
            ask_to_stop.send(Some(StopReason::Interrupted)).unwrap();
        }
    };
    let mut compared = Box::pin(pair.told(COMPARE, &stop, Some(kept), &mut listen));
    let done = loop {
        tokio::select! {
            biased;
            done = &mut compared => break done,
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        if kept_rows(pair).await.is_some_and(|done| rows > 0 && done >= rows) {
            let _ = ask_to_stop.send(Some(StopReason::Interrupted));
        }
    };
    drop(compared);
    let done = done.map(|compared| Pair::expect_clean(&compared, ROWS));
    (begun.unwrap_or_default(), done)
}

async fn kept_rows(pair: &Pair) -> Option<u64> {
    let sql = "SELECT (cursor ->> 'rows')::bigint FROM migration_steps WHERE event = 'progress'";
    let rows = pair.sql.query(sql, &[]).await.unwrap_or_default();
    rows.first().map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap())
}

#[tokio::test]
async fn what_was_stopped_goes_on_where_it_was() {
    let pair = filled().await;
    let (run, record) = (run(), record(b"a"));
    let kept = Kept { run: &run, record: &record, max_age: Duration::from_hours(1) };
    let (begun, stopped) = until(&pair, 16_000, kept).await;
    assert_eq!(begun, 0);
    assert_eq!(stopped, Err(Unanswered::Stopped(StopReason::Interrupted)));
    let there = kept_rows(&pair).await.expect("it is recorded");
    assert!((16_000..ROWS).contains(&there), "{there}");
    let (begun, done) = until(&pair, u64::MAX, kept).await;
    assert_eq!((begun, done), (there, Ok(())));
    assert_eq!(kept_rows(&pair).await, None, "nothing is left to go on with");
}

#[tokio::test]
async fn what_is_too_old_or_of_another_question_begins_anew() {
    let pair = filled().await;
    let (run, record, other) = (run(), record(b"a"), record(b"b"));
    let kept = Kept { run: &run, record: &record, max_age: Duration::from_hours(1) };
    let (_, stopped) = until(&pair, 8_000, kept).await;
    assert_eq!(stopped, Err(Unanswered::Stopped(StopReason::Interrupted)));
    let (begun, _) = until(&pair, 0, Kept { max_age: Duration::ZERO, ..kept }).await;
    assert_eq!(begun, 0, "it is older than it may be");
    assert!(kept_rows(&pair).await.is_some());
    let (begun, done) = until(&pair, u64::MAX, Kept { record: &other, ..kept }).await;
    assert_eq!((begun, done), (0, Ok(())), "it is the progress of another question");
}

/// What was found before it was stopped is found again.
#[tokio::test]
async fn a_difference_is_not_lost_with_the_run_that_found_it() {
    let pair = filled().await;
    pair.run("UPDATE t SET n = 0 WHERE id = 3").await;
    let (run, record) = (run(), record(b"a"));
    let kept = Kept { run: &run, record: &record, max_age: Duration::from_hours(1) };
    let (ask_to_stop, stop) = Stop::new();
    let mut listen = |notice: Notice| {
        if let Notice::ComparisonProgress(progress) = notice
            && progress.is_read
        {
            ask_to_stop.send(Some(StopReason::Interrupted)).unwrap();
        }
    };
    let pair = pair.looking_again_after(Duration::from_secs(2));
    let stopped = pair.told(COMPARE, &stop, Some(kept), &mut listen).await;
    assert_eq!(stopped, Err(Unanswered::Stopped(StopReason::Interrupted)));
    assert_eq!(kept_rows(&pair).await, None, "nothing behind it counts as done");
    let (_sender, stop) = Stop::new();
    let found = pair.told(COMPARE, &stop, Some(kept), &mut |_| {}).await.unwrap();
    let found: Vec<String> = crate::pair::told(&found).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["_id = 3 differs in n"]);
}
