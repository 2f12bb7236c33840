//! Methods that define: collections, views and indexes, as commands.

use super::arguments::{Call, Options, Takes};
use super::command::{Draft, with};
use super::number::js_number_text;
use super::{At, Fault};
use crate::core::step::CommandTarget;
use bson::{Bson, Document, doc};

/// What `create` of MongoDB 4.4 to 8.0 knows. `encryptedFields` is left out:
/// mongosh makes three collections and an index of it.
const CREATE_COLLECTION: Options = &[
    ("capped", Takes::Flag),
    ("size", Takes::Number),
    ("max", Takes::Number),
    ("storageEngine", Takes::Document),
    ("validator", Takes::Document),
    ("validationLevel", Takes::Text),
    ("validationAction", Takes::Text),
    ("indexOptionDefaults", Takes::Document),
    ("viewOn", Takes::Text),
    ("pipeline", Takes::List),
    ("collation", Takes::Document),
    ("changeStreamPreAndPostImages", Takes::Document),
    ("timeseries", Takes::Document),
    ("expireAfterSeconds", Takes::TextOrNumber),
    ("clusteredIndex", Takes::Document),
    ("writeConcern", Takes::Document),
];

pub(super) fn create_collection(mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a name", "options"])?;
    let name = name(&mut call, 0, "the collection's name, a text,")?;
    let options = call.options(1, CREATE_COLLECTION)?;
    Ok(Draft::new(call.span, with(doc! { "create": name }, options)))
}

pub(super) fn create_view(mut call: Call) -> Result<Draft, Fault> {
    call.takes(3, &["a name", "a source", "a pipeline", "options"])?;
    let view = name(&mut call, 0, "the view's name, a text,")?;
    let source = name(&mut call, 1, "the source, a text,")?;
    let pipeline = call.list(2, "the pipeline, a list,")?;
    let options = call.options(3, &[("collation", Takes::Document)])?;
    let body = doc! { "create": view, "viewOn": source, "pipeline": pipeline };
    Ok(Draft::new(call.span, with(body, options)))
}

pub(super) fn drop_database(mut call: Call) -> Result<Draft, Fault> {
    call.takes(0, &["options"])?;
    let options = call.options(0, &[("writeConcern", Takes::Document)])?;
    Ok(Draft::new(call.span, with(doc! { "dropDatabase": 1 }, options)))
}

pub(super) fn drop(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(0, &["options"])?;
    let options = call.options(0, &[("writeConcern", Takes::Document)])?;
    Ok(Draft::new(call.span, with(doc! { "drop": collection }, options)))
}

/// The body has both names without the database, which a file does not know.
pub(super) fn rename(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["the new name", "whether to drop a collection of that name"])?;
    let to = name(&mut call, 0, "the new name, a text,")?;
    let drop_target = match call.get(1) {
        None => false,
        Some(Bson::Boolean(drop_target)) => *drop_target,
        Some(_) => return Err(Fault::new(call.at(1), "`dropTarget` takes true or false")),
    };
    let body = doc! { "renameCollection": collection, "to": to, "dropTarget": drop_target };
    Ok(Draft { on: CommandTarget::Admin, ..Draft::new(call.span, body) })
}

pub(super) fn convert_to_capped(collection: &str, call: &Call) -> Result<Draft, Fault> {
    call.takes(1, &["a size in bytes"])?;
    match call.get(0) {
        Some(size @ (Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_))) => {
            Ok(Draft::new(call.span, doc! { "convertToCapped": collection, "size": size.clone() }))
        }
        _ => Err(Fault::new(call.at(0), "`convertToCapped` takes a size in bytes, a number")),
    }
}

