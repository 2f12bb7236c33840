//! What a statement would mean for Postgres.

use super::{Before, Outlook, Touch, bytes, steps};
use crate::core::locks::{
    Along, Ask, Built, ColumnType, Effect, Lock, On, Toil, changes_type, effects,
};
use crate::core::plan::Plan;
use crate::core::step::{Body, QualifiedName};
use std::collections::{BTreeMap, BTreeSet};

/// An index that is smaller is not worth a word.
const NOTED: u64 = 1 << 20;

/// What is to be found out, of all statements of a plan together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// How large these are.
    pub tables: BTreeSet<QualifiedName>,
    /// Which tables these belong to.
    pub indexes: BTreeSet<QualifiedName>,
    /// What these columns are.
    pub columns: BTreeSet<Pair>,
    /// New types, as the server calls them: the text before a bracket.
    pub types: BTreeSet<String>,
    /// Whether these are volatile.
    pub functions: BTreeSet<QualifiedName>,
}

/// A table and a column.
pub type Pair = (QualifiedName, String);

impl Wanted {
    /// What is to be found out about some statements.
    pub fn of<'a>(statements: impl IntoIterator<Item = &'a str>) -> Wanted {
        let mut wanted = Wanted::default();
        for effect in statements.into_iter().flat_map(|text| effects(text).tables) {
            wanted.add(&effect);
        }
        wanted
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.indexes.is_empty()
    }
}

/// What the server says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PostgresFacts {
    /// Those that are there.
    pub tables: BTreeMap<QualifiedName, TableFacts>,
    /// Indexes that are there, and their tables.
    pub indexes: BTreeMap<QualifiedName, QualifiedName>,
    /// Columns that are there.
    pub columns: BTreeMap<Pair, ColumnFacts>,
    /// The name of a type in the server, for its name in a statement.
    pub types: BTreeMap<String, String>,
    /// Types of which a value is one of another, bit for bit, by their names in the
    /// server.
    pub binary: BTreeSet<(String, String)>,
    /// Functions that answer the same in a whole statement.
    pub steady: BTreeSet<QualifiedName>,
    /// Foreign keys from or to the tables that are asked about.
    pub foreign: Vec<ForeignKey>,
    /// The session's time zone is UTC.
    pub is_utc: bool,
    /// Why nothing is known.
    pub unknown: Option<String>,
}

/// What the server says of one table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TableFacts {
    /// About how many rows; `None` if it was never analyzed.
    pub rows: Option<u64>,
    /// About how many bytes, without its indexes.
    pub bytes: u64,
    /// It is no table but a view, a sequence, …
    pub has_rows: bool,
}

/// What the server says of one column.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ColumnFacts {
    /// Its type, as `format_type` has it.
    pub is: String,
    /// It is never null, by itself.
    pub not_null: bool,
    /// Valid `CHECK` constraints on it, as the server has them.
    pub checks: Vec<String>,
    /// Bytes of a value, on average.
    pub width: Option<u64>,
}

/// A foreign key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForeignKey {
    /// What it is called.
    pub name: String,
    /// The table that has it.
    pub from: String,
    /// The table that it refers to.
    pub to: String,
}

/// What is to be found out about a plan.
pub fn wanted(plan: &Plan) -> Wanted {
    let bodies = steps(plan).filter_map(|(_, attempt)| match &attempt.step.body {
        Body::Postgres(body) => Some(&body.statements),
        _ => None,
    });
    Wanted::of(bodies.flatten().map(|statement| statement.text.as_str()))
}

impl Wanted {
    fn add(&mut self, effect: &Effect) {
        let table = match &effect.on {
            On::Table(table) => table,
            On::TableOf(index) => {
                self.indexes.insert(index.clone());
                return;
            }
        };
        self.tables.insert(table.clone());
        let column = |column: &String| (table.clone(), column.clone());
        match &effect.ask {
            Some(Ask::Type { column: name, to }) => {
                self.columns.insert(column(name));
                self.types.insert(base(to).to_owned());
            }
            Some(Ask::NotNull { column: name }) => drop(self.columns.insert(column(name))),
            Some(Ask::Volatile { functions }) => self.functions.extend(functions.iter().cloned()),
            None => {}
        }
        for built in &effect.built {
            self.columns.extend(built.columns.iter().flatten().map(column));
        }
    }
}

