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
