//! The invariants of ARCHITECTURE.md that a reader of the source can check.
//!
//! A line is checked without its comments and strings, so that documentation may
//! name what code must not.

use std::fs;
use std::path::{Path, PathBuf};

/// A rule: in which files, what must not be named, and why.
struct Rule {
    /// Whether the rule is for this file, by its path below `src`.
    applies: fn(&str) -> bool,
    /// Paths and macros, each as it stands in code without blanks.
    forbidden: &'static [&'static str],
    /// Whether it is for the tests at the end of the file too.
    in_tests: bool,
    why: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        applies: |file| file.starts_with("core/"),
        forbidden: &[
            "tokio",
            "tokio_postgres",
            "mongodb",
            "std::fs",
            "std::net",
            "std::process",
            "async fn",
            "async move",
            "async ||",
            ".await",
        ],
        in_tests: true,
        why: "core does no I/O",
    },
    Rule {
        applies: |file| file.starts_with("core/"),
        forbidden: &["SystemTime", "Instant", "Utc::now", "Local::now"],
        in_tests: false,
        why: "no decision reads a clock",
    },
    Rule {
        applies: |file| file.starts_with("core/"),
        forbidden: &[
            "crate::store",
            "crate::engine",
            "crate::cli",
            "crate::report",
            "crate::source",
            "crate::sandbox",
            "crate::serve",
        ],
        in_tests: true,
        why: "core knows nothing but itself",
    },
    Rule {
        applies: |file| file.starts_with("engine/") || file == "engine.rs",
        forbidden: &["crate::cli", "crate::report"],
        in_tests: true,
        why: "the engine does not know who started it or who listens",
    },
    Rule {
        applies: |file| {
            !file.starts_with("serve/") && !["serve.rs", "cli/commands/serve.rs"].contains(&file)
        },
        forbidden: &["crate::serve", "axum", "hyper"],
        in_tests: true,
        why: "nothing but its own command knows that something is served",
    },
    Rule {
        applies: |file| {
            let speaks = ["cli/", "report/"].iter().any(|folder| file.starts_with(folder));
            !speaks && !["main.rs", "cli.rs", "report.rs"].contains(&file)
        },
        forbidden: &["println!", "eprintln!", "print!", "eprint!", "dbg!"],
        in_tests: false,
        why: "nothing but report and cli prints",
    },
    Rule {
        applies: |file| file != "cli/config.rs",
        forbidden: &["env::var", "env::var_os", "env::vars", "env::vars_os"],
        in_tests: false,
        why: "the environment is read in cli/config.rs only",
    },
];

/// A module is named after what it knows, not after what it is made of.
const NAMES: [&str; 10] =
    ["utils", "util", "helpers", "helper", "common", "types", "type", "errors", "error", "misc"];

/// Every way in which a file breaks the rules. `file` is its path below `src`.
fn breaches(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in file.trim_end_matches(".rs").split('/') {
        if NAMES.contains(&part) {
            found.push(format!("src/{file}: `{part}` says nothing about what is in it"));
        }
    }
    let code = expand(&code(text));
    let tests = code.find("#[cfg(test)]\nmod tests").unwrap_or(code.len());
    for rule in RULES.iter().filter(|rule| (rule.applies)(file)) {
        let code = if rule.in_tests { &code } else { &code[..tests] };
        for (index, line) in code.lines().enumerate() {
            for word in rule.forbidden.iter().filter(|word| names(line, word)) {
                let line = index + 1;
                found.push(format!("src/{file}:{line}: names `{word}`; {}", rule.why));
            }
        }
    }
    found
}

/// Whether a line names a path, a word or a macro: the characters around it are
/// not part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let begins = word.starts_with(part) && before.is_some_and(part);
        !begins && !after.is_some_and(part)
    })
}

