//! What a lint found: for people, as an object, as annotations of GitHub, as SARIF.

use crate::cli::exit::Exit;
use crate::cli::output::snippet;
use crate::core::lint::{About, Finding, Found, Level, Rule, rules};
use crate::core::problem::Problem;
use crate::report::human::{Look, migrations};
use serde_json::{Value, json};

/// What was found, and where it was looked for.
pub struct Report<'a> {
    /// The findings.
    pub found: &'a Found,
    /// In so many migrations.
    pub migrations: usize,
    /// The migrations folder as seen from the working directory.
    pub folder: String,
}

impl Report<'_> {
    fn path(&self, finding: &Finding) -> String {
        format!("{}/{}", self.folder, finding.file)
    }

    fn count(&self, level: Level) -> usize {
        self.found.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// For people.
    pub fn human(&self, look: Look) -> String {
        let mut text = String::new();
        for finding in &self.found.findings {
            let word = match finding.level {
                Level::Error => look.bad("error:"),
                Level::Warn | Level::Off => look.warn("warning:"),
            };
            text.push_str(&format!("{word} {}\n", finding.message));
            match &finding.place {
                Some(place) => {
                    text.push_str(&snippet(&self.path(finding), place, look));
                    text.push('\n');
                }
                None => text.push_str(&format!("  in {}\n", self.path(finding))),
            }
            text.push_str(&labelled("instead", &finding.help, look));
            text.push_str(&labelled(
                "rule",
                &format!("{} ({})", finding.rule.name, finding.rule.page()),
                look,
            ));
            text.push('\n');
        }
        text.push_str(&self.summary());
        text
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warn));
        let plural = |n: usize, word: &str| match n {
            1 => format!("1 {word}"),
            n => format!("{n} {word}s"),
        };
        let mut parts = Vec::new();
        parts.extend((errors > 0).then(|| plural(errors, "error")));
        parts.extend((warnings > 0).then(|| plural(warnings, "warning")));
        if parts.is_empty() {
            parts.push("nothing found".to_owned());
        }
        let suppressed = match self.found.suppressed {
            0 => String::new(),
            n => format!(" ({n} suppressed)"),
        };
        format!("{} in {}{suppressed}", parts.join(", "), migrations(self.migrations))
    }

    /// The fields of the object.
    pub fn json(&self) -> Value {
        let finding = |finding: &Finding| {
            let place = finding.place.as_ref();
            json!({
                "rule": finding.rule.name,
                "level": finding.level.word(),
                "version": finding.version.0,
                "file": self.path(finding),
                "line": place.map(|place| place.line),
                "column": place.map(|place| place.column),
                "end_line": place.map(|_| finding.end.0),
                "end_column": place.map(|_| finding.end.1),
                "message": finding.message,
                "help": finding.help,
                "docs": finding.rule.page(),
            })
        };
        let failed = self.count(Level::Error) > 0;
        let exit = if failed { Exit::Failed } else { Exit::Ok };
        json!({
            "findings": self.found.findings.iter().map(finding).collect::<Vec<_>>(),
            "counts": {
                "error": self.count(Level::Error),
                "warn": self.count(Level::Warn),
                "suppressed": self.found.suppressed,
            },
            "migrations": self.migrations,
            "exit_code": exit.code(),
        })
    }

    /// Commands of a GitHub workflow, one for each finding.
    pub fn github(&self) -> Vec<String> {
        let line = |finding: &Finding| {
            let word = if finding.level == Level::Error { "error" } else { "warning" };
            let mut place = format!("file={}", property(&self.path(finding)));
            if let Some(at) = &finding.place {
                place.push_str(&format!(",line={},col={}", at.line, at.column));
                place.push_str(&format!(",endLine={},endColumn={}", finding.end.0, finding.end.1));
            }
            let title = property(finding.rule.name);
            let message = data(&format!("{}\n{}", finding.message, finding.help));
            format!("::{word} {place},title={title}::{message}")
        };
        self.found.findings.iter().map(line).collect()
    }

    /// A log of SARIF 2.1.0.
    pub fn sarif(&self) -> String {
        let all: Vec<&Rule> = rules().collect();
        let result = |finding: &Finding| {
            let mut location = json!({ "artifactLocation": { "uri": uri(&self.path(finding)) } });
            if let Some(at) = &finding.place {
                location["region"] = json!({
                    "startLine": at.line,
                    "startColumn": at.column,
                    "endLine": finding.end.0,
                    "endColumn": finding.end.1,
                });
            }
            json!({
                "ruleId": finding.rule.name,
                "ruleIndex": all.iter().position(|rule| *rule == finding.rule),
                "level": sarif_level(finding.level),
                "message": { "text": format!("{}. {}", finding.message, finding.help) },
                "locations": [{ "physicalLocation": location }],
            })
        };
        let log = json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": {
                    "name": "migrate lint",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": all.iter().map(|rule| sarif_rule(rule)).collect::<Vec<_>>(),
                } },
                "columnKind": "unicodeCodePoints",
                "results": self.found.findings.iter().map(result).collect::<Vec<_>>(),
            }],
        });
        format!("{log:#}")
    }
}

/// A label, and its text in as many lines as it needs.
fn labelled(label: &str, text: &str, look: Look) -> String {
    const INDENT: &str = "           ";
    let width = look.width.saturating_sub(INDENT.len()).max(20);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("it begins with one");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    let gap = " ".repeat(INDENT.len() - 3 - label.len());
    let label = look.bold(label);
    format!("  {label}:{gap}{}\n", lines.join(&format!("\n{INDENT}")))
}

/// A file that cannot be read, as a command of a GitHub workflow.
pub fn github_problem(problem: &Problem, folder: &str) -> String {
    let mut place = format!("file={}", property(&format!("{folder}/{}", problem.file)));
    if let Some(at) = &problem.at {
        place.push_str(&format!(",line={},col={}", at.line, at.column));
    }
    let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("::error {place},title=BAD_MIGRATION::{}", data(&format!("{}{hint}", problem.message)))
}

/// A message of a workflow's command.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of one.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// A relative path as a reference.
fn uri(path: &str) -> String {
    let mut text = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn sarif_level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn | Level::Off => "warning",
    }
}

fn sarif_rule(rule: &Rule) -> Value {
    let tag = match rule.about {
        About::Postgres => "postgres",
        About::Mongo => "mongo",
        About::Migration => "migration",
        About::Merge => "merge",
        About::Comment => "suppression",
    };
    json!({
        "id": rule.name,
        "shortDescription": { "text": rule.what },
        "fullDescription": { "text": rule.why },
        "help": { "text": rule.instead, "markdown": format!("{}\n\n{}", rule.why, rule.instead) },
        "defaultConfiguration": {
            "enabled": rule.level != Level::Off,
            "level": sarif_level(rule.level),
        },
        "properties": { "tags": [tag] },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_a_workflow_is_escaped() {
        assert_eq!(data("100 %\r\na:b,c"), "100 %25%0D%0Aa:b,c");
        assert_eq!(property("a:b,c\n"), "a%3Ab%2Cc%0A");
        assert_eq!(uri("mig ratio/ns/001-a:ü.sql"), "mig%20ratio/ns/001-a%3A%C3%BC.sql");
    }

    #[test]
    fn a_long_text_goes_on_below_its_beginning() {
        let look = Look { terminal: false, colour: false, width: 31 };
        assert_eq!(
            labelled("rule", "one two three four five six", look),
            "  rule:    one two three four\n           five six\n"
        );
    }
}
