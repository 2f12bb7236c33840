//! The shape of a statement: `db.<collection>.<method>(<literals>)`.

use super::arguments::{Call, Given};
use super::command::Draft;
use super::literal::Reader;
use super::target::{Shape, Target, collection, shape};
use super::{Fault, command, define, write};
use crate::core::step::{Command, MongoKind};
use oxc_ast::ast::{Argument, Expression};

/// The commands of one statement; `None` if something in it was refused.
pub(super) fn read(
    reader: &mut Reader,
    expression: &Expression,
) -> Option<(Vec<Command>, MongoKind)> {
    let read = shape(expression).and_then(|(target, member, call)| {
        let mut given = Vec::with_capacity(call.arguments.len());
        let mut complete = true;
        let target = match target {
            Shape::Db => Target::Db,
            Shape::Sh => Target::Sh,
            Shape::Collection(segments) => Target::Collection(collection(reader, &segments)?),
        };
        let method = member.property.name.as_str();
        // A method that does not exist is the cause; what its arguments are does not matter then.
        target.check(method, member.property.span)?;
        for argument in &call.arguments {
            if let Argument::SpreadElement(spread) = argument {
                reader.refuse(
                    Fault::new(spread.span, "a spread is not read").hint("write the values out"),
                );
                complete = false;
                continue;
            }
            let expression = argument.to_expression();
            match reader.value(expression) {
                Some(value) => given.push(Given { expression, value: value.into_bson() }),
                None => complete = false,
            }
        }
        Ok(complete.then_some((target, Call { method, span: call.span, given })))
    });
    let drafts = match read {
        Ok(None) => return None,
        Ok(Some((Target::Collection(name), call))) => on_collection(&name, call),
        Ok(Some((Target::Db, call))) => on_database(call),
        Ok(Some((Target::Sh, call))) => define::shard_collection(call).map(|draft| vec![draft]),
        Err(fault) => Err(fault),
    };
    match drafts.and_then(command::finish) {
        Ok(finished) => Some(finished),
        Err(fault) => {
            reader.refuse(fault);
            None
        }
    }
}

fn on_database(call: Call) -> Result<Vec<Draft>, Fault> {
    let draft = match call.method {
        "createCollection" => define::create_collection(call),
        "createView" => define::create_view(call),
        "runCommand" | "adminCommand" => command::run(call),
        "dropDatabase" => define::drop_database(call),
        method => unreachable!("`{method}` is not in Target::methods"),
    };
    draft.map(|draft| vec![draft])
}

fn on_collection(name: &str, call: Call) -> Result<Vec<Draft>, Fault> {
    let draft = match call.method {
        "insertMany" => return write::insert_many(name, call),
        "bulkWrite" => return write::bulk_write(name, call),
        "insertOne" => write::insert_one(name, call),
        "updateOne" | "updateMany" | "replaceOne" => write::update(name, call),
        "deleteOne" | "deleteMany" => write::delete(name, call),
        "aggregate" => write::aggregate(name, call),
        "createIndex" => define::create_index(name, call),
        "createIndexes" => define::create_indexes(name, call),
        "dropIndex" | "dropIndexes" => define::drop_indexes(name, call),
        "hideIndex" | "unhideIndex" => define::hide_index(name, call),
        "renameCollection" => define::rename(name, call),
        "drop" => define::drop(name, call),
        "convertToCapped" => define::convert_to_capped(name, &call),
        method => unreachable!("`{method}` is not in Target::methods"),
    };
    draft.map(|draft| vec![draft])
}

#[cfg(test)]
mod tests {
    use crate::core::parse::mongosh::read;
    use crate::core::parse::mongosh::target::Target;

    #[test]
    fn every_method_that_is_known_is_read() {
        for target in [Target::Db, Target::Sh, Target::Collection(String::new())] {
            let on = match target {
                Target::Db => "db",
                Target::Sh => "sh",
                Target::Collection(_) => "db.a",
            };
            for method in target.methods() {
                for arguments in ["", "{}", "'b', {}", "'b', 'c', []", "[], {}", "{}, {}, {}"] {
                    // Most are refused for their arguments; what counts is that none is forgotten.
                    let Err(problems) = read(&format!("{on}.{method}({arguments})")) else {
                        continue;
                    };
                    assert!(!problems[0].message.contains("not a method"), "{}", problems[0]);
                }
            }
        }
    }
}
