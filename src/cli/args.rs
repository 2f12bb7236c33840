//! The command line, as clap reads it. Every flag is a promise of docs/cli.md.

use crate::core::history::Timestamp;
use crate::core::id::{Phase, StoreName};
use crate::core::import::Tool;
use crate::core::pace::SPEED;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// One migration history for Postgres and MongoDB.
#[derive(Clone, Debug, Parser)]
#[command(name = "migrate", version, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// For every command.
    #[command(flatten)]
    pub global: Global,
}

/// Flags of every command.
#[derive(Args, Clone)]
pub struct Global {
    /// Read this file instead of ./migrate.toml
    #[arg(short = 'C', long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Folder of the migrations [default: migrations]
    #[arg(long, value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
    /// Postgres URL [default: DATABASE_URL]
    #[arg(long, value_name = "URL", global = true, hide_env_values = true)]
    pub postgres: Option<String>,
    /// MongoDB URL, with the database [default: MONGODB_URI]
    #[arg(long, value_name = "URL", global = true, hide_env_values = true)]
    pub mongo: Option<String>,
    /// Use the settings of [env.NAME]
    #[arg(long, value_name = "NAME", global = true)]
    pub env: Option<String>,
    /// A variable of templates; as often as needed
    #[arg(long = "var", value_name = "NAME=VALUE", global = true)]
    pub vars: Vec<String>,
    /// What stdout is for
    #[arg(long, value_enum, default_value_t = Output::Human, global = true)]
    pub output: Output,
    /// Wait until both databases accept connections, for this long at most
    #[arg(long, value_name = "DURATION", value_parser = duration, global = true)]
    pub wait: Option<Duration>,
    /// Wait for the lease of another run, for this long at most [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration, global = true)]
    pub lock_wait: Option<Duration>,
    /// Do not ask
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Say nothing but failures
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    pub verbose: u8,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto, global = true)]
    pub color: Color,
}

/// Without the URLs and the variables, which may have passwords in them.
impl std::fmt::Debug for Global {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Global")
            .field("config", &self.config)
            .field("dir", &self.dir)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// What stdout is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Output {
    /// Results for people
    Human,
    /// One JSON object per line, and nothing else
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Write migrate.toml and a commented first migration
    Init(Init),
    /// Write the folder of the next migration
    New(New),
    /// Apply what is pending
    Up(Up),
    /// Revert, newest applied first; one migration by default
    Down(Down),
    /// Finish migrations that are held: their invariants again, then their cleanup
    Cleanup(Cleanup),
    /// Show what a command would do, and do nothing
    Plan(Plan),
    /// Show where every migration stands, in both stores
    Status(Status),
    /// Check both databases before a deployment, and change nothing
    Doctor,
    /// Show the audit log, or the records of one migration
    History(History),
    /// Compare the files with both histories, and the histories with each other
    Verify,
    /// Find hazards in the migrations, without a database
    Lint(Lint),
    /// Say what is wrong with a history; with a flag, mend that one thing
    Repair(Repair),
    /// Take the lease away from a run
    Unlock(Unlock),
    /// Record everything up to a version as already there, and run nothing
    Baseline(Baseline),
    /// Adopt another tool's folder and history
    Import(Import),
    /// Steer running backfills from anywhere, or see how far they are
    Backfill(Backfill),
    /// Record that there is a backup, or see which are recorded
    Backup(Backup),
    /// Run a command with a throwaway Postgres and MongoDB
    Sandbox(Sandbox),
    /// Serve health, metrics and a page that shows it all, over HTTP
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Wait until both databases answer, and until a version is completed in them
    Wait(Wait),
    /// Not yet: run each migration up, down and up again on throwaway databases
    Prove(Prove),
    /// Write what a shell needs to complete commands and flags
    Completions(Completions),
    /// Write the manual page, as `man` reads it
    Man,
}

