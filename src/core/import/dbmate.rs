//! dbmate: `20260101000000_create_users.sql` with `-- migrate:up` and `-- migrate:down`,
//! each perhaps with `transaction:false`.
//!
//! Its history is a table of versions.

use super::draft::Draft;
use super::{Found, digits};
use crate::core::problem::Problem;
use std::collections::BTreeMap;

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let name = rest.strip_suffix(".sql");
    let (Some(name), false) = (name, version.is_empty()) else {
        found.note(path, "is not called like a migration of dbmate, and was passed over");
        return;
    };
    let mut draft = Draft {
        key: version.to_owned(),
        version: version.to_owned(),
        name: name.trim_start_matches(['_', '-']).to_owned(),
        separator: '_',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    };
    // What stands before the first mark may be comments, and nothing else.
    let mut section: Option<&'static str> = None;
    let mut sections: BTreeMap<&'static str, Vec<(u32, String)>> = BTreeMap::new();
    for (number, line) in (1..).zip(content.split('\n')) {
        if let Some((which, options)) = mark(line) {
            if sections.contains_key(which) {
                found.problems.push(at(
                    path,
                    number,
                    line,
                    "the second mark of its kind",
                    "keep one `-- migrate:up` and one `-- migrate:down`",
                ));
            }
            draft.no_transaction |= options.iter().any(|option| option == "transaction:false");
            sections.entry(which).or_default();
            section = Some(which);
            continue;
        }
        match section {
            Some(which) => {
                if let Some(lines) = sections.get_mut(which) {
                    lines.push((number, line.to_owned()));
                }
            }
            None if line.trim().is_empty() || line.trim_start().starts_with("--") => {}
            None => {
                let hint = "dbmate refuses it too: put `-- migrate:up` above it";
                found.problems.push(at(
                    path,
                    number,
                    line,
                    "a statement before `-- migrate:up`",
                    hint,
                ));
                break;
            }
        }
    }
    if !draft.sections(path, &sections) {
        if section.is_some() || found.problems.iter().all(|problem| problem.file != path) {
            found.problem(
                path,
                "the file has no `-- migrate:up`",
                "dbmate refuses it too: add it, or remove the file",
            );
        }
        return;
    }
    found.drafts.push(draft);
}

/// `-- migrate:up transaction:false`: for which script it is, and its options.
fn mark(line: &str) -> Option<(&'static str, Vec<String>)> {
    let rest = line.strip_prefix("--")?.trim_start();
    let (script, rest) = match (rest.strip_prefix("migrate:up"), rest.strip_prefix("migrate:down"))
    {
        (Some(rest), _) => ("up.sql", rest),
        (_, Some(rest)) => ("down.sql", rest),
        _ => return None,
    };
    let is_whole = rest.is_empty() || rest.starts_with(char::is_whitespace);
    is_whole.then(|| (script, rest.split_whitespace().map(str::to_owned).collect()))
}

/// A problem with a line of a file.
pub(super) fn at(path: &str, line: u32, text: &str, message: &str, hint: &str) -> Problem {
    let mut problem = Problem::at(text, 0..text.len(), message).hint(hint).file(path);
    if let Some(place) = &mut problem.at {
        place.line = line;
    }
    problem
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::Dbmate as TOOL;
    use crate::core::import::shown::{show, show_history};
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_file_is_cut_at_its_marks() {
        let files = [
            (
                "20260101000000_create_users.sql",
                "-- about\n\n-- migrate:up\n\nCREATE TABLE users (id int);\n\n-- migrate:down\nDROP TABLE users;\n",
            ),
            (
                "20260102000000_index.sql",
                "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY a ON users (id);\n\n-- migrate:down\n",
            ),
            ("20260103000000_nothing.sql", "-- migrate:up\n-- later\n\n-- migrate:down\n"),
            ("schema.sql", "everything"),
        ];
        expect![[r#"
            == 20260101000000_create_users/down.sql
            DROP TABLE users;
            == 20260101000000_create_users/up.sql
            CREATE TABLE users (id int);
            == 20260102000000_index/migration.toml
            transaction = false
            == 20260102000000_index/up.sql
            CREATE INDEX CONCURRENTLY a ON users (id);
            == 20260103000000_nothing/up.sql
            -- later

            SELECT 1;
            note schema.sql: is not called like a migration of dbmate, and was passed over
        "#]]
        .assert_eq(&show(TOOL, &files));
        let rows = [json!({"version": "20260101000000"}), json!({"version": "20259999"})];
        expect!["applied 20260101000000; unknown 20259999"]
            .assert_eq(&show_history(TOOL, &files, &rows));
    }

    #[test]
    fn what_is_wrong_stands_where_it_stands_in_the_file() {
        let files = [
            ("1_a.sql", "SELECT 1;\n-- migrate:up\n"),
            ("2_b.sql", "-- nothing\n"),
            ("3_c.sql", "-- migrate:up\nSELECT 1;\n-- migrate:up\n"),
            ("4_d.sql", "-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n\nROLLBACK;\n"),
        ];
        expect![[r#"
            1_a.sql:1:1: a statement before `-- migrate:up`; dbmate refuses it too: put `-- migrate:up` above it
            2_b.sql: the file has no `-- migrate:up`; dbmate refuses it too: add it, or remove the file
            3_c.sql:3:1: the second mark of its kind; keep one `-- migrate:up` and one `-- migrate:down`
            4_d.sql:6:1: `ROLLBACK` is transaction control; remove it: the engine runs the script in one transaction together with its record; `transaction = false` in migration.toml runs each statement alone; `--strip-transactions` takes out a BEGIN that begins and a COMMIT that ends a file
        "#]].assert_eq(&show(TOOL, &files));
    }
}