/// The text with comments and the insides of strings blanked out; lines stay.
fn code(text: &str) -> String {
    let characters = text.chars().collect::<Vec<_>>();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    let starts = |at: usize, what: &str| {
        what.chars().enumerate().all(|(i, c)| characters.get(at + i) == Some(&c))
    };
    while at < characters.len() {
        let c = characters[at];
        let previous = at.checked_sub(1).map(|at| characters[at]);
        let in_word = previous.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let end = if starts(at, "//") {
            (at..characters.len()).find(|i| characters[*i] == '\n').unwrap_or(characters.len())
        } else if starts(at, "/*") {
            let mut depth = 0;
            let mut i = at;
            loop {
                if i >= characters.len() {
                    break characters.len();
                } else if starts(i, "/*") {
                    depth += 1;
                    i += 2;
                } else if starts(i, "*/") {
                    depth -= 1;
                    i += 2;
                    if depth == 0 {
                        break i;
                    }
                } else {
                    i += 1;
                }
            }
        } else if let Some(hashes) = raw_string(&characters[at..]).filter(|_| !in_word) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = at + 1 + hashes + 1;
            (open..characters.len())
                .find(|i| starts(*i, &close))
                .map_or(characters.len(), |i| i + close.len())
        } else if c == '"' {
            let mut i = at + 1;
            while i < characters.len() && characters[i] != '"' {
                i += if characters[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(characters.len())
        } else if c == '\'' && (starts(at + 1, "\\") || characters.get(at + 2) == Some(&'\'')) {
            // A character, not a lifetime: `'"'` would open a string.
            let first = at + if starts(at + 1, "\\") { 3 } else { 2 };
            (first..characters.len())
                .find(|i| characters[*i] == '\'')
                .map_or(characters.len(), |i| i + 1)
        } else {
            out.push(c);
            at += 1;
            continue;
        };
        characters[at..end].iter().for_each(|c| blank(&mut out, *c));
        at = end;
    }
    out
}

/// How many hashes a raw string that begins here has.
fn raw_string(characters: &[char]) -> Option<usize> {
    let rest = characters.strip_prefix(&['r'])?;
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

/// `use std::{fs, io};` names `std::fs`: every path of a group is written out, on
/// the line on which it ends.
fn expand(code: &str) -> String {
    let mut out = String::new();
    let mut prefixes: Vec<String> = Vec::new();
    let mut path = String::new();
    let mut in_use = false;
    for c in code.chars() {
        out.push(c);
        if !in_use {
            path.push(c);
            let word = path.trim_start();
            if names(word, "use") && word.ends_with("use ") {
                in_use = true;
                path.clear();
            } else if matches!(c, ';' | '{' | '}' | '\n') {
                path.clear();
            }
            continue;
        }
        match c {
            '{' => prefixes.push(std::mem::take(&mut path)),
            ',' | '}' | ';' => {
                if !prefixes.is_empty() && !path.is_empty() {
                    out.extend([" ", &prefixes.concat(), &path, " "]);
                }
                path.clear();
                if c == '}' {
                    prefixes.pop();
                }
                if c == ';' {
                    in_use = false;
                    prefixes.clear();
                }
            }
            c if c.is_whitespace() => {}
            c => path.push(c),
        }
    }
    out
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_sources_keep_the_invariants_of_the_architecture() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "the sources were found");
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(&src).expect("it is below src");
        let file = file.to_string_lossy().replace('\\', "/");
        let text = fs::read_to_string(&path).expect("sources are UTF-8");
        found.extend(breaches(&file, &text));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_breach_is_found() {
    let check = |file: &str, text: &str, expected: &[&str]| {
        assert_eq!(breaches(file, text), expected, "{file}: {text}");
    };
    let core = "core/plan.rs";
    check(core, "use tokio::fs;", &["src/core/plan.rs:1: names `tokio`; core does no I/O"]);
    check(
        core,
        "\nfn f() { ::tokio_postgres::connect() }",
        &["src/core/plan.rs:2: names `tokio_postgres`; core does no I/O"],
    );
    check(core, "use mongodb::Client;", &["src/core/plan.rs:1: names `mongodb`; core does no I/O"]);
    check(
        core,
        "let e: mongodb::error::Error;",
        &["src/core/plan.rs:1: names `mongodb`; core does no I/O"],
    );
    check(core, "use std::fs;", &["src/core/plan.rs:1: names `std::fs`; core does no I/O"]);
    check(
        core,
        "use std::{\n    fmt,\n    fs::{self, File},\n};",
        &["src/core/plan.rs:3: names `std::fs`; core does no I/O"],
    );
    check(core, "let x = f.await?;", &["src/core/plan.rs:1: names `.await`; core does no I/O"]);
    check(core, "pub async fn f() {}", &["src/core/plan.rs:1: names `async fn`; core does no I/O"]);
    let clock = "no decision reads a clock";
    for (text, word) in [
        ("use std::time::SystemTime;", "SystemTime"),
        ("let t = std::time::Instant::now();", "Instant"),
        ("use std::time::{Duration, Instant};", "Instant"),
        ("chrono::Utc::now()", "Utc::now"),
    ] {
        check(core, text, &[&format!("src/core/plan.rs:1: names `{word}`; {clock}")]);
    }
    let alone = "core knows nothing but itself";
    for word in ["store", "engine", "cli", "report"] {
        let expected = format!("src/core/plan.rs:1: names `crate::{word}`; {alone}");
        check(core, &format!("use crate::{word}::X;"), &[&expected]);
        check(core, &format!("use crate::{{core, {word}}};"), &[&expected]);
    }
    check(
        "engine/execute.rs",
        "use crate::cli::Args;",
        &[
            "src/engine/execute.rs:1: names `crate::cli`; the engine does not know who started it or who listens",
        ],
    );
    let served = "nothing but its own command knows that something is served";
    for (word, text) in [("crate::serve", "use crate::serve::view;"), ("axum", "axum::Router")] {
        check(
            "report/json.rs",
            text,
            &[&format!("src/report/json.rs:1: names `{word}`; {served}")],
        );
    }
    for word in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
        let expected = format!("src/store.rs:1: names `{word}`; nothing but report and cli prints");
        check("store.rs", &format!("{word}(\"x\");"), &[&expected]);
    }
    check(
        "engine/lock.rs",
        "let user = std::env::var(\"USER\");",
        &["src/engine/lock.rs:1: names `env::var`; the environment is read in cli/config.rs only"],
    );
    check(
        "cli/commands/up.rs",
        "use std::env; env::var_os(\"X\");",
        &[
            "src/cli/commands/up.rs:1: names `env::var_os`; the environment is read in cli/config.rs only",
        ],
    );
    for name in ["utils", "helpers", "common", "types", "errors"] {
        let file = format!("core/{name}.rs");
        let expected = format!("src/{file}: `{name}` says nothing about what is in it");
        check(&file, "", &[&expected]);
        let file = format!("core/{name}/mod.rs");
        let expected = format!("src/{file}: `{name}` says nothing about what is in it");
        check(&file, "", &[&expected]);
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let check = |file: &str, text: &str| {
        assert_eq!(breaches(file, text), Vec::<String>::new(), "{file}: {text}");
    };
    let core = "core/parse/mongosh.rs";
    check(core, "// tokio, std::fs and mongodb:: are not for us\n/* nor /* println! */ is dbg! */");
    check(core, "let text = \"up.mongodb.js, use mongodb::Client; \\\" std::fs\";");
    check(core, "let text = r#\"use tokio; \" crate::store\"#; let c = '\"'; let d = '\\'';");
    check(core, "fn f<'a>(mongodb_like: &'a str) { tokio_like(); reprintln!(); my_print!() }");
    check(core, "fn mongo() -> crate::core::plan::Plan { crate::storehouse() }");
    check(core, "use std::time::Duration; use std::fmt::{self, Write};");
    check("cli/commands/up.rs", "println!(\"x\");");
    check("report/human.rs", "eprintln!(\"x\");");
    check("cli/commands/serve.rs", "use crate::serve::serve;");
    check("serve/http.rs", "use axum::Router; use crate::cli::failure::Failure;");
    check("main.rs", "eprintln!(\"x\");");
    check("cli/config.rs", "std::env::var(\"X\")");
    check("cli/args.rs", "#[arg(long, env = \"DATABASE_URL\")] url: String, std::env::args_os()");
    check("source.rs", "use std::fs; use crate::core::problem;");
    check("store.rs", "#[cfg(test)]\nmod tests { fn f() { println!(); env::var(); } }");
}
