//! SQL and MongoDB literals that stand in strings of the manifest, read by the
//! readers of the scripts.

use super::table::{Text, Value};
use crate::core::parse::{mongosh, sql};
use crate::core::step::{Call, QualifiedName, SqlKind, SqlStatement};
use bson::{Bson, Document};

/// Where the key range of a batch belongs in free SQL.
pub const BATCH: &str = "{batch}";

/// As long as [`BATCH`], so that columns stay what they are.
const BATCH_STAND_IN: &str = "(true) ";

/// The words a statement that returns rows begins with.
const QUERIES: [&str; 4] = ["select", "with", "values", "table"];

/// One SQL query, without a semicolon at its end.
pub fn query(value: &Value<'_>) -> Option<String> {
    let text = value.string("\"SELECT …\"")?;
    let statement = one(value, &text, "", text.value, "")?;
    let first = statement.text.trim_start_matches(|c: char| c == '(' || c.is_whitespace());
    let word = first.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    if !QUERIES.contains(&word.to_lowercase().as_str()) {
        text.complain(
            format!("`{}` must be a query, and `{word}` is none", value.name),
            "write a SELECT",
        );
        return None;
    }
    Some(statement.text)
}

/// One SQL statement with `{batch}` in it.
pub fn batched(value: &Value<'_>) -> Option<String> {
    let example = "DELETE FROM sessions WHERE expired AND {batch}";
    let text = value.string(&format!("\"{example}\""))?;
    if !text.value.contains(BATCH) {
        text.complain(
            format!("`{}` has no `{BATCH}` in it", value.name),
            format!("write `{BATCH}` where the key range of each batch belongs: `{example}`"),
        );
        return None;
    }
    let statement = one(value, &text, "", &text.value.replace(BATCH, BATCH_STAND_IN), "")?;
    if !statement.kind.in_transaction() {
        text.complain(
            format!("`{}` cannot run inside a transaction", value.name),
            "a batch is one transaction; put this statement into a script",
        );
        return None;
    }
    if let SqlKind::Function { name } = &statement.kind {
        text.complain(
            format!("`{}` calls `{name}`, and has no batch for it", value.name),
            format!("write `call = \"lockstep.{name}('1')\"` instead of `sql`"),
        );
        return None;
    }
    Some(text.value.to_owned())
}

/// A call of a function of the program around this library.
pub fn call(value: &Value<'_>) -> Option<Call> {
    let example = "lockstep.fill_names('1')";
    let text = value.string(&format!("\"{example}\""))?;
    let is_whole = text.value.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("call "));
    let kind = match is_whole {
        true => None,
        false => Some(one(value, &text, "CALL ", text.value, "")?.kind),
    };
    if let Some(SqlKind::Function { name }) = kind {
        let written = text.value.trim().trim_end_matches(';').trim_end();
        return Some(Call { name, text: written.to_owned() });
    }
    text.complain(
        format!("`{}` must name a function of the service, as `{example}` does", value.name),
        "write `lockstep.`, its name, and a revision between the parentheses, which changes when the function does",
    );
    None
}

/// The assignments of an UPDATE.
pub fn assignments(value: &Value<'_>) -> Option<String> {
    let text = value.string("\"stock = 0\"")?;
    one(value, &text, "UPDATE t SET ", text.value, "\nWHERE true")?;
    Some(text.value.to_owned())
}

/// The condition of a WHERE.
pub fn condition(value: &Value<'_>) -> Option<String> {
    let text = value.string("\"stock IS NULL\"")?;
    one(value, &text, "SELECT 1 WHERE ", text.value, "\nAND true")?;
    Some(text.value.to_owned())
}

/// The one statement that `before`, `sql` and `after` are together. What follows
/// a semicolon in `sql` would be a second one.
fn one(
    value: &Value<'_>,
    text: &Text<'_>,
    before: &str,
    sql: &str,
    after: &str,
) -> Option<SqlStatement> {
    let statements = match sql::read(&format!("{before}{sql}{after}")) {
        Ok(statements) => statements,
        Err(problems) => {
            for problem in problems {
                text.lift(problem, before.chars().count());
            }
            return None;
        }
    };
    let count = statements.len();
    match <[SqlStatement; 1]>::try_from(statements) {
        Ok([statement]) => Some(statement),
        Err(_) if count == 0 => {
            text.complain(format!("`{}` says nothing", value.name), "write one statement");
            None
        }
        Err(_) if after.is_empty() => {
            let message = format!("`{}` must be one statement, and these are {count}", value.name);
            text.complain(message, "keep one of them");
            None
        }
        Err(_) => {
            text.complain(
                format!("`{}` is a part of one statement, and has a `;` in it", value.name),
                "leave the `;` out",
            );
            None
        }
    }
}

