//! Which metrics and labels alerts and panels ask for.

use regex::Regex;
use serde_json::Value;

/// What the scrape itself adds: no program has these.
const OF_THE_SCRAPE: [&str; 2] = ["job", "instance"];

/// One query, and what is made of its labels.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where it stands.
    pub place: String,
    /// In order.
    pub metrics: Vec<Used>,
    /// The labels in a legend, a title, a message.
    pub shown: Vec<String>,
}

/// A metric of ours in a query.
#[derive(Clone, Debug)]
pub struct Used {
    pub name: String,
    /// Those that are asked for.
    pub labels: Vec<String>,
}

impl Query {
    pub fn of(place: &str, expr: &str, shown: &str) -> Query {
        let label = |found: &str| (!OF_THE_SCRAPE.contains(&found)).then(|| found.to_owned());
        // `by (…)` and the like are about what stands beside them: about all of the query.
        let grouped = Regex::new(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)").unwrap();
        let grouped: Vec<String> = grouped
            .captures_iter(expr)
            .flat_map(|found| {
                let list = found[1].to_owned();
                list.split(',').filter_map(|it| label(it.trim())).collect::<Vec<_>>()
            })
            .collect();
        let metric = Regex::new(r"\b(lockstep_\w+)\s*(?:\{([^}]*)\})?").unwrap();
        let matcher = Regex::new(r"(\w+)\s*(?:=~|!~|!=|=)").unwrap();
        let metrics = metric
            .captures_iter(expr)
            .map(|found| {
                let inside = found.get(2).map_or("", |it| it.as_str());
                let own = matcher.captures_iter(inside).filter_map(|it| label(&it[1]));
                Used { name: found[1].to_owned(), labels: own.chain(grouped.clone()).collect() }
            })
            .collect();
        let shown_label = Regex::new(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}").unwrap();
        let shown = shown_label.captures_iter(shown).filter_map(|it| label(&it[1])).collect();
        Query { place: place.to_owned(), metrics, shown }
    }
}

/// The alerts of a file of rules, which is written as ours is: `expr` before all else.
pub fn rules(text: &str) -> Vec<Query> {
    let alerts = text.split("- alert: ").skip(1);
    alerts
        .map(|alert| {
            let (name, rest) = alert.split_once('\n').expect("lines");
            let rest = rest.trim_start().strip_prefix("expr:").expect("its expr first");
            let end = Regex::new(r"\n        (?:for|labels):").unwrap();
            let end = end.find(rest).expect("labels behind it").start();
            Query::of(name, rest[..end].trim_start_matches([' ', '|']), &rest[end..])
        })
        .collect()
}

/// The panels, variables and annotations of a dashboard.
pub fn dashboard(text: &str) -> Vec<Query> {
    let board: Value = serde_json::from_str(text).expect("JSON");
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for panel in list(&board["panels"]) {
        // The columns of a table are labels, too.
        let mut columns = String::new();
        for change in list(&panel["transformations"]) {
            for key in ["excludeByName", "indexByName"] {
                for name in change["options"][key].as_object().into_iter().flat_map(|it| it.keys())
                {
                    if !["Time", "Value", "__name__"].contains(&name.as_str()) {
                        columns += &format!("{{{{{name}}}}}");
                    }
                }
            }
        }
        for target in list(&panel["targets"]) {
            let shown = word(&target["legendFormat"]) + &columns;
            queries.push(Query::of(&word(&panel["title"]), &word(&target["expr"]), &shown));
        }
    }
    for variable in list(&board["templating"]["list"]) {
        queries.push(Query::of(&word(&variable["name"]), &word(&variable["definition"]), ""));
    }
    for note in list(&board["annotations"]["list"]) {
        let (expr, title) = (word(&note["expr"]), word(&note["titleFormat"]));
        queries.push(Query::of(&word(&note["name"]), &expr, &title));
    }
    queries
}
