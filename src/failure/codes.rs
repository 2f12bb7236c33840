//! Every error by its name, as docs/errors has it: what happened, why, and what to
//! do about it at three in the morning.

use crate::failure::exit::Exit;

/// An error that has a name.
#[derive(Clone, Copy, Debug)]
pub struct ErrorCode {
    /// Its name, which stays.
    pub name: &'static str,
    /// How a command ends with it.
    pub exits: &'static [Exit],
    /// What happened, in one sentence.
    pub what: &'static str,
    /// What it usually comes from.
    pub causes: &'static [&'static str],
    /// What to do, the most likely first.
    pub remedies: &'static [&'static str],
    /// How it looks, where that helps to recognise it; else empty.
    pub example: &'static str,
}

impl ErrorCode {
    const fn looks(mut self, example: &'static str) -> ErrorCode {
        self.example = example;
        self
    }
}

const fn code(
    name: &'static str,
    exits: &'static [Exit],
    what: &'static str,
    causes: &'static [&'static str],
    remedies: &'static [&'static str],
) -> ErrorCode {
    ErrorCode { name, exits, what, causes, remedies, example: "" }
}

/// All of them, by exit code and name.
pub fn codes() -> impl Iterator<Item = &'static ErrorCode> {
    [FAILED, USAGE, CONFIG, LEASE, HISTORY, SERVERS, REFUSED].into_iter().flatten()
}

/// A migration, or what belongs to it, failed.
const FAILED: &[ErrorCode] = &[
    code(
        "HOOK_FAILED",
        &[Exit::Failed],
        "A hook in front of something failed, so that was not begun.",
        &[
            "A `before_*` hook of `[hooks]` in `migrate.toml` ended with another exit code than 0, or took longer than `hooks.timeout`.",
            "Its program is not there, or may not be run.",
        ],
        &[
            "Read the `stderr` lines of the message: they are the hook's last words.",
            "See to it and run the same command again. Nothing was changed; if it was `before_cleanup`, what was done before the cleanup is recorded.",
        ],
    ),
    code(
        "IN_DOUBT",
        &[Exit::Failed],
        "A step was interrupted, and no question to the server tells whether it happened.",
        &[
            "A run died, or lost its connection, in a statement that is in no transaction and whose effect cannot be recognised: `CREATE DATABASE`, `convertToCapped`, an unusual `runCommand`, a `$merge` that adds.",
        ],
        &[
            "Look at the database: is the effect of the step there? `migrate history VERSION` shows what is recorded.",
            "All of it is there: `migrate repair --mark-applied 007/up/postgres/1`, with the step that the message names.",
            "Nothing of it is there: `migrate repair --mark-reverted 007/up/postgres/1`.",
            "A part of it is there: finish it or take it back by hand first. Then run the same command again.",
        ],
    ),
    code(
        "NAME_TAKEN",
        &[Exit::Failed],
        "Something else already has the name that a step would give; it was not touched.",
        &[
            "Somebody made an index, a table or a collection of that name by hand, with another definition.",
            "Two migrations give the same name.",
        ],
        &[
            "Rename or drop what is in the way, or give another name in the file; then run the same command again.",
            "If what is there is as good: `migrate repair --mark-applied` with the step that the message names.",
        ],
    ),
    code(
        "PROGRAM_FAILED",
        &[Exit::Failed],
        "A program of a migration (`[[run]]`) said that it failed, or was killed.",
        &["It ended with another exit code than 0.", "A signal ended it; out of memory, for instance."],
        &[
            "Read the `stderr` lines of the message.",
            "Run the same command again once it is mended: the program is begun anew, so it must bear what it has done already.",
        ],
    )
    .looks("error: the program `node run.js` failed with exit code 3\n  stderr: boom"),
    code(
        "PROGRAM_NOT_STARTED",
        &[Exit::Failed],
        "A program of a migration (`[[run]]`) could not be started.",
        &[
            "It is not installed where migrations run: a container image without it.",
            "The file is not executable, or its first line names no interpreter.",
        ],
        &["Install it, or correct `command` in `migration.toml`; then run the same command again."],
    ),
    code(
        "SIGNALS",
        &[Exit::Failed],
        "The system does not let the program listen for signals, without which it could not stop cleanly. Nothing was begun.",
        &["A sandbox forbids it, or there are no file descriptors left."],
        &["Run it with fewer restrictions (`ulimit -n`, the seccomp profile of the container)."],
    ),
    code(
        "STEP_FAILED",
        &[Exit::Failed],
        "A database refused a statement of a migration. What was done before it is recorded; nothing is dirty.",
        &[
            "The statement is wrong, or the data is not what it expects: a duplicate, a null, a type.",
            "A lock, memory or disk ran out, or the user lacks a right to this one table.",
        ],
        &[
            "Read what the database said: the message shows the statement in its file, the detail and the hint.",
            "Correct the file (it was not applied, so it may be edited) or the data, and run the same command again: it goes on at this step.",
            "To get back instead: `migrate down`. To have that done each time: `migrate up --rollback-on-failure`.",
        ],
    ),
    code(
        "INVARIANT_BROKEN",
        &[Exit::Invariant],
        "An invariant of a migration does not hold, so its cleanup was not run.",
        &[
            "A backfill left something out, or the application still writes in the old way.",
            "The question is not the right one.",
        ],
        &[
            "Look at the `row` lines of the message: they are examples of what is wrong. `asked` is the question.",
            "Mend the data and run `migrate up` (or `migrate cleanup`) again: it goes on here.",
            "`verify` says it of a migration that is done: the invariant is `lasting`, and the data was good once.",
        ],
    )
    .looks("error: the invariant `every row has a number` does not hold: expected 0, found 1"),
];

