//! Spans as OTLP writes them in JSON: ids in hexadecimal, 64-bit numbers as text.

use super::{Attributes, Span, SpanId, TraceId, Value};
use serde_json::{Value as Json, json};

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;

/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// The body of one request: spans of one trace, and who made them.
pub fn body(resource: &[(String, String)], trace: TraceId, spans: &[Span]) -> String {
    let resource = resource
        .iter()
        .map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } }));
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource.collect::<Json>() },
            "scopeSpans": [{
                "scope": { "name": "lockstep", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans.iter().map(|it| span(trace, it)).collect::<Json>(),
            }],
        }],
    })
    .to_string()
}

fn span(trace: TraceId, span: &Span) -> Json {
    let events = span.events.iter().map(|event| {
        json!({
            "timeUnixNano": event.at.to_string(),
            "name": event.name,
            "attributes": attributes(&event.attributes),
        })
    });
    let mut fields = json!({
        "traceId": format!("{:032x}", trace.0),
        "spanId": id(span.id),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": attributes(&span.attributes),
        "events": events.collect::<Json>(),
        "status": match &span.error {
            Some(message) => json!({ "code": ERROR, "message": message }),
            None => json!({}),
        },
    });
    if let Some(parent) = span.parent {
        fields["parentSpanId"] = id(parent).into();
    }
    if span.events_dropped > 0 {
        fields["droppedEventsCount"] = span.events_dropped.into();
    }
    fields
}

fn id(span: SpanId) -> String {
    format!("{:016x}", span.0)
}

fn attributes(all: &Attributes) -> Json {
    let one = |(name, value): &(&str, Value)| {
        let value = match value {
            Value::Text(text) => json!({ "stringValue": text }),
            Value::Count(number) => json!({ "intValue": number.to_string() }),
            Value::Truth(truth) => json!({ "boolValue": truth }),
        };
        json!({ "key": name, "value": value })
    };
    all.iter().map(one).collect()
}

/// What a collector says that it did not take, if it says so.
pub fn rejected(answer: &str) -> Option<String> {
    let answer: Json = serde_json::from_str(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected = partial.get("rejectedSpans")?;
    // A number as text, as the form wants it; some write the number.
    let number = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok())?;
    let says = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default();
    (number > 0).then(|| format!("{number} were not taken: {says}"))
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;

    #[test]
    fn a_span_is_written_as_the_form_wants_it() {
        let span = Span {
            id: SpanId(0xab),
            parent: Some(SpanId(0xcd)),
            name: "up/postgres/1".to_owned(),
            start: 1_763_740_000_000_000_001,
            end: 1_763_740_000_000_000_002,
            attributes: vec![
                ("a", Value::Text("x".to_owned())),
                ("b", Value::Count(u64::MAX)),
                ("c", Value::Truth(true)),
            ],
            events: vec![Event {
                at: 1_763_740_000_000_000_001,
                name: "delayed",
                attributes: Vec::new(),
            }],
            events_dropped: 3,
            error: Some("it said no".to_owned()),
        };
        let resource = [("service.name".to_owned(), "shop".to_owned())];
        let text = body(&resource, TraceId(0x12), &[span]);
        let seen: Json = serde_json::from_str(&text).expect("it is JSON");
        let expected = json!({ "resourceSpans": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": "shop" } },
            ] },
            "scopeSpans": [{
                "scope": { "name": "lockstep", "version": env!("CARGO_PKG_VERSION") },
                "spans": [{
                    "traceId": "00000000000000000000000000000012",
                    "spanId": "00000000000000ab",
                    "parentSpanId": "00000000000000cd",
                    "name": "up/postgres/1",
                    "kind": 1,
                    "startTimeUnixNano": "1763740000000000001",
                    "endTimeUnixNano": "1763740000000000002",
                    "attributes": [
                        { "key": "a", "value": { "stringValue": "x" } },
                        { "key": "b", "value": { "intValue": "18446744073709551615" } },
                        { "key": "c", "value": { "boolValue": true } },
                    ],
                    "events": [{
                        "timeUnixNano": "1763740000000000001", "name": "delayed", "attributes": [],
                    }],
                    "droppedEventsCount": 3,
                    "status": { "code": 2, "message": "it said no" },
                }],
            }],
        }] });
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_a_collector_did_not_take_is_told() {
        assert_eq!(rejected(""), None);
        assert_eq!(rejected("{}"), None);
        assert_eq!(rejected(r#"{"partialSuccess":{}}"#), None);
        assert_eq!(rejected(r#"{"partialSuccess":{"rejectedSpans":"0"}}"#), None);
        let answer = r#"{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}"#;
        assert_eq!(rejected(answer).as_deref(), Some("2 were not taken: too old"));
        let answer = r#"{"partialSuccess":{"rejectedSpans":2}}"#;
        assert_eq!(rejected(answer).as_deref(), Some("2 were not taken: "));
    }
}
