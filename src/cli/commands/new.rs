//! `migrate new`: the next migration, in the style of those that are there.

use crate::cli::args::{self, Global};
use crate::cli::commands::init::write;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::project::configure;
use crate::core::id::{StoreName, Version};
use crate::core::parse::folder::parse_name;
use crate::store::Stores;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Versions of this many digits or more are timestamps.
const TIMESTAMP_DIGITS: usize = 12;

/// Runs the command.
///
/// # Errors
/// Exit code 2.
pub fn run(global: &Global, args: &args::New, output: &Output) -> Result<Exit, Failure> {
    let usage = |code, message: String| Failure::new(Exit::Usage, code, message);
    let name = slug(&args.name.join(" "));
    if name.is_empty() {
        return Err(usage("BAD_NAME", "the name has no letter and no digit".to_owned())
            .next("say what the migration does: `migrate new add user preferences`"));
    }
    let lost = lost(&args.name.join(" "));
    if !lost.is_empty() {
        output.remark(&format!(
            "a folder's name has a to z, digits, `-` and `_`: `{lost}` is left out of it"
        ));
    }
    let config = configure(global)?;
    let dir = config.dir.clone();
    let folders = folders(&dir).map_err(|error| {
        usage("NO_MIGRATIONS", format!("failed to read {}: {error}", dir.display()))
            .next("`migrate init` makes a project")
    })?;
    let now = chrono::Utc::now().format("%Y%m%d%H%M%S").to_string();
    let folder = dir.join(format!("{}{name}", next(&folders, &now)));
    let stores = match args.store {
        Some(store) => vec![store.into()],
        // A part for a store that the project does not have would be a mistake. One
        // that is configured and cannot be found out now is one that it has.
        None => match config.stores() {
            Ok(Stores { postgres: Some(_), mongo: None }) => vec![StoreName::Postgres],
            Ok(Stores { postgres: None, mongo: Some(_) }) => vec![StoreName::Mongo],
            Ok(_) | Err(_) => StoreName::BOTH.to_vec(),
        },
    };
    let words = args.name.iter().flat_map(|name| name.split_whitespace());
    let title = words.collect::<Vec<_>>().join(" ");
    let files: Vec<(&str, String)> = match args.phased {
        false => stores.into_iter().flat_map(|store| files(store, &title)).collect(),
        true => phased_files(&stores, &title),
    };
    let mut written = Vec::new();
    for (file, text) in files {
        let path = folder.join(file);
        write(&path, &text)?;
        output.remark(&format!("wrote {}", near(&path).display()));
        written.push(path.display().to_string());
    }
    output.remark("next: write what it does, and how to take it back; then `migrate plan`");
    output.object("new", &json!({ "folder": folder.display().to_string(), "files": written }));
    Ok(Exit::Ok)
}

