//! Verification: the files against both histories, and the histories against
//! each other.

use crate::core::history::{Histories, Row, RowStatus};
use crate::core::id::{Direction, Version};
use crate::core::migration::MigrationSet;
use crate::core::plan::{self, Action, Goal, Known, Plan, PlanError, Up};
use crate::core::server::Servers;
use crate::core::step::Step;
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
    // That another program applies a migration is nothing that is wrong with it.
    let called: Vec<_> = set.iter().flat_map(|it| &it.steps).flat_map(Step::functions).collect();
    let whole = (!called.is_empty()).then(|| set.clone().with_functions(called));
    let set = whole.as_ref().unwrap_or(set);
    for life in &plan::lives(histories) {
        if let Some(migration) = set.get(life.version)
            && let Some(error) = plan::edited(set, histories, migration)
        {
            seen.insert(life.version);
            findings.push(finding(code(&error), Some(life.version), &error));
        }
    }
    let rollbacks = BTreeMap::new();
    let known = Known { set, histories, rollbacks: &rollbacks, servers };
    for store in servers.stores() {
        for it in histories.of(store).unreadable() {
            let error = PlanError::Unreadable { store, what: it.what.clone() };
            findings.push(finding("HISTORY_CORRUPT", it.version, &error));
        }
    }
    let mut plan = plan::plan(&known, &Goal::Up(Up::default()));
    // One that is pending and cannot be applied yet is the business of `up`.
    if let Err(PlanError::Nothing { version, .. } | PlanError::Unready { version, .. }) = plan {
        let before = set.iter().map(|migration| migration.version).filter(|it| *it < version);
        let up = Up { to: before.max(), ..Up::default() };
        plan = if up.to.is_some() { plan::plan(&known, &Goal::Up(up)) } else { plan };
    }
    match plan {
        Ok(plan) => {
            for finding in findings.iter_mut().filter(|it| it.code == "HISTORY_CORRUPT") {
                UP.clone_into(&mut finding.next);
            }
            findings.extend(seals(&plan, histories, servers));
            findings.extend(others(set, histories, servers));
        }
        Err(PlanError::Edited { version, .. } | PlanError::Filled { version, .. })
            if seen.contains(&version) => {}
        Err(PlanError::Taken { version, .. }) if seen.contains(&version) => {}
        Err(PlanError::Nothing { .. } | PlanError::Unready { .. }) => {}
        Err(PlanError::Variables { version, .. }) if seen.contains(&version) => {}
        Err(PlanError::EditedInDoubt { step, .. }) if seen.contains(&step.version) => {}
        Err(PlanError::Forged { step, .. }) if seen.contains(&step.version) => {}
        Err(PlanError::Unreadable { .. }) => {}
        Err(error) => findings.push(finding(code(&error), None, &error)),
    }
    findings
}

/// What mends a row.
const UP: &str = "`migrate up`: rows are derived from the records, and written again";

fn finding(code: &'static str, version: Option<Version>, error: &PlanError) -> Finding {
    Finding { code, version, message: error.to_string(), next: error.hint() }
}

/// The stable name of each refusal.
pub fn code(error: &PlanError) -> &'static str {
    match error {
        PlanError::Edited { .. } | PlanError::Filled { .. } => "CHECKSUM_MISMATCH",
        PlanError::Taken { .. } => "VERSION_TAKEN",
        PlanError::Nothing { .. } => "EMPTY_MIGRATION",
        PlanError::Unready { is_unfilled: true, .. } => "BAD_MIGRATION",
        PlanError::Unready { .. } => "UNFINISHED_MIGRATION",
        PlanError::Variables { .. } => "VARIABLES_CHANGED",
        PlanError::EditedInDoubt { .. } => "EDITED_IN_DOUBT",
        PlanError::Missing(_) => "MISSING",
        PlanError::OutOfOrder { .. } => "OUT_OF_ORDER",
        PlanError::Gap { .. } => "GAP",
        PlanError::Forged { .. } => "RECORD_CHANGED",
        PlanError::Unreadable { .. } => "HISTORY_CORRUPT",
        PlanError::Stray { .. } => "STRAY_ROW",
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
        PlanError::BaselineOpen(_) => "BASELINE_OPEN",
        PlanError::Requires { .. } => "REQUIRES",
        PlanError::NoFunction { .. } => "NO_FUNCTION",
    }
}

/// The rows that are not what the records of their migrations say: `up` has nothing
/// to do about these but to write them again.
fn seals(plan: &Plan, histories: &Histories, servers: &Servers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let unsealed = plan.work.iter().filter(|work| {
        work.direction == Direction::Up && !work.has_steps() && work.actions == [Action::Seal]
    });
    for work in unsealed {
        let version = work.version;
        for store in servers.stores() {
            let history = histories.of(store);
            let title = store.title();
            let unread = history.unreadable().iter().any(|it| it.version == Some(version));
            let (code, message) = match history.row(version) {
                None if unread => continue,
                None => (
                    "ROW_MISSING",
                    format!("{title} lacks the row of {version} in migration_history"),
                ),
                Some(row) if row.status == RowStatus::Running => (
                    "ROWS_DIFFER",
                    format!(
                        "the row of {version} in migration_history in {title} says `running`, although all of its steps are applied"
                    ),
                ),
                Some(row) => match work.row.as_ref().and_then(|seal| difference(row, seal)) {
                    None => continue,
                    Some(field) => (
                        "ROWS_DIFFER",
                        format!(
                            "{field} in the row of {version} in migration_history in {title} is not what the records and the other store say"
                        ),
                    ),
                },
            };
            findings.push(Finding { code, version: Some(version), message, next: UP.to_owned() });
        }
    }
    findings
}

/// The rows of migrations that have no file.
fn others(set: &MigrationSet, histories: &Histories, servers: &Servers) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stores = servers.stores();
    let lives = plan::lives(histories);
    let rows = stores.iter().flat_map(|store| histories.of(*store).rows());
    let versions = rows.map(|row| row.version).chain(lives.iter().map(|life| life.version));
    let versions: BTreeSet<Version> = versions.filter(|it| set.get(*it).is_none()).collect();
    for version in versions {
        let is_live = lives.iter().any(|life| life.version == version);
        let rows: Vec<_> =
            stores.iter().map(|store| (*store, histories.of(*store).row(version))).collect();
        let lacking = rows.iter().find(|(_, row)| row.is_none());
        let (code, message) = match (is_live, lacking, rows.as_slice()) {
            (false, ..) => (
                "STRAY_ROW",
                format!("migration_history has a row of {version}, of which no step is recorded"),
            ),
            (true, Some((store, _)), _) => (
                "ROW_MISSING",
                format!("{} lacks the row of {version} in migration_history", store.title()),
            ),
            (true, None, [(_, Some(one)), (_, Some(other))]) => match difference(one, other) {
                None => continue,
                Some(field) => (
                    "ROWS_DIFFER",
                    format!(
                        "the rows of {version} in migration_history differ in {field}: somebody changed one of them"
                    ),
                ),
            },
            (true, ..) => continue,
        };
        let next = match is_live {
            true => format!(
                "`migrate up` with the files of the release that has {version} writes it again; if nothing of {version} was ever there, `migrate repair --mark-reverted {version}`"
            ),
            false => format!("`migrate repair --mark-reverted {version}` takes it out"),
        };
        findings.push(Finding { code, version: Some(version), message, next });
    }
    findings
}

/// The first field in which two rows differ.
fn difference(one: &Row, other: &Row) -> Option<&'static str> {
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
    fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}
