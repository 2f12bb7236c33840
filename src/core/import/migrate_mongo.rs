//! migrate-mongo: `20260101000000-create-users.js`, a module whose `up` and `down` are
//! programs. Of these, what is a call with literal arguments is written as our mongosh
//! scripts are; the rest is kept as a comment in its place, and left to a person. Until
//! somebody has seen to it, such a migration is not applied: half of it would be run.
//!
//! Its history is a collection of file names.

use super::draft::{Draft, Script};
use super::{Found, Note, digits};
use crate::core::parse::folder::UNFINISHED;
use crate::core::parse::mongosh::{Part, module};
use std::collections::BTreeMap;

/// What ends a line in JavaScript.
const ENDS_LINE: [char; 4] = ['\n', '\r', '\u{2028}', '\u{2029}'];

pub(super) fn file(path: &str, content: &str, found: &mut Found) {
    let (version, rest) = digits(path);
    let name = [".js", ".mjs", ".cjs"].into_iter().find_map(|ending| rest.strip_suffix(ending));
    let (Some(name), false) = (name, version.is_empty()) else {
        if path.strip_suffix(".ts").is_some() {
            let hint = "compile it to JavaScript, and import that folder";
            found.problem(path, "TypeScript is not read", hint);
        } else if path == "sample-migration.js" || path.strip_suffix(".js").is_none() {
            found
                .note(path, "is not called like a migration of migrate-mongo, and was passed over");
        } else {
            let hint = "its history knows it by its name: number a copy of the folder in the order of its names, or move the file elsewhere";
            found.problem(path, "the file's name does not begin with a number", hint);
        }
        return;
    };
    let read = match module(content) {
        Ok(read) => read,
        Err(problems) => {
            found.problems.extend(problems.into_iter().map(|problem| problem.file(path)));
            return;
        }
    };
    let mut draft = Draft {
        key: path.to_owned(),
        version: version.to_owned(),
        name: name.trim_start_matches(['-', '_']).to_owned(),
        separator: '-',
        file: path.to_owned(),
        scripts: BTreeMap::new(),
        no_transaction: false,
    };
    for (script, parts) in [("up.mongodb.js", &read.up), ("down.mongodb.js", &read.down)] {
        // A way back that does nothing is none.
        if script != "up.mongodb.js" && parts.is_empty() {
            continue;
        }
        let mut lines = Vec::new();
        for part in parts {
            match part {
                Part::Script { line, text } => {
                    lines.extend((*line..).zip(text.split('\n').map(str::to_owned)));
                }
                Part::ForPerson { line, text, why } => {
                    let said = format!("// {UNFINISHED} {path}:{line}: {why}");
                    lines.push((*line, said.replace(ENDS_LINE, " ")));
                    // No comment goes on behind the end of its line, of which JavaScript
                    // knows four: what stood there would be run.
                    let kept = text
                        .split(ENDS_LINE)
                        .map(|text| format!("//   {text}").trim_end().to_owned());
                    lines.extend((*line..).zip(kept));
                    let version = version.parse().ok();
                    found.notes.push(Note {
                        file: path.to_owned(),
                        line: Some(*line),
                        version,
                        what: why.clone(),
                    });
                }
            }
        }
        draft.scripts.insert(script, Script::part(path, &lines));
    }
    found.drafts.push(draft);
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::import::Tool::MigrateMongo as TOOL;
    use crate::core::import::shown::{show, show_history};
    use crate::core::import::{Foreign, edited};
    use expect_test::expect;
    use serde_json::json;

    const FILES: &[(&str, &str)] = &[
        (
            "20260101000000-create-users.js",
            r"const ADMIN = 'admin';
const helper = require('./helper');

module.exports = {
  async up(db, client) {
    // Everybody has a role.
    await db.createCollection('users');
    await db.collection('users').createIndex({ email: 1, at: -1 }, { unique: true });
    const users = db.collection('users');
    await users.updateMany(
      { role: null },
      { $set: { role: ADMIN, at: new Date('2026-01-01T00:00:00Z') } }
    );
    const all = await users.find({}).toArray();
    for (const user of all) {
      await users.updateOne({ _id: user._id }, { $set: { name: helper(user) } });
    }
    console.log('done');
    return db.collection('log').insertOne({ _id: 1 });
  },

  async down(db, client) {
    await Promise.all([db.collection('users').drop(), db.dropCollection('log')]);
  }
};
",
        ),
        (
            "20260102000000-nothing-back.js",
            r"module.exports = {
  up: async (db) => db.collection('users').deleteMany({ gone: true }),
  down: async (db) => {
    // TODO write the statements to rollback your migration (if possible)
  },
};
",
        ),
    ];

    #[test]
    fn literal_calls_are_written_as_mongosh_has_them() {
        expect![[r#"
            == 20260101000000-create-users/down.mongodb.js
            db.getCollection('users').drop();
            db.getCollection('log').drop();
            == 20260101000000-create-users/up.mongodb.js
            const ADMIN = 'admin';
            // Everybody has a role.
            db.createCollection('users');
            db.getCollection('users').createIndex({ email: 1, at: -1 }, { name: "email_1_at_-1", unique: true });
            db.getCollection('users').updateMany(
                  { role: null },
                  { $set: { role: ADMIN, at: new Date('2026-01-01T00:00:00Z') } }
                );
            // lockstep:unfinished 20260101000000-create-users.js:14: `await` is not read
            //   const all = await users.find({}).toArray();
            // lockstep:unfinished 20260101000000-create-users.js:15: a loop is not read: the file is never run
            //   for (const user of all) {
            //         await users.updateOne({ _id: user._id }, { $set: { name: helper(user) } });
            //       }
            db.getCollection('log').insertOne({ _id: 1 });
            == 20260102000000-nothing-back/up.mongodb.js
            db.getCollection('users').deleteMany({ gone: true });
            note 20260101000000-create-users.js:14: `await` is not read
            note 20260101000000-create-users.js:15: a loop is not read: the file is never run
        "#]].assert_eq(&show(TOOL, FILES));
    }

    #[test]
    fn modules_in_all_their_forms() {
        let files = [
            (
                "1-a.js",
                "exports.up = async function (database) { await database.collection('a').insertOne({ a: 1 }); };",
            ),
            (
                "2-b.mjs",
                "export const up = async (db) => { await db.collection('a').rename('b'); };\nexport async function down(db) { await db.renameCollection('b', 'a'); }",
            ),
            (
                "3-c.js",
                "async function up(db) { await db.command({ collMod: 'a', validationLevel: 'off' }); }\nmodule.exports = { up };",
            ),
            (
                "4-d.js",
                "export default { async up(db) { await db.collection('a').aggregate([{ $match: {} }, { $out: 'b' }]).toArray(); } };",
            ),
        ];
        expect![[r#"
            == 1-a/up.mongodb.js
            db.getCollection('a').insertOne({ a: 1 });
            == 2-b/down.mongodb.js
            db.getCollection('b').renameCollection('a');
            == 2-b/up.mongodb.js
            db.getCollection('a').renameCollection('b');
            == 3-c/up.mongodb.js
            db.runCommand({ collMod: 'a', validationLevel: 'off' });
            == 4-d/up.mongodb.js
            db.getCollection('a').aggregate([{ $match: {} }, { $out: 'b' }]);
        "#]]
        .assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn what_is_left_over_is_kept_and_told() {
        let files = [(
            "1-a.js",
            r"module.exports = {
  async up(db, client) {
    const session = client.startSession();
    try {
      await session.withTransaction(async () => {});
    } finally {
      await session.endSession();
    }
    await db.collection('a').insertOne({ at: new Date() });
    await db.collection(`a_${process.env.X}`).drop();
  },
};
",
        )];
        expect![[r#"
            == 1-a/up.mongodb.js
            // lockstep:unfinished 1-a.js:3: `client.startSession(…)` is not a value: the file is never run
            //   const session = client.startSession();
            // lockstep:unfinished 1-a.js:4: handling errors is not read: the file is never run
            //   try {
            //         await session.withTransaction(async () => {});
            //       } finally {
            //         await session.endSession();
            //       }
            // lockstep:unfinished 1-a.js:9: `Date()` is another value at each run, and a file must say the same each time
            //   await db.collection('a').insertOne({ at: new Date() });
            // lockstep:unfinished 1-a.js:10: a substitution in a template is not read
            //   await db.collection(`a_${process.env.X}`).drop();
            note 1-a.js:3: `client.startSession(…)` is not a value: the file is never run
            note 1-a.js:4: handling errors is not read: the file is never run
            note 1-a.js:9: `Date()` is another value at each run, and a file must say the same each time
            note 1-a.js:10: a substitution in a template is not read
        "#]].assert_eq(&show(TOOL, &files));
    }

    /// What is a comment must not end before its text does, and what is never run there
    /// is not run here.
    #[test]
    fn nothing_of_what_is_left_over_can_be_run() {
        let files = [
            (
                "1-lines.js",
                "module.exports = {\n  async up(db) {\n    if (db) {\r db.a.drop();\u{2028}db.b.drop();\u{2029}db.c.drop(); }\n  },\n};\n",
            ),
            (
                "2-over.js",
                r"module.exports = {
  async up(db) {
    await db.collection('a').drop();
    return;
    await db.collection('b').drop();
  },
  async down() { throw new Error('no way back'); },
};
",
            ),
            (
                "3-said.js",
                r"module.exports = {
  async up(db) {
    console.log(`dropping ${'a'}`);
    console.log(await db.collection('a').drop());
    await Promise.allSettled([db.collection('b').drop()]);
    return null;
  },
};
",
            ),
            (
                "4-other.js",
                r"const db = require('../db');
module.exports = {
  up: async () => { await db.collection('a').drop(); },
  down: withRetries(async (db) => { await db.collection('b').drop(); }),
};
",
            ),
            (
                "5-names.js",
                r"let first = 'a';
const second = 'b';
const third = { name: 'c' };
third.name = 'd';
async function go(db) {
  await db.collection(first).drop();
  await db.collection(second).drop();
  await db.collection('e').insertOne(third);
}
module.exports = { up: go };
",
            ),
        ];
        expect![[r#"
            == 1-lines/up.mongodb.js
            // lockstep:unfinished 1-lines.js:3: a condition is not read: the file is never run
            //   if (db) {
            //    db.a.drop();
            //   db.b.drop();
            //   db.c.drop(); }
            == 2-over/down.mongodb.js
            // lockstep:unfinished 2-over.js:7: handling errors is not read: the file is never run
            //   throw new Error('no way back');
            == 2-over/up.mongodb.js
            db.getCollection('a').drop();
            // lockstep:unfinished 2-over.js:5: it stands behind the end of the function
            //   await db.collection('b').drop();
            == 3-said/up.mongodb.js
            // lockstep:unfinished 3-said.js:4: this is no call on the database
            //   console.log(await db.collection('a').drop());
            // lockstep:unfinished 3-said.js:5: this is no call on the database
            //   await Promise.allSettled([db.collection('b').drop()]);
            == 4-other/down.mongodb.js
            // lockstep:unfinished 4-other.js:4: what makes this function is not read
            //   withRetries(async (db) => { await db.collection('b').drop(); })
            == 4-other/up.mongodb.js
            // lockstep:unfinished 4-other.js:3: this is no call on the database
            //   await db.collection('a').drop();
            == 5-names/up.mongodb.js
            const second = 'b';
            // lockstep:unfinished 5-names.js:6: `first` has no value in this file
            //   await db.collection(first).drop();
            db.getCollection(second).drop();
            // lockstep:unfinished 5-names.js:8: `third` has no value in this file
            //   await db.collection('e').insertOne(third);
            note 1-lines.js:3: a condition is not read: the file is never run
            note 2-over.js:5: it stands behind the end of the function
            note 2-over.js:7: handling errors is not read: the file is never run
            note 3-said.js:4: this is no call on the database
            note 3-said.js:5: this is no call on the database
            note 4-other.js:3: this is no call on the database
            note 4-other.js:4: what makes this function is not read
            note 5-names.js:6: `first` has no value in this file
            note 5-names.js:8: `third` has no value in this file
        "#]]
        .assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn what_is_no_migration_is_refused() {
        let files = [
            ("1-a.js", "module.exports = { async down(db) {} };"),
            ("2-b.js", "module.exports = {"),
            ("3-c.ts", "export const up = 1;"),
            ("first.js", "module.exports = {}"),
            ("README.md", ""),
        ];
        expect![[r#"
            1-a.js:1:1: the module exports no function `up`; write `module.exports = { async up(db) { … } }`, or remove the file
            2-b.js:1:19: not JavaScript: Expected `}` but found `EOF`
            3-c.ts: TypeScript is not read; compile it to JavaScript, and import that folder
            first.js: the file's name does not begin with a number; its history knows it by its name: number a copy of the folder in the order of its names, or move the file elsewhere
        "#]].assert_eq(&show(TOOL, &files));
    }

    #[test]
    fn a_file_is_edited_when_none_of_its_sums_is_its_own() {
        let file = |bytes: &[u8]| Foreign { path: "1-a.js".to_owned(), bytes: bytes.to_vec() };
        // As `useFileHash` writes it, of "abc".
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let row = |sum: Option<&str>| json!({"fileName": "1-a.js", "fileHash": sum});
        let edited = |rows: &[_], bytes| edited(TOOL, rows, &[file(bytes)]).len();
        assert_eq!(edited(&[row(Some(sum))], b"abc"), 0);
        assert_eq!(edited(&[row(Some(sum))], b"abd"), 1);
        assert_eq!(edited(&[row(Some("0")), row(Some(sum))], b"abc"), 0);
        assert_eq!(edited(&[row(None)], b"abd"), 0);
    }

    #[test]
    fn its_history_is_a_list_of_files() {
        let rows = [
            json!({"fileName": "20260101000000-create-users.js", "appliedAt": {"$date": "2026-01-01T00:00:00Z"}}),
            json!({"fileName": "20250101000000-gone.js"}),
        ];
        expect!["applied 20260101000000; unknown 20250101000000-gone.js"]
            .assert_eq(&show_history(TOOL, FILES, &rows));
    }
}
