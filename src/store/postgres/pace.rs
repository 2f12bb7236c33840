//! Probes: how the server is, while a backfill runs.

use super::{Postgres, failed};
use crate::core::pace::{AtLimit, Level, Limits, Reading};
use crate::store::StoreError;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

const PROBE: &str = "look how the server is";

/// A probe that takes longer is off: looking must not be a load of its own.
const LIMITS: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = '1s'; \
                      SET LOCAL statement_timeout = '2s'";

/// So much of the WAL that slots may keep may be kept before it is time to stop:
/// behind the limit the server throws away what a consumer still needs.
const SLOT_SHARE: f64 = 0.5;

/// How far the log was, by our own clock: a standby that has stopped replaying goes
/// on reporting the lag that it had.
#[derive(Debug, Default)]
pub(super) struct LogMarks(VecDeque<(Instant, f64)>);

impl LogMarks {
    /// A standby that is further behind than this is far behind.
    const KEPT: usize = 600;

    fn mark(&mut self, now: Instant, position: f64) {
        if self.0.back().is_none_or(|(_, last)| *last < position) {
            self.0.push_back((now, position));
        }
        if self.0.len() > LogMarks::KEPT {
            self.0.pop_front();
        }
    }

    /// For how long the log has been further than this.
    fn behind(&self, now: Instant, position: f64) -> Duration {
        let first = self.0.iter().find(|(_, mark)| *mark > position);
        first.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

pub(super) async fn probe(store: &mut Postgres, limits: &Limits) -> Vec<Reading> {
    let levels = match look(store, limits).await {
        Ok(levels) => levels,
        Err(error) => {
            let off = || Level::Off(error.said.to_string());
            [off(), off(), off(), off()]
        }
    };
    let [lag, waiting, slots, active] = levels;
    let reading = |probe, at_limit, level| Reading { probe, at_limit, level };
    vec![
        reading("replication lag", AtLimit::Stop, lag),
        reading("sessions that wait for us", AtLimit::Stop, waiting),
        reading("WAL kept for slots", AtLimit::Stop, slots),
        reading("active backends", AtLimit::Slower, active),
    ]
}

async fn look(store: &mut Postgres, limits: &Limits) -> Result<[Level; 4], StoreError> {
    store.session().await?;
    let sees = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'), current_user::text";
    // Other sessions' numbers are null for who may not see them. What a logical slot
    // sends is no standby: how far behind that is, its slot tells.
    let standbys = "SELECT coalesce(nullif(r.application_name, ''), 'a standby'), \
         r.pid IS NOT NULL AND r.state IS NULL, extract(epoch FROM r.replay_lag)::float8, \
         (r.replay_lsn - '0/0'::pg_lsn)::float8, (l.lsn - '0/0'::pg_lsn)::float8 \
         FROM (SELECT pg_catalog.pg_current_wal_lsn() AS lsn) AS l \
         LEFT JOIN (pg_catalog.pg_stat_replication AS r \
         LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.active_pid = r.pid) \
         ON r.state IS DISTINCT FROM 'backup' AND s.slot_type IS DISTINCT FROM 'logical'";
    // Who waits is looked up first: asking who is in whose way stops all locking for
    // a moment.
    let waiting = "WITH ours AS MATERIALIZED (SELECT pid FROM pg_catalog.pg_stat_activity \
         WHERE application_name = $1), \
         waits AS MATERIALIZED (SELECT pid, min(waitstart) AS since FROM pg_catalog.pg_locks \
         WHERE NOT granted AND waitstart < pg_catalog.clock_timestamp() - interval '1 second' \
         AND pid NOT IN (SELECT pid FROM ours) GROUP BY pid) \
         SELECT pg_catalog.count(*), \
         extract(epoch FROM pg_catalog.clock_timestamp() - min(since))::float8 FROM waits \
         WHERE pg_catalog.pg_blocking_pids(pid) && ARRAY(SELECT pid FROM ours)";
    let slots = "SELECT s.slot_name::text, \
         pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::float8, \
         m.setting::float8 * 1024 * 1024 FROM pg_catalog.pg_replication_slots AS s, \
         pg_catalog.pg_settings AS m WHERE m.name = 'max_slot_wal_keep_size' \
         AND s.restart_lsn IS NOT NULL ORDER BY 2 DESC LIMIT 1";
    let active = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity \
         WHERE state = 'active' AND backend_type = 'client backend' AND application_name <> $1";
    let ours = format!("lockstep/{}", store.run_id);
    let ours: [(&(dyn ToSql + Sync), Type); 1] = [(&ours, Type::TEXT)];
    store.open = true;
    let client = &store.client;
    // One round trip.
    let (begun, (sees, standbys), (waiting, slots, active), ended) = futures_util::future::join4(
        client.batch_execute(LIMITS),
        futures_util::future::join(
            client.query_typed(sees, &[]),
            client.query_typed(standbys, &[]),
        ),
        futures_util::future::join3(
            client.query_typed(waiting, &ours),
            client.query_typed(slots, &[]),
            client.query_typed(active, &ours),
        ),
        client.batch_execute("ROLLBACK"),
    )
    .await;
    store.open = false;
    let error = |error: &tokio_postgres::Error| failed(PROBE, error);
    begun.map_err(|it| error(&it))?;
    ended.map_err(|it| error(&it))?;
    let sees = sees.map_err(|it| error(&it))?;
    let blind = sees.first().filter(|row| !row.get::<_, bool>(0)).map(|row| {
        let who: String = row.get(1);
        format!("{who} may not see other sessions: GRANT pg_monitor TO {}", super::quote(&who))
    });
    let now = Instant::now();
    let off = |it: tokio_postgres::Error| Level::Off(error(&it).said.to_string());
    let marks = &mut store.log_marks;
    Ok([
        standbys.map_or_else(off, |rows| lag(&rows, blind.as_deref(), limits, marks, now)),
        waiting.map_or_else(off, |rows| waits(&rows)),
        slots.map_or_else(off, |rows| kept(&rows)),
        match limits.active_backends {
            None => Level::Nothing("`max_active_backends` is not set".to_owned()),
            Some(limit) => active.map_or_else(off, |rows| busy(&rows, blind, limit)),
        },
    ])
}

fn lag(
    rows: &[Row],
    blind: Option<&str>,
    limits: &Limits,
    marks: &mut LogMarks,
    now: Instant,
) -> Level {
    let mut worst: Option<(Duration, String)> = None;
    if let Some(row) = rows.first() {
        marks.mark(now, row.get::<_, Option<f64>>(4).unwrap_or(0.0));
    }
    for row in rows {
        // Without a standby the log's own position is all that the row has.
        let (name, unseen): (String, bool) = (row.get(0), row.get(1));
        let (reported, replayed): (Option<f64>, Option<f64>) = (row.get(2), row.get(3));
        let Some(replayed) = replayed else {
            match blind {
                Some(blind) if unseen => return Level::Off(blind.to_owned()),
                _ => continue,
            }
        };
        let written: f64 = row.get(4);
        let reported = reported
            .filter(|_| replayed < written)
            .and_then(|lag| Duration::try_from_secs_f64(lag).ok())
            .unwrap_or_default();
        let behind = reported.max(marks.behind(now, replayed));
        if worst.as_ref().is_none_or(|(most, _)| behind > *most) {
            worst = Some((behind, name));
        }
    }
    match worst {
        None => Level::Nothing("there is no standby".to_owned()),
        Some((behind, name)) => {
            let limit = limits.replication_lag;
            let says = format!("{name} is {} behind (limit {})", seconds(behind), seconds(limit));
            Level::At { ratio: over(behind.as_secs_f64(), limit.as_secs_f64()), says }
        }
    }
}

fn waits(rows: &[Row]) -> Level {
    let count: i64 = rows.first().map_or(0, |row| row.get(0));
    let longest = rows.first().and_then(|row| row.get::<_, Option<f64>>(1)).unwrap_or(0.0);
    let longest = seconds(Duration::try_from_secs_f64(longest).unwrap_or_default());
    let says = match count {
        0 => "no session waits for us".to_owned(),
        1 => format!("a session has waited for us for {longest} (limit 1 s)"),
        count => format!("{count} sessions wait for us, one for {longest} (limit 1 s)"),
    };
    Level::At { ratio: number(count), says }
}

fn kept(rows: &[Row]) -> Level {
    let Some(row) = rows.first() else {
        return Level::Nothing("there are no replication slots".to_owned());
    };
    let (name, kept, most): (String, f64, f64) = (row.get(0), row.get(1), row.get(2));
    if most < 0.0 {
        let why = "`max_slot_wal_keep_size` is not set: slots keep WAL without limit";
        return Level::Nothing(why.to_owned());
    }
    let share = over(kept, most);
    let says = format!(
        "slot {name} keeps {:.0} % of the WAL that it may (limit {:.0} %)",
        share * 100.0,
        SLOT_SHARE * 100.0
    );
    Level::At { ratio: share / SLOT_SHARE, says }
}

fn busy(rows: &[Row], blind: Option<String>, limit: u64) -> Level {
    if let Some(blind) = blind {
        return Level::Off(blind);
    }
    let count: i64 = rows.first().map_or(0, |row| row.get(0));
    let says = format!("{count} other backends are active (limit {limit})");
    Level::At { ratio: over(number(count), number(i64::try_from(limit).unwrap_or(i64::MAX))), says }
}

#[expect(clippy::cast_precision_loss, reason = "a count of sessions")]
fn number(count: i64) -> f64 {
    count as f64
}

/// A value over its limit; a limit of nothing is reached by anything.
fn over(value: f64, limit: f64) -> f64 {
    match limit > 0.0 {
        true => value / limit,
        false if value > 0.0 => 1.0,
        false => 0.0,
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_that_stands_still_falls_behind_by_our_clock() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut marks = LogMarks::default();
        for (second, position) in [(0, 100.0), (1, 200.0), (2, 200.0), (3, 300.0)] {
            marks.mark(at(second), position);
        }
        assert_eq!(marks.behind(at(4), 300.0), Duration::ZERO);
        assert_eq!(marks.behind(at(4), 250.0), Duration::from_secs(1));
        assert_eq!(marks.behind(at(4), 150.0), Duration::from_secs(3));
        assert_eq!(marks.behind(at(9), 50.0), Duration::from_secs(9));
    }
}