pub(super) fn shard_collection(mut call: Call) -> Result<Draft, Fault> {
    call.takes(2, &["a namespace", "a key", "whether it is unique", "options"])?;
    let namespace = call.text(0, "the namespace, a text,")?;
    if !namespace.contains('.') {
        return Err(Fault::new(call.at(0), "the namespace has the database in it")
            .hint(format!("write \"<database>.{namespace}\"")));
    }
    let key = call.document(1, "the key, a document,")?;
    let mut body = doc! { "shardCollection": namespace, "key": key };
    let mut options = 3;
    match call.get(2) {
        None => {}
        Some(Bson::Boolean(unique)) => {
            body.insert("unique", *unique);
        }
        // mongosh takes the options here too.
        Some(Bson::Document(_)) if call.given.len() == 3 => options = 2,
        Some(_) => return Err(Fault::new(call.at(2), "`unique` takes true or false")),
    }
    let options = call.options(
        options,
        &[
            ("unique", Takes::Flag),
            ("numInitialChunks", Takes::Number),
            ("presplitHashedZones", Takes::Flag),
            ("collation", Takes::Document),
            ("timeseries", Takes::Document),
            ("writeConcern", Takes::Document),
        ],
    )?;
    Ok(Draft { on: CommandTarget::Admin, ..Draft::new(call.span, with(body, options)) })
}

/// What mongosh lets through; it drops every other option without a word.
const CREATE_INDEX: Options = &[
    ("name", Takes::Text),
    ("unique", Takes::Flag),
    ("background", Takes::Flag),
    ("partialFilterExpression", Takes::Document),
    ("sparse", Takes::Flag),
    ("hidden", Takes::Flag),
    ("expireAfterSeconds", Takes::Number),
    ("storageEngine", Takes::Document),
    ("collation", Takes::Document),
    ("weights", Takes::Document),
    ("default_language", Takes::Text),
    ("language_override", Takes::Text),
    ("textIndexVersion", Takes::Number),
    ("2dsphereIndexVersion", Takes::Number),
    ("bits", Takes::Number),
    ("min", Takes::Number),
    ("max", Takes::Number),
    ("wildcardProjection", Takes::Document),
    // these two are the command's
    ("commitQuorum", Takes::TextOrNumber),
    ("writeConcern", Takes::Document),
];

pub(super) fn create_index(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["the keys", "options", "a commit quorum"])?;
    let keys = call.document(0, "the keys, a document,")?;
    let at = call.at(0);
    indexes(collection, vec![(keys, at)], call)
}

pub(super) fn create_indexes(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a list of keys", "options", "a commit quorum"])?;
    let mut all = Vec::new();
    for (element, keys) in call.list(0, "a list of keys")?.into_iter().enumerate() {
        let at = call.at_element(0, element);
        match keys {
            Bson::Document(keys) => all.push((keys, at)),
            _ => return Err(Fault::new(at, "the keys of an index are a document")),
        }
    }
    if all.is_empty() {
        return Err(Fault::new(call.at(0), "an empty list of indexes"));
    }
    indexes(collection, all, call)
}

fn indexes(collection: &str, all: Vec<(Document, At)>, mut call: Call) -> Result<Draft, Fault> {
    let mut options = call.options(1, CREATE_INDEX)?;
    let mut body = Document::new();
    if options.get_str("name").is_ok_and(str::is_empty) {
        return Err(Fault::new(call.at_field(1, "name"), "an index needs a name"));
    }
    if all.len() > 1 && options.contains_key("name") {
        return Err(Fault::new(call.at_field(1, "name"), "one name for several indexes")
            .hint("write one `createIndex` for each"));
    }
    let quorum = match call.get(2) {
        None => options.remove("commitQuorum"),
        Some(quorum @ (Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::String(_))) => {
            options.remove("commitQuorum");
            Some(quorum.clone())
        }
        Some(_) => return Err(Fault::new(call.at(2), "a commit quorum is a number or a text")),
    };
    let write_concern = options.remove("writeConcern");
    let mut list = Vec::with_capacity(all.len());
    for (keys, at) in all {
        let generated = index_name(&keys).map_err(|message| Fault::new(at, message))?;
        let mut index = doc! { "key": keys };
        if !options.contains_key("name") {
            index.insert("name", generated);
        }
        list.push(with(index, options.clone()));
    }
    body.insert("createIndexes", collection);
    body.insert("indexes", list);
    if let Some(quorum) = quorum {
        body.insert("commitQuorum", quorum);
    }
    if let Some(write_concern) = write_concern {
        body.insert("writeConcern", write_concern);
    }
    Ok(Draft::new(call.span, body))
}

