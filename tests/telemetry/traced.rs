//! The spans of a run, at a collector.

use crate::project::{Project, until};
use crate::receiver::{Answer, Receiver, nobody};
use crate::{FILES, held, run, start, until_held};
use serde_json::Value;

/// Somebody's span.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A span, as a collector knows it.
#[derive(Clone, Debug)]
struct Span(Value);

impl Span {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn nanos(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap_or_else(|_| panic!("{field} of {self:?}"))
    }

    /// An attribute, whatever it is, as text.
    fn attribute(&self, name: &str) -> Option<String> {
        let all = self.0["attributes"].as_array().expect("a list");
        let found = all.iter().find(|one| one["key"] == name)?;
        let value = found["value"].as_object().expect("a value").values().next().expect("one");
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    fn has_failed(&self) -> bool {
        self.0["status"]["code"] == 2
    }
}

/// All that a collector got, with what is true of all of it.
#[track_caller]
fn spans(collector: &Receiver) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(request.what, "POST /v1/traces");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(!request.body.contains("s3cret"), "{}", request.body);
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        for resource in body["resourceSpans"].as_array().expect("a list") {
            for scope in resource["scopeSpans"].as_array().expect("a list") {
                let found = scope["spans"].as_array().expect("a list");
                assert!(!found.is_empty(), "{}", request.body);
                spans.extend(found.iter().cloned().map(Span));
            }
        }
    }
    for span in &spans {
        let is_hex = |text: &str| text.bytes().all(|it| it.is_ascii_hexdigit());
        let (trace, id) = (span.text("traceId"), span.text("spanId"));
        assert!(trace.len() == 32 && is_hex(trace) && id.len() == 16 && is_hex(id), "{span:?}");
        assert_eq!(trace, spans[0].text("traceId"), "one trace");
        assert!(span.nanos("startTimeUnixNano") <= span.nanos("endTimeUnixNano"), "{span:?}");
        assert_eq!(spans.iter().filter(|other| other.text("spanId") == id).count(), 1);
    }
    spans
}

/// The one of that name.
#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name() == name);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "several {name}: {spans:#?}");
    first.unwrap_or_else(|| panic!("no {name}: {spans:#?}"))
}

/// Those right below one, each within its time.
#[track_caller]
fn below<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    let id = parent.text("spanId");
    let mut found: Vec<&Span> =
        spans.iter().filter(|span| span.text("parentSpanId") == id).collect();
    found.sort_by_key(|span| span.nanos("startTimeUnixNano"));
    for span in &found {
        let begins = parent.nanos("startTimeUnixNano") <= span.nanos("startTimeUnixNano");
        let ends = span.nanos("endTimeUnixNano") <= parent.nanos("endTimeUnixNano");
        assert!(begins && ends, "{span:#?}\nis not within\n{parent:#?}");
    }
    found
}

fn names<'a>(spans: &[&'a Span]) -> Vec<&'a str> {
    spans.iter().map(|span| span.name()).collect()
}

#[test]
fn a_run_is_a_tree_of_migrations_steps_and_batches() {
    let project = Project::new("traced", FILES);
    let collector = Receiver::new();
    let url = collector.url();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=s3cret%3D1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=eu"),
    ];
    let ran = run(&project, &variables, &["up", "--release", "2.0"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(!ran.said().contains("traces"), "{ran}");

    let requests = collector.requests();
    assert!(requests.iter().all(|it| it.header("x-api-key") == Some("s3cret=1")), "{requests:?}");
    let body: Value = serde_json::from_str(&requests[0].body).expect("JSON");
    let resource = body["resourceSpans"][0]["resource"]["attributes"].to_string();
    for expected in ["\"lockstep\"", "\"deployment.environment.name\"", "\"eu\""] {
        assert!(resource.contains(expected), "{resource}");
    }

    let spans = spans(&collector);
    let root = one(&spans, "migrate up");
    assert_eq!(root.text("parentSpanId"), "");
    assert!(!root.has_failed());
    assert_eq!(root.attribute("lockstep.exit_code").as_deref(), Some("0"));
    assert_eq!(root.attribute("lockstep.release").as_deref(), Some("2.0"));
    assert_eq!(root.attribute("lockstep.migrations").as_deref(), Some("2"));
    let migrations = below(&spans, root);
    assert_eq!(names(&migrations), ["001-t", "002-more"]);
    assert_eq!(names(&below(&spans, migrations[0])), ["up/postgres/1", "up/mongo/1"]);
    let steps = below(&spans, migrations[1]);
    assert_eq!(steps.len(), 3, "{:?}", names(&steps));
    assert_eq!(steps[0].attribute("db.system.name").as_deref(), Some("postgresql"));
    let backfill = steps[1];
    assert_eq!(backfill.attribute("lockstep.rows").as_deref(), Some("95"));
    let batches = below(&spans, backfill);
    assert!(batches.len() >= 10, "{:?}", names(&batches));
    assert!(batches.iter().all(|batch| batch.name() == "batch"));
    let rows = batches.iter().filter_map(|it| it.attribute("lockstep.rows")?.parse::<u64>().ok());
    assert_eq!(rows.sum::<u64>(), 95);
    let all = 1 + 2 + 5 + batches.len();
    assert_eq!(spans.len(), all, "nothing hangs loose: {spans:#?}");
    // An invariant is asked, and its answer is an event.
    let events = steps[2].0["events"].to_string();
    assert!(events.contains("all are one"), "{events}");
}

#[test]
fn a_run_is_a_part_of_what_its_environment_names() {
    let project = Project::new("traced_parent", FILES);
    let collector = Receiver::new();
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let url = collector.url();
    let traces = format!("{url}/v1/traces");
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.as_str()),
        ("TRACEPARENT", &parent),
        ("OTEL_SERVICE_NAME", "shop-migrations"),
    ];
    assert_eq!(run(&project, &variables, &["up"]).code, 0);
    let found = spans(&collector);
    let root = one(&found, "migrate up");
    assert_eq!((root.text("traceId"), root.text("parentSpanId")), (TRACE, SPAN));
    assert!(collector.requests()[0].body.contains("shop-migrations"));

    // What its caller does not record, nobody does.
    let (before, unsampled) = (collector.requests().len(), format!("00-{TRACE}-{SPAN}-00"));
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("TRACEPARENT", &unsampled)];
    assert_eq!(run(&project, &variables, &["up"]).code, 0);
    assert_eq!(collector.requests().len(), before);
}

