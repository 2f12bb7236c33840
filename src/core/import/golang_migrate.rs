//! golang-migrate: `000001_create_users.up.sql`, `.down.sql`; for MongoDB `.up.json`,
//! an array of commands, which is what our `.mongodb.json` is.
//!
//! Its history is one row: the version it is at, and whether the last migration broke
//! off.

use super::draft::{Draft, Script};
use super::{Applied, Found, Import, Refused, digits, is_true, plain, text};
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
    let versions = import.migrations.iter().map(|migration| migration.version);
    applied.versions = versions.filter(|version| version.0 <= number).collect();
    if !import.migrations.iter().any(|migration| migration.version.0 == number) {
        applied.unknown.push(at);
    }
    Ok(applied)
}
