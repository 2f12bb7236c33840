//! `migrate lint`.

mod forms;
mod git;

use crate::cli::args::{self, Global, LintFormat, Output as Form};
use crate::cli::config::{Config, LintLevel};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::{configure, folder, of_source};
use crate::core::lint::{self, Finding, Found, Input, Level, Settings, merged};
use crate::core::problem::nearest;
use crate::core::template::Vars;
use crate::source::{self, SourceError};
use std::collections::BTreeSet;

/// Runs the command.
///
/// # Errors
/// See docs/cli.md for the exit codes.
pub fn run(global: &Global, args: &args::Lint, output: &Output) -> Result<Exit, Failure> {
    let format = match (args.format, output.form) {
        (None | Some(LintFormat::Human), Form::Human) => LintFormat::Human,
        (None | Some(LintFormat::Json), _) => LintFormat::Json,
        (Some(format), Form::Human) => format,
        (Some(_), Form::Json) => {
            let message = "`--output json` is one JSON object for each line, and `--format` asks for something else";
            return Err(
                Failure::new(Exit::Usage, "USAGE", message).next("leave out one of the two")
            );
        }
    };
    let form = if format == LintFormat::Json { Form::Json } else { Form::Human };
    let output = &Output { form, ..*output };
    let result = lint_project(global, args, format, output);
    result.map_err(|failure| {
        output.failure(&failure);
        Failure { said: true, ..failure }
    })
}

fn lint_project(
    global: &Global,
    args: &args::Lint,
    format: LintFormat,
    output: &Output,
) -> Result<Exit, Failure> {
    let config = configure(global)?;
    let settings = Settings { levels: levels(&config)?, new: BTreeSet::new() };
    let inputs = source::inputs(&config.dir, &config).map_err(|error| {
        if let (LintFormat::Github, SourceError::Problems(problems)) = (format, &error) {
            let folder = folder(&config);
            for problem in problems {
                output.line(&forms::github_problem(problem, &folder));
            }
        }
        of_source(error, &config)
    })?;
    for input in inputs.iter().filter(|input| !input.lacking.is_empty()) {
        let folder = &input.migration.folder;
        output.remark(&format!(
            "{folder} is a template without all of its values: it is looked at with the names in their place"
        ));
    }
    let (found, migrations) = match &args.base {
        None => (lint::lint(&inputs, &settings), inputs.len()),
        Some(name) => {
            since(&inputs, settings, &git::Repository::open(&config.dir)?, name, &config)?
        }
    };
    let report = forms::Report { found: &found, migrations, folder: folder(&config) };
    match format {
        LintFormat::Human => output.result(&report.human(output.result_look)),
        LintFormat::Json => output.object("lint", &report.json()),
        LintFormat::Github => {
            for line in report.github() {
                output.line(&line);
            }
            output.remark(&report.summary());
        }
        LintFormat::Sarif => {
            output.line(&report.sarif());
            output.remark(&report.summary());
        }
    }
    Ok(exit(&found))
}

/// An error fails the lint; a warning does not.
fn exit(found: &Found) -> Exit {
    let failed = found.findings.iter().any(|finding| finding.level == Level::Error);
    if failed { Exit::Failed } else { Exit::Ok }
}

/// What is new since a ref, and in how many migrations it was looked for.
fn since(
    inputs: &[Input],
    settings: Settings,
    repository: &git::Repository,
    name: &str,
    vars: &dyn Vars,
) -> Result<(Found, usize), Failure> {
    let base = repository.base(name)?;
    let settings = Settings { new: base.new_versions(inputs), ..settings };
    let edited = base.edited();
    let is_looked_at = |input: &Input| {
        let Input { migration, .. } = input;
        settings.new.contains(&migration.version) || edited.contains_key(migration.folder.as_str())
    };
    // What was found in an edited one before its edit is nobody's news.
    let mut before = inputs.to_vec();
    for input in &mut before {
        if edited.contains_key(input.migration.folder.as_str())
            && let Ok(old) = Input::read(&repository.folder(&input.migration.folder, &base)?, vars)
        {
            *input = old;
        }
    }
    let keep = |mut found: Found, inputs: &[Input]| {
        let versions: BTreeSet<_> = inputs
            .iter()
            .filter(|input| is_looked_at(input))
            .map(|input| input.migration.version)
            .collect();
        found.findings.retain(|finding| versions.contains(&finding.version));
        found
    };
    let now = keep(lint::lint(inputs, &settings), inputs);
    let mut old = keep(lint::lint(&before, &settings), &before);
    old.findings.retain(|finding| !settings.new.contains(&finding.version));
    let mut found = merged::since(now, &old);
    let mut findings: Vec<Finding> = merged::compare(inputs, &base, &settings);
    findings.append(&mut found.findings);
    findings.sort_by_key(|finding| finding.version);
    found.findings = findings;
    let looked_at = inputs.iter().filter(|input| is_looked_at(input)).count();
    Ok((found, looked_at))
}

/// `[lint.levels]`, of rules that there are.
fn levels(config: &Config) -> Result<std::collections::BTreeMap<String, Level>, Failure> {
    let names: Vec<&str> = lint::rules().map(|rule| rule.name).collect();
    let mut levels = std::collections::BTreeMap::new();
    for (name, level) in &config.lint.levels {
        if !names.contains(&name.as_str()) {
            let origin = config.origins.of(&format!("lint.levels.{name}"));
            let origin = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
            let message = format!("{origin}there is no lint rule `{name}`");
            let next = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/lint/README.md lists them".to_owned(),
            };
            return Err(Failure::new(Exit::Usage, "CONFIG_INVALID", message).next(next));
        }
        let level = match level {
            LintLevel::Error => Level::Error,
            LintLevel::Warn => Level::Warn,
            LintLevel::Off => Level::Off,
        };
        levels.insert(name.clone(), level);
    }
    Ok(levels)
}