/// `lint`.
#[derive(Args, Clone, Debug)]
pub struct Lint {
    /// How findings are told [default: human]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<LintFormat>,
    /// Only what is new since this branch, tag or commit
    #[arg(long, value_name = "REF")]
    pub base: Option<String>,
}

/// How findings are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LintFormat {
    /// With the lines that they are about
    Human,
    /// One JSON object, as --output json
    Json,
    /// Annotations of a GitHub workflow
    Github,
    /// SARIF 2.1.0
    Sarif,
}

/// `repair`.
#[derive(Args, Clone, Debug)]
pub struct Repair {
    /// The edit of this applied migration was harmless
    #[arg(long, value_name = "VERSION", group = "what")]
    pub accept_checksum: Option<String>,
    /// This store was restored from an older backup: run there what it lacks
    #[arg(long, value_enum, value_name = "STORE", group = "what")]
    pub replay: Option<OneStore>,
    /// The effect of this step is there (007/up/postgres/1); `all`: of every step that is not recorded
    #[arg(long, value_name = "STEP|all", group = "what")]
    pub mark_applied: Option<String>,
    /// Nothing of this step, or of this migration (007), is there
    #[arg(long, value_name = "STEP|VERSION", group = "what")]
    pub mark_reverted: Option<String>,
    /// Run this step again
    #[arg(long, value_name = "STEP", group = "what")]
    pub redo: Option<String>,
    /// These two databases are a pair from now on
    #[arg(long, group = "what")]
    pub pair: bool,
    /// The store that --mark-applied and --mark-reverted are about, if only one
    #[arg(long, value_enum, value_name = "STORE")]
    pub store: Option<OneStore>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `baseline`.
#[derive(Args, Clone, Debug)]
pub struct Baseline {
    /// The last migration whose effect is there
    #[arg(value_name = "VERSION")]
    pub version: String,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `import`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Import {
    /// The tool
    #[arg(value_enum, value_name = "TOOL")]
    pub tool: ImportTool,
    /// The folder with its migrations
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Its history, if that has another name than usual; SCHEMA.TABLE is possible
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Write the migrations, and record nothing
    #[arg(long, conflicts_with = "history_only")]
    pub files_only: bool,
    /// Record what the tool had applied, and write no files
    #[arg(long)]
    pub history_only: bool,
    /// Give what is imported numbers behind the newest that is there
    #[arg(long)]
    pub renumber: bool,
    /// Take out a BEGIN that begins a file and the COMMIT that ends it
    #[arg(long)]
    pub strip_transactions: bool,
}

/// A tool whose folder and history can be adopted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ImportTool {
    /// golang-migrate, for Postgres and MongoDB
    GolangMigrate,
    /// Flyway, for Postgres
    Flyway,
    /// dbmate, for Postgres
    Dbmate,
    /// sqlx, for Postgres
    Sqlx,
    /// refinery, for Postgres
    Refinery,
    /// goose, for Postgres
    Goose,
    /// migrate-mongo, for MongoDB
    MigrateMongo,
}

impl From<ImportTool> for Tool {
    fn from(tool: ImportTool) -> Tool {
        match tool {
            ImportTool::GolangMigrate => Tool::GolangMigrate,
            ImportTool::Flyway => Tool::Flyway,
            ImportTool::Dbmate => Tool::Dbmate,
            ImportTool::Sqlx => Tool::Sqlx,
            ImportTool::Refinery => Tool::Refinery,
            ImportTool::Goose => Tool::Goose,
            ImportTool::MigrateMongo => Tool::MigrateMongo,
        }
    }
}

/// `unlock`.
#[derive(Args, Clone, Debug)]
pub struct Unlock {
    /// The run that has it; `migrate status` names it
    #[arg(long, value_name = "ID")]
    pub run: String,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `init`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Init {
    /// For a project that has only this store
    #[arg(long, value_enum)]
    pub store: Option<OneStore>,
}

/// `new`.
#[derive(Args, Clone, Debug)]
pub struct New {
    /// What it is about: `add user preferences`
    #[arg(value_name = "NAME", required = true)]
    pub name: Vec<String>,
    /// With phases, for a change without downtime
    #[arg(long)]
    pub phased: bool,
    /// Only files for this store
    #[arg(long, value_enum)]
    pub store: Option<OneStore>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum OneStore {
    /// Postgres
    Postgres,
    /// MongoDB
    Mongo,
}

impl From<OneStore> for StoreName {
    fn from(store: OneStore) -> StoreName {
        match store {
            OneStore::Postgres => StoreName::Postgres,
            OneStore::Mongo => StoreName::Mongo,
        }
    }
}

/// `up`.
#[derive(Args, Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Up {
    /// Up to and including this version
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// This many migrations at most
    #[arg(long, value_name = "N", conflicts_with = "to")]
    pub steps: Option<usize>,
    /// Up to and including this phase, of migrations that have phases
    #[arg(long, value_enum, value_name = "PHASE")]
    pub through: Option<Through>,
    /// The release that this belongs to
    #[arg(long, value_name = "NAME")]
    pub release: Option<String>,
    /// Backfills as fast as they go: no probes, no pauses, batches of 5,000 rows
    #[arg(long)]
    pub unthrottled: bool,
    /// Help with the backfills of a run that is at work, instead of waiting for it
    #[arg(long)]
    pub join: bool,
    /// Stop between two steps after this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Apply files that sort below what is applied already
    #[arg(long)]
    pub allow_out_of_order: bool,
    /// When a migration fails, run its down scripts
    #[arg(long)]
    pub rollback_on_failure: bool,
    /// What it tells when it ends.
    #[command(flatten)]
    pub telemetry: Telemetry,
}

/// What a run tells about itself when it ends.
#[derive(Args, Clone, Default)]
pub struct Telemetry {
    /// Write metrics of this run to a file, for the node exporter
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Push metrics of this run to a Pushgateway
    #[arg(long, value_name = "URL")]
    pub push: Option<String>,
}

/// Without the URL, which may have a password in it.
impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry")
            .field("metrics_file", &self.metrics_file)
            .finish_non_exhaustive()
    }
}

