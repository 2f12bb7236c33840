//! Where traces go, as OpenTelemetry's variables say it.

use super::{SpanId, TraceId};
use crate::report::http::Address;
use percent_encoding::percent_decode_str;
use std::time::Duration;

/// What nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A span of somebody else's, of which a run is a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parent {
    /// Its trace.
    pub trace: TraceId,
    /// It.
    pub span: SpanId,
}

/// Where traces go.
#[derive(Clone, Eq, PartialEq)]
pub struct Settings {
    /// With `/v1/traces`.
    pub to: Address,
    /// What opens it, among others.
    pub headers: Vec<(String, String)>,
    /// A request takes no longer.
    pub timeout: Duration,
    /// Who makes the spans.
    pub resource: Vec<(String, String)>,
    /// Of which the run is a part.
    pub parent: Option<Parent>,
}

/// Reads the variables. `None`: nobody wants traces.
///
/// # Errors
/// Why there are none although somebody wants them, as a sentence.
pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, String> {
    let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    // What is said of traces goes before what is said of all signals.
    let of_traces = |name: &str| {
        let own = format!("OTEL_EXPORTER_OTLP_TRACES_{name}");
        match get(&own) {
            Some(value) => Some((value, own)),
            None => {
                let all = format!("OTEL_EXPORTER_OTLP_{name}");
                get(&all).map(|value| (value, all))
            }
        }
    };
    let is = |name: &str, word: &str| {
        get(name).is_some_and(|value| value.trim().eq_ignore_ascii_case(word))
    };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let Some((endpoint, name)) = of_traces("ENDPOINT") else { return Ok(None) };
    if let Some((protocol, name)) = of_traces("PROTOCOL") {
        match protocol.trim() {
            "http/json" => {}
            // Whoever takes that takes JSON at the same place.
            "http/protobuf" => {}
            "grpc" => {
                return Err(format!(
                    "{name} is grpc, and only http/json is spoken here: name the collector's HTTP endpoint (usually port 4318) and set it to http/json"
                ));
            }
            _ => {
                return Err(format!("{name} is none of http/json, http/protobuf and grpc"));
            }
        }
    }
    let parent = match get("TRACEPARENT").map(|text| parent(&text)) {
        Some(Some((parent, Sampled::Yes))) => Some(parent),
        // Whoever began the trace does not record it.
        Some(Some((_, Sampled::No))) => return Ok(None),
        Some(None) | None => None,
    };
    let endpoint = endpoint.trim();
    if !endpoint.contains("://") {
        return Err(format!("{name} begins neither with http:// nor with https://"));
    }
    let to = Address::parse(endpoint).map_err(|why| format!("{name} cannot be used: {why}"))?;
    // That of all signals is where all of them are below.
    let to = match name.as_str() {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => to.below("/v1/traces"),
        _ => to,
    };
    let timeout = of_traces("TIMEOUT").and_then(|(ms, _)| ms.trim().parse().ok());
    let headers = of_traces("HEADERS").map(|(text, _)| pairs(&text)).unwrap_or_default();
    Ok(Some(Settings {
        to,
        headers,
        timeout: timeout.filter(|ms| *ms > 0).map_or(TIMEOUT, Duration::from_millis),
        resource: resource(get("OTEL_SERVICE_NAME"), get("OTEL_RESOURCE_ATTRIBUTES")),
        parent,
    }))
}

fn resource(service: Option<String>, attributes: Option<String>) -> Vec<(String, String)> {
    let mut all = vec![
        ("service.name".to_owned(), "lockstep".to_owned()),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("telemetry.sdk.name".to_owned(), "lockstep".to_owned()),
        ("telemetry.sdk.language".to_owned(), "rust".to_owned()),
        ("telemetry.sdk.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let given = attributes.map(|text| pairs(&text)).unwrap_or_default();
    let service = service.map(|name| ("service.name".to_owned(), name));
    for (name, value) in given.into_iter().chain(service) {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => all.push((name, value)),
        }
    }
    all
}

/// `a=b,c=d`, with `%2C` for what would be a separator. What is no pair is left out.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(name, value)| (decoded(name), decoded(value)));
    pairs.filter(|(name, _)| !name.is_empty()).collect()
}

/// Whether a trace is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sampled {
    Yes,
    No,
}

