//! What statements do to the data: which documents they write, which indexes they
//! make, what they destroy.

use super::view::{Mongo, Sql};
use crate::core::parse::sql::outline::{self, Act, Change};
use crate::core::step::QualifiedName;
use bson::{Bson, Document};

/// One index that a statement makes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Index<'a> {
    pub collection: &'a str,
    pub name: Option<&'a str>,
    pub document: &'a Document,
}

impl<'a> Index<'a> {
    /// Its fields in order.
    pub fn fields(&self) -> Vec<&'a str> {
        let key = self.document.get_document("key");
        key.map(|key| key.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

/// The indexes that a statement makes.
pub(super) fn indexes(statement: &Mongo) -> Vec<Index<'_>> {
    statement
        .commands("createIndexes")
        .flat_map(|(collection, command)| {
            let specs = command.get_array("indexes").map(Vec::as_slice).unwrap_or_default();
            specs.iter().filter_map(Bson::as_document).map(move |document| Index {
                collection,
                name: document.get_str("name").ok(),
                document,
            })
        })
        .collect()
}

/// A write of many documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Write<'a> {
    pub collection: &'a str,
    pub filter: &'a Document,
    /// `updated` or `deleted`.
    pub word: &'static str,
}

/// The writes of many documents in a statement.
pub(super) fn writes(statement: &Mongo) -> Vec<Write<'_>> {
    let many = |spec: &Document| match spec.get("limit") {
        Some(Bson::Int32(limit)) => *limit == 0,
        Some(Bson::Int64(limit)) => *limit == 0,
        Some(Bson::Double(limit)) => *limit == 0.0,
        _ => spec.get_bool("multi").unwrap_or(false),
    };
    let mut found = Vec::new();
    for (command, list, word) in
        [("update", "updates", "updated"), ("delete", "deletes", "deleted")]
    {
        for (collection, document) in statement.commands(command) {
            let specs = document.get_array(list).map(Vec::as_slice).unwrap_or_default();
            let specs = specs.iter().filter_map(Bson::as_document).filter(|spec| many(spec));
            let filters = specs.filter_map(|spec| spec.get_document("q").ok());
            found.extend(filters.map(|filter| Write { collection, filter, word }));
        }
    }
    found
}

/// Whether a filter says what a document has, and not only what it lacks, what it is
/// not, or in which range something lies.
pub(super) fn bounds(filter: &Document) -> bool {
    const LOOSE: [&str; 10] =
        ["$exists", "$type", "$ne", "$nin", "$not", "$gt", "$gte", "$lt", "$lte", "$options"];
    filter.iter().any(|(key, value)| match (key.as_str(), value) {
        ("$and", Bson::Array(parts)) => parts.iter().filter_map(Bson::as_document).any(bounds),
        ("$or", Bson::Array(parts)) => parts.iter().filter_map(Bson::as_document).all(bounds),
        ("$expr" | "$nor" | "$comment" | "$jsonSchema" | "$where", _) => false,
        (_, Bson::Null) => false,
        (_, Bson::Document(condition)) => match condition.keys().next() {
            Some(first) if first.starts_with('$') => {
                condition.keys().any(|operator| !LOOSE.contains(&operator.as_str()))
            }
            _ => true,
        },
        _ => true,
    })
}

/// The fields that a filter asks for.
pub(super) fn filter_fields(filter: &Document) -> Vec<&str> {
    let fields = filter.iter().flat_map(|(key, value)| match (key.as_str(), value) {
        ("$and", Bson::Array(parts)) => {
            parts.iter().filter_map(Bson::as_document).flat_map(filter_fields).collect()
        }
        (key, _) if key.starts_with('$') => Vec::new(),
        (key, _) => vec![key],
    });
    fields.collect()
}

/// What a statement destroys, and of which table.
pub(super) fn destroyed_rows(statement: &Sql) -> Vec<(&'static str, QualifiedName)> {
    let changes = outline::row_changes(&statement.text).into_iter();
    let deletes = changes.filter(|change| change.word == "DELETE");
    let mut found: Vec<_> = deletes.map(|change| ("a part", change.table)).collect();
    match &statement.act {
        Act::Drop { what, names } if what == "table" => {
            found.extend(names.iter().map(|name| ("the whole", name.clone())));
        }
        Act::Truncate { tables } => {
            found.extend(tables.iter().map(|name| ("the whole", name.clone())));
        }
        Act::AlterTable { table, changes } => {
            let drops = changes.iter().any(|change| matches!(change, Change::DropColumn(_)));
            found.extend(drops.then(|| ("a column", table.clone())));
        }
        _ => {}
    }
    found
}

/// What a statement destroys, and of which collection.
pub(super) fn destroyed_documents(statement: &Mongo) -> Vec<(&'static str, String)> {
    let whole = statement.commands("drop").map(|(name, _)| ("the whole", name.to_owned()));
    let deletes = statement.commands("delete").map(|(name, _)| ("a part", name.to_owned()));
    let removes = |command: &Document| {
        let updates = command.get_array("updates").map(Vec::as_slice).unwrap_or_default();
        updates.iter().filter_map(Bson::as_document).any(|update| match update.get("u") {
            Some(Bson::Document(u)) => u.contains_key("$unset"),
            Some(Bson::Array(stages)) => {
                stages.iter().filter_map(Bson::as_document).any(|it| it.contains_key("$unset"))
            }
            _ => false,
        })
    };
    let updates = statement.commands("update").filter(|(_, command)| removes(command));
    let fields = updates.map(|(name, _)| ("a field", name.to_owned()));
    whole.chain(deletes).chain(fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::mongosh::literal;

    #[test]
    fn a_filter_bounds_when_it_says_what_a_document_has() {
        let check = |filter: &str, expected: bool| {
            let Ok(Bson::Document(filter)) = literal(filter) else { panic!("it is a document") };
            assert_eq!(bounds(&filter), expected, "{filter}");
        };
        check("{ a: 1 }", true);
        check("{ a: { b: 1 } }", true);
        check("{ a: { $in: [1, 2] } }", true);
        check("{ a: { $exists: false }, b: 1 }", true);
        check("{ $and: [{ a: { $ne: 1 } }, { b: 1 }] }", true);
        check("{ $or: [{ a: 1 }, { b: 1 }] }", true);
        check("{}", false);
        check("{ a: null }", false);
        check("{ a: { $exists: false } }", false);
        check("{ a: { $exists: true, $not: { $type: 'int' } } }", false);
        check("{ a: { $lt: 1 } }", false);
        check("{ $or: [{ a: 1 }, { b: { $ne: 1 } }] }", false);
        check("{ $expr: { $eq: ['$a', '$b'] } }", false);
    }
}
