//! Reading the plans that Postgres explains.

use serde_json::Value;

/// All nodes of a plan.
pub(super) fn nodes(plan: &Value) -> Vec<&Value> {
    match plan {
        Value::Array(items) => items.iter().flat_map(nodes).collect(),
        Value::Object(fields) => {
            let own = fields.contains_key("Node Type").then_some(plan);
            own.into_iter().chain(fields.values().flat_map(nodes)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a scan has an end: it reads what a condition on an index lets it.
pub(super) fn is_bounded(node: &Value) -> bool {
    ["Index Cond", "Recheck Cond", "TID Cond"].iter().any(|cond| node.get(cond).is_some())
}

/// The nodes through which all rows come, from the last to the first: what stands
/// beside them is asked for a row at a time, or read once and held.
pub(super) fn spine(plan: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let mut open = vec![&plan[0]["Plan"]];
    while let Some(node) = open.pop() {
        found.push(node);
        let below = node["Plans"].as_array().map_or(&[][..], Vec::as_slice);
        open.extend(below.iter().filter(|child| {
            matches!(child["Parent Relationship"].as_str(), Some("Outer" | "Subquery" | "Member"))
        }));
    }
    found
}