/// A type without what stands in brackets.
fn base(to: &str) -> &str {
    to.split('(').next().unwrap_or(to).trim()
}

/// What one statement would mean by itself.
pub fn of_statement(text: &str, facts: &PostgresFacts) -> Outlook {
    outlook(text, facts, &mut Before::default())
}

/// What one statement would mean.
pub(super) fn outlook(text: &str, facts: &PostgresFacts, before: &mut Before) -> Outlook {
    let effects = effects(text);
    let mut outlook = Outlook::default();
    for effect in &effects.tables {
        let table = match &effect.on {
            On::Table(table) => Some(table.clone()),
            On::TableOf(index) => facts.indexes.get(index).cloned(),
        };
        let Some(table) = table else {
            if let On::TableOf(index) = &effect.on {
                let why = match &facts.unknown {
                    Some(why) => why.clone(),
                    None => format!("there is no index {index} yet"),
                };
                outlook.unknown.get_or_insert(format!("the table of {index}: {why}"));
            }
            continue;
        };
        let touch = touch(&table, effect, facts, before);
        warn(&touch, effect, facts, &mut outlook);
        outlook.touches.push(touch);
    }
    if let (true, Some(why)) = (effects.unread, &effects.unknown) {
        outlook.warnings.push(format!(
            "what it locks and rewrites is not known: {why}; try it in `migrate sandbox`"
        ));
    }
    let unknown = effects.unknown.filter(|_| !effects.unread);
    let unknown = unknown.map(|why| format!("what it locks: {why}"));
    outlook.unknown = outlook.unknown.or(unknown).or_else(|| {
        let why = facts.unknown.as_ref().filter(|_| !outlook.touches.is_empty())?;
        Some(format!("how large its tables are: {why}"))
    });
    before.tables.extend(effects.made);
    before.not_null.extend(effects.not_null);
    outlook
}

fn touch(table: &QualifiedName, effect: &Effect, facts: &PostgresFacts, before: &Before) -> Touch {
    let known = facts.tables.get(table);
    let is_new = before.tables.contains(table) && known.is_none();
    let spares = spares(table, effect, facts, before);
    let (toil, why) = match spares {
        Some((toil, why)) => (toil, Some(why)),
        None => (effect.toil, effect.why.map(str::to_owned)),
    };
    let rows = known.filter(|it| it.has_rows).and_then(|it| it.rows);
    Touch {
        lock: Some(effect.lock),
        toil,
        why,
        rows,
        bytes: known.filter(|it| it.has_rows).map(|it| it.bytes),
        index_bytes: rows.and_then(|rows| index_bytes(table, rows, &effect.built, facts)),
        exists: facts.unknown.is_none().then_some(known.is_some() || is_new),
        is_new,
        ..Touch::new(table.to_string())
    }
}

/// Why it is not as bad as the text alone would have it.
fn spares(
    table: &QualifiedName,
    effect: &Effect,
    facts: &PostgresFacts,
    before: &Before,
) -> Option<(Toil, String)> {
    let nothing = |why: &str| Some((Toil::Nothing, why.to_owned()));
    match effect.ask.as_ref()? {
        Ask::Type { column, to } => {
            let found = facts.columns.get(&(table.clone(), column.clone()))?;
            let is = &found.is;
            let target = facts.types.get(base(to));
            let pair = target.map(|to| (base(is).to_owned(), to.clone()));
            let known = ColumnType {
                is: is.clone(),
                to: target.cloned(),
                is_binary: pair.is_some_and(|pair| facts.binary.contains(&pair)),
                is_utc: facts.is_utc,
            };
            match (changes_type(&known, to), found.checks.is_empty()) {
                (true, _) => None,
                (false, true) => Some((Toil::Nothing, format!("{is} fits {to}: no row changes"))),
                (false, false) => Some((Toil::Scan, "its CHECK is asked again".to_owned())),
            }
        }
        Ask::NotNull { column } => {
            let pair = (table.clone(), column.clone());
            if before.not_null.contains(&pair) {
                return nothing("a constraint before it says so");
            }
            let known = facts.columns.get(&pair)?;
            let says = |check: &String| {
                let is = format!("({column} IS NOT NULL)");
                let quoted = format!("(\"{column}\" IS NOT NULL)");
                let vague = [" OR ", "CASE ", "NOT ("].iter().any(|word| check.contains(word));
                !vague && (check.contains(&is) || check.contains(&quoted))
            };
            match known.not_null {
                true => nothing("it is never null already"),
                false if known.checks.iter().any(says) => nothing("a constraint says so"),
                false => None,
            }
        }
        Ask::Volatile { functions } => {
            let steady = functions.iter().all(|function| facts.steady.contains(function));
            steady.then(|| nothing("the default is the same in each row")).flatten()
        }
    }
}