#[test]
fn no_statement_leaves_with_a_trace() {
    let project = Project::new("traced_statement", FILES);
    project.write("003-wrong/up.sql", "CREATE TABLE x (y no_such_type DEFAULT 's3cret')");
    let collector = Receiver::new();
    let url = collector.url();
    let ran = run(&project, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &["up"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(one(&spans(&collector), "migrate up").has_failed());
    let bodies: String = collector.requests().into_iter().map(|request| request.body).collect();
    assert!(!bodies.contains("CREATE TABLE"), "{bodies}");
}

#[test]
fn a_failed_run_says_where_it_failed() {
    let project = Project::new("traced_where", FILES);
    project.write("003-wrong/up.sql", "SELECT 1/0");
    let collector = Receiver::new();
    let url = collector.url();
    let ran = run(&project, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &["up"]);
    assert_eq!(ran.code, 1, "{ran}");
    let spans = spans(&collector);
    let failed: Vec<&Span> = spans.iter().filter(|span| span.has_failed()).collect();
    let mut failed_names = names(&failed);
    failed_names.sort_unstable();
    assert_eq!(failed_names, ["003-wrong", "migrate up", "up/postgres/1"]);
    for span in failed {
        let message = span.0["status"]["message"].as_str().expect("a sentence");
        assert!(message.contains("division by zero"), "{message}");
        assert_eq!(span.attribute("error.type").as_deref(), Some("STEP_FAILED"));
    }
    let root = one(&spans, "migrate up");
    assert_eq!(root.attribute("lockstep.exit_code").as_deref(), Some("1"));
    assert_eq!(names(&below(&spans, root)), ["001-t", "002-more", "003-wrong"]);
}

#[test]
fn of_a_run_that_was_killed_everything_is_there_that_had_ended() {
    let project = held("traced_killed");
    let collector = Receiver::new();
    let url = collector.url();
    let running = start(&project, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &["up"]);
    until_held(&project);
    let is_there = || spans(&collector).iter().any(|span| span.name() == "002-more");
    until("what has ended to leave", is_there);
    running.kill();
    let found = spans(&collector);
    assert_eq!(below(&found, one(&found, "001-t")).len(), 2);
    assert_eq!(below(&found, one(&found, "002-more")).len(), 3);
    assert!(!found.iter().any(|span| ["migrate up", "003-held"].contains(&span.name())));
}

#[test]
fn a_collector_that_is_not_there_is_a_warning() {
    let project = Project::new("traced_down", FILES);
    let silent = Receiver::answering(Answer::Never);
    let no = Receiver::answering(Answer::With(403, "not you"));
    let partial = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#;
    let partial = Receiver::answering(Answer::With(200, partial));
    for (url, expected) in [
        (nobody(), "spans are lost"),
        (silent.url(), "it did not answer"),
        (no.url(), "it answered 403: not you"),
        (partial.url(), "1 were not taken: too old"),
    ] {
        let url = url.replace("//", "//app:s3cret@");
        let ran = run(&project, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)], &["up"]);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stderr.contains("the traces of this run did not all reach"), "{ran}");
        assert!(ran.stderr.contains(expected), "{ran}");
        assert!(!ran.said().contains("s3cret"), "{ran}");
        project.ok(&["down", "--to", "0", "--yes"]);
    }
}

#[test]
fn what_is_not_spoken_is_a_warning() {
    let project = Project::new("traced_grpc", FILES);
    let collector = Receiver::new();
    let url = collector.url();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let ran = run(&project, &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], &["up"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("only http/json is spoken here"), "{ran}");
    let ran = run(&project, &[endpoint, ("OTEL_SDK_DISABLED", "true")], &["up"]);
    assert_eq!(ran.code, 0, "{ran}");
    assert!(!ran.said().contains("trace"), "{ran}");
    assert!(collector.requests().is_empty());
}