/// A table: `users`, `shop.users`, `"Users"`.
pub fn table_name(value: &Value<'_>) -> Option<QualifiedName> {
    let text = value.string("\"users\"")?;
    let name = match identifiers(text.value).as_deref() {
        Some([name]) => Some(QualifiedName { schema: None, name: name.clone() }),
        Some([schema, name]) => {
            Some(QualifiedName { schema: Some(schema.clone()), name: name.clone() })
        }
        _ => None,
    };
    if name.is_none() {
        text.complain(
            format!("`{}` is not the name of a table", text.value),
            "write `users` or `shop.users`; a name with capitals or blanks in double quotes: '\"Users\"'",
        );
    }
    name
}

/// One column or several: `"id"`, `["tenant", "id"]`.
pub fn columns(value: &Value<'_>) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    for text in one_or_several(value)? {
        let Some([name]) =
            identifiers(text.value).and_then(|names| <[String; 1]>::try_from(names).ok())
        else {
            text.complain(
                format!("`{}` is not the name of a column", text.value),
                "write `\"id\"`, or `[\"tenant\", \"id\"]` for a key of several columns",
            );
            return None;
        };
        columns.push(name);
    }
    Some(columns)
}

/// One field or several.
pub fn fields(value: &Value<'_>) -> Option<Vec<String>> {
    let texts = one_or_several(value)?;
    Some(texts.into_iter().map(|text| text.value.to_owned()).collect())
}

fn one_or_several<'a>(value: &Value<'a>) -> Option<Vec<Text<'a>>> {
    if value.is_list() {
        value.strings("[\"tenant\", \"id\"]")
    } else {
        value.string("\"id\"").map(|text| vec![text])
    }
}

/// The parts of a dotted SQL name, unquoted, folded where they were not quoted.
fn identifiers(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut inner = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next()? {
                    (_, '"') if characters.next_if(|(_, c)| *c == '"').is_some() => inner.push('"'),
                    (at, '"') => break at + 1,
                    (_, c) => inner.push(c),
                }
            };
            (name, rest) = (inner, &quoted[end..]);
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let word = &rest[..end];
            let starts = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
            if !starts || !word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                return None;
            }
            (name, rest) = (word.to_ascii_lowercase(), &rest[end..]);
        }
        if name.is_empty() {
            return None;
        }
        names.push(name);
        if rest.is_empty() {
            return Some(names);
        }
        rest = rest.strip_prefix('.')?;
    }
}

/// A collection of the database of the connection.
pub fn collection(value: &Value<'_>) -> Option<String> {
    let text = value.string("\"products\"")?;
    if text.value.contains(['$', '\0']) || text.value.starts_with("system.") {
        text.complain(
            format!("`{}` is not the name of a collection", text.value),
            "write the name that `db.getCollectionNames()` shows; it has no `$` and does not begin with `system.`",
        );
        return None;
    }
    Some(text.value.to_owned())
}

/// Any literal. `None` is a problem that was told.
pub fn literal(text: &Text<'_>) -> Option<Bson> {
    mongosh::literal(text.value).map_err(|problem| text.lift(problem, 0)).ok()
}

/// A filter.
pub fn filter(value: &Value<'_>) -> Option<Document> {
    let example = "{ stock: { $exists: false } }";
    let text = value.string(&format!("\"{example}\""))?;
    if let Bson::Document(filter) = literal(&text)? {
        return Some(filter);
    }
    text.complain(
        format!("`{}` must be a document", value.name),
        format!("for example `{example}`; `{{}}` is every document"),
    );
    None
}

/// The stages of an aggregation, at least one.
pub fn pipeline(value: &Value<'_>) -> Option<Vec<Document>> {
    let example = "[{ $match: { stock: 0 } }, { $count: 'n' }]";
    let text = value.string(&format!("\"{example}\""))?;
    let stages = stages(literal(&text)?);
    if stages.is_none() {
        text.complain(
            format!("`{}` must be a list of stages", value.name),
            format!("for example `{example}`"),
        );
    }
    stages
}

fn stages(value: Bson) -> Option<Vec<Document>> {
    let Bson::Array(items) = value else { return None };
    let stages = items
        .into_iter()
        .map(|item| match item {
            Bson::Document(stage) if is_operators(&stage) && stage.len() == 1 => Some(stage),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    (!stages.is_empty()).then_some(stages)
}

fn is_operators(document: &Document) -> bool {
    !document.is_empty() && document.keys().all(|key| key.starts_with('$'))
}

/// How documents are changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// `{ $set: … }`.
    Operators(Document),
    /// `[{ $set: … }]`, whose values may look at the document.
    Pipeline(Vec<Document>),
}

/// An update by operators or by pipeline, never a replacement: that of many
/// documents by one is not what anybody means.
pub fn update(value: &Value<'_>) -> Option<Update> {
    let text = value.string("\"{ $set: { stock: 0 } }\"")?;
    let update = match literal(&text)? {
        Bson::Document(operators) if is_operators(&operators) => Some(Update::Operators(operators)),
        other => stages(other).map(Update::Pipeline),
    };
    if update.is_none() {
        text.complain(
            format!("`{}` must be update operators or a list of stages", value.name),
            "for example `{ $set: { stock: 0 } }` or `[{ $set: { stock: '$amount' } }]`",
        );
    }
    update
}