/// A flag, a setting or a file is wrong.
const USAGE: &[ErrorCode] = &[
    code(
        "ALREADY_THERE",
        &[Exit::Usage],
        "`init` would write over something, and wrote nothing.",
        &["The project has been set up already."],
        &[
            "`migrate new NAME` writes the next migration.",
            "Start elsewhere: `migrate init --dir db/migrations -C db/migrate.toml`.",
        ],
    ),
    code(
        "BAD_MIGRATION",
        &[Exit::Usage],
        "A file of a migration, or a fixture, is wrong. No database was asked.",
        &[
            "Syntax, an unknown key, an unknown name of a file, or something that a migration may not do (`BEGIN`, an unknown variable of a template).",
        ],
        &[
            "Correct the lines that the message shows; all of them are told at once.",
            "[format.md](../format.md) says what a file may have.",
        ],
    ),
    code(
        "BAD_NAME",
        &[Exit::Usage],
        "`new` was given a name without a letter or digit.",
        &["The name was quoted away, or is all punctuation."],
        &["Name it in words: `migrate new add user preferences`."],
    ),
    code(
        "BAD_URL",
        &[Exit::Usage],
        "A URL cannot be read.",
        &[
            "A character of the password is not escaped: `@`, `:`, `/`, `?`, `#` and `%` are written `%40`, `%3A`, `%2F`, `%3F`, `%23` and `%25`.",
            "An option has a wrong value, or there is none of that name.",
        ],
        &[
            "`migrate -v status` shows each URL without its password, and where it comes from.",
            "Write `postgres://user:password@host:5432/database` or `mongodb://user:password@host:27017/database`.",
        ],
    ),
    code(
        "CANNOT_WRITE",
        &[Exit::Usage],
        "A file could not be written.",
        &["The folder is read-only or somebody else's, or the disk is full."],
        &["See to it and run the same command again; what was written already is left as it is."],
    ),
    code(
        "DROPS_HISTORY",
        &[Exit::Usage],
        "A migration says `dropDatabase`, which would drop its own history.",
        &["It was meant to empty the database."],
        &["Drop the collections by name."],
    ),
    code(
        "EMPTY_MIGRATION",
        &[Exit::Usage],
        "A migration that is pending has no statement, only comments. Nothing was changed.",
        &[
            "`migrate new` wrote its folder, and nobody has written into it yet.",
            "`migrate import` met a program of migrate-mongo that does nothing.",
        ],
        &[
            "Write into its files what it does. Applied as it is, it would be recorded as done, and what is written into it later would never be run.",
            "If it is meant to do nothing, `SELECT 1;` says so. If it is not needed, and no database has applied it, delete its folder.",
        ],
    )
    .looks("error: 007-add-things has nothing to apply: there is no statement in its files, only comments"),
    code(
        "GIT_FAILED",
        &[Exit::Usage],
        "`lint --base`: git did not answer a question.",
        &["The repository is damaged, or belongs to another user (`safe.directory`)."],
        &[
            "The message has git's own words; see to them.",
            "`migrate lint` without `--base` looks at all migrations and needs no git.",
        ],
    ),
    code(
        "NEVER_MIGRATED",
        &[Exit::Usage],
        "`backfill` on databases that have no history.",
        &["The URLs are those of another environment.", "`migrate up` was never run there."],
        &["`migrate -v status` shows the URLs and where they come from."],
    ),
    code(
        "NOTHING_TO_IMPORT",
        &[Exit::Usage],
        "`import` found no migration of that tool in the folder.",
        &["`--from` names the wrong folder, or the wrong tool was named."],
        &[
            "Name the folder that has the files themselves; [import.md](../import.md) has the layout of each tool.",
        ],
    ),
    code(
        "NOT_APPLIED",
        &[Exit::Usage],
        "`down --to` names a version that is not applied.",
        &["The number is another one, or that migration was reverted already."],
        &["`migrate status` lists what is applied."],
    ),
    code(
        "NOT_HELD",
        &[Exit::Usage],
        "`cleanup` names a migration that is not held.",
        &["It is finished already, or has not come so far, or has no phases."],
        &[
            "`migrate status` says what is held. `migrate cleanup` without a version finishes all that is.",
        ],
    ),
    code(
        "NOT_THE_HOLDER",
        &[Exit::Usage],
        "`unlock` names a run that does not have the lease. Nothing was changed.",
        &["The run has ended, or another one has taken the lease meanwhile."],
        &["`migrate status` names the run that has it, if there is one."],
    ),
    code(
        "NOT_YET",
        &[Exit::Usage],
        "`prove` is not there yet.",
        &["It comes with a later release."],
        &["`migrate sandbox` runs your migrations on throwaway servers meanwhile."],
    ),
    code(
        "NO_GIT",
        &[Exit::Usage],
        "`lint --base` asks git, and there is no program `git`.",
        &["A container image without it."],
        &["Install git, or leave out `--base`: all migrations are looked at then."],
    ),
    code(
        "NO_MIGRATIONS",
        &[Exit::Usage],
        "There is no migrations folder, or it cannot be read.",
        &[
            "The command was run in another folder.",
            "The folder was not copied into the image, or its user may not read it.",
        ],
        &[
            "Name it: `migrate --dir path/to/migrations status`, or `dir` in `migrate.toml`.",
            "A new project begins with `migrate init`.",
        ],
    ),
    code(
        "NO_REPAIR",
        &[Exit::Usage],
        "There is nothing to repair in the way that was asked for. Nothing was changed.",
        &["It was repaired already, or the step or the version is another one."],
        &[
            "`migrate verify` says what is wrong, with the command that mends it.",
            "`migrate history VERSION` lists the steps of a migration by their names.",
        ],
    ),
    code(
        "NO_REPOSITORY",
        &[Exit::Usage],
        "`lint --base`: the migrations folder is in no git repository.",
        &[
            "A pipeline unpacked the sources without `.git`.",
            "git does not trust the owner of the folder (`safe.directory`).",
        ],
        &["Check out with git, or leave out `--base`: all migrations are looked at then."],
    ),
    code(
        "UNFINISHED_MIGRATION",
        &[Exit::Usage],
        "A migration that is pending has something in it that is left for a person. Nothing was changed.",
        &[
            "`migrate import` could not translate all of a program, and left the rest as a comment that begins with `lockstep:unfinished`.",
            "Somebody wrote such a comment, to come back to it.",
        ],
        &[
            "The message names file and line: write in its place what that does, and delete the comment. `migrate lint` looks at what you wrote.",
            "If it is not needed, delete the comment. If all of the migration is applied already, `migrate baseline` records it, and the comment does not matter.",
        ],
    )
    .looks("error: left for a person: 20260102000000-roles.js:4: a loop is not read: the file is never run"),
    code(
        "NO_STORE",
        &[Exit::Usage],
        "A migration has a part for a database that is not configured.",
        &["One of `DATABASE_URL` and `MONGODB_URI` is not set here."],
        &["Set it. If the project has only the one, take the other's files out of the migration."],
    ),
    code(
        "PASSWORD_COMMAND",
        &[Exit::Usage],
        "The program that prints a password failed. No database was asked.",
        &["The login to the secret store has run out.", "The program is not there."],
        &[
            "Run the `password_command` of `migrate.toml` by hand: it must print the password and nothing else, and end with 0. What it says is not shown, because it may be the secret.",
        ],
    ),
    code(
        "SERVE_ADDRESS",
        &[Exit::Usage],
        "`serve` cannot listen where it is told to.",
        &[
            "Something else listens on that port: another `migrate serve`.",
            "The address is not one of this machine, or is not written `ADDRESS:PORT`.",
            "Ports below 1024 are for root.",
        ],
        &[
            "Name another one: `migrate serve --listen 127.0.0.1:9181`; port 0 takes one that is free and says which.",
        ],
    ),
    code(
        "SERVE_TOKEN",
        &[Exit::Usage],
        "`serve --allow-control` has no token that could keep others from steering.",
        &[
            "Neither `--control-token-file` nor `MIGRATE_CONTROL_TOKEN` is given, or the file cannot be read.",
            "The token is shorter than 16 letters.",
            "`--control-token-file` is given without `--allow-control`, which is what asks for it.",
        ],
        &[
            "Make one (`openssl rand -hex 32 > token`) and name it: `migrate serve --allow-control --control-token-file token`.",
            "Leave `--allow-control` out: everything can be read without it.",
        ],
    ),
    code(
        "UNKNOWN_REF",
        &[Exit::Usage],
        "`lint --base`: git does not know the ref, or this branch has no commit in common with it.",
        &["A pipeline fetched only one branch, or only its last commit."],
        &[
            "`git fetch origin main`, `git fetch --unshallow`; `fetch-depth: 0` in a GitHub workflow.",
        ],
    ),
    code(
        "UNKNOWN_RELEASE",
        &[Exit::Usage],
        "`down --release`: what was applied last does not belong to that release.",
        &["The name is written differently, or a later release was applied since."],
        &["`migrate history` shows which release each run belonged to."],
    ),
    code(
        "UNKNOWN_VERSION",
        &[Exit::Usage],
        "A version was named of which there is no migration.",
        &["A slip of the hand, or a checkout without that file."],
        &["`migrate status` lists what there is."],
    ),
    code(
        "USAGE",
        &[Exit::Usage],
        "An argument is wrong. Nothing was begun.",
        &[
            "A version, a step or a `--var` that cannot be read, or two flags that contradict each other.",
        ],
        &[
            "`migrate help COMMAND` has every flag. A version is `7`, `007` or `007-add-users`; a step is `007/up/postgres/1`.",
        ],
    ),
];