/// The name that mongosh gives: `a_1_b_-1`.
fn index_name(keys: &Document) -> Result<String, String> {
    if keys.is_empty() {
        return Err("an index of no fields".to_owned());
    }
    let mut parts = Vec::with_capacity(keys.len());
    for (field, direction) in keys {
        let direction = match direction {
            Bson::String(kind) if !kind.is_empty() => kind.clone(),
            Bson::Int32(number) if *number != 0 => number.to_string(),
            Bson::Int64(number) if *number != 0 => number.to_string(),
            Bson::Double(number) if *number != 0.0 && !number.is_nan() => js_number_text(*number),
            _ => {
                return Err(format!(
                    "the direction of `{field}` is 1, -1 or a kind such as \"text\""
                ));
            }
        };
        parts.push(format!("{field}_{direction}"));
    }
    Ok(parts.join("_"))
}

pub(super) fn drop_indexes(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    let several = call.method == "dropIndexes";
    call.takes(usize::from(!several), &["a name or the keys of an index"])?;
    let at = call.at(0);
    let index = match call.take(0) {
        None => Bson::from("*"),
        Some(Bson::String(name)) if name == "*" && !several => {
            return Err(Fault::new(at, "`dropIndex` drops one index")
                .hint("write `dropIndexes()` to drop them all"));
        }
        Some(Bson::String(name)) if !name.is_empty() => Bson::String(name),
        Some(Bson::Document(keys)) if !keys.is_empty() => Bson::Document(keys),
        Some(Bson::Array(names))
            if several
                && !names.is_empty()
                && names.iter().all(|name| matches!(name, Bson::String(_))) =>
        {
            Bson::Array(names)
        }
        Some(Bson::Array(_)) if !several => {
            return Err(Fault::new(at, "`dropIndex` drops one index")
                .hint("write `dropIndexes([…])` to drop several"));
        }
        Some(_) => {
            let message = format!("`{}` takes a name or the keys of an index", call.method);
            return Err(Fault::new(at, message));
        }
    };
    Ok(Draft::new(call.span, doc! { "dropIndexes": collection, "index": index }))
}

pub(super) fn hide_index(collection: &str, mut call: Call) -> Result<Draft, Fault> {
    call.takes(1, &["a name or the keys of an index"])?;
    let hidden = call.method == "hideIndex";
    let at = call.at(0);
    let index = match call.take(0) {
        Some(Bson::String(name)) if !name.is_empty() => doc! { "name": name, "hidden": hidden },
        Some(Bson::Document(keys)) if !keys.is_empty() => {
            doc! { "keyPattern": keys, "hidden": hidden }
        }
        _ => {
            let message = format!("`{}` takes a name or the keys of an index", call.method);
            return Err(Fault::new(at, message));
        }
    };
    Ok(Draft::new(call.span, doc! { "collMod": collection, "index": index }))
}

fn name(call: &mut Call, index: usize, what: &str) -> Result<String, Fault> {
    let name = call.text(index, what)?;
    if name.is_empty() || name.contains(['$', '\0']) {
        return Err(Fault::new(call.at(index), "not a name that a collection can have"));
    }
    Ok(name)
}

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect_test writes them so")]
mod tests {
    use crate::core::parse::mongosh::tests::check;
    use expect_test::expect;

