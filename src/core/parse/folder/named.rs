//! What `migration.toml` names becomes steps: backfills, checks and programs.

use crate::core::backfill::Backfill;
use crate::core::checksum::Checksum;
use crate::core::id::{Direction, Phase, StepName, StoreName};
use crate::core::parse::manifest::{
    self, Change, Check, Invariant, MongoAnswer, MongoSource, Name, Update, Work,
};
use crate::core::step::{Body, Commit, Program, Step, Timeouts};
use bson::Document;

/// A backfill.
pub fn backfill(file: &str, from: &manifest::Backfill, timeouts: Timeouts) -> Step {
    let parts = work_parts(&from.work);
    let body = Body::Backfill(Box::new(Backfill {
        title: from.name.text.clone(),
        work: from.work.clone(),
        pace: from.pace.clone(),
        max_bad: from.max_bad,
        timeouts,
    }));
    let name = StepName::Named {
        phase: Phase::Execute,
        direction: from.direction,
        slug: from.name.slug.clone(),
    };
    step(file, name, &from.name, &parts, body)
}

/// An invariant.
pub fn check(file: &str, from: &Invariant) -> Step {
    let parts = check_parts(&from.check);
    let name = StepName::Named {
        phase: Phase::Validate,
        direction: Direction::Up,
        slug: from.name.slug.clone(),
    };
    step(file, name, &from.name, &parts, Body::Check(Box::new(from.clone())))
}

/// A program; `store` remembers it.
pub fn program(file: &str, folder: &str, store: StoreName, from: &manifest::Run) -> Step {
    let mut parts = vec![b"run".to_vec()];
    parts.extend(from.command.iter().map(|word| word.clone().into_bytes()));
    let body = Body::Program(Program {
        title: from.name.text.clone(),
        command: from.command.clone(),
        folder: folder.to_owned(),
        store,
    });
    let name = StepName::Named {
        phase: from.phase,
        direction: from.direction,
        slug: from.name.slug.clone(),
    };
    step(file, name, &from.name, &parts, body)
}

fn step(file: &str, name: StepName, from: &Name, parts: &[Vec<u8>], body: Body) -> Step {
    Step {
        name,
        checksum: Checksum::of_parts(parts.iter().map(Vec::as_slice)),
        commit: Commit::Journaled,
        body,
        file: file.to_owned(),
        line: from.place.line,
    }
}

/// What a backfill does, without how fast: its pace may be changed at any time.
fn work_parts(work: &Work) -> Vec<Vec<u8>> {
    match work {
        Work::Update { table, set, condition, key } => {
            let mut parts = vec![b"update".to_vec(), table.to_string().into(), set.clone().into()];
            parts.push(condition.clone().unwrap_or_default().into());
            parts.extend(key.iter().map(|column| column.clone().into_bytes()));
            parts
        }
        Work::Sql { sql, table, key } => {
            let mut parts = vec![b"sql".to_vec(), sql.clone().into(), table.to_string().into()];
            parts.extend(key.iter().map(|column| column.clone().into_bytes()));
            parts
        }
        Work::Call { call, table, condition, key } => {
            let mut parts = vec![b"call".to_vec(), call.text.clone().into()];
            parts.push(table.to_string().into());
            parts.push(condition.clone().unwrap_or_default().into());
            parts.extend(key.iter().map(|column| column.clone().into_bytes()));
            parts
        }
        Work::Documents { collection, filter, change } => {
            let mut parts = vec![b"documents".to_vec(), collection.clone().into(), bytes(filter)];
            match change {
                Change::Update(Update::Operators(update)) => parts.push(bytes(update)),
                Change::Update(Update::Pipeline(stages)) => {
                    parts.push(b"pipeline".to_vec());
                    parts.extend(stages.iter().map(bytes));
                }
                Change::Delete => parts.push(b"delete".to_vec()),
                Change::Call(call) => parts.extend([b"call".to_vec(), call.text.clone().into()]),
            }
            parts
        }
        Work::CopyToMongo { query, to, by } => {
            vec![
                b"copy to mongo".to_vec(),
                query.clone().into(),
                to.clone().into(),
                format!("{by:?}").into(),
            ]
        }
        Work::CopyToPostgres { from, to, key } => {
            let mut parts = vec![b"copy to postgres".to_vec(), to.to_string().into()];
            parts.extend(source_parts(from));
            parts.extend(key.iter().map(|column| column.clone().into_bytes()));
            parts
        }
    }
}

fn source_parts(source: &MongoSource) -> Vec<Vec<u8>> {
    let mut parts = vec![source.collection.clone().into(), bytes(&source.find)];
    parts.extend(source.pipeline.iter().map(bytes));
    parts
}

fn check_parts(check: &Check) -> Vec<Vec<u8>> {
    let answer_parts = |answer: &MongoAnswer| match answer {
        MongoAnswer::Count { collection, filter } => {
            vec![b"count".to_vec(), collection.clone().into(), bytes(filter)]
        }
        MongoAnswer::Pipeline { collection, pipeline } => {
            let mut parts = vec![b"pipeline".to_vec(), collection.clone().into()];
            parts.extend(pipeline.iter().map(bytes));
            parts
        }
    };
    match check {
        Check::Postgres { query, expect } => {
            vec![b"postgres".to_vec(), query.clone().into(), expect.to_string().into()]
        }
        Check::Mongo { answer, expect } => {
            let mut parts = answer_parts(answer);
            parts.push(expect.to_string().into());
            parts
        }
        Check::Equal { postgres, mongo } => {
            let mut parts = vec![b"equal".to_vec(), postgres.clone().into()];
            parts.extend(answer_parts(mongo));
            parts
        }
        Check::Compare { postgres, mongo, key, .. } => {
            let mut parts = vec![b"compare".to_vec(), postgres.clone().into()];
            parts.extend(source_parts(mongo));
            parts.extend(key.iter().map(|column| column.clone().into_bytes()));
            parts
        }
    }
}

fn bytes(document: &Document) -> Vec<u8> {
    document.to_vec().expect("it was read from text, so it can be written")
}