/// The configuration is wrong.
const CONFIG: &[ErrorCode] = &[
    code(
        "CONFIG_ENV_UNKNOWN",
        &[Exit::Usage],
        "`--env` or `MIGRATE_ENV` names no section of `migrate.toml`.",
        &["A slip of the hand, or `MIGRATE_ENV` is left over in the shell."],
        &["Write `[env.NAME]` into `migrate.toml`, or name one of those that the message lists."],
    ),
    code(
        "CONFIG_INVALID",
        &[Exit::Usage],
        "`migrate.toml`, `.env` or a variable says something impossible.",
        &["An unknown key, a wrong type, a value out of range, broken syntax."],
        &["Correct the lines that the message shows; [config.md](../config.md) has every key."],
    ),
    code(
        "CONFIG_NOT_FOUND",
        &[Exit::Usage],
        "`-C` names no file.",
        &["The command was run in another folder, or the file is not in the image."],
        &[
            "Correct the path. Without `-C`, `migrate.toml` of this folder is read, if there is one.",
        ],
    ),
    code(
        "CONFIG_NO_STORE",
        &[Exit::Usage],
        "A command needs a database, and none is named.",
        &["The variables are not set in this shell or this container."],
        &[
            "Set `DATABASE_URL` (or `--postgres`) and `MONGODB_URI` (or `--mongo`); or `migrate init` writes a `migrate.toml`.",
        ],
    ),
    code(
        "CONFIG_NO_URL",
        &[Exit::Usage],
        "`migrate.toml` has settings for a database, and no URL.",
        &["The URL was meant to come from the environment, which lacks it."],
        &[
            "Set `DATABASE_URL` or `MONGODB_URI`, or write `url` into the section that the message shows.",
        ],
    ),
    code(
        "CONFIG_UNREADABLE",
        &[Exit::Usage],
        "A file of the configuration is there and cannot be read.",
        &["It belongs to another user, or is a folder."],
        &["`ls -l` it; give the user of the program the right to read it."],
    ),
    code(
        "CONFIG_URL",
        &[Exit::Usage],
        "A URL is one of something else.",
        &["Postgres' and MongoDB's are swapped, or the URL is empty."],
        &[
            "`migrate -v status` shows where each setting comes from. Postgres begins with `postgres://`, MongoDB with `mongodb://` or `mongodb+srv://`.",
        ],
    ),
    code(
        "CONFIG_URL_FILE",
        &[Exit::Usage],
        "The file that `url_file` names cannot be read.",
        &["The secret is not mounted, or belongs to another user."],
        &["Look at the path that the message shows; it must hold the URL and nothing else."],
    ),
    code(
        "CONFIG_VARIABLE_UNSET",
        &[Exit::Usage],
        "A value is needed, and an environment variable in it is not set.",
        &["`${NAME}` in `migrate.toml` without `NAME` in the environment or in `.env`."],
        &["Set it, or give it a default: `${NAME:-default}`."],
    ),
    code(
        "CONFIG_VAR_NAME",
        &[Exit::Usage],
        "`--var` has a name that no template can have.",
        &["A blank or a point in it, or a digit at its beginning."],
        &["Use letters, digits, `_` and `-`, and begin with a letter or `_`."],
    ),
    code(
        "CONFIG_WORKING_DIRECTORY",
        &[Exit::Usage],
        "The working directory is gone.",
        &["Somebody deleted the folder in which the shell stands."],
        &["`cd` into one that is there."],
    ),
];

