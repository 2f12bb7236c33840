//! `migrate init`: a project that runs as it is written.

use crate::cli::args::Global;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const MIGRATE_TOML: &str = r#"# Settings of `migrate`; every key is optional. docs/config.md has all of them.
# Flags beat the environment, the environment beats this file. `migrate -v status`
# says where each setting comes from.

dir = "migrations"

[postgres]
url = "${DATABASE_URL}"     # postgres://user:password@host:5432/database

[mongo]
url = "${MONGODB_URI}"      # mongodb://host:27017/database

# One of the two is enough: delete the section of the other, and its files in
# migrations/001-first.

# [hooks]                   # they get the event as JSON on stdin
# before_up = ["./backup.sh"]
# on_failure = ["./notify.sh"]

# [env.production]          # with --env production
# cleanup.policy = "next-release"
# throttle.window = "22:00-06:00"
"#;

const UP_SQL: &str = "\
-- What `migrate up` does in Postgres. The whole file runs in one transaction,
-- together with its record in the history: both happen, or neither.
--
-- Plain SQL, as psql takes it; no BEGIN and COMMIT, no \\commands.

CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
);
";

const DOWN_SQL: &str = "\
-- What `migrate down` does in Postgres: the way back. It is kept in the history,
-- so it works even where these files are not.

DROP TABLE users;
";

const UP_JS: &str = "\
// What `migrate up` does in MongoDB, after Postgres. The file also runs in
// mongosh. It is read, never executed: each statement is a call on `db` with
// literal arguments, and each is a step of its own that a run can resume at.

db.createCollection(\"profiles\", {
  validator: { $jsonSchema: { bsonType: \"object\", required: [\"user_id\"] } },
});
db.profiles.createIndex({ user_id: 1 }, { name: \"profiles_user_id\", unique: true });
";

const DOWN_JS: &str = "\
// What `migrate down` does in MongoDB, before Postgres.

db.profiles.drop();
";

/// Runs the command.
///
/// # Errors
/// Exit code 2 when something is there already; nothing is overwritten.
pub fn run(global: &Global, output: &Output) -> Result<Exit, Failure> {
    let dir = global.dir.clone().unwrap_or_else(|| PathBuf::from("migrations"));
    let config = global.config.clone().unwrap_or_else(|| PathBuf::from("migrate.toml"));
    let first = dir.join("001-first");
    let settings = match &global.dir {
        Some(dir) => {
            let dir = toml::Value::String(dir.display().to_string()).to_string();
            MIGRATE_TOML.replace("\"migrations\"", &dir)
        }
        None => MIGRATE_TOML.to_owned(),
    };
    let files = [
        (config, settings),
        (first.join("up.sql"), UP_SQL.to_owned()),
        (first.join("down.sql"), DOWN_SQL.to_owned()),
        (first.join("up.mongodb.js"), UP_JS.to_owned()),
        (first.join("down.mongodb.js"), DOWN_JS.to_owned()),
    ];
    let taken = files.iter().map(|(path, _)| path).find(|path| path.exists());
    let full = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if let Some(taken) = taken.or_else(|| full.then_some(&dir)) {
        return Err(Failure::new(
            Exit::Usage,
            "ALREADY_THERE",
            format!("{} is already there", taken.display()),
        )
        .next("nothing was written; `migrate new NAME` adds a migration"));
    }
    let mut written = Vec::new();
    for (path, text) in files {
        write(&path, &text)?;
        output.remark(&format!("wrote {}", path.display()));
        written.push(path.display().to_string());
    }
    output.remark(
        "next: set DATABASE_URL and MONGODB_URI, or `migrate sandbox`; then `migrate plan`",
    );
    output.object("init", &json!({ "files": written }));
    Ok(Exit::Ok)
}

/// Writes a file that is not there yet, and its folders.
///
/// # Errors
/// Exit code 2.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder.map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| {
        use std::io::Write;
        fs::File::create_new(path)?.write_all(text.as_bytes())
    });
    written.map_err(|error| {
        let message = format!("failed to write {}: {error}", path.display());
        Failure::new(Exit::Usage, "CANNOT_WRITE", message)
    })
}