/// `down`.
#[derive(Args, Clone, Debug, Default)]
pub struct Down {
    /// Down to this version, which stays; 0 reverts everything
    #[arg(long, value_name = "VERSION", group = "far")]
    pub to: Option<String>,
    /// This many migrations
    #[arg(long, value_name = "N", group = "far")]
    pub steps: Option<usize>,
    /// What the last run applied
    #[arg(long, group = "far")]
    pub last_run: bool,
    /// What a release applied
    #[arg(long, value_name = "NAME", group = "far")]
    pub release: Option<String>,
    /// What it tells when it ends.
    #[command(flatten)]
    pub telemetry: Telemetry,
}

/// `backfill`.
#[derive(Args, Clone, Debug)]
pub struct Backfill {
    /// What to do.
    #[command(subcommand)]
    pub what: Steering,
}

/// What to do with running backfills, wherever they run.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Steering {
    /// Show how far they are
    Status,
    /// Let them stand still after the batch that is under way
    Pause {
        /// Why; shown by whatever waits, and kept in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let them go on
    Resume,
    /// Let them run at a part of the pace that they would have
    Speed {
        /// 0.5 is half, 1 is all of it
        #[arg(value_name = "F", value_parser = speed)]
        factor: f64,
    },
}

/// `backup`.
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// What to do.
    #[command(subcommand)]
    pub what: BackupWhat,
}

/// What to do with the record of backups.
#[derive(Clone, Debug, Subcommand)]
pub enum BackupWhat {
    /// Record that there is one; it makes none
    Record(RecordBackup),
    /// Show those that are recorded, newest first
    List,
}

