//! Verification: the files against both histories, and the histories against
//! each other.

use crate::core::history::{Histories, Row, RowStatus};
use crate::core::id::{StoreName, Version};
use crate::core::migration::MigrationSet;
use crate::core::plan::{self, Goal, Known, PlanError, Up};
use crate::core::server::Servers;
use std::collections::{BTreeMap, BTreeSet};

/// One thing that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// A stable name: `CHECKSUM_MISMATCH`.
    pub code: &'static str,
    /// The migration it is about.
    pub version: Option<Version>,
    /// What is wrong.
    pub message: String,
    /// The one command, or the one deed, that mends it.
    pub next: String,
}

/// Everything that is not as it should be. An empty answer says that the files
/// are what was applied, that no store lacks a step, and that both histories say
/// the same.
pub fn verify(set: &MigrationSet, histories: &Histories, servers: &Servers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for life in plan::lives(histories).iter().filter(|life| !life.baseline) {
        if let Some(migration) = set.get(life.version)
            && let Some(error) = plan::edited(histories, migration)
        {
            seen.insert(life.version);
            findings.push(finding(code(&error), Some(life.version), &error));
        }
    }
    let rollbacks = BTreeMap::new();
    let known = Known { set, histories, rollbacks: &rollbacks, servers };
    match plan::plan(&known, &Goal::Up(Up::default())) {
        Ok(_) => {}
        Err(PlanError::Edited { version, .. }) if seen.contains(&version) => {}
        Err(PlanError::EditedInDoubt { step, .. }) if seen.contains(&step.version) => {}
        Err(error) => findings.push(finding(code(&error), None, &error)),
    }
    findings.extend(rows(histories, servers));
    findings
}

fn finding(code: &'static str, version: Option<Version>, error: &PlanError) -> Finding {
    Finding { code, version, message: error.to_string(), next: error.hint() }
}

/// The stable name of each refusal.
pub fn code(error: &PlanError) -> &'static str {
    match error {
        PlanError::Edited { .. } => "CHECKSUM_MISMATCH",
        PlanError::EditedInDoubt { .. } => "EDITED_IN_DOUBT",
        PlanError::Missing(_) => "MISSING",
        PlanError::OutOfOrder { .. } => "OUT_OF_ORDER",
        PlanError::Gap { .. } => "GAP",
        PlanError::Torn(_) => "TORN",
        PlanError::NoRollback(_) => "NO_DOWN_SCRIPT",
        PlanError::BadRollback { .. } => "BAD_DOWN_SCRIPT",
        PlanError::UnknownVersion(_) => "UNKNOWN_VERSION",
        PlanError::NotApplied(_) => "NOT_APPLIED",
        PlanError::NotHeld { .. } => "NOT_HELD",
        PlanError::UnknownRelease(_) => "UNKNOWN_RELEASE",
        PlanError::NoStore { .. } => "NO_STORE",
        PlanError::DropsHistory { .. } => "DROPS_HISTORY",
        PlanError::Irreversible { .. } => "IRREVERSIBLE",
        PlanError::Baseline(_) => "BASELINE",
        PlanError::Requires { .. } => "REQUIRES",
    }
}

/// The rows of both stores, which are derived and must be the same.
fn rows(histories: &Histories, servers: &Servers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stores = servers.stores();
    let versions: BTreeSet<Version> = stores
        .iter()
        .flat_map(|store| histories.of(*store).rows())
        .map(|row| row.version)
        .collect();
    for version in versions {
        let found: Vec<(StoreName, Option<&Row>)> =
            stores.iter().map(|store| (*store, histories.of(*store).row(version))).collect();
        let lacking = found.iter().find(|(_, row)| row.is_none());
        let done =
            found.iter().any(|(_, row)| row.is_some_and(|row| row.status != RowStatus::Running));
        let next = "run `migrate up`: rows are derived from the step records, and written again";
        match (lacking, found.as_slice()) {
            (Some((store, _)), _) if done => findings.push(Finding {
                code: "ROW_MISSING",
                version: Some(version),
                message: format!(
                    "{} lacks the row of {version} in migration_history",
                    store.title()
                ),
                next: next.to_owned(),
            }),
            (None, [(_, Some(one)), (_, Some(other))]) if one != other => {
                let field = difference(one, other);
                findings.push(Finding {
                    code: "ROWS_DIFFER",
                    version: Some(version),
                    message: format!(
                        "the rows of {version} in migration_history differ in {field}: somebody changed one of them"
                    ),
                    next: "no decision reads them; delete the wrong one, and `migrate up` writes it again".to_owned(),
                });
            }
            _ => {}
        }
    }
    findings
}

/// The first field in which two rows differ.
fn difference(one: &Row, other: &Row) -> &'static str {
    let fields: [(&'static str, bool); 12] = [
        ("rank", one.rank == other.rank),
        ("migration_name", one.migration_name == other.migration_name),
        ("description", one.description == other.description),
        ("checksum", one.checksum == other.checksum),
        ("status", one.status == other.status),
        ("executed_at", one.executed_at == other.executed_at),
        ("finished_at", one.finished_at == other.finished_at),
        ("execution_time_ms", one.execution_time_ms == other.execution_time_ms),
        ("applied_by", one.applied_by == other.applied_by),
        ("release", one.release == other.release),
        ("tool_version", one.tool_version == other.tool_version),
        ("run_id", one.run_id == other.run_id),
    ];
    fields.into_iter().find(|(_, same)| !same).map_or("something", |(field, _)| field)
}
