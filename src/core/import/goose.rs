//! goose: `00001_create_users.sql` with `-- +goose Up` and `-- +goose Down`, with
//! `StatementBegin` and `StatementEnd` around what has semicolons inside, which our
//! reader does not need, and `NO TRANSACTION`. Its migrations in Go cannot be adopted.
//!
//! Its history is a log: the last line of a version tells.

use super::dbmate::at;
use super::draft::Draft;
use super::{Applied, Found, Import, by_key, digits, is_true, plain, text};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    if !version.is_empty()
        && rest.strip_suffix(".go").is_some()
        && rest.strip_suffix("_test.go").is_none()
    {
        let hint = "write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again";
        found.problem(path, "a migration in Go is a program, which cannot be read", hint);
        return;
    }
    let name = rest.strip_suffix(".sql").and_then(|rest| rest.strip_prefix('_'));
    let (Some(name), false) = (name, version.is_empty()) else {
        found.note(path, "is not called like a migration of goose, and was passed over");
        return;
    };
    let mut draft = Draft {
        key: plain(version),
        version: version.to_owned(),
        name: name.to_owned(),
        separator: '_',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    };
    let mut section: Option<&'static str> = None;
    let mut sections: BTreeMap<&'static str, Vec<(u32, String)>> = BTreeMap::new();
    for (number, line) in (1..).zip(content.split('\n')) {
        let Some(mark) =
            line.trim().strip_prefix("--").map(str::trim).and_then(|it| it.strip_prefix("+goose"))
        else {
            if let Some(lines) = section.and_then(|section| sections.get_mut(section)) {
                lines.push((number, line.to_owned()));
            }
            continue;
        };
        let words: Vec<String> = mark.split_whitespace().map(str::to_ascii_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["up"] => {
                section = Some("up.sql");
                sections.entry("up.sql").or_default();
            }
            ["down"] => {
                section = Some("down.sql");
                sections.entry("down.sql").or_default();
            }
            ["statementbegin" | "statementend"] => {}
            ["no", "transaction"] => draft.no_transaction = true,
            ["envsub", "off"] => {}
            ["envsub", "on"] => {
                let hint = "write the value itself, and remove the line";
                found.problems.push(at(
                    path,
                    number,
                    line,
                    "a script that depends on the environment has no checksum",
                    hint,
                ));
            }
            _ => found.problems.push(at(
                path,
                number,
                line,
                "not a mark of goose",
                "goose knows Up, Down, StatementBegin, StatementEnd, NO TRANSACTION and ENVSUB",
            )),
        }
    }
    if !draft.sections(path, &sections) {
        found.problem(
            path,
            "the file has no `-- +goose Up`",
            "goose refuses it too: add it, or remove the file",
        );
        return;
    }
    found.drafts.push(draft);
}

pub(super) fn applied(rows: &[Value], import: &Import) -> Applied {
    let id = |row: &Value| text(row, "id").and_then(|id| id.parse::<i64>().ok()).unwrap_or(0);
    let mut rows: Vec<&Value> = rows.iter().collect();
    rows.sort_by_key(|row| id(row));
    let mut last: BTreeMap<String, bool> = BTreeMap::new();
    for row in rows {
        if let Some(version) = text(row, "version_id") {
            last.insert(version, is_true(row, "is_applied"));
        }
    }
    // 0 is what it writes when it makes the table.
    let applied = last.into_iter().filter(|(version, is)| *is && version != "0");
    by_key(applied.map(|(version, _)| version), import)
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::Goose as TOOL;
    use crate::core::import::shown::{show, show_history};
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_file_is_cut_at_its_marks_and_statements_need_none() {
        let files = [
            (
                "00001_users.sql",
                "-- +goose Up\n-- +goose StatementBegin\nCREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND $$;\n-- +goose StatementEnd\n\n-- +goose Down\nDROP FUNCTION f;\n",
            ),
            (
                "00002_index.sql",
                "-- +goose NO TRANSACTION\n-- +goose up\nCREATE INDEX CONCURRENTLY a ON users (id);\n",
            ),
        ];
        expect![[r#"
            == 00001_users/down.sql
            DROP FUNCTION f;
            == 00001_users/up.sql
            CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$
            BEGIN
              RETURN 1;
            END $$;
            == 00002_index/migration.toml
            transaction = false
            == 00002_index/up.sql
            CREATE INDEX CONCURRENTLY a ON users (id);
        "#]]
        .assert_eq(&show(TOOL, &files));
        let row = |id: i32, version: i32, is: bool| json!({"id": id, "version_id": version, "is_applied": is});
        let rows =
            [row(1, 0, true), row(2, 1, true), row(4, 2, false), row(3, 2, true), row(5, 9, true)];
        expect!["applied 001; unknown 9"].assert_eq(&show_history(TOOL, &files, &rows));
    }

    #[test]
    fn go_and_the_environment_are_refused() {
        let files = [
            ("00001_a.go", "package migrations"),
            ("00002_b.sql", "-- +goose ENVSUB ON\n-- +goose Up\nSELECT '${A}';\n"),
            ("00003_c.sql", "SELECT 1;\n"),
            ("00004_d.sql", "-- +goose Upp\nSELECT 1;\n"),
        ];
        expect![[r#"
            00001_a.go: a migration in Go is a program, which cannot be read; write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again
            00002_b.sql:1:1: a script that depends on the environment has no checksum; write the value itself, and remove the line
            00003_c.sql: the file has no `-- +goose Up`; goose refuses it too: add it, or remove the file
            00004_d.sql:1:1: not a mark of goose; goose knows Up, Down, StatementBegin, StatementEnd, NO TRANSACTION and ENVSUB
            00004_d.sql: the file has no `-- +goose Up`; goose refuses it too: add it, or remove the file
        "#]].assert_eq(&show(TOOL, &files));
    }
}