/// `backup record`.
#[derive(Args, Clone, Debug)]
pub struct RecordBackup {
    /// The store that it is of [default: every store of the project]
    #[arg(long, value_enum, value_name = "STORE")]
    pub store: Option<OneStore>,
    /// Where it is: a path, a URL, the name of a snapshot
    #[arg(long, value_name = "TEXT")]
    pub location: Option<String>,
    /// How large it is
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u64>,
    /// When it was begun, as 2026-11-21T03:00:00Z [default: now, by the server's clock]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub taken_at: Option<Timestamp>,
}

/// `plan`.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// Of which command
    #[command(subcommand)]
    pub of: Option<PlanOf>,
    /// Without a command, of `up`.
    #[command(flatten)]
    pub up: Up,
}

/// Whose plan.
#[derive(Clone, Debug, Subcommand)]
pub enum PlanOf {
    /// What `up` would do
    Up(Up),
    /// What `down` would do
    Down(Down),
    /// What `cleanup` would do
    Cleanup(Cleanup),
}

/// `cleanup`.
#[derive(Args, Clone, Debug)]
pub struct Cleanup {
    /// This one [default: every migration that is held]
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
    /// What it tells when it ends.
    #[command(flatten)]
    pub telemetry: Telemetry,
}

/// Where `up` stops in a migration that has phases, and `wait` waits no longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Through {
    /// After the additive changes
    Prepare,
    /// After the backfills
    Execute,
    /// After the invariants: it is held
    Validate,
    /// Nowhere: its cleanup runs, whatever its policy
    Cleanup,
}

impl From<Through> for Phase {
    fn from(through: Through) -> Phase {
        match through {
            Through::Prepare => Phase::Prepare,
            Through::Execute => Phase::Execute,
            Through::Validate => Phase::Validate,
            Through::Cleanup => Phase::Cleanup,
        }
    }
}

/// `status`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Status {
    /// Exit with 3 when something is pending
    #[arg(long)]
    pub exit_code: bool,
}

/// `history`.
#[derive(Args, Clone, Debug)]
pub struct History {
    /// The records of this migration
    #[arg(value_name = "VERSION")]
    pub version: Option<String>,
}

/// `sandbox`.
#[derive(Args, Clone, Debug)]
pub struct Sandbox {
    /// Leave the servers running
    #[arg(long)]
    pub keep: bool,
    /// Where the servers come from
    #[arg(long, value_enum, default_value_t = With::Auto)]
    pub with: With,
    /// The command, and its arguments [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `wait`.
#[derive(Args, Clone, Debug)]
pub struct Wait {
    /// Until this version is completed in both stores
    #[arg(long = "for", value_name = "VERSION")]
    pub version: Option<String>,
    /// Until it has come through this phase, if it has phases: with `validate`, it may be held
    #[arg(long, value_enum, value_name = "PHASE", requires = "version")]
    pub through: Option<Through>,
    /// For this long at most [default: for as long as it takes]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// `serve`.
#[cfg(feature = "serve")]
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9180")]
    pub listen: String,
    /// Let who has the token pause running backfills and let them go on
    #[arg(long)]
    pub allow_control: bool,
    /// The token [default: MIGRATE_CONTROL_TOKEN]
    #[arg(long, value_name = "FILE")]
    pub control_token_file: Option<PathBuf>,
    /// Look at the databases this often
    #[arg(long, value_name = "DURATION", value_parser = interval, default_value = "2s")]
    pub interval: Duration,
}

/// `prove`.
#[derive(Args, Clone, Debug)]
pub struct Prove {
    /// These ones [default: every migration]
    #[arg(value_name = "VERSION")]
    pub versions: Vec<String>,
}

/// `completions`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Completions {
    /// For which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// The shells that are completed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Shell {
    /// eval "$(migrate completions bash)"
    Bash,
    /// source <(migrate completions zsh)
    Zsh,
    /// migrate completions fish | source
    Fish,
}

/// Where throwaway servers come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum With {
    /// Programs where they are found, else containers
    Auto,
    /// Programs on this machine
    Programs,
    /// Containers
    Docker,
}