/// Two runs at once.
const LEASE: &[ErrorCode] = &[
    code(
        "LEASE_LOST",
        &[Exit::Locked],
        "The lease went to another run while this one worked, or could not be renewed in time. Nothing was written after that.",
        &[
            "The machine slept, or was stopped for longer than the lease lasts.",
            "Somebody took the lease away with `migrate unlock`.",
        ],
        &[
            "`migrate status` names the run that is at work. When it is done, run the same command again: what was done is recorded.",
        ],
    ),
    code(
        "LOCKED",
        &[Exit::Locked],
        "Another run holds the lease, and `--lock-wait` ran out. Nothing was changed.",
        &[
            "Another deployment is at work.",
            "A run was killed a moment ago; its lease runs out by itself.",
        ],
        &[
            "`migrate status` says which run it is, where, and since when.",
            "Wait longer: `migrate up --lock-wait 10m`. To help with its backfills: `migrate up --join`.",
            "If you know that it is dead: `migrate unlock --run ID --reason TEXT`.",
        ],
    ),
];

/// Files and histories, or the two histories, contradict each other.
const HISTORY: &[ErrorCode] = &[
    code(
        "ALREADY_APPLIED",
        &[Exit::Conflict],
        "`baseline` where a migration was applied or begun already. Nothing was changed.",
        &["The databases are already kept by this program."],
        &[
            "`migrate status` shows where they stand. A migration that stopped in the middle: `migrate up` finishes it, `migrate down` takes it back.",
            "What somebody did by hand: `migrate repair --mark-applied`.",
        ],
    ),
    code(
        "BAD_DOWN_SCRIPT",
        &[Exit::Conflict],
        "The down scripts that the history keeps cannot be read. Nothing was changed.",
        &["A newer release wrote them, or somebody changed the row by hand."],
        &[
            "Run the release that wrote it; or restore the row of `migration_history` from the other store or a backup.",
        ],
    ),
    code(
        "BASELINE_OPEN",
        &[Exit::Conflict],
        "A `baseline` died before all of it was recorded, and the rest would be run otherwise.",
        &["`migrate baseline` or `migrate import` was killed."],
        &[
            "The same command again, with the version that the message names: `migrate baseline 42`.",
        ],
    ),
    code(
        "CHECKSUM_MISMATCH",
        &[Exit::Conflict],
        "A file was edited after it was applied.",
        &[
            "Somebody corrected a migration that had been applied somewhere.",
            "A branch was merged that changed it; line ends were converted.",
            "A file that had nothing but comments when it was applied was filled in afterwards.",
        ],
        &[
            "Restore the file from version control, and put the change into a new migration.",
            "If the edit does not matter (a comment): `migrate repair --accept-checksum VERSION`. What was added is not run by that.",
        ],
    ),
    code(
        "EDITED_IN_DOUBT",
        &[Exit::Conflict],
        "A step was started, it is not known what became of it, and its text was edited.",
        &["A run was killed, and somebody then corrected the file."],
        &[
            "Restore the old text and run `migrate up` again, which settles the step; edit it then.",
            "If nothing of the step is in the database: `migrate repair --mark-reverted` as the message has it.",
        ],
    ),
    code(
        "FOREIGN_HISTORY",
        &[Exit::Conflict],
        "`import`: the history of the other tool says that something is half done. Nothing was written.",
        &["It calls itself dirty, or a migration is in one store and not in the other."],
        &[
            "Finish or take back that migration with the other tool, and run `migrate import` again.",
        ],
    ),
    code(
        "GAP",
        &[Exit::Conflict],
        "A database lacks a step that was there once.",
        &["It was restored from an older backup.", "Somebody deleted rows of the history."],
        &[
            "Which is it? The message says what it looks like; look whether the effect of the step is there.",
            "The effect is gone: `migrate repair --replay postgres` (or `mongo`) runs there what is lacking.",
            "The effect is there: `migrate repair --mark-applied` as the message has it.",
        ],
    ),
    code(
        "HISTORY_CORRUPT",
        &[Exit::Conflict],
        "Something in the history is nothing that this program writes.",
        &[
            "Somebody changed it by hand, or a newer release wrote it.",
            "Another program has tables or collections named `migration_…`.",
        ],
        &[
            "Is a newer release in use? Run that one.",
            "Another program's: put ours into a schema of their own, `history_schema` in `migrate.toml`.",
            "Changed by hand: `migrate repair --mark-applied all --store postgres` (or `mongo`) takes out what cannot be read, and records what is there.",
        ],
    ),
    code(
        "MISSING",
        &[Exit::Conflict],
        "A migration is applied, and no longer in the folder.",
        &[
            "An older release, or another branch, is being deployed.",
            "Somebody deleted the folder.",
        ],
        &[
            "Deploy the branch that has it, or restore the folder from version control.",
            "If it is meant to be gone: `migrate up --allow-out-of-order`.",
            "If nothing of it was ever there: `migrate repair --mark-reverted VERSION`.",
        ],
    ),
    code(
        "NO_DOWN_SCRIPT",
        &[Exit::Conflict],
        "Neither the history nor the folder has a migration's down scripts. Nothing was changed.",
        &["The rows of the history that keep them are lost, and the file is too."],
        &["Restore the migration's folder from version control and run the command again."],
    ),
    code(
        "OUT_OF_ORDER",
        &[Exit::Conflict],
        "A migration is below the newest applied one, and was never applied.",
        &[
            "Two branches added migrations, and the one with the higher number was merged and applied first.",
        ],
        &[
            "Give it a number above the newest applied one.",
            "If the order does not matter: `migrate up --allow-out-of-order`.",
            "`migrate lint --base origin/main` says so before it is merged.",
        ],
    ),
    code(
        "PAIR_LOST",
        &[Exit::Conflict],
        "A history lacks the row that says to which pair of databases it belongs. Nothing was changed.",
        &["Somebody emptied `migration_control`."],
        &["Check both URLs with `migrate -v status`. If they are right: `migrate repair --pair`."],
    ),
    code(
        "PAIR_MISMATCH",
        &[Exit::Conflict],
        "The two databases do not belong together. Nothing was changed.",
        &["One URL is of another environment.", "One of the databases was restored or made anew."],
        &[
            "Check both URLs with `migrate -v status`.",
            "They are to be a pair from now on: `migrate repair --pair`.",
            "One was restored from before its first migration: `migrate repair --replay` as the message has it.",
        ],
    ),
    code(
        "PLAN_CHANGED",
        &[Exit::Conflict],
        "What was confirmed is no longer what would be done. Nothing was changed.",
        &["Another run was at work while the question stood on the terminal."],
        &["Look at `migrate status`, and decide again."],
    ),
    code(
        "RECORD_CHANGED",
        &[Exit::Conflict],
        "A record of a step has another checksum than everything else says.",
        &["Somebody changed it by hand."],
        &[
            "If the files are what was applied: `migrate repair --accept-checksum VERSION` records that.",
        ],
    ),
    code(
        "ROWS_DIFFER",
        &[Exit::Conflict],
        "`verify`: a row of `migration_history` is not what the records of the steps, or the other database, say.",
        &["Somebody changed it by hand, or a run died between the two databases."],
        &["`migrate up` writes it again; or the command that `migrate verify` names."],
    ),
    code(
        "ROW_MISSING",
        &[Exit::Conflict],
        "`verify`: a database lacks the row of a migration in `migration_history`, although its steps are recorded.",
        &["Somebody deleted it, or a run died before the last row was written."],
        &["`migrate up` writes it again; or the command that `migrate verify` names."],
    ),
    code(
        "STRAY_ROW",
        &[Exit::Conflict],
        "A row says that a migration is done of which there is neither a step nor a file.",
        &[
            "Somebody wrote it by hand.",
            "A store was restored from an older backup, and the file belongs to a later release.",
        ],
        &[
            "Written by hand: `migrate repair --mark-reverted VERSION` takes it out.",
            "Restored: run the release that has the file.",
        ],
    ),
    code(
        "TORN",
        &[Exit::Conflict],
        "A step is recorded as begun that can only be recorded together with its effect.",
        &["Somebody changed the history by hand."],
        &[
            "Its effect is there: `migrate repair --mark-applied STEP`.",
            "It is not: `migrate repair --mark-reverted STEP`; `migrate up` runs it then.",
        ],
    ),
    code(
        "VARIABLES_CHANGED",
        &[Exit::Conflict],
        "A template was applied in part, with other values of its variables.",
        &[
            "A `--var`, a `MIGRATE_VAR_…` or `[vars]` changed between a run that failed and this one.",
        ],
        &["Run it with the values of then.", "Or take back what is applied of it: `migrate down`."],
    ),
    code(
        "VERSION_TAKEN",
        &[Exit::Conflict],
        "A folder has the number of another migration that is applied. Nothing was changed.",
        &[
            "Two branches took the same number, and the folder of the one that was applied is gone.",
            "The folder of an applied migration was renamed, and its files were changed.",
        ],
        &[
            "Give the new migration the next number (the message names it), and restore the folder of the applied one from version control.",
            "If it is the same migration, restore its name; what differs is then told as an edit.",
        ],
    )
    .looks("error: 005 was applied as `regions`, and the file here is another migration: 005-bad"),
];

