//! sqlx: `20260101000000_create_users.up.sql` and `.down.sql`, or `.sql` without a way
//! back; `-- no-transaction` in the first line.
//!
//! Its history has a row for each migration, and says whether it succeeded.

use super::draft::{Draft, Script};
use super::{Applied, Found, Import, Refused, by_key, digits, is_true, plain, text};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let endings = [(".up.sql", "up.sql"), (".down.sql", "down.sql"), (".sql", "up.sql")];
    let ending = endings.into_iter().find(|(ending, _)| rest.ends_with(ending));
    let (Some((ending, script)), Some(rest), false) =
        (ending, rest.strip_prefix('_'), version.is_empty())
    else {
        found.note(path, "is not called like a migration of sqlx, and was passed over");
        return;
    };
    let key = plain(version);
    let draft = found.draft(&key, || Draft {
        key: key.clone(),
        version: version.to_owned(),
        name: rest.strip_suffix(ending).unwrap_or(rest).to_owned(),
        separator: '_',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    });
    draft.no_transaction |= content.starts_with("-- no-transaction");
    if let Err(problem) = draft.script(script, Script::whole(path, content)) {
        found.problems.push(problem);
    }
}

pub(super) fn applied(rows: &[Value], import: &Import) -> Result<Applied, Refused> {
    if let Some(row) = rows.iter().find(|row| !is_true(row, "success")) {
        let version = text(row, "version").unwrap_or_default();
        return Err(Refused {
            message: format!(
                "sqlx' history says that version {version} did not succeed: nobody knows how far it came"
            ),
            hint: format!(
                "look at the database; finish version {version} by hand and set `success` in _sqlx_migrations, or take it back and delete its row; then import again"
            ),
        });
    }
    Ok(by_key(rows.iter().filter_map(|row| text(row, "version")), import))
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::Sqlx as TOOL;
    use crate::core::import::shown::{show, show_history};
    use expect_test::expect;
    use serde_json::json;

    const FILES: &[(&str, &str)] = &[
        ("20260101000000_users.up.sql", "CREATE TABLE users (id int);\n"),
        ("20260101000000_users.down.sql", "DROP TABLE users;\n"),
        (
            "20260102000000_index.sql",
            "-- no-transaction\nCREATE INDEX CONCURRENTLY a ON users (id);\n",
        ),
    ];

    #[test]
    fn files_with_and_without_a_way_back() {
        expect![[r#"
            == 20260101000000_users/down.sql
            DROP TABLE users;
            == 20260101000000_users/up.sql
            CREATE TABLE users (id int);
            == 20260102000000_index/migration.toml
            transaction = false
            == 20260102000000_index/up.sql
            -- no-transaction
            CREATE INDEX CONCURRENTLY a ON users (id);
        "#]]
        .assert_eq(&show(TOOL, FILES));
    }

    #[test]
    fn two_files_for_one_direction_are_a_problem() {
        let files = [("1_a.sql", "SELECT 1;"), ("1_a.up.sql", "SELECT 1;")];
        expect![[r#"
            1_a.up.sql: 1_a.sql is of the same version and direction; remove one of the two
        "#]]
        .assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn its_history_says_what_succeeded() {
        let row = |version: i64, is: bool| json!({"version": version, "success": is});
        let one = row(20_260_101_000_000, true);
        expect!["applied 20260101000000"].assert_eq(&show_history(
            TOOL,
            FILES,
            std::slice::from_ref(&one),
        ));
        let rows = [one, row(20_260_102_000_000, false)];
        expect!["refused: sqlx' history says that version 20260102000000 did not succeed: nobody knows how far it came; look at the database; finish version 20260102000000 by hand and set `success` in _sqlx_migrations, or take it back and delete its row; then import again"].assert_eq(&show_history(TOOL, FILES, &rows));
    }
}
