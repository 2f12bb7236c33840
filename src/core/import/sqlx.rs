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