/// A database or a limit of time.
const SERVERS: &[ErrorCode] = &[
    code(
        "CONNECTION_LOST",
        &[Exit::Unreachable],
        "The connection was lost before the answer came. Nothing is dirty.",
        &[
            "The server was restarted, failed over or ran out of memory.",
            "A proxy or a firewall cut an idle connection.",
        ],
        &[
            "Run the same command again: it reads the history, asks the server what became of the last step, and goes on from there.",
        ],
    ),
    code(
        "DATABASE_REFUSED",
        &[Exit::Unreachable],
        "A database answers, and refused one of this program's own statements. No migration failed.",
        &[
            "The user lacks a right.",
            "It is read-only: a replica, or the primary before a failover.",
            "Out of disk, memory or connections.",
        ],
        &[
            "Read what the database said. [privileges.md](../privileges.md) has the rights that each command needs.",
            "Use the URL of the primary; `target_session_attrs=read-write` finds it among several hosts.",
        ],
    ),
    code(
        "NO_SANDBOX",
        &[Exit::Unreachable],
        "No throwaway servers can be started.",
        &[
            "The programs of Postgres or MongoDB are not found.",
            "No disk or memory for them, or they were run as root.",
        ],
        &[
            "The message says which program was looked for and where; [cli.md](../cli.md#migrate-sandbox) says how to name others.",
        ],
    ),
    code(
        "UNREACHABLE",
        &[Exit::Unreachable],
        "A database cannot be reached, or does not let us in.",
        &[
            "It is down or still starting; the host or port is wrong; a firewall.",
            "Wrong user, password, database or certificate.",
        ],
        &[
            "The message has the host and what was said. `migrate -v status` shows each URL and where it comes from.",
            "`migrate up --wait 1m` waits for databases that are still starting.",
        ],
    ),
    code(
        "TIMEOUT",
        &[Exit::Timeout],
        "`--timeout` ran out, and the run stopped between two steps.",
        &["A backfill or an index took longer than thought, or the lease was waited for."],
        &[
            "Run the same command again, perhaps with more time: it goes on where it stopped. `migrate status` says how far it came.",
        ],
    ),
    code(
        "WAIT_TIMEOUT",
        &[Exit::Timeout],
        "`--wait`, or the `--timeout` of `wait`, ran out.",
        &[
            "A database did not start.",
            "The version that is waited for was not completed: a migration failed, or is held.",
        ],
        &["The message says what is lacking; `migrate status` shows the rest."],
    ),
];

