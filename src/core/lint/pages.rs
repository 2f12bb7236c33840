//! docs/lint: an index, and a page for each rule.

use super::{About, Example, Level, Rule, rules};
use std::fmt::Write as _;

/// The files of docs/lint by their names, each with its text.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("README.md".to_owned(), index())];
    pages.extend(rules().map(|rule| (format!("{}.md", rule.name), page(rule))));
    pages
}

/// The parts of the index, in order.
const PARTS: [(About, &str); 5] = [
    (About::Postgres, "SQL"),
    (About::Mongo, "MongoDB"),
    (About::Migration, "Migrations as a whole"),
    (About::Merge, "Beside what is merged, with `--base`"),
    (About::Comment, "Suppressions"),
];

fn index() -> String {
    let mut text = String::from(
        "# What `migrate lint` finds\n\n\
         Each rule has a page: what it finds, what happens then, what to do instead. \
         [How to run it](../cli.md#migrate-lint), how to suppress a finding and how to change a level stands there too.\n\n\
         `error` fails the lint. `warn` is shown. `off` is shown only where `[lint.levels]` in `migrate.toml` asks for it.\n",
    );
    for (about, title) in PARTS {
        let _ = write!(text, "\n## {title}\n| rule | level | finds |\n|---|---|---|\n");
        for rule in rules().filter(|rule| rule.about == about) {
            let Rule { name, level, what, .. } = rule;
            let _ = writeln!(text, "| [{name}]({name}.md) | {} | {what} |", level.word());
        }
    }
    text
}

fn page(rule: &Rule) -> String {
    let Rule { name, level, what, why, instead, .. } = rule;
    let mut text = format!(
        "# {name}\n\n{what}\n\nLevel: `{}`. [All rules](README.md)\n\n## Why\n{why}\n\n## Instead\n{instead}\n",
        level.word()
    );
    examples(&mut text, "Bad", rule.bad);
    examples(&mut text, "Good", rule.good);
    let off = if *level == Level::Off { "warn" } else { "off" };
    let _ = write!(
        text,
        "\n## {}\n{}",
        if *level == Level::Off { "To switch it on" } else { "If it is meant" },
        match rule.about {
            About::Merge | About::Comment => String::new(),
            About::Mongo => suppression("js", "//", name),
            About::Postgres if *level == Level::Off => String::new(),
            About::Postgres | About::Migration => suppression("sql", "--", name),
        }
    );
    let _ = write!(
        text,
        "For the whole project, in `migrate.toml`:\n\n```toml\n[lint.levels]\n{name} = \"{off}\"\n```\n"
    );
    text
}

fn suppression(kind: &str, comment: &str, name: &str) -> String {
    format!(
        "In front of the statement, or on its line:\n\n```{kind}\n{comment} lockstep:ignore {name} the reason\n```\n\n"
    )
}

fn examples(text: &mut String, title: &str, example: Example) {
    if example.is_empty() {
        return;
    }
    let _ = write!(text, "\n## {title}\n");
    for (file, content) in example {
        let kind = file.rsplit('.').next().unwrap_or_default();
        let _ = write!(text, "`{file}`\n\n```{kind}\n{}\n```\n\n", content.trim_end());
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}
