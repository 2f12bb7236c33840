//! `migrate man`: one page with every command, as roff.

use crate::cli::args::Cli;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io;

/// Writes the page.
pub fn run(output: &Output) -> Exit {
    output.document(page().as_bytes());
    Exit::Ok
}

/// The page.
fn page() -> String {
    let command = Cli::command().disable_help_flag(true).disable_version_flag(true);
    let own = Man::new(command.clone()).manual("Lockstep");
    let mut page = rendered(|to| own.render_title(to));
    page.push_str(&rendered(|to| own.render_name_section(to)));
    page.push_str(&rendered(|to| own.render_synopsis_section(to)));
    page.push_str(&section("DESCRIPTION", DESCRIPTION));
    page.push_str(&rendered(|to| own.render_options_section(to)));
    page.push_str(".SH COMMANDS\n");
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        page.push_str(&below("migrate", command));
    }
    page.push_str(".SH \"EXIT STATUS\"\n");
    for exit in Exit::ALL {
        page.push_str(&entry(&exit.code().to_string(), exit.means()));
    }
    page.push_str(".SH ENVIRONMENT\n");
    for (name, means) in ENVIRONMENT {
        page.push_str(&entry(name, means));
    }
    page.push_str(".SH FILES\n");
    for (name, means) in FILES {
        page.push_str(&entry(name, means));
    }
    page
}

/// What stands between the synopsis and the flags.
const DESCRIPTION: &str = "Applies and reverts migrations in a Postgres and a MongoDB as one \
     history. Whatever happens to a run, the same command goes on where it stopped. Flags beat the \
     environment, which beats the settings file.";

/// What is read of the environment.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("DATABASE_URL, POSTGRESQL_URI, POSTGRES_URL", "Postgres; the first that is set counts."),
    ("MONGODB_URI, MONGODB_URL, MONGO_URL", "MongoDB; the first that is set counts."),
    ("MIGRATE_ENV", "As --env."),
    ("MIGRATE_VAR_NAME", "As --var name=VALUE."),
    ("NO_COLOR", "No colours, unless --color always."),
];

/// What is read of the working directory.
const FILES: [(&str, &str); 3] = [
    ("migrate.toml", "The settings; -C names another file."),
    (".env", "Variables that the environment does not have."),
    ("migrations/", "The migrations; --dir names another folder."),
];

/// A command and what is below it, as parts of one section.
fn below(above: &str, command: &Command) -> String {
    let name = format!("{above} {}", command.get_name());
    let inner: Vec<Command> = command.get_subcommands().cloned().collect();
    // The flags of every command have a section of their own.
    let alone = command.clone().disable_help_flag(true).bin_name(name.clone());
    let man = Man::new(alone);
    let mut roff = Roff::new();
    roff.control("SS", [name.as_str()]);
    let mut text = bare(&roff.render());
    text.push_str(&bare(&rendered(|to| man.render_description_section(to))));
    text.push_str(".PP\n");
    text.push_str(&bare(&rendered(|to| man.render_synopsis_section(to))));
    text.push_str(&bare(&rendered(|to| man.render_options_section(to))));
    for command in inner {
        text.push_str(&below(&name, &command));
    }
    text
}

fn rendered(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
    let mut bytes = Vec::new();
    // A vector takes everything.
    let _ = render(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Without the heading, and without what stands before every heading.
fn bare(roff: &str) -> String {
    let heads = [".ie ", ".el ", ".SH "];
    let lines = roff.split_inclusive('\n');
    lines.filter(|line| !heads.iter().any(|head| line.starts_with(head))).collect()
}

fn section(title: &str, text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("SH", [title]).text([roman(text)]);
    roff.render()
}

fn entry(name: &str, means: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TP", []).text([bold(name)]).text([roman(means)]);
    bare(&roff.render())
}
