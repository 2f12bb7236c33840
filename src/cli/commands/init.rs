//! `migrate init`: a project that runs as it is written.

use crate::cli::args::{self, Global};
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::core::id::StoreName;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

const MIGRATE_TOML: &str = r#"# Settings of `migrate`; every key is optional. docs/config.md has all of them.
# Flags beat the environment, the environment beats this file. `migrate -v status`
# says where each setting comes from.

dir = "migrations"

{stores}
# [hooks]                   # they get the event as JSON on stdin
# before_up = ["./backup.sh"]
# on_failure = ["./notify.sh"]

# [env.production]          # with --env production
# cleanup.policy = "next-release"
# throttle.window = "22:00-06:00"
"#;

const POSTGRES: &str = "\
[postgres]
url = \"${DATABASE_URL}\"     # postgres://user:password@host:5432/database
";

const MONGO: &str = "\
[mongo]
url = \"${MONGODB_URI}\"      # mongodb://host:27017/database
";

const ONE_IS_ENOUGH: &str = "\
# One of the two is enough: delete the section of the other, and its files in
# migrations/001-first.
";

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
pub fn run(global: &Global, args: args::Init, output: &Output) -> Result<Exit, Failure> {
    let only: Option<StoreName> = args.store.map(Into::into);
    let has = |store: StoreName| only.is_none_or(|only| only == store);
    let dir = global.dir.clone().unwrap_or_else(|| PathBuf::from("migrations"));
    let config = global.config.clone().unwrap_or_else(|| PathBuf::from("migrate.toml"));
    let first = dir.join("001-first");
    let stores = match only {
        None => [POSTGRES, MONGO, ONE_IS_ENOUGH].join("\n"),
        Some(StoreName::Postgres) => POSTGRES.to_owned(),
        Some(StoreName::Mongo) => MONGO.to_owned(),
    };
    let mut settings = MIGRATE_TOML.replace("{stores}", &stores);
    if let Some(dir) = &global.dir {
        let dir = toml::Value::String(dir.display().to_string()).to_string();
        settings = settings.replace("\"migrations\"", &dir);
    }
    let mut files = vec![(config, settings)];
    if has(StoreName::Postgres) {
        files.push((first.join("up.sql"), UP_SQL.to_owned()));
        files.push((first.join("down.sql"), DOWN_SQL.to_owned()));
    }
    if has(StoreName::Mongo) {
        files.push((first.join("up.mongodb.js"), UP_JS.to_owned()));
        files.push((first.join("down.mongodb.js"), DOWN_JS.to_owned()));
    }
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
    let variables = match only {
        None => "DATABASE_URL and MONGODB_URI",
        Some(StoreName::Postgres) => "DATABASE_URL",
        Some(StoreName::Mongo) => "MONGODB_URI",
    };
    output.remark(&format!(
        "next: set {variables}, or `migrate sandbox`; then `migrate plan` shows what the first migration does, and `migrate up` does it"
    ));
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
