//! `migrate completions`: what a shell needs to complete commands and flags.

use crate::cli::args::{Cli, Completions, Shell};
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use clap::CommandFactory as _;
use clap_complete::Shell as Dialect;

/// Writes the script.
pub fn run(args: Completions, output: &Output) -> Exit {
    let dialect = match args.shell {
        Shell::Bash => Dialect::Bash,
        Shell::Zsh => Dialect::Zsh,
        Shell::Fish => Dialect::Fish,
    };
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(dialect, &mut command, name, &mut script);
    output.document(&script);
    Exit::Ok
}
