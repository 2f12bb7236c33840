//! Metrics as text, in the form that Prometheus reads: version 0.0.4.
//!
//! A family is a name, a sentence, a kind and its samples. What has no sample is
//! left out: a value that nobody knows is no zero.

use std::fmt::Write as _;

/// The type of the content, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a value behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, or begins anew at 0.
    Counter,
}

/// One metric: everything that has its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// `lockstep_migrations`: letters, digits and underscores.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// How its values behave.
    pub kind: Kind,
    /// Its values. Two with the same labels are a mistake of the caller's; of those
    /// the first is written, since a reader refuses the whole text otherwise.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values, in the order in which they are written.
    pub labels: Vec<(&'static str, String)>,
    /// In the unit that the name ends with: seconds, or a number of things.
    pub value: f64,
}

impl Family {
    /// A gauge without values yet.
    pub fn gauge(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// A counter without values yet.
    pub fn counter(name: &'static str, help: &'static str) -> Family {
        Family { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// One value more.
    pub fn add(&mut self, labels: Vec<(&'static str, String)>, value: f64) {
        self.samples.push(Sample { labels, value });
    }

    /// With one value more.
    #[must_use]
    pub fn with(mut self, labels: Vec<(&'static str, String)>, value: f64) -> Family {
        self.add(labels, value);
        self
    }
}

/// A number of things as a value. Beyond 2^53, which nobody counts to, it is rounded.
#[expect(clippy::cast_precision_loss, reason = "the form knows no other numbers")]
pub fn count(number: u64) -> f64 {
    number as f64
}

/// `true` as 1, `false` as 0.
pub fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The whole text.
pub fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let Family { name, help, kind, samples } = family;
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {}", escaped(help, false));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (index, sample) in samples.iter().enumerate() {
            if samples[..index].iter().any(|before| before.labels == sample.labels) {
                continue;
            }
            let _ = writeln!(text, "{name}{} {}", labels(&sample.labels), number(sample.value));
        }
    }
    text
}

fn labels(labels: &[(&'static str, String)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs = labels.iter().map(|(name, value)| format!(r#"{name}="{}""#, escaped(value, true)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

/// A backslash and a line feed would end what they stand in; in the value of a label
/// a quotation mark would, too.
fn escaped(text: &str, quoted: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str(r"\\"),
            '\n' => escaped.push_str(r"\n"),
            '"' if quoted => escaped.push_str(r#"\""#),
            other => escaped.push(other),
        }
    }
    escaped
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_family_has_its_sentence_its_type_and_its_samples() {
        let migrations = Family::gauge("lockstep_migrations", "Migrations by state.")
            .with(vec![("store", "postgres".to_owned()), ("state", "held".to_owned())], 2.0)
            .with(vec![("store", "mongo".to_owned()), ("state", "held".to_owned())], count(0));
        let runs = Family::counter("lockstep_runs_total", "Runs.").with(Vec::new(), 17.5);
        expect![[r#"
            # HELP lockstep_migrations Migrations by state.
            # TYPE lockstep_migrations gauge
            lockstep_migrations{store="postgres",state="held"} 2
            lockstep_migrations{store="mongo",state="held"} 0
            # HELP lockstep_runs_total Runs.
            # TYPE lockstep_runs_total counter
            lockstep_runs_total 17.5
        "#]]
        .assert_eq(&render(&[migrations, runs]));
    }

    #[test]
    fn what_nobody_knows_is_left_out() {
        assert_eq!(render(&[Family::gauge("lockstep_pair_ok", "Whether they are a pair.")]), "");
    }

    #[test]
    fn a_label_cannot_end_its_line_or_its_value() {
        let family = Family::gauge("x", "A \\ and a\nline, and \"quotes\".")
            .with(vec![("name", "back\\slash \"quoted\"\nnext{a=\"b\"} 7".to_owned())], 1.0);
        expect![[r#"
            # HELP x A \\ and a\nline, and "quotes".
            # TYPE x gauge
            x{name="back\\slash \"quoted\"\nnext{a=\"b\"} 7"} 1
        "#]]
        .assert_eq(&render(&[family]));
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        let shown = [0.0, 1e-9, 1_763_740_000.123, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let expected = ["0", "0.000000001", "1763740000.123", "NaN", "+Inf", "-Inf"];
        assert_eq!(shown.map(number), expected);
        assert_eq!([truth(true), truth(false)].map(number), ["1", "0"]);
    }

    #[test]
    fn of_two_samples_with_the_same_labels_the_first_is_written() {
        let label = || vec![("version", "1".to_owned())];
        let family = Family::gauge("x", "X.").with(label(), 1.0).with(label(), 2.0);
        assert!(render(&[family]).ends_with("\nx{version=\"1\"} 1\n"));
    }
}
