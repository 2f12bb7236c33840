//! `completions`, `man` and `prove`: what needs no database, and says the same
//! whatever is configured.

use std::process::Command;

use clap::CommandFactory as _;
use lockstep::cli::args::Cli;

use crate::project::{Project, Ran};

/// `migrate` where nothing is: no project, no database, no environment.
fn bare(arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
    let output = command.args(arguments).current_dir(folder.path()).env_clear().output().unwrap();
    Ran::of(arguments, output)
}

/// What a real bash offers for the last of these words.
fn bash(words: &[&str]) -> Vec<String> {
    let script = r#"
        eval "$("$1" completions bash)"
        complete -p migrate >&2
        shift
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        _migrate migrate "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash", env!("CARGO_BIN_EXE_migrate")])
        .args(words)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    assert!(stderr.contains("-F _migrate"), "it is registered: {stderr}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_real_bash_completes_commands_flags_and_values() {
    assert_eq!(bash(&["migrate", "sta"]), ["status"]);
    assert_eq!(bash(&["migrate", "up", "--thr"]), ["--through"]);
    assert_eq!(bash(&["migrate", "up", "--through", "v"]), ["validate"]);
    assert_eq!(bash(&["migrate", "backfill", "pa"]), ["pause"]);
    let commands = bash(&["migrate", ""]);
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(commands.iter().any(|word| word == name), "{name} in {commands:?}");
    }
}

#[test]
fn completions_for_other_shells_know_every_command() {
    for (shell, beginning) in [("zsh", "#compdef migrate"), ("fish", "")] {
        let ran = bare(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
        assert!(ran.stdout.starts_with(beginning), "{ran}");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(ran.stdout.contains(name), "{shell}: {name}");
        }
    }
    assert_eq!(bare(&["completions", "powershell"]).code, 2);
}

#[test]
fn the_manual_page_has_every_command_and_flag() {
    let ran = bare(&["man"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran}");
    assert!(ran.stdout.contains("\n.TH migrate 1 "), "{ran}");
    let text = ran.stdout.replace("\\-", "-");
    let mut commands = vec![("migrate".to_owned(), Cli::command())];
    while let Some((name, command)) = commands.pop() {
        let flags = command.get_arguments().filter_map(|flag| flag.get_long());
        for flag in flags {
            assert!(text.contains(&format!("--{flag}")), "{name} --{flag}");
        }
        if name != "migrate" {
            assert!(text.contains(&format!(".SS \"{name}\"")), "{name}");
        }
        let below = command.get_subcommands().cloned();
        commands.extend(below.map(|below| (format!("{name} {}", below.get_name()), below)));
    }
}

#[test]
fn prove_says_that_it_is_not_there_yet() {
    let project = Project::new("prove", &[("001-a/up.sql", "CREATE TABLE a (id int);")]);
    let ran = project.fails(2, &["prove"]);
    assert!(ran.stderr.contains("not there yet"), "{ran}");
    let objects = project.json(2, &["prove", "001", "002"]);
    assert_eq!((objects.len(), &objects[0]["code"]), (1, &"NOT_YET".into()));
    assert_eq!(project.database.ours(), Vec::<String>::new());
    let help = project.ok(&["--help"]).stdout;
    let line = help.lines().find(|line| line.trim_start().starts_with("prove"));
    assert!(line.is_some_and(|line| line.contains("Not yet")), "{help}");
}

#[test]
fn arguments_that_cannot_be_read_are_an_object_where_objects_are_asked_for() {
    for arguments in [
        &["up", "--no-such-flag", "--output", "json"][..],
        &["--output=json", "upp"],
        &["up", "--steps", "many", "--output", "json"],
        &["--output=json"],
    ] {
        let ran = bare(arguments);
        assert_eq!((ran.code, ran.stderr.as_str()), (2, ""), "{ran}");
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&said["v"], &said["event"]), (&1.into(), &"error".into()), "{ran}");
        assert_eq!(said["code"], "USAGE", "{ran}");
        let message = said["message"].as_str().unwrap();
        assert!(!message.is_empty() && !message.contains("Usage:"), "{ran}");
    }
    // What comes behind `--` is somebody else's.
    let ran = bare(&["sandbox", "--no-such-flag", "--", "x", "--output", "json"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran}");
}