fn files(store: StoreName, title: &str) -> [(&'static str, String); 2] {
    match store {
        StoreName::Postgres => [
            (
                "up.sql",
                format!(
                    "-- {title}\n--\n-- One transaction, with its record in the history. No BEGIN, no COMMIT.\n-- CREATE INDEX CONCURRENTLY and its like are cut out and run on their own;\n-- `migrate plan` shows the cut.\n--\n-- CREATE TABLE things (\n--     id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n--     name text NOT NULL\n-- );\n\n"
                ),
            ),
            (
                "down.sql",
                "-- The way back: everything that up.sql did, undone in reverse order.\n-- If there is none, say so in migration.toml: irreversible = \"why\"\n--\n-- DROP TABLE things;\n\n".to_owned(),
            ),
        ],
        StoreName::Mongo => [
            (
                "up.mongodb.js",
                format!(
                    "// {title}\n//\n// Runs in mongosh too. Here it is read, not executed: calls on `db` with\n// literal arguments, each a step of its own.\n//\n// db.createCollection(\"things\");\n// db.things.createIndex({{ name: 1 }}, {{ name: \"things_name\" }});\n\n"
                ),
            ),
            (
                "down.mongodb.js",
                "// The way back: everything that up.mongodb.js did, undone in reverse order.\n//\n// db.things.drop();\n\n".to_owned(),
            ),
        ],
    }
}

/// A change without downtime: two releases of the application live with what
/// stands between `prepare` and `cleanup`.
fn phased_files(stores: &[StoreName], title: &str) -> Vec<(&'static str, String)> {
    let title = toml::Value::String(title.to_owned()).to_string();
    let mut files = vec![("migration.toml", MANIFEST.replace("{title}", &title))];
    for store in stores {
        let (mark, scripts) = match store {
            StoreName::Postgres => {
                ("--", ["prepare.sql", "prepare.down.sql", "cleanup.sql", "cleanup.down.sql"])
            }
            StoreName::Mongo => (
                "//",
                [
                    "prepare.mongodb.js",
                    "prepare.down.mongodb.js",
                    "cleanup.mongodb.js",
                    "cleanup.down.mongodb.js",
                ],
            ),
        };
        let texts = [
            "What the application of today can live with: a column that may be empty, an index,\n{mark} a trigger that fills it for new rows.",
            "The way back from prepare.",
            "What only the application of tomorrow can live with: the old column goes. It runs when\n{mark} the invariants hold, and when nobody asked to wait (`cleanup` in migration.toml).",
            "The way back from cleanup: the old shape, empty. Backfills with direction = \"down\"\n{mark} fill it before prepare.down runs.",
        ];
        files.extend(
            scripts
                .into_iter()
                .zip(texts)
                .map(|(file, text)| (file, format!("{mark} {}\n\n", text.replace("{mark}", mark)))),
        );
    }
    files
}

/// The manifest of a phased migration.
const MANIFEST: &str = r#"description = {title}

# "auto": with the rest. "hold": wait for `migrate cleanup`.
# "next-release": with the next `migrate up --release NAME`.
cleanup = "hold"

# Rewrites rows in batches, while the application goes on.
# [[backfill]]
# name = "what it fills"
# postgres = { table = "things", set = "new = old", where = "new IS NULL" }

# [[backfill]]
# name = "what it fills"
# mongo = { collection = "things", filter = "{ new: { $exists: false } }", update = "[{ $set: { new: '$old' } }]" }

# Must be true before anything of the old shape is removed.
# [[invariant]]
# name = "nothing is left out"
# postgres = "SELECT count(*) FROM things WHERE new IS NULL"
# sample = "SELECT id, old FROM things WHERE new IS NULL LIMIT 10"
"#;

/// A path as somebody who stands here would write it.
fn near(path: &Path) -> &Path {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}

/// How letters that a folder's name cannot have are written without their marks.
const PLAIN: [(&str, &str); 24] = [
    ("ä", "ae"),
    ("ö", "oe"),
    ("ü", "ue"),
    ("ß", "ss"),
    ("æ", "ae"),
    ("œ", "oe"),
    ("å", "aa"),
    ("ø", "oe"),
    ("þ", "th"),
    ("áàâãăą", "a"),
    ("çćč", "c"),
    ("ďđð", "d"),
    ("éèêëěęė", "e"),
    ("ğ", "g"),
    ("íìîïı", "i"),
    ("ł", "l"),
    ("ñńň", "n"),
    ("óòôõő", "o"),
    ("řŕ", "r"),
    ("śšşș", "s"),
    ("ťţț", "t"),
    ("úùûůű", "u"),
    ("ýÿ", "y"),
    ("źžż", "z"),
];

/// `Add user preferences!` is `add-user-preferences`.
fn slug(name: &str) -> String {
    let plain = |c: char| {
        let known = PLAIN.iter().find(|(letters, _)| letters.contains(c));
        known.map_or_else(|| c.to_string(), |(_, plain)| (*plain).to_owned())
    };
    let kept = name
        .to_lowercase()
        .chars()
        .map(plain)
        .collect::<String>()
        .replace(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_', "-");
    kept.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-")
}

/// The letters of a name that are not in its slug.
fn lost(name: &str) -> String {
    let is_lost = |c: &char| c.is_alphanumeric() && slug(&c.to_string()).is_empty();
    name.chars().filter(is_lost).collect()
}

/// The folder names in the migrations folder; none when it is not there.
///
/// # Errors
/// It cannot be read.
pub fn folders(dir: &Path) -> std::io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// The next number and its separator, in the style of the newest folder.
fn next(folders: &[String], now: &str) -> String {
    let newest = folders
        .iter()
        .filter_map(|folder| Some((parse_name(folder).ok()?.0, folder)))
        .max_by_key(|(version, _)| *version);
    let Some((Version(newest), folder)) = newest else { return "001-".to_owned() };
    let digits = folder.bytes().take_while(u8::is_ascii_digit).count();
    let separator = &folder[digits..=digits];
    if digits >= TIMESTAMP_DIGITS {
        let now: u64 = now[..digits.min(now.len())].parse().unwrap_or(0);
        return format!("{:0digits$}{separator}", now.max(newest + 1));
    }
    format!("{:0digits$}{separator}", newest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folders: &[&str], expected: &str) {
        let folders: Vec<String> = folders.iter().map(|&folder| folder.to_owned()).collect();
        assert_eq!(next(&folders, "20261120093000"), expected);
    }

    #[test]
    fn the_next_folder_is_in_the_style_of_the_newest() {
        check(&[], "001-");
        check(&["001-a", "009_b", "README.md"], "010_");
        check(&["7-x"], "8-");
        check(&["20250101000000-a"], "20261120093000-");
        check(&["20990101000000_a"], "20990101000001_");
    }

    #[test]
    fn a_name_becomes_a_folder_name() {
        assert_eq!(slug("Add user preferences!"), "add-user-preferences");
        assert_eq!(slug("  Über  x_y "), "ueber-x_y");
        assert_eq!(slug("Señor Čapek naïve"), "senor-capek-naive");
        assert_eq!(lost("Straße 日本 !"), "日本");
        assert_eq!(slug("!!"), "");
    }
}
