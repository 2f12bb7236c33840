//! Flyway: `V1_2__create_users.sql`, `U1_2__…` to undo it, `R__…` repeatable, also in
//! folders below; `V1__x.sql.conf` beside a script.
//!
//! A version of Flyway has parts, ours is one number. Where all have one part, it is
//! kept. Else each part is written with as many digits as the longest at its place has,
//! so that the order is kept: 1.2, 1.10 and 2 become 102, 110 and 200. Where that is
//! longer than a version may be, they are counted: 1, 2, 3.

use super::dbmate::at;
use super::draft::{Draft, Script};
use super::refinery::DIGITS;
use super::{Applied, Found, Import, Refused, is_true, plain, text};
use crate::core::id::Version;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let file = path.rsplit('/').next().unwrap_or(path);
    if let Some(script) = file.strip_suffix(".sql.conf") {
        if content.lines().any(|line| line.replace(' ', "") == "executeInTransaction=false")
            && let Some((_, key, _)) = cut(&format!("{script}.sql"))
        {
            draft(found, &key, path, "").no_transaction = true;
        }
        return;
    }
    if file.starts_with("R__") && file.strip_suffix(".sql").is_some() {
        found.note(path, "is repeatable: it ran whenever it changed. Put it into a new migration each time it changes");
        return;
    }
    let Some((kind, key, name)) = cut(file) else {
        let is_code = ["V", "U", "R"].iter().any(|kind| file.starts_with(kind))
            && [".java", ".class", ".kt", ".py"].iter().any(|ending| file.ends_with(ending));
        match is_code {
            true => found.problem(path, "a migration that is a program cannot be read", "write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again"),
            false => found.note(path, "is not called like a migration of Flyway, and was passed over"),
        }
        return;
    };
    if kind == 'B' {
        found.note(
            path,
            "is a baseline script, which stands for all versions up to its own; it was passed over",
        );
        return;
    }
    for (number, line) in (1..).zip(content.split('\n')) {
        if line.contains("${") {
            let hint = "Flyway puts a value in its place: write the value itself";
            found.problems.push(at(path, number, line, "a placeholder", hint));
        }
    }
    let script = if kind == 'U' { "down.sql" } else { "up.sql" };
    let draft = draft(found, &key, path, name);
    if kind == 'V' {
        path.clone_into(&mut draft.file);
        name.clone_into(&mut draft.name);
    }
    if let Err(problem) = draft.script(script, Script::whole(path, content)) {
        found.problems.push(problem);
    }
}

fn draft<'a>(found: &'a mut Found, key: &str, path: &str, name: &str) -> &'a mut Draft {
    found.draft(key, || Draft {
        key: key.to_owned(),
        version: String::new(),
        name: name.to_owned(),
        separator: '-',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    })
}

/// Cuts `V1_2__create users.sql` into its kind, its version as `1.2`, and its name.
fn cut(file: &str) -> Option<(char, String, &str)> {
    let kind = file.chars().next().filter(|kind| matches!(kind, 'V' | 'U' | 'B'))?;
    let (version, name) = file[1..].strip_suffix(".sql")?.split_once("__")?;
    let version = canonical(&version.replace('_', "."))?;
    Some((kind, version, name))
}

/// `01.2.0` is `1.2`, as Flyway compares them.
fn canonical(version: &str) -> Option<String> {
    let parts: Vec<&str> = version.split('.').collect();
    let is_number =
        |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(is_number) {
        return None;
    }
    let mut parts: Vec<String> = parts.into_iter().map(plain).collect();
    while parts.len() > 1 && parts.last().is_some_and(|part| part == "0") {
        parts.pop();
    }
    Some(parts.join("."))
}

fn parts(key: &str) -> Vec<&str> {
    key.split('.').collect()
}

/// Compares versions part by part.
fn order(key: &str) -> Vec<(usize, String)> {
    parts(key).into_iter().map(|part| (part.len(), part.to_owned())).collect()
}