    #[test]
    fn collections_and_views_become_commands() {
        for (text, expected) in [
            (
                "db.createCollection('a')",
                expect![[r#"
                1 CreateCollection Database { "create": "a" }
            "#]],
            ),
            (
                "db.createCollection('a', { capped: true, size: 4096 })",
                expect![[r#"
                1 CreateCollection Database { "create": "a", "capped": true, "size": 4096 }
            "#]],
            ),
            (
                "db.createView('v', 'a', [{ $match: { b: 1 } }], { collation: { locale: 'de' } })",
                expect![[r#"
                    1 CreateView Database { "create": "v", "viewOn": "a", "pipeline": [{ "$match": { "b": 1 } }], "collation": { "locale": "de" } }
                "#]],
            ),
            (
                "db.createCollection('v', { viewOn: 'a', pipeline: [] })",
                expect![[r#"
                1 CreateView Database { "create": "v", "viewOn": "a", "pipeline": [] }
            "#]],
            ),
            (
                "db.dropDatabase()",
                expect![[r#"
                1 DropDatabase Database { "dropDatabase": 1 }
            "#]],
            ),
            (
                "db.a.drop()",
                expect![[r#"
                1 Drop Database { "drop": "a" }
            "#]],
            ),
            (
                "db.a.drop({ writeConcern: { w: 1 } })",
                expect![[r#"
                1 Drop Database { "drop": "a", "writeConcern": { "w": 1 } }
            "#]],
            ),
            (
                "db.a.convertToCapped(4096)",
                expect![[r#"
                1 Other Database { "convertToCapped": "a", "size": 4096 }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_rename_has_no_database_yet() {
        for (text, expected) in [
            (
                "db.a.renameCollection('b')",
                expect![[r#"
                1 Rename Admin { "renameCollection": "a", "to": "b", "dropTarget": false }
            "#]],
            ),
            (
                "db.a.b.renameCollection('c.d', true)",
                expect![[r#"
                1 Rename Admin { "renameCollection": "a.b", "to": "c.d", "dropTarget": true }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn an_index_gets_the_name_that_mongosh_gives() {
        for (text, expected) in [
            (
                "db.a.createIndex({ a: 1, b: -1 })",
                expect![[r#"
                1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "a": 1, "b": -1 }, "name": "a_1_b_-1" }] }
            "#]],
            ),
            (
                "db.a.createIndex({ title: 'text', 'x.y': '2dsphere', half: 1.5, long: NumberLong(2), '$**': 1 })",
                expect![[r#"
                    1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "title": "text", "x.y": "2dsphere", "half": 1.5, "long": 2, "$**": 1 }, "name": "title_text_x.y_2dsphere_half_1.5_long_2_$**_1" }] }
                "#]],
            ),
            (
                "db.a.createIndex({ a: 1 }, { name: 'mine', unique: true })",
                expect![[r#"
                1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "a": 1 }, "name": "mine", "unique": true }] }
            "#]],
            ),
            (
                "db.a.createIndex({ b: 1, 1: 1 })",
                expect![[r#"
                1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "1": 1, "b": 1 }, "name": "1_1_b_1" }] }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn several_indexes_are_one_command() {
        check(
            "db.a.createIndexes([{ a: 1 }, { b: 1 }], { sparse: true, commitQuorum: 1, writeConcern: { w: 1 } }, 'majority')",
            &expect![[r#"
                1 CreateIndexes Database { "createIndexes": "a", "indexes": [{ "key": { "a": 1 }, "name": "a_1", "sparse": true }, { "key": { "b": 1 }, "name": "b_1", "sparse": true }], "commitQuorum": "majority", "writeConcern": { "w": 1 } }
            "#]],
        );
    }

    #[test]
    fn indexes_are_dropped_and_hidden_by_name_or_keys() {
        for (text, expected) in [
            (
                "db.a.dropIndex('b')",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": "b" }
            "#]],
            ),
            (
                "db.a.dropIndex({ b: 1 })",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": { "b": 1 } }
            "#]],
            ),
            (
                "db.a.dropIndexes()",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": "*" }
            "#]],
            ),
            (
                "db.a.dropIndexes('*')",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": "*" }
            "#]],
            ),
            (
                "db.a.dropIndexes(['b', 'c'])",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": ["b", "c"] }
            "#]],
            ),
            (
                "db.a.dropIndexes({ b: 1 })",
                expect![[r#"
                1 DropIndexes Database { "dropIndexes": "a", "index": { "b": 1 } }
            "#]],
            ),
            (
                "db.a.hideIndex('b')",
                expect![[r#"
                1 CollMod Database { "collMod": "a", "index": { "name": "b", "hidden": true } }
            "#]],
            ),
            (
                "db.a.unhideIndex({ b: 1 })",
                expect![[r#"
                1 CollMod Database { "collMod": "a", "index": { "keyPattern": { "b": 1 }, "hidden": false } }
            "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn a_collection_is_sharded_by_its_full_name() {
        for (text, expected) in [
            (
                "sh.shardCollection('shop.users', { _id: 'hashed' })",
                expect![[r#"
                1 Other Admin { "shardCollection": "shop.users", "key": { "_id": "hashed" } }
            "#]],
            ),
            (
                "sh.shardCollection('shop.users', { a: 1 }, true, { numInitialChunks: 4 })",
                expect![[r#"
                    1 Other Admin { "shardCollection": "shop.users", "key": { "a": 1 }, "unique": true, "numInitialChunks": 4 }
                "#]],
            ),
            (
                "sh.shardCollection('shop.users', { a: 1 }, { presplitHashedZones: true })",
                expect![[r#"
                    1 Other Admin { "shardCollection": "shop.users", "key": { "a": 1 }, "presplitHashedZones": true }
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }

    #[test]
    fn what_no_server_would_take_or_mongosh_would_bend_is_refused() {
        for (text, expected) in [
            (
                "db.a.createIndex({})",
                expect![[r#"
                1:18: an index of no fields
            "#]],
            ),
            (
                "db.a.createIndex({ a: 0 })",
                expect![[r#"
                1:18: the direction of `a` is 1, -1 or a kind such as "text"
            "#]],
            ),
            (
                "db.a.createIndex({ a: true })",
                expect![[r#"
                1:18: the direction of `a` is 1, -1 or a kind such as "text"
            "#]],
            ),
            (
                "db.a.createIndex({ a: '' })",
                expect![[r#"
                1:18: the direction of `a` is 1, -1 or a kind such as "text"
            "#]],
            ),
            (
                "db.a.createIndex({ a: NaN })",
                expect![[r#"
                1:18: the direction of `a` is 1, -1 or a kind such as "text"
            "#]],
            ),
            (
                "db.a.createIndex([{ a: 1 }])",
                expect![[r#"
                    1:18: `createIndex` takes the keys, a document, here
                "#]],
            ),
            (
                "db.a.createIndex({ a: 1 }, { name: '' })",
                expect![[r#"
                1:30: an index needs a name
            "#]],
            ),
            (
                "db.a.createIndex({ a: 1 }, {}, {})",
                expect![[r#"
                1:32: a commit quorum is a number or a text
            "#]],
            ),
            (
                "db.a.createIndexes([])",
                expect![[r#"
                1:20: an empty list of indexes
            "#]],
            ),
            (
                "db.a.createIndexes([1])",
                expect![[r#"
                1:21: the keys of an index are a document
            "#]],
            ),
            (
                "db.a.createIndexes([{ a: 1 }, { b: 1 }], { name: 'c' })",
                expect![[r#"
                1:44: one name for several indexes; write one `createIndex` for each
            "#]],
            ),
            (
                "db.a.createIndexes([{ a: 1 }, { b: 0 }])",
                expect![[r#"
                1:31: the direction of `b` is 1, -1 or a kind such as "text"
            "#]],
            ),
            (
                "db.a.dropIndex('*')",
                expect![[r#"
                1:16: `dropIndex` drops one index; write `dropIndexes()` to drop them all
            "#]],
            ),
            (
                "db.a.dropIndex(['a'])",
                expect![[r#"
                1:16: `dropIndex` drops one index; write `dropIndexes([…])` to drop several
            "#]],
            ),
            (
                "db.a.dropIndex('')",
                expect![[r#"
                1:16: `dropIndex` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.dropIndex(1)",
                expect![[r#"
                1:16: `dropIndex` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.dropIndexes([])",
                expect![[r#"
                1:18: `dropIndexes` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.dropIndexes([{ a: 1 }])",
                expect![[r#"
                1:18: `dropIndexes` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.dropIndexes({})",
                expect![[r#"
                1:18: `dropIndexes` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.hideIndex(1)",
                expect![[r#"
                1:16: `hideIndex` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.unhideIndex('')",
                expect![[r#"
                1:18: `unhideIndex` takes a name or the keys of an index
            "#]],
            ),
            (
                "db.a.renameCollection('b', 1)",
                expect![[r#"
                1:28: `dropTarget` takes true or false
            "#]],
            ),
            (
                "db.a.renameCollection(1)",
                expect![[r#"
                    1:23: `renameCollection` takes the new name, a text, here
                "#]],
            ),
            (
                "db.a.convertToCapped('1')",
                expect![[r#"
                1:22: `convertToCapped` takes a size in bytes, a number
            "#]],
            ),
            (
                "sh.shardCollection('users', {})",
                expect![[r#"
                1:20: the namespace has the database in it; write "<database>.users"
            "#]],
            ),
            (
                "sh.shardCollection('a.b', {}, 1)",
                expect![[r#"
                1:31: `unique` takes true or false
            "#]],
            ),
            (
                "sh.shardCollection('a.b', 1)",
                expect![[r#"
                    1:27: `shardCollection` takes the key, a document, here
                "#]],
            ),
        ] {
            check(text, &expected);
        }
    }
}