/// `00-<trace>-<span>-<flags>`, as the W3C writes it. `None` is for what is not that:
/// the run is then a trace of its own.
fn parent(text: &str) -> Option<(Parent, Sampled)> {
    let parts: Vec<&str> = text.trim().split('-').collect();
    let [version, trace, span, flags, rest @ ..] = parts.as_slice() else { return None };
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_known = is_hex(version, 2) && *version != "ff" && (*version != "00" || rest.is_empty());
    if !is_known || !is_hex(trace, 32) || !is_hex(span, 16) || !is_hex(flags, 2) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    let sampled = if flags & 1 == 1 { Sampled::Yes } else { Sampled::No };
    Some((Parent { trace: TraceId(trace), span: SpanId(span) }, sampled))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read_from(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        read(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")];
        all.extend(variables);
        let read = read_from(&all).unwrap_or_else(|why| panic!("{variables:?}: {why}"));
        read.unwrap_or_else(|| panic!("{variables:?}: nobody wants traces"))
    }

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        assert!(read_from(&[]).is_ok_and(|it| it.is_none()));
        assert!(read_from(&[("OTEL_SERVICE_NAME", "shop")]).is_ok_and(|it| it.is_none()));
        assert!(read_from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).is_ok_and(|it| it.is_none()));
    }

    #[test]
    fn whoever_says_no_gets_none() {
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("TRACEPARENT", &format!("{}00", &PARENT[..PARENT.len() - 2])),
        ] {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
            assert!(read_from(&[endpoint, (name, value)]).is_ok_and(|it| it.is_none()), "{name}");
        }
        settings(&[("OTEL_SDK_DISABLED", "false")]);
    }

    #[test]
    fn an_endpoint_of_all_signals_is_where_theirs_are_below() {
        let to = |variables: &[(&str, &str)]| settings(variables).to.to_string();
        assert_eq!(to(&[]), "http://collector:4318/v1/traces");
        assert_eq!(
            to(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces/otlp")]),
            "https://traces/otlp"
        );
    }

    #[test]
    fn what_is_said_of_traces_goes_before_what_is_said_of_all() {
        let read = settings(&[
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", " x-key = s%2Cecret , no pair, =no name"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ]);
        assert_eq!(read.headers, [("x-key".to_owned(), "s,ecret".to_owned())]);
        assert_eq!(read.timeout, Duration::from_millis(2500));
    }

    #[test]
    fn what_is_not_spoken_is_told() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        for (protocol, expected) in [("grpc", "only http/json"), ("http/xml", "none of http/json")]
        {
            let given = [endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)];
            let why = read_from(&given).err().expect(protocol);
            assert!(why.contains(expected), "{why}");
        }
        for endpoint in ["collector:4318", "grpc://app:s3cret@collector"] {
            let given = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
            let why = read_from(&given).err().expect(endpoint);
            assert!(why.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !why.contains("s3cret"));
        }
    }

    #[test]
    fn a_resource_has_a_name_whoever_gives_it() {
        let of = |variables: &[(&str, &str)], name: &str| {
            let resource = settings(variables).resource;
            let found: Vec<String> =
                resource.into_iter().filter(|(key, _)| key == name).map(|it| it.1).collect();
            found.join(" and ")
        };
        let attributes =
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=eu%201");
        assert_eq!(of(&[], "service.name"), "lockstep");
        assert_eq!(of(&[attributes], "service.name"), "shop");
        assert_eq!(of(&[attributes], "deployment.environment.name"), "eu 1");
        assert_eq!(
            of(&[attributes, ("OTEL_SERVICE_NAME", "migrations")], "service.name"),
            "migrations"
        );
    }

    #[test]
    fn a_parent_is_read_as_it_is_written_or_not_at_all() {
        let (found, sampled) = parent(PARENT).expect("a parent");
        assert_eq!(found.trace, TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
        assert_eq!((found.span, sampled), (SpanId(0x00f0_67aa_0ba9_02b7), Sampled::Yes));
        assert!(parent(&PARENT.replacen("00-", "01-", 1)).is_some());
        assert!(parent(&format!("{}-more", PARENT.replacen("00-", "01-", 1))).is_some());
        for wrong in [
            String::new(),
            "00".to_owned(),
            PARENT.to_uppercase(),
            format!("{PARENT}-more"),
            PARENT.replacen("00-", "ff-", 1),
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            PARENT.replace("00f067aa", "+0f067aa"),
            PARENT[1..].to_owned(),
        ] {
            assert_eq!(parent(&wrong), None, "{wrong}");
        }
    }
}