/// Refused on purpose, or stopped on purpose.
const REFUSED: &[ErrorCode] = &[
    code(
        "BACKUP_REQUIRED",
        &[Exit::Refused],
        "A cleanup was not begun: of a store that it touches, no backup is recorded that is young enough. What was done before it is recorded.",
        &[
            "`cleanup.require_backup` in `migrate.toml` asks for one, and nobody has recorded any, or the last is too old.",
            "The backup was made and not recorded: that is a command of its own, `migrate backup record`.",
            "It was recorded for one store, and the cleanup touches both; or for another pair.",
            "Its time lies ahead of the server's clock by more than a minute: such a backup does not count.",
        ],
        &[
            "`migrate backup list` shows what is recorded, by the clock of each server.",
            "Make a backup, record it with `migrate backup record`, and run the same command again: it goes on at the cleanup. [backups.md](../backups.md) has a script that does both.",
            "To have it done by itself, name that script in `hooks.before_cleanup`: it runs right before this is asked.",
        ],
    )
    .looks("error: the cleanup of 002-refactor-user-roles needs a backup of Postgres younger than 24h; last one 3 days ago\n  next: nothing of the cleanup was run, and what was done before is recorded; back Postgres up, say so with `migrate backup record --store postgres`, and run the same command again: it goes on at the cleanup"),
    code(
        "BASELINE",
        &[Exit::Refused],
        "A migration was recorded without being run, so nothing is known about its way back. Nothing was changed.",
        &["`down` came to what `migrate baseline` or `migrate import` recorded."],
        &[
            "Stop above it: `migrate down --to VERSION`.",
            "If nothing of it is there any more: `migrate repair --mark-reverted VERSION`.",
        ],
    ),
    code(
        "IRREVERSIBLE",
        &[Exit::Refused],
        "A migration has no way back. Nothing was changed.",
        &["It has no down script, says `irreversible`, or has done its cleanup."],
        &[
            "Write a new migration that leads away from it.",
            "`migrate plan down` shows how far `down` could go.",
        ],
    ),
    code(
        "NO_FUNCTION",
        &[Exit::Refused],
        "A migration calls a function that is part of a service, and this program is not that service. Nothing was changed.",
        &[
            "A script says `CALL lockstep.NAME(…)`, or a backfill `call = \"lockstep.NAME(…)\"`, and `migrate` was to run or revert it, or to help with it.",
            "A service was to, in a release that does not have the function: its name changed, it was taken out, or it is one for something else. Functions for scripts (`Builder::function`), for batches in Postgres (`Builder::postgres_batch`) and in MongoDB (`Builder::mongo_batch`) are different ones, even when they are called the same.",
        ],
        &[
            "Let the service apply it, as it does when it starts; `migrate up --to VERSION` goes as far as the migration before it.",
            "To revert it, start the release that has the function, and let it call `Migrator::down`.",
        ],
    ),
    code(
        "REQUIRES",
        &[Exit::Refused],
        "A server is not what the migration requires. Nothing was changed.",
        &[
            "Its version is older than `requires` says, or MongoDB is standalone where a replica set is needed.",
        ],
        &[
            "Upgrade the server, or deploy where it is new enough. `migrate doctor` says it before a deployment.",
        ],
    ),
    code(
        "UNCONFIRMED",
        &[Exit::Refused],
        "`down` or `repair` was not confirmed. Nothing was changed.",
        &["There is no terminal to ask on, as in a pipeline.", "The answer was no."],
        &["Look at `migrate plan down`, then add `--yes`."],
    ),
    code(
        "INTERRUPTED",
        &[Exit::Interrupted, Exit::Terminated],
        "Somebody stopped the run with SIGINT or SIGTERM, and it ended between two steps.",
        &[
            "Ctrl-C.",
            "The orchestrator ended the container: a limit of time, or a node that goes away.",
        ],
        &["Run the same command again: what was done is recorded, and the lease was given back."],
    ),
];
