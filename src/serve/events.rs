//! `/api/events`: what changes, as it changes, as server-sent events.

use super::{Shared, closed, health, now};
use crate::core::history::Timestamp;
use crate::report::{json, utc};
use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// So many may listen at the same time.
pub const STREAMS_MAX: usize = 64;

/// Something is said this often, so that a proxy does not take the stream for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A stream ends after this long; who still listens comes again by itself.
const STREAM_TIME: Duration = Duration::from_hours(1);

/// All there is to say now, but for the time.
pub fn state(shared: &Shared) -> Value {
    let view = shared.now().ok();
    let at = now();
    json!({
        "v": json::VERSION,
        "status": view.as_ref().map(|view| json::value("status", at, view.status())),
        "backfills": view.as_ref().map(|view| json::value("backfill", at, view.backfills())),
        "health": health::whole(shared).1,
        // The page offers no button that nobody may press.
        "control": shared.control.is_some(),
    })
}

/// What of it is worth telling when it changes: not that it was looked again.
pub fn gist(state: &Value) -> Value {
    let mut gist = state.clone();
    for key in ["status", "backfills", "health"] {
        if let Some(object) = gist[key].as_object_mut() {
            object.remove("at");
        }
    }
    for store in ["postgres", "mongo"] {
        if let Some(object) = gist["health"]["stores"][store].as_object_mut() {
            object.remove("latency_ms");
            object.remove("checked_at");
            // Says for how long, and so changes all the time.
            object.remove("error");
        }
    }
    if let Some(health) = gist["health"].as_object_mut() {
        let reasons = health.get("reasons").and_then(Value::as_array).map_or(0, Vec::len);
        health.insert("reasons".to_owned(), reasons.into());
    }
    if let Some(backfills) = gist["backfills"].as_object_mut() {
        backfills.remove("probes");
    }
    gist
}

/// The event itself.
pub fn message(mut state: Value, at: Timestamp) -> Arc<str> {
    state["at"] = utc(at).into();
    // JSON has no line feeds of its own.
    format!("event: state\ndata: {state}\n\n").into()
}

/// What there is to say now for one who is new, else what is said next; `None` when
/// nobody says anything any more.
async fn next(state: &mut Receiver<Arc<str>>, is_new: bool) -> Option<Arc<str>> {
    if !is_new {
        state.changed().await.ok()?;
    }
    // In the first moment there is nothing to say yet.
    let message = state.wait_for(|message| !message.is_empty()).await.ok()?;
    Some(Arc::clone(&message))
}

/// The stream of one who listens; `permit` is theirs until it ends.
pub fn body(shared: &Arc<Shared>, permit: OwnedSemaphorePermit) -> Body {
    struct Listener {
        state: Receiver<Arc<str>>,
        closing: Receiver<bool>,
        until: Instant,
        is_new: bool,
        _permit: OwnedSemaphorePermit,
    }
    let state = shared.state.clone();
    let closing = shared.closing.clone();
    let until = Instant::now() + STREAM_TIME;
    let listener = Listener { state, closing, until, is_new: true, _permit: permit };
    let events = stream::unfold(listener, async |mut listener| {
        let Listener { state, closing, until, is_new, .. } = &mut listener;
        let is_new = std::mem::take(is_new);
        let bytes = tokio::select! {
            message = next(state, is_new) => Bytes::copy_from_slice(message?.as_bytes()),
            () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b": still here\n\n"),
            () = tokio::time::sleep_until(*until) => return None,
            () = closed(closing) => return None,
        };
        Some((Ok::<Bytes, Infallible>(bytes), listener))
    });
    Body::from_stream(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_look_is_no_news() {
        let state = |latency: f64, pending: u64| {
            json!({
                "status": { "at": latency, "pending": pending },
                "backfills": null,
                "health": { "at": latency, "stores": {
                    "postgres": { "reachable": true, "latency_ms": latency, "checked_at": latency },
                    "mongo": null,
                } },
            })
        };
        assert_eq!(gist(&state(1.0, 2)), gist(&state(3.0, 2)));
        assert_ne!(gist(&state(1.0, 2)), gist(&state(1.0, 3)));
    }

    #[test]
    fn an_event_is_one_line_of_data() {
        let message = message(json!({ "reason": "two\nlines" }), Timestamp(0));
        let expected = "event: state\ndata: {\"at\":\"1970-01-01T00:00:00.000Z\",\"reason\":\"two\\nlines\"}\n\n";
        assert_eq!(&*message, expected);
    }
}
