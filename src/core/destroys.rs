//! What a step destroys, so that it can be named before somebody agrees to it.

use crate::core::one_line::one_line;
use crate::core::parse::manifest::{Change, Work};
use crate::core::step::{Body, MongoKind, Step};
use bson::raw::RawDocument;

/// One line for each statement of the step that removes data which its opposite
/// would not bring back. It reads the statement's first words; what is hidden in
/// a function it cannot see.
pub fn destroys(step: &Step) -> Vec<String> {
    match &step.body {
        Body::Postgres(body) => {
            let texts = body.statements.iter().map(|statement| one_line(&statement.text));
            texts.filter(|text| is_destructive(text)).map(|text| clip(&text)).collect()
        }
        Body::Mongo(body) => {
            let destroys = match body.kind {
                MongoKind::Drop | MongoKind::DropDatabase => true,
                MongoKind::Write(_) => body.commands.iter().any(|command| removes(&command.body)),
                _ => false,
            };
            destroys.then(|| clip(&one_line(&body.text))).into_iter().collect()
        }
        Body::Backfill(backfill) => {
            let destroys = match &backfill.work {
                Work::Documents { change, .. } => *change == Change::Delete,
                Work::Sql { sql, .. } => is_destructive(&one_line(sql)),
                // What a function does, nobody can see.
                Work::Update { .. }
                | Work::Call { .. }
                | Work::CopyToMongo { .. }
                | Work::CopyToPostgres { .. } => false,
            };
            destroys.then(|| clip(&one_line(&backfill.statement()))).into_iter().collect()
        }
        Body::Check(_) | Body::Program(_) => Vec::new(),
    }
}

fn is_destructive(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let begins = ["DROP TABLE", "DROP SCHEMA", "DROP MATERIALIZED VIEW", "TRUNCATE", "DELETE FROM"];
    begins.iter().any(|words| text.starts_with(words))
        || text.starts_with("ALTER TABLE") && text.contains(" DROP COLUMN ")
}

/// Deletes documents, or fields of them.
fn removes(command: &[u8]) -> bool {
    let Ok(command) = RawDocument::from_bytes(command) else { return false };
    let is_delete = command
        .iter()
        .next()
        .and_then(Result::ok)
        .is_some_and(|(name, _)| name.as_str() == "delete");
    is_delete || {
        let bytes = command.as_bytes();
        bytes.windows(7).any(|window| window == b"\x03$unset" || window == b"\x02$unset")
    }
}

fn clip(text: &str) -> String {
    /// A line of a terminal, less its margin.
    const WIDTH: usize = 72;
    match text.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