fn speed(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| SPEED.contains(factor));
    factor.ok_or_else(|| format!("write a number from {} to {}", SPEED.start(), SPEED.end()))
}

fn time(text: &str) -> Result<Timestamp, String> {
    let read = chrono::DateTime::parse_from_rfc3339(text);
    read.map(|time| Timestamp(time.timestamp_millis()))
        .map_err(|_| "write it as 2026-11-21T03:00:00Z".to_owned())
}

/// Looking all the time would be a load of its own.
#[cfg(feature = "serve")]
fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    let range = Duration::from_millis(100)..=Duration::from_mins(1);
    if range.contains(&interval) { Ok(interval) } else { Err("write 100ms to 1m".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::core::duration::parse(text).map_err(|error| format!("{error}; {}", error.hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../../docs/cli.md");

    /// What stands below a heading.
    fn section(heading: &str, level: &str) -> &'static str {
        let begins = |text: &&str| {
            text.strip_prefix(heading).is_some_and(|rest| rest.starts_with(['\n', ' ']))
        };
        let found = DOCUMENT.split(&format!("\n{level} ")).skip(1).find(begins);
        let found = found.unwrap_or_else(|| panic!("docs/cli.md has no `{level} {heading}`"));
        let end = ["\n## ", "\n### "].iter().filter_map(|next| found.find(next)).min();
        &found[..end.unwrap_or(found.len())]
    }

    /// The long flags in a text.
    fn flags(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
        let flags = words.filter(|word| word.starts_with("--") && word.len() > 3);
        flags.map(|word| word.trim_end_matches('-').to_owned()).collect()
    }

    /// The flags in the first cells of tables.
    fn flags_of_rows(text: &str) -> BTreeSet<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
        rows.flat_map(|row| flags(row.split(" | ").next().unwrap_or_default())).collect()
    }

    /// The long flags of a command and of those below it.
    fn flags_of(command: &clap::Command) -> BTreeSet<String> {
        let own = command.get_arguments().filter_map(|flag| flag.get_long());
        let own = own.map(|flag| format!("--{flag}"));
        own.chain(command.get_subcommands().flat_map(flags_of)).collect()
    }

    #[test]
    fn the_document_has_every_command_and_no_other() {
        let rows = section("Commands", "##").lines();
        let names = rows.filter_map(|row| {
            let (_, rest) = row.split_once("`migrate ")?;
            Some(rest.split([' ', '`']).next()?.to_owned())
        });
        let documented: BTreeSet<String> = names.collect();
        let command = Cli::command();
        let ours = command.get_subcommands().map(|command| command.get_name().to_owned());
        assert_eq!(documented, ours.collect());
    }

    #[test]
    fn the_document_has_every_flag_of_every_command() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            // It has a document of its own, or shows the flags of others.
            let text = match name {
                "doctor" => "",
                "completions" | "man" => section("migrate completions and man", "###"),
                name => section(&format!("migrate {name}"), "###"),
            };
            let ours = flags_of(command);
            let said = flags(text);
            // `plan` takes what the commands take whose plan it shows.
            if name != "plan" {
                let lacking: Vec<&String> = ours.difference(&said).collect();
                assert!(lacking.is_empty(), "docs/cli.md, migrate {name}: {lacking:?}");
            }
            let rows = flags_of_rows(text);
            let invented: Vec<&String> = rows.difference(&ours).collect();
            assert!(invented.is_empty(), "docs/cli.md, migrate {name}: {invented:?}");
        }
    }

    #[test]
    fn the_document_has_every_flag_for_every_command() {
        let documented = flags_of_rows(section("Flags of every command", "##"));
        let global = Cli::command();
        let mut ours: BTreeSet<String> = global
            .get_arguments()
            .filter_map(|flag| Some(format!("--{}", flag.get_long()?)))
            .collect();
        ours.extend(["--help".to_owned(), "--version".to_owned()]);
        assert_eq!(documented, ours);
    }
}
