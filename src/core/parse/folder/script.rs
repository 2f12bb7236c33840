//! A script becomes steps.

use super::name::{Form, Script};
use crate::core::checksum::Checksum;
use crate::core::id::{StepName, StoreName};
use crate::core::parse::mongosh;
use crate::core::parse::sql::{self, Transaction};
use crate::core::problem::Problem;
use crate::core::step::{
    Body, Command, CommandTarget, Commit, MongoKind, MongoStep, PgStep, Step, Timeouts,
};

/// What the manifest says about how a script is carried out.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether in transactions.
    pub transaction: Transaction,
    /// Limits for its SQL.
    pub timeouts: Timeouts,
}

/// The steps of one script, numbered from 1.
pub fn script_steps(
    file: &str,
    script: Script,
    text: &str,
    manner: Manner,
) -> Result<Vec<Step>, Vec<Problem>> {
    let found = match script.form {
        Form::Sql => sql::read(text).and_then(|statements| {
            let pieces = sql::cut(statements, manner.transaction);
            sql::check_settings(text, &pieces)?;
            Ok(pg_bodies(pieces, manner))
        }),
        Form::Mongosh => mongosh::read(text).map(mongo_bodies),
        Form::Json => mongosh::read_json(text).map(mongo_bodies),
    };
    let bodies = found.map_err(|problems| {
        problems.into_iter().map(|problem| problem.file(file)).collect::<Vec<_>>()
    })?;
    let step = |(index, (line, commit, body)): (u32, (u32, Commit, Body))| Step {
        name: StepName::Script {
            phase: script.phase,
            direction: script.direction,
            store: script.form.store(),
            index,
        },
        checksum: checksum(&body),
        commit,
        body,
        file: file.to_owned(),
        line,
    };
    Ok((1..).zip(bodies).map(step).collect())
}

/// A script of nothing but comments is one step without statements, so that it
/// is recorded like any other.
fn pg_bodies(mut pieces: Vec<sql::Piece>, manner: Manner) -> Vec<(u32, Commit, Body)> {
    if pieces.is_empty() {
        pieces.push(sql::Piece { commit: Commit::Atomic, statements: Vec::new() });
    }
    pieces
        .into_iter()
        .map(|sql::Piece { commit, statements }| {
            let line = statements.first().map_or(1, |statement| statement.line);
            let step = PgStep { statements, timeouts: manner.timeouts, ..PgStep::default() };
            (line, commit, Body::Postgres(step))
        })
        .collect()
}

fn mongo_bodies(mut statements: Vec<mongosh::Statement>) -> Vec<(u32, Commit, Body)> {
    if statements.is_empty() {
        let step =
            MongoStep { text: String::new(), commands: Vec::new(), kind: MongoKind::Nothing };
        statements.push(mongosh::Statement { step, line: 1 });
    }
    statements
        .into_iter()
        .map(|mongosh::Statement { step, line }| (line, step.kind.commit(), Body::Mongo(step)))
        .collect()
}

/// The checksum of the step that a script of nothing but comments becomes.
pub fn of_nothing(store: StoreName) -> Checksum {
    match store {
        StoreName::Postgres => Checksum::of(b"sql\0"),
        StoreName::Mongo => Checksum::of(b"mongo\0"),
    }
}

/// Over what the step does, not over how its file is laid out: a comment that
/// changes between two statements changes no step.
fn checksum(body: &Body) -> Checksum {
    match body {
        Body::Postgres(step) => {
            let texts = step.statements.iter().map(|statement| statement.text.as_str());
            let text = texts.collect::<Vec<_>>().join(";\n");
            Checksum::of(format!("sql\0{text}").as_bytes())
        }
        Body::Mongo(step) => {
            let mut bytes = b"mongo\0".to_vec();
            for Command { on, body } in &step.commands {
                bytes.extend_from_slice(match on {
                    CommandTarget::Database => b"database\0",
                    CommandTarget::Admin => b"admin\0",
                });
                // BSON begins with its length, so commands cannot run together.
                bytes.extend_from_slice(body);
            }
            Checksum::of(&bytes)
        }
        Body::Backfill(_) | Body::Check(_) | Body::Program(_) => {
            unreachable!("these are not made from scripts")
        }
    }
}