/// About how large an index will be: an entry has its values, and 16 bytes around
/// them; pages are filled to nine tenths.
fn index_bytes(
    table: &QualifiedName,
    rows: u64,
    built: &[Built],
    facts: &PostgresFacts,
) -> Option<u64> {
    let of = |built: &Built| {
        let width = |column: &Option<String>| {
            let column = column.clone()?;
            facts.columns.get(&(table.clone(), column))?.width
        };
        let widths: Option<Vec<u64>> = built.columns.iter().map(width).collect();
        let width: u64 = widths?.iter().sum::<u64>().next_multiple_of(8) + 16;
        (built.is_btree && !built.columns.is_empty()).then(|| rows.saturating_mul(width) / 9 * 10)
    };
    let sizes: Option<Vec<u64>> = built.iter().map(of).collect();
    sizes.filter(|sizes| !sizes.is_empty()).map(|sizes| sizes.iter().sum())
}

fn warn(touch: &Touch, effect: &Effect, facts: &PostgresFacts, outlook: &mut Outlook) {
    let place = touch.sized("rows");
    if let Some(waiting) = effect.lock.waiting()
        && touch.toil > Toil::Nothing
        && touch.is_large()
    {
        let does = match touch.toil {
            Toil::Rewrite => "rewrites the table",
            _ if !effect.built.is_empty() => "reads all of it to build an index",
            _ => "reads all of it",
        };
        let mut text = format!("{} on {place}, {does}: {waiting}", effect.lock);
        if effect.lock == Lock::Share && !effect.built.is_empty() {
            text.push_str("; CREATE INDEX CONCURRENTLY lets them through");
        }
        outlook.warnings.push(text);
    }
    if effect.all_rows && touch.is_large() {
        outlook.warnings.push(format!(
            "it has no WHERE, and writes every row of {place} in one transaction; a backfill does it in batches"
        ));
    }
    if let Some(size) = touch.index_bytes.filter(|size| *size >= NOTED) {
        let partial = effect.built.iter().any(|built| built.partial);
        let most = if partial { "at most " } else { "" };
        outlook.notes.push(format!(
            "the index takes {most}about {}; Postgres does not say how much room is left",
            bytes(size)
        ));
    }
    for key in along(&touch.name, &effect.along, &facts.foreign) {
        let other = if key.from == touch.name { &key.to } else { &key.from };
        outlook.notes.push(format!("{} on {other} too: foreign key {}", effect.lock, key.name));
    }
    if touch.exists == Some(false) {
        outlook.notes.push(format!("there is no {} yet", touch.name));
    }
    // Of a small one nobody wants to know.
    if touch.rows.is_none() && touch.is_large() && touch.bytes.is_some() {
        outlook.unknown.get_or_insert(format!("the rows of {}: never analyzed", touch.name));
    }
}