/// Gives each a number of ours.
pub(super) fn number(found: &mut Found) {
    let orphan = |draft: &Draft| !draft.scripts.contains_key("up.sql");
    for draft in found.drafts.iter().filter(|draft| orphan(draft)) {
        let problem = crate::core::problem::Problem::whole(
            &draft.file,
            format!("there is no V{}__….sql that it belongs to", draft.key),
        );
        found.problems.push(problem.hint("remove it, or import the folder that has it"));
    }
    found.drafts.retain(|draft| !orphan(draft));
    found.drafts.sort_by_key(|draft| order(&draft.key));
    let depth = found.drafts.iter().map(|draft| parts(&draft.key).len()).max().unwrap_or(1);
    let width = |at: usize| {
        let digits =
            found.drafts.iter().filter_map(|draft| parts(&draft.key).get(at).map(|it| it.len()));
        digits.max().unwrap_or(1)
    };
    let widths: Vec<usize> = (0..depth).map(width).collect();
    let whole: usize = widths.iter().sum();
    let is_counted = depth > 1 && whole > Version::DIGITS_MAX;
    let count = found.drafts.len().to_string().len().max(DIGITS);
    for (draft, number) in found.drafts.iter_mut().zip(1_usize..) {
        let own = parts(&draft.key);
        draft.version = match (is_counted, depth) {
            (true, _) => format!("{number:0>count$}"),
            (false, 1) => format!("{:0>width$}", own[0], width = widths[0].max(DIGITS)),
            (false, _) => {
                let part = |(at, width): (usize, &usize)| {
                    format!("{:0>width$}", own.get(at).copied().unwrap_or("0"), width = *width)
                };
                let digits = widths.iter().enumerate().map(part).collect::<String>();
                format!("{digits:0>DIGITS$}")
            }
        };
    }
}

