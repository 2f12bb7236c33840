//! golang-migrate: `000001_create_users.up.sql`, `.down.sql`; for MongoDB `.up.json`,
//! an array of commands, which is what our `.mongodb.json` is.
//!
//! Its history is one row: the version it is at, and whether the last migration broke
//! off.

use super::draft::{Draft, Script};
use super::{Adopted, Applied, Found, Import, Refused, digits, is_true, plain, text};
use serde_json::Value;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let ours = [
        (".up.sql", "up.sql"),
        (".down.sql", "down.sql"),
        (".up.json", "up.mongodb.json"),
        (".down.json", "down.mongodb.json"),
    ];
    let ending = ours.into_iter().find(|(ending, _)| rest.ends_with(ending));
    let (Some((ending, script)), Some(rest), false) =
        (ending, rest.strip_prefix('_'), version.is_empty())
    else {
        found.note(path, "is not called like a migration of golang-migrate, and was passed over");
        return;
    };
    let name = rest.strip_suffix(ending).unwrap_or(rest);
    // Two names of one version are two migrations, and a problem.
    let key = plain(version);
    let same = |draft: &&Draft| draft.key == key && draft.name != name;
    if let Some(other) = found.drafts.iter().find(same) {
        let message = format!("version {version} is also the version of {}", other.file);
        found.problem(path, message, "give one of the two another number");
        return;
    }
    let draft = found.draft(&key, || Draft {
        key: key.clone(),
        version: version.to_owned(),
        name: name.to_owned(),
        separator: '_',
        file: path.to_owned(),
        scripts: std::collections::BTreeMap::new(),
        no_transaction: false,
    });
    if let Err(problem) = draft.script(script, Script::whole(path, content)) {
        found.problems.push(problem);
    }
}

pub(super) fn applied(rows: &[Value], import: &Import) -> Result<Applied, Refused> {
    let mut applied = Applied::default();
    let Some(row) = rows.first() else { return Ok(applied) };
    let at = text(row, "version").unwrap_or_default();
    if is_true(row, "dirty") {
        return Err(Refused {
            message: format!(
                "golang-migrate's history is dirty at version {at}: that migration broke off, and nobody knows how far it came"
            ),
            hint: format!(
                "look at the database; finish version {at} by hand or take back what is there of it, say so with `migrate force` of golang-migrate, and import again"
            ),
        });
    }
    // It counts from -1: nothing.
    let Ok(number) = at.parse::<u64>() else { return Ok(applied) };
    let own = |migration: &&Adopted| migration.key.parse::<u64>().is_ok_and(|own| own <= number);
    let below = import.migrations.iter().filter(own);
    applied.versions = below.map(|migration| migration.version).collect();
    if !import.migrations.iter().any(|migration| migration.key == at) {
        applied.unknown.push(at);
    }
    Ok(applied)
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::GolangMigrate as TOOL;
    use crate::core::import::Wishes;
    use crate::core::import::shown::{show, show_history, show_with};
    use expect_test::expect;
    use serde_json::json;

    const FILES: &[(&str, &str)] = &[
        ("000001_create_users.up.sql", "CREATE TABLE users (id int);\n"),
        ("000001_create_users.down.sql", "DROP TABLE users;\n"),
        ("000002_Add-Names.up.sql", "ALTER TABLE users ADD name text;"),
        ("000003_products.up.json", r#"[{ "create": "products" }]"#),
        ("000003_products.down.json", r#"[{ "drop": "products" }]"#),
        ("README.md", "about"),
    ];

    #[test]
    fn files_are_kept_as_they_are_in_a_folder_each() {
        expect![[r#"
            == 000001_create_users/down.sql
            DROP TABLE users;
            == 000001_create_users/up.sql
            CREATE TABLE users (id int);
            == 000002_add-names/up.sql
            ALTER TABLE users ADD name text;
            == 000003_products/down.mongodb.json
            [{ "drop": "products" }]
            == 000003_products/up.mongodb.json
            [{ "create": "products" }]
            note README.md: is not called like a migration of golang-migrate, and was passed over
        "#]]
        .assert_eq(&show(TOOL, FILES));
    }

    #[test]
    fn two_names_of_one_version_and_a_down_alone_are_problems() {
        let files = [
            ("1_a.up.sql", "SELECT 1;"),
            ("1_b.up.sql", "SELECT 1;"),
            ("2_c.down.sql", "SELECT 1;"),
            ("3_d.up.json", "{}"),
        ];
        expect![[r#"
            1_b.up.sql: version 1 is also the version of 1_a.up.sql; give one of the two another number
            2_c.down.sql: there is no `up.sql` that it could revert; add `up.sql`, or delete this file
            3_d.up.json:1:1: not a list of commands; write `[ { "createIndexes": "products", … }, … ]`
        "#]].assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn what_cannot_be_in_a_migration_is_told_by_file_and_line_all_at_once() {
        let files = [
            ("1_a.up.sql", "\nBEGIN;\nSELECT 1;\nCOMMIT;\n"),
            ("2_b.up.sql", "COPY t FROM STDIN;\n1\n\\.\n\\i other.sql\n"),
        ];
        expect![[r#"
            1_a.up.sql:2:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file
            1_a.up.sql:4:1: `COMMIT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file
            2_b.up.sql:1:8: `COPY … FROM STDIN` needs a client that sends rows; use INSERT, or a fixture for test data, or a program with `[[run]]` in migration.toml
            2_b.up.sql:4:1: `\i` is a command of psql, not SQL; put the statements of that file here, or into a migration of their own
        "#]].assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn a_transaction_around_a_file_is_taken_out_when_that_is_asked_for() {
        let wishes = Wishes { strip_transactions: true };
        let around = "-- about\nBEGIN;\n\nSELECT 1;\n\ncommit ;\n-- end\n";
        let files =
            [("1_a.up.sql", around), ("2_b.up.sql", "SELECT 1;\nBEGIN;\nSELECT 2;\nCOMMIT;\n")];
        expect![[r#"
            2_b.up.sql:2:1: `BEGIN` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file
            2_b.up.sql:4:1: `COMMIT` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file
        "#]].assert_eq(&show_with(TOOL, &files, wishes));
        expect![[r#"
            == 1_a/up.sql
            -- about

            SELECT 1;

            -- end
        "#]]
        .assert_eq(&show_with(TOOL, &files[..1], wishes));
    }

    #[test]
    fn its_history_is_one_number() {
        let check = |rows: &[serde_json::Value]| show_history(TOOL, FILES, rows);
        expect!["applied "].assert_eq(&check(&[]));
        expect!["applied 001 002"].assert_eq(&check(&[json!({"version": 2, "dirty": false})]));
        expect!["applied 001 002 003; unknown 7"]
            .assert_eq(&check(&[json!({"version": 7, "dirty": false})]));
        expect!["applied "].assert_eq(&check(&[json!({"version": -1, "dirty": false})]));
        expect!["refused: golang-migrate's history is dirty at version 2: that migration broke off, and nobody knows how far it came; look at the database; finish version 2 by hand or take back what is there of it, say so with `migrate force` of golang-migrate, and import again"].assert_eq(&check(&[json!({"version": 2, "dirty": true})]));
    }
}
