//! A guide as blocks, and what became of its commands.

use std::fs;
use std::path::PathBuf;

use regex::Regex;

use crate::scene::Scene;

/// Runs a guide from its beginning to its end.
#[track_caller]
pub fn check(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let is_update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut scene: Option<Scene> = None;
    let mut written = String::new();
    let mut wrong = Vec::new();
    let mut commands = 0;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        if let Some(given) = line.strip_prefix("<!-- given: ") {
            let given = given.strip_suffix(" -->").expect("the comment ends in its line");
            Scene::given(&mut scene, given);
        }
        let Some(kind @ ("sh" | "console")) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let scene = scene.as_mut().expect("a guide says what is given before its first command");
        let shown = match kind {
            "sh" => {
                block.iter().filter(|line| !line.is_empty()).map(|line| (*line, None)).collect()
            }
            _ => transcript(&block),
        };
        commands += shown.len();
        let script: Vec<&str> = shown.iter().map(|(command, _)| *command).collect();
        let ran = scene.run(&script);
        for (at, ((command, expected), (said, code))) in shown.iter().zip(&ran).enumerate() {
            let is_told = shown.get(at + 1).is_some_and(|(next, _)| *next == "echo $?");
            if *code != 0 && !is_told {
                wrong.push(format!("`{command}` ended with {code}:\n{said}"));
            }
            if let Some(expected) = expected
                && !is_alike(expected, said)
            {
                wrong.push(format!("`{command}` printed\n{said}\ninstead of\n{expected}"));
            }
        }
        for (at, (command, expected)) in shown.iter().enumerate() {
            match expected {
                None => written.push_str(&format!("{command}\n")),
                Some(expected) => {
                    let said = &ran[at].0;
                    let text = if is_alike(expected, said) { expected } else { said };
                    written.push_str(&format!("$ {command}\n{text}"));
                }
            }
        }
        written.push_str("```\n");
    }
    assert!(commands > 3, "{name} shows commands");
    if is_update {
        fs::write(&path, written).unwrap();
    } else {
        assert!(wrong.is_empty(), "docs/{name}:\n{}", wrong.join("\n\n"));
    }
}

/// The commands of a block, each with what it prints.
fn transcript<'a>(block: &[&'a str]) -> Vec<(&'a str, Option<String>)> {
    let mut commands: Vec<(&str, Option<String>)> = Vec::new();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command, Some(String::new())));
        } else {
            let (_, printed) = commands.last_mut().expect("a block begins with a command");
            printed.get_or_insert_default().push_str(&format!("{line}\n"));
        }
    }
    commands
}

/// Whether two texts differ in nothing but what is another each time.
fn is_alike(expected: &str, found: &str) -> bool {
    let found = without_chance(found);
    let lines = without_chance(expected);
    let lines = lines.lines().map(|line| match line {
        "…" => "(?s:.*)".to_owned(),
        line => format!("{}\n", regex::escape(line)),
    });
    let pattern = format!("^{}$", lines.collect::<String>());
    Regex::new(&pattern).unwrap().is_match(&found)
}

/// A text with a word for each thing that is another one each time.
fn without_chance(text: &str) -> String {
    const CHANCE: [(&str, &str); 14] = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "[ID]"),
        (r"\brun [0-9a-f]{8}\b", "run [ID]"),
        (r"pair [0-9a-f]{8}\b", "pair [ID]"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "[AT]"),
        (r"\d{8}T\d{6}Z-\d+", "[BACKUP]"),
        (r"drill_\d+_\d+", "[DRILL]"),
        (r"\b\d+ (s|min|h) (ago|old)\b", "[AGE]"),
        (r"\b\d+ min \d+ s\b|\b\d+(\.\d+)? (ms|s)\b", "[TIME]"),
        (r"\b\d+(ms|s)\b", "[TIME]"),
        // It ends where the line ends, however long it is.
        (r" {2,}\[TIME\]", "  [TIME]"),
        (r"Postgres \d+\.\d+|MongoDB \d+\.\d+\.\d+", "[VERSION]"),
        (r"pid \d+", "pid [PID]"),
        (r"≈[\d,.]+( [kM])?|\d[\d,]* (bytes|kB|MB|GB)", "[SIZE]"),
        (r" +\n", "\n"),
    ];
    CHANCE.iter().fold(text.to_owned(), |text, (pattern, word)| {
        Regex::new(pattern).unwrap().replace_all(&text, *word).into_owned()
    })
}