pub(super) fn applied(rows: &[Value], import: &Import) -> Result<Applied, Refused> {
    let rank = |row: &Value| text(row, "installed_rank").and_then(|it| it.parse::<i64>().ok());
    let mut rows: Vec<&Value> = rows.iter().collect();
    rows.sort_by_key(|row| rank(row));
    if let Some(row) = rows.iter().find(|row| !is_true(row, "success")) {
        let script = text(row, "script").unwrap_or_default();
        return Err(Refused {
            message: format!("Flyway's history says that {script} failed: nobody knows how far it came"),
            hint: "look at the database, take back what is there of it, `flyway repair` removes the entry; then import again".to_owned(),
        });
    }
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let mut below: Option<Vec<(usize, String)>> = None;
    for row in rows {
        let version = text(row, "version").and_then(|version| canonical(&version));
        let Some(version) = version else { continue };
        match text(row, "type").unwrap_or_default().as_str() {
            "BASELINE" | "SQL_BASELINE" => below = below.max(Some(order(&version))),
            "DELETE" => {
                keys.remove(&version);
            }
            kind if kind.starts_with("UNDO") => {
                keys.remove(&version);
            }
            "SCHEMA" => {}
            _ => {
                keys.insert(version);
            }
        }
    }
    let mut applied = super::by_key(keys.into_iter(), import);
    let is_below = |key: &str| below.as_ref().is_some_and(|below| order(key) <= *below);
    let covered = import.migrations.iter().filter(|migration| is_below(&migration.key));
    applied.versions.extend(covered.map(|migration| migration.version));
    Ok(applied)
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::Flyway as TOOL;
    use crate::core::import::shown::{show, show_history};
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn whole_versions_are_kept() {
        let files = [
            ("V1__Create users.sql", "CREATE TABLE users (id int);\n"),
            ("U1__Create users.sql", "DROP TABLE users;\n"),
            ("sub/V10__b.sql", "SELECT 1;\n"),
            ("V2__index.sql", "CREATE INDEX CONCURRENTLY a ON users (id);\n"),
            ("V2__index.sql.conf", "executeInTransaction=false\n"),
            ("R__views.sql", "CREATE OR REPLACE VIEW v AS SELECT 1;\n"),
            ("B5__all.sql", "SELECT 1;\n"),
            ("afterMigrate.sql", "SELECT 1;\n"),
        ];
        expect![[r#"
            == 001-create-users/down.sql
            DROP TABLE users;
            == 001-create-users/up.sql
            CREATE TABLE users (id int);
            == 002-index/migration.toml
            transaction = false
            == 002-index/up.sql
            CREATE INDEX CONCURRENTLY a ON users (id);
            == 010-b/up.sql
            SELECT 1;
            note B5__all.sql: is a baseline script, which stands for all versions up to its own; it was passed over
            note R__views.sql: is repeatable: it ran whenever it changed. Put it into a new migration each time it changes
            note afterMigrate.sql: is not called like a migration of Flyway, and was passed over
        "#]].assert_eq(&show(TOOL, &files));
    }

    const DOTTED: &[(&str, &str)] = &[
        ("V1_2__a.sql", "SELECT 1;"),
        ("V1.10__b.sql", "SELECT 2;"),
        ("V2__c.sql", "SELECT 3;"),
        ("V2.0.1__d.sql", "SELECT 4;"),
    ];

    #[test]
    fn versions_with_parts_keep_their_order() {
        expect![[r#"
            == 1020-a/up.sql
            SELECT 1;
            == 1100-b/up.sql
            SELECT 2;
            == 2000-c/up.sql
            SELECT 3;
            == 2001-d/up.sql
            SELECT 4;
            1.2 is 1020
            1.10 is 1100
            2 is 2000
            2.0.1 is 2001
        "#]]
        .assert_eq(&show(TOOL, DOTTED));
    }

    #[test]
    fn versions_that_are_too_long_are_counted() {
        let files = [("V20260101000000.20260101__a.sql", "SELECT 1;"), ("V3__b.sql", "SELECT 2;")];
        expect![[r#"
            == 001-b/up.sql
            SELECT 2;
            == 002-a/up.sql
            SELECT 1;
            3 is 001
            20260101000000.20260101 is 002
        "#]]
        .assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn placeholders_programs_and_lone_undos_are_refused() {
        let files = [
            ("V1__a.sql", "SELECT 1;\nSELECT '${schema}';\n"),
            ("V2__b.java", "class V2__b {}"),
            ("U3__c.sql", "SELECT 1;"),
            ("V4__d.sql", "SELECT 1;"),
            ("V4.0__e.sql", "SELECT 1;"),
        ];
        expect![[r#"
            V1__a.sql:2:1: a placeholder; Flyway puts a value in its place: write the value itself
            V2__b.java: a migration that is a program cannot be read; write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again
            V4__d.sql: V4.0__e.sql is of the same version and direction; remove one of the two
            U3__c.sql: there is no V3__….sql that it belongs to; remove it, or import the folder that has it
        "#]].assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn its_history_is_a_log() {
        let row = |rank: i32, version: Option<&str>, kind: &str, success: bool| json!({"installed_rank": rank, "version": version, "type": kind, "success": success, "script": "V9__x.sql"});
        let check = |rows: &[serde_json::Value]| show_history(TOOL, DOTTED, rows);
        expect!["applied 1020"].assert_eq(&check(&[
            row(1, None, "SCHEMA", true),
            row(3, Some("2"), "UNDO_SQL", true),
            row(2, Some("2"), "SQL", true),
            row(4, Some("1.2"), "SQL", true),
            row(5, None, "SQL", true),
        ]));
        expect!["applied 1020 1100 2001"].assert_eq(&check(&[
            row(1, Some("1.10"), "BASELINE", true),
            row(2, Some("2.0.1"), "SQL", true),
        ]));
        expect!["refused: Flyway's history says that V9__x.sql failed: nobody knows how far it came; look at the database, take back what is there of it, `flyway repair` removes the entry; then import again"].assert_eq(&check(&[row(1, Some("1.2"), "SQL", false)]));
    }
}
