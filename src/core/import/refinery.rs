//! refinery: `V1__create_users.sql`, and `U2__x.sql`, which goes up as well: U is for
//! "unversioned", not for "undo". There is no way back. Its migrations in Rust cannot
//! be adopted.

use super::draft::{Draft, Script};
use super::{Found, digits, plain};
use std::collections::BTreeMap;

/// Versions are written with so many digits at least, so that folders are listed in
/// their order.
pub(super) const DIGITS: usize = 3;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let rest = path.strip_prefix('V').or_else(|| path.strip_prefix('U'));
    let (version, rest) = digits(rest.unwrap_or_default());
    let name = rest.strip_prefix("__");
    let (Some(name), false) = (name, version.is_empty()) else {
        found.note(path, "is not called like a migration of refinery, and was passed over");
        return;
    };
    let Some(name) = name.strip_suffix(".sql") else {
        let hint = "write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again";
        if name.strip_suffix(".rs").is_some() {
            found.problem(path, "a migration in Rust is a program, which cannot be read", hint);
        } else {
            found.note(path, "is not called like a migration of refinery, and was passed over");
        }
        return;
    };
    let script = Script::whole(path, content);
    found.drafts.push(Draft {
        key: plain(version),
        version: format!("{:0>DIGITS$}", plain(version)),
        name: name.to_owned(),
        separator: '-',
        file: path.to_owned(),
        scripts: BTreeMap::from([("up.sql", script)]),
        no_transaction: false,
    });
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::Refinery as TOOL;
    use crate::core::import::shown::{show, show_history};
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn v_and_u_both_go_up() {
        let files = [
            ("V1__create_users.sql", "CREATE TABLE users (id int);\n"),
            ("U12__AddNames.sql", "ALTER TABLE users ADD name text;\n"),
            ("mod.rs", "refinery::include_migration_mods!();"),
        ];
        expect![[r#"
            == 001-create_users/up.sql
            CREATE TABLE users (id int);
            == 012-addnames/up.sql
            ALTER TABLE users ADD name text;
            note mod.rs: is not called like a migration of refinery, and was passed over
        "#]]
        .assert_eq(&show(TOOL, &files));
        let rows = [json!({"version": 1, "name": "create_users", "checksum": "1"})];
        expect!["applied 001"].assert_eq(&show_history(TOOL, &files, &rows));
    }

    #[test]
    fn rust_is_refused() {
        expect![[r#"
            V1__a.rs: a migration in Rust is a program, which cannot be read; write what it does as SQL, or as a `[[run]]` of your own program; then move the file elsewhere and import again
        "#]].assert_eq(&show(TOOL, &[("V1__a.rs", "pub fn migration() {}")]));
    }
}
