//! The hazards that `squawk-linter` finds.
//!
//! Invariant: nothing else names `squawk_linter`. It has no promise of stability,
//! so what it calls its rules ends here, and what it says of them is not used.

use crate::core::parse::sql::tree::{STACK_BYTES, beyond_limits, tree};
use squawk_linter::{Linter, Rule as Squawk};
use squawk_syntax::SourceFile;
use std::ops::Range;
use std::thread::ScopedJoinHandle;

/// A hazard that is found for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    IndexWithoutConcurrently,
    DropIndexWithoutConcurrently,
    ReindexWithoutConcurrently,
    DetachWithoutConcurrently,
    ConstraintWithoutNotValid,
    ForeignKeyWithoutNotValid,
    UniqueConstraint,
    PrimaryKey,
    VolatileDefault,
    RequiredColumn,
    SetNotNull,
    ChangeColumnType,
    RenameColumn,
    RenameTable,
    DropColumn,
    DomainConstraint,
    IdentifierTooLong,
    IntInsteadOfBigint,
    SmallintInsteadOfBigint,
    SerialInsteadOfIdentity,
    VarcharInsteadOfText,
    CharInsteadOfText,
    TimestampWithoutZone,
    NotRobust,
}

const HAZARDS: [(Squawk, Known); 24] = [
    (Squawk::RequireConcurrentIndexCreation, Known::IndexWithoutConcurrently),
    (Squawk::RequireConcurrentIndexDeletion, Known::DropIndexWithoutConcurrently),
    (Squawk::RequireConcurrentReindex, Known::ReindexWithoutConcurrently),
    (Squawk::RequireConcurrentPartitionDetach, Known::DetachWithoutConcurrently),
    (Squawk::ConstraintMissingNotValid, Known::ConstraintWithoutNotValid),
    (Squawk::AddingForeignKeyConstraint, Known::ForeignKeyWithoutNotValid),
    (Squawk::DisallowedUniqueConstraint, Known::UniqueConstraint),
    (Squawk::AddingSerialPrimaryKeyField, Known::PrimaryKey),
    (Squawk::AddingFieldWithDefault, Known::VolatileDefault),
    (Squawk::AddingRequiredField, Known::RequiredColumn),
    (Squawk::AddingNotNullableField, Known::SetNotNull),
    (Squawk::ChangingColumnType, Known::ChangeColumnType),
    (Squawk::RenamingColumn, Known::RenameColumn),
    (Squawk::RenamingTable, Known::RenameTable),
    (Squawk::BanDropColumn, Known::DropColumn),
    (Squawk::BanAlterDomainWithAddConstraint, Known::DomainConstraint),
    (Squawk::IdentifierTooLong, Known::IdentifierTooLong),
    (Squawk::PreferBigintOverInt, Known::IntInsteadOfBigint),
    (Squawk::PreferBigintOverSmallint, Known::SmallintInsteadOfBigint),
    (Squawk::PreferIdentity, Known::SerialInsteadOfIdentity),
    (Squawk::PreferTextField, Known::VarcharInsteadOfText),
    (Squawk::BanCharField, Known::CharInsteadOfText),
    (Squawk::PreferTimestampTz, Known::TimestampWithoutZone),
    (Squawk::PreferRobustStmts, Known::NotRobust),
];

/// Why the hazards of a statement are not known, if it is one that may have some.
pub(super) fn unread(statement: &str) -> Option<String> {
    if !is_looked_into(statement) {
        return None;
    }
    tree(statement, |_| ()).err()
}

/// The hazards in the statements of a script that stand at these places, each with
/// its own place.
pub(super) fn hazards(text: &str, statements: &[Range<usize>]) -> Vec<(Known, Range<usize>)> {
    // Everything else is blanked out, so that places stay what they are.
    let mut kept = vec![b' '; text.len() + 1];
    for (blank, byte) in kept.iter_mut().zip(text.bytes()) {
        if byte == b'\n' {
            *blank = b'\n';
        }
    }
    let mut any = false;
    for range in statements {
        let statement = &text[range.clone()];
        if is_looked_into(statement) && beyond_limits(statement).is_none() {
            kept[range.clone()].copy_from_slice(statement.as_bytes());
            kept[range.end] = b';';
            any = true;
        }
    }
    let Ok(kept) = String::from_utf8(kept) else { return Vec::new() };
    if !any {
        return Vec::new();
    }
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES);
        let read = reader.spawn_scoped(scope, || read(&kept)).map(ScopedJoinHandle::join);
        match read {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    })
}

/// Statements about rows are many and long, and there is nothing to find in them.
fn is_looked_into(statement: &str) -> bool {
    let word = statement.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["create", "alter", "drop", "reindex"].iter().any(|verb| word.eq_ignore_ascii_case(verb))
}

fn read(text: &str) -> Vec<(Known, Range<usize>)> {
    let parsed = SourceFile::parse(text);
    let mut linter = Linter::from(HAZARDS.map(|(rule, _)| rule));
    linter.settings.assume_in_transaction = true;
    let found = linter.lint(&parsed, text).into_iter();
    let known = found.filter_map(|violation| {
        let hazard = HAZARDS.iter().find(|(rule, _)| *rule == violation.code)?.1;
        let range = violation.text_range;
        let (start, end) = (usize::from(range.start()), usize::from(range.end()));
        let end = start + text.get(start..end)?.trim_end_matches([' ', '\n', ';']).len();
        Some((hazard, start..end))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_script() {
        let text = "-- é\nINSERT INTO a SELECT 1;\nCREATE INDEX i ON a (b);\nDROP INDEX j;";
        let places: Vec<Range<usize>> = ["CREATE INDEX i ON a (b)", "DROP INDEX j"]
            .iter()
            .map(|part| {
                let at = text.find(part).expect("it is there");
                at..at + part.len()
            })
            .collect();
        let found = hazards(text, &places);
        let robust = |hazard: &Known| *hazard != Known::NotRobust;
        let told: Vec<_> = found.into_iter().filter(|(hazard, _)| robust(hazard)).collect();
        assert_eq!(
            told,
            [
                (Known::IndexWithoutConcurrently, places[0].clone()),
                (Known::DropIndexWithoutConcurrently, places[1].clone()),
            ]
        );
    }

    #[test]
    fn a_statement_that_nobody_can_parse_hides_no_other() {
        let text = format!("ALTER TABLE a ADD b int DEFAULT {}1;DROP INDEX j;", "(".repeat(900));
        let at = text.find("DROP").expect("it is there");
        let found = hazards(&text, &[0..at - 1, at..text.len() - 1]);
        assert!(found.iter().any(|(hazard, _)| *hazard == Known::DropIndexWithoutConcurrently));
    }
}