/// The foreign keys through which another table is locked too.
fn along<'a>(table: &str, along: &Along, foreign: &'a [ForeignKey]) -> Vec<&'a ForeignKey> {
    let plain = |name: &str| name.strip_prefix("public.").unwrap_or(name).to_owned();
    let table = plain(table);
    let touches = |key: &&ForeignKey| {
        (plain(&key.from) == table || plain(&key.to) == table) && key.from != key.to
    };
    match along {
        Along::No => Vec::new(),
        Along::Any => foreign.iter().filter(touches).collect(),
        Along::Constraint(name) => {
            foreign.iter().filter(|key| plain(&key.from) == table && key.name == *name).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> QualifiedName {
        QualifiedName { schema: None, name: name.to_owned() }
    }

    fn facts() -> PostgresFacts {
        let table = |rows| TableFacts { rows: Some(rows), bytes: rows * 100, has_rows: true };
        let column = |is: &str, checks: &[&str]| ColumnFacts {
            is: is.to_owned(),
            not_null: false,
            checks: checks.iter().map(|it| (*it).to_owned()).collect(),
            width: Some(12),
        };
        PostgresFacts {
            tables: [(name("users"), table(1_200_000)), (name("few"), table(10))].into(),
            indexes: [(name("by_email"), name("users"))].into(),
            columns: [
                ((name("users"), "email".to_owned()), column("character varying(20)", &[])),
                (
                    (name("users"), "role".to_owned()),
                    column("text", &["CHECK ((role IS NOT NULL))"]),
                ),
            ]
            .into(),
            types: [("text".to_owned(), "text".to_owned())].into(),
            foreign: vec![ForeignKey {
                name: "orders_user".to_owned(),
                from: "orders".to_owned(),
                to: "users".to_owned(),
            }],
            ..PostgresFacts::default()
        }
    }

    fn check(statements: &[&str], expected: &str) {
        let mut before = Before::default();
        let mut lines = Vec::new();
        for statement in statements {
            let found = outlook(statement, &facts(), &mut before);
            lines = Vec::new();
            for touch in &found.touches {
                let why = touch.why.clone().map(|why| format!(" ({why})")).unwrap_or_default();
                let lock = touch.lock.map_or("", Lock::words);
                lines.push(format!("{} {lock} {}{why}", touch.name, touch.toil.word()));
            }
            lines.extend(found.notes.iter().map(|note| format!("note: {note}")));
            lines.extend(found.warnings.iter().map(|it| format!("warning: {it}")));
            lines.extend(found.unknown.iter().map(|it| format!("unknown: {it}")));
        }
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn who_waits_is_told_before() {
        check(
            &["alter table users alter email type int using length(email)"],
            "users ACCESS EXCLUSIVE rewrite (USING computes each value)\n\
             warning: ACCESS EXCLUSIVE on users (≈1.2 M rows, 114 MB), rewrites the table: readers and writers wait",
        );
        check(
            &["create index on users (email)"],
            "users SHARE scan (an index is built)\n\
             note: the index takes about 40 MB; Postgres does not say how much room is left\n\
             warning: SHARE on users (≈1.2 M rows, 114 MB), reads all of it to build an index: writers wait; CREATE INDEX CONCURRENTLY lets them through",
        );
        check(
            &["update users set a = 1"],
            "users ROW EXCLUSIVE nothing\nwarning: it has no WHERE, and writes every row of users (≈1.2 M rows, 114 MB) in one transaction; a backfill does it in batches",
        );
        check(&["create index on few (a)"], "few SHARE scan (an index is built)");
    }

    #[test]
    fn what_the_server_knows_spares_a_warning() {
        check(
            &["alter table users alter email type text"],
            "users ACCESS EXCLUSIVE nothing (character varying(20) fits text: no row changes)",
        );
        check(
            &["alter table users alter role set not null"],
            "users ACCESS EXCLUSIVE nothing (a constraint says so)",
        );
        check(
            &[
                "alter table users add check (email is not null) not valid",
                "alter table users alter email set not null",
            ],
            "users ACCESS EXCLUSIVE nothing (a constraint before it says so)",
        );
        check(
            &["create table new (a int)", "create index on new (a)"],
            "new SHARE scan (an index is built)",
        );
    }

    #[test]
    fn what_else_is_locked_and_what_nobody_knows() {
        check(
            &["drop table users"],
            "users ACCESS EXCLUSIVE nothing\n\
             note: ACCESS EXCLUSIVE on orders too: foreign key orders_user",
        );
        check(&["drop index by_email"], "users ACCESS EXCLUSIVE nothing");
        check(&["drop index gone"], "unknown: the table of gone: there is no index gone yet");
        check(&["do $$ begin end $$"], "unknown: what it locks: what it runs is not in its text");
    }
}
