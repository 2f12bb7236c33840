//! A plan for people, as a tree, and for machines, as an object.

use crate::core::backup::Required;
use crate::core::destroys::destroys;
use crate::core::duration;
use crate::core::grouped::grouped;
use crate::core::id::{Direction, Phase, StepId, StoreName, Version};
use crate::core::locks::{Lock, Toil};
use crate::core::one_line::one_line;
use crate::core::outlook::{Outlook, Outlooks, Touch, about, size};
use crate::core::plan::{Action, Attempt, Plan, Waits, Work};
use crate::core::status::without_number;
use crate::core::step::{Body, Commit, Step};
use crate::report::human::{Look, clip, step_column, wrap};
use crate::report::json::way;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the servers say about a plan.
#[derive(Clone, Debug, Default)]
pub struct Foreseen {
    /// About how many rows its backfills go through.
    pub rows: BTreeMap<StepId, u64>,
    /// What its statements meet.
    pub outlooks: Outlooks,
    /// The backups that its cleanups need, and those that there are.
    pub backups: BTreeMap<Version, Required>,
}

impl Foreseen {
    fn of(&self, id: &StepId) -> (Option<u64>, &[Outlook]) {
        let outlooks = self.outlooks.get(id).map(Vec::as_slice).unwrap_or_default();
        (self.rows.get(id).copied(), outlooks)
    }
}

/// The plan as a tree: migration, phase, step with its store and how it is committed,
/// statements with what they lock and how large that is. A bracket is a transaction.
pub fn tree(plan: &Plan, foreseen: &Foreseen, look: Look) -> String {
    let mut lines = Vec::new();
    for work in &plan.work {
        work_lines(work, foreseen, look, &mut lines);
    }
    if !plan.ahead.is_empty() {
        let versions: Vec<String> = plan.ahead.iter().map(ToString::to_string).collect();
        lines.push(look.dim(&format!("ahead of these files: {}", versions.join(", "))));
    }
    if plan.then_plan_again {
        lines.push(look.dim("what follows depends on what is found there"));
    }
    // What this plan leaves held says so where it stands.
    let is_here = |version: &Version| plan.work.iter().any(|work| work.version == *version);
    for version in plan.held.iter().filter(|version| !is_here(version)) {
        lines.push(format!("{version} is held: `migrate cleanup {version}` finishes it"));
    }
    for waits in &plan.waiting {
        let width = if look.terminal { look.width } else { usize::MAX };
        for (at, part) in wrap(&waits_line(waits), width).into_iter().enumerate() {
            let mark = if at == 0 { "" } else { "  " };
            lines.push(format!("{mark}{}", look.warn(&part)));
        }
    }
    match (plan.work.is_empty(), plan.waiting.is_empty()) {
        (true, true) => lines.push("nothing to do".to_owned()),
        (true, false) => lines.push("nothing can begin now: `migrate up` exits with 3".to_owned()),
        (false, _) => {}
    }
    let warnings: usize =
        foreseen.outlooks.values().flatten().map(|outlook| outlook.warnings.len()).sum();
    match warnings {
        0 => {}
        1 => lines.push(look.warn("1 warning; nothing was changed")),
        more => lines.push(look.warn(&format!("{more} warnings; nothing was changed"))),
    }
    lines.join("\n")
}

fn work_lines(work: &Work, foreseen: &Foreseen, look: Look, lines: &mut Vec<String>) {
    let verb = match work.direction {
        Direction::Up => "up  ",
        Direction::Down => "down",
    };
    lines.push(format!("{verb} {}", look.bold(&work.folder)));
    let begun = lines.len();
    let column = step_column(work.longest_name());
    let mut phase = Phase::Up;
    let mut needs = foreseen.backups.get(&work.version);
    for action in &work.actions {
        if is_of_cleanup(action)
            && let Some(required) = needs.take()
        {
            let text = format!("needs {required}");
            let paint =
                |part: &str| if required.is_met() { look.dim(part) } else { look.warn(part) };
            let room = look.width.saturating_sub(4);
            let parts = wrap(&text, room).into_iter().enumerate();
            lines.extend(parts.map(|(at, part)| {
                let indent = if at == 0 { "" } else { "  " };
                format!("  {indent}{}", paint(&part))
            }));
        }
        match action {
            Action::Run(it) | Action::Settle(it) | Action::Abandon(it) => {
                if it.step.phase() != phase && work.direction == Direction::Up {
                    phase = it.step.phase();
                    lines.push(format!("  {}", look.bold(phase.word())));
                }
                let id = StepId { version: work.version, name: it.step.name.clone() };
                let (rows, outlooks) = foreseen.of(&id);
                let margin = if phase == Phase::Up { 2 } else { 4 };
                let how = how(action, &it.step, rows);
                lines.extend(Branch { margin, column, look }.step(&it.step, &how, outlooks));
            }
            Action::Check(steps) => {
                let names: Vec<String> = steps.iter().map(|it| it.name.to_string()).collect();
                lines.push(format!("  asks again: {}", names.join(", ")));
            }
            Action::Pause(time) => lines.push(format!("  waits {}", duration::show(*time))),
            Action::Hold => {
                lines.push(format!("  {}", look.warn("and is held: its cleanup waits")));
            }
            _ => {}
        }
    }
    if lines.len() == begun {
        lines.push(format!("  {}", look.dim("only its row in the history")));
    }
}

/// Whether a cleanup begins with it, or what is asked right before.
fn is_of_cleanup(action: &Action) -> bool {
    match action {
        Action::Check(_) => true,
        _ => action.step().is_some_and(|step| step.phase() == Phase::Cleanup),
    }
}

/// How a step is carried out.
fn how(action: &Action, step: &Step, rows: Option<u64>) -> String {
    match (action, &step.body, step.commit) {
        (Action::Settle(_), Body::Backfill(_), _) => {
            "goes on in batches: it was interrupted".to_owned()
        }
        (Action::Settle(_), Body::Program(_), _) => "begins anew: it was interrupted".to_owned(),
        (Action::Settle(_), ..) => "settles: it was interrupted".to_owned(),
        (Action::Abandon(_), ..) => "clears: it was interrupted".to_owned(),
        (_, Body::Backfill(backfill), _) => {
            let copies = if backfill.work.is_copy() { "copies in batches" } else { "in batches" };
            match (rows, backfill.work.source()) {
                (Some(rows), StoreName::Postgres) => {
                    format!("{copies}, about {} rows", grouped(rows))
                }
                (Some(rows), StoreName::Mongo) => {
                    format!("{copies}, about {} documents", grouped(rows))
                }
                (None, _) => copies.to_owned(),
            }
        }
        (_, Body::Check(_), _) => "asks".to_owned(),
        (_, Body::Program(_), _) => "runs a program".to_owned(),
        (_, _, Commit::Atomic) => "one transaction, with its record".to_owned(),
        (_, _, Commit::Journaled) => "on its own, announced and recorded".to_owned(),
    }
}

/// Where the lines of a step begin.
#[derive(Clone, Copy)]
struct Branch {
    margin: usize,
    column: usize,
    look: Look,
}

impl Branch {
    fn step(self, step: &Step, how: &str, outlooks: &[Outlook]) -> Vec<String> {
        let Branch { margin, column, look } = self;
        let place = format!("{}:{}", step.file, step.line);
        let name =
            format!("{:margin$}{:<column$} {:<8}", "", step.name.to_string(), step.store().title());
        let mut lines = Vec::new();
        if name.chars().count() + how.chars().count() + place.chars().count() + 3 <= look.width {
            lines.push(format!("{name} {}", look.dim(&format!("{how}  {place}"))));
        } else {
            lines.push(format!("{name} {}", look.dim(how)));
            lines.push(format!("{:margin$}  {}", "", look.dim(&place)));
        }
        let room = look.width.saturating_sub(margin + 4);
        let statements = statements(step);
        let count = statements.len();
        for (at, (text, _)) in statements.iter().enumerate() {
            let (mark, beside) = match (step.commit, count, at) {
                (Commit::Journaled, _, _) | (_, 1, _) => ("·", " "),
                (Commit::Atomic, _, 0) => ("┌", "│"),
                (Commit::Atomic, count, at) if at + 1 == count => ("└", " "),
                (Commit::Atomic, _, _) => ("│", "│"),
            };
            lines.push(format!("{:margin$}  {mark} {}", "", clip(&one_line(text), room)));
            let outlook = outlooks.get(at);
            for line in outlook.map(|it| self.outlook(it)).unwrap_or_default() {
                lines.push(format!("{:margin$}  {beside}   {line}", ""));
            }
        }
        for lost in destroys(step) {
            lines.push(format!(
                "{:margin$}  {} {}",
                "",
                look.warn("destroys data:"),
                clip(&lost, room.saturating_sub(15))
            ));
        }
        lines
    }

    /// What one statement meets, below it.
    fn outlook(self, outlook: &Outlook) -> Vec<String> {
        let Branch { margin, look, .. } = self;
        let room = look.width.saturating_sub(margin + 6);
        let mut lines = Vec::new();
        let mut add = |text: &str, paint: &dyn Fn(&str) -> String| {
            for (at, part) in wrap(text, room.saturating_sub(2)).into_iter().enumerate() {
                let indent = if at == 0 { "" } else { "  " };
                lines.push(format!("{indent}{}", paint(&part)));
            }
        };
        for touch in outlook.touches.iter().filter_map(touch_line) {
            add(&touch, &|part| look.dim(part));
        }
        for note in &outlook.notes {
            add(note, &|part| look.dim(part));
        }
        if let Some(unknown) = &outlook.unknown {
            add(&format!("unknown: {unknown}"), &|part| look.dim(part));
        }
        for warning in &outlook.warnings {
            add(&format!("warning: {warning}"), &|part| look.warn(part));
        }
        lines
    }
}

/// `users: ACCESS EXCLUSIVE, rewrites it, ≈1.2 M rows, 340 MB`. What is made by a
/// statement before has nothing to say.
fn touch_line(touch: &Touch) -> Option<String> {
    if touch.is_new {
        return None;
    }
    let unit = if touch.lock.is_some() { "rows" } else { "documents" };
    let mut parts: Vec<String> = touch.lock.iter().map(ToString::to_string).collect();
    let does = match touch.toil {
        // There is nothing to read.
        _ if touch.exists == Some(false) => None,
        Toil::Nothing => None,
        Toil::Scan => Some("reads all of it"),
        Toil::Rewrite => Some("rewrites it"),
    };
    match (does, &touch.why) {
        (Some(does), Some(why)) => parts.push(format!("{does} ({why})")),
        (Some(text), None) => parts.push(text.to_owned()),
        (None, Some(why)) if touch.exists != Some(false) => parts.push(why.clone()),
        (None, _) => {}
    }
    if let Some(matches) = touch.matches {
        let of = touch.rows.filter(|rows| *rows >= matches);
        let of = of.map(|rows| format!(" of {}", about(rows))).unwrap_or_default();
        let counted = touch.rows.filter(|rows| *rows >= matches).unwrap_or(matches);
        let documents = if counted == 1 { "document" } else { "documents" };
        parts.push(format!("{}{of} {documents}", about(matches)));
    } else {
        let size = size(touch.rows, touch.bytes, unit);
        parts.extend((!size.is_empty()).then_some(size));
    }
    (!parts.is_empty()).then(|| format!("{}: {}", touch.name, parts.join(", ")))
}

/// Each statement with its line in the file.
fn statements(step: &Step) -> Vec<(String, u32)> {
    match &step.body {
        Body::Postgres(body) => body
            .statements
            .iter()
            .map(|statement| (statement.text.clone(), statement.line))
            .collect(),
        Body::Mongo(body) if body.commands.is_empty() => Vec::new(),
        Body::Mongo(body) => vec![(body.text.clone(), step.line)],
        Body::Backfill(backfill) => vec![(backfill.statement(), step.line)],
        Body::Check(invariant) => {
            invariant.check.questions().into_iter().map(|text| (text, step.line)).collect()
        }
        Body::Program(program) => vec![(program.command.join(" "), step.line)],
    }
}

/// The plan for machines.
pub fn object(plan: &Plan, foreseen: &Foreseen, direction: Direction) -> Value {
    let migrations: Vec<Value> = plan
        .work
        .iter()
        .map(|work| {
            let steps: Vec<Value> = crate::core::outlook::steps_of(work)
                .map(|(id, attempt)| {
                    let (rows, outlooks) = foreseen.of(&id);
                    step_object(verb(work, attempt), attempt, rows, outlooks)
                })
                .collect();
            let mut object = json!({
                "version": work.version.0,
                "name": without_number(&work.folder),
                "direction": way(work.direction),
                "steps": steps,
                "holds": work.actions.contains(&Action::Hold),
            });
            if let Some(required) = foreseen.backups.get(&work.version) {
                object["backup"] = required_object(required);
            }
            object
        })
        .collect();
    let warnings: Vec<Value> = foreseen
        .outlooks
        .iter()
        .flat_map(|(id, outlooks)| {
            outlooks.iter().flat_map(move |it| {
                it.warnings.iter().map(move |text| {
                json!({ "version": id.version.0, "step": id.name.to_string(), "message": text })
            })
            })
        })
        .collect();
    json!({
        "direction": way(direction),
        "migrations": migrations,
        "ahead": plan.ahead.iter().map(|version| version.0).collect::<Vec<_>>(),
        "held": plan.held.iter().map(|version| version.0).collect::<Vec<_>>(),
        "open": plan.open.map(|version| version.0),
        "waiting": plan.waiting.iter().map(waits_object).collect::<Vec<_>>(),
        "then_plan_again": plan.then_plan_again,
        "warnings": warnings,
    })
}

/// What a cleanup needs, and what there is.
pub fn required_object(required: &Required) -> Value {
    let stores = required.stores.iter().map(|(store, standing)| {
        json!({
            "store": store.word(),
            "enough": standing.is_enough(),
            "found": standing.to_string(),
        })
    });
    json!({
        "younger_than": duration::show(required.limit),
        "enough": required.is_met(),
        "stores": stores.collect::<Vec<_>>(),
    })
}

/// A migration that may not begin yet, for people.
pub fn waits_line(waits: &Waits) -> String {
    let Waits { folder, behind, why, .. } = waits;
    format!("{folder} waits behind {behind}: {why}")
}

/// A migration that may not begin yet.
pub fn waits_object(waits: &Waits) -> Value {
    let Waits { version, folder, behind, why } = waits;
    let name = without_number(folder);
    json!({ "version": version.0, "name": name, "behind": behind.0, "why": why })
}

/// What is done with a step.
fn verb(work: &Work, attempt: &Attempt) -> &'static str {
    let is_this = |it: &Attempt| it.step.name == attempt.step.name;
    let verb = work.actions.iter().find_map(|action| match action {
        Action::Settle(it) if is_this(it) => Some("settle"),
        Action::Abandon(it) if is_this(it) => Some("abandon"),
        Action::Run(it) if is_this(it) => Some("run"),
        _ => None,
    });
    verb.unwrap_or("run")
}

fn step_object(action: &str, attempt: &Attempt, rows: Option<u64>, outlooks: &[Outlook]) -> Value {
    let step = &attempt.step;
    let commit = match step.commit {
        Commit::Atomic => "transaction",
        Commit::Journaled => "alone",
    };
    let statements: Vec<Value> = statements(step)
        .into_iter()
        .enumerate()
        .map(|(at, (text, line))| {
            let nothing = Outlook::default();
            let outlook = outlooks.get(at).unwrap_or(&nothing);
            json!({
                "text": text,
                "line": line,
                "touches": outlook.touches.iter().map(touch_object).collect::<Vec<_>>(),
                "notes": outlook.notes,
                "warnings": outlook.warnings,
                "unknown": outlook.unknown,
            })
        })
        .collect();
    json!({
        "step": step.name.to_string(),
        "store": step.store().word(),
        "action": action,
        "commit": commit,
        "attempt": attempt.attempt,
        "file": step.file,
        "line": step.line,
        "statements": statements,
        "destroys": destroys(step),
        "rows": rows,
    })
}

fn touch_object(touch: &Touch) -> Value {
    json!({
        "name": touch.name,
        "lock": touch.lock.map(Lock::words),
        "does": touch.toil.word(),
        "why": touch.why,
        "rows": touch.rows,
        "bytes": touch.bytes,
        "index_bytes": touch.index_bytes,
        "matches": touch.matches,
        "exists": touch.exists,
        "made_here": touch.is_new,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checksum::Checksum;
    use crate::core::id::{StepName, Version};
    use crate::core::migration::Rollback;
    use crate::core::outlook::{
        CollectionFacts, Matches, MongoFacts, PostgresFacts, TableFacts, outlooks,
    };
    use crate::core::parse::{mongosh, sql};
    use crate::core::step::{PgStep, QualifiedName};
    use expect_test::expect;

    fn step(phase: Phase, index: u32, line: u32, store: StoreName, script: &str) -> Action {
        let (body, commit) = match store {
            StoreName::Postgres => {
                let statements = sql::read(script).expect("it is right");
                let alone = statements.iter().any(|it| !it.kind.in_transaction());
                let commit = if alone { Commit::Journaled } else { Commit::Atomic };
                (Body::Postgres(PgStep { statements, ..PgStep::default() }), commit)
            }
            StoreName::Mongo => {
                let mut read = mongosh::read(script).expect("it is right");
                let step = read.remove(0).step;
                let commit = step.kind.commit();
                (Body::Mongo(step), commit)
            }
        };
        let file = match store {
            StoreName::Postgres => format!("002-emails/{}.sql", phase.word()),
            StoreName::Mongo => format!("002-emails/{}.mongodb.js", phase.word()),
        };
        let direction = Direction::Up;
        Action::Run(Attempt {
            step: Step {
                name: StepName::Script { phase, direction, store, index },
                checksum: Checksum::of(b""),
                commit,
                body,
                file,
                line,
            },
            attempt: 1,
        })
    }

    fn plan() -> Plan {
        let work = Work {
            version: Version(2),
            folder: "002-emails".to_owned(),
            description: String::new(),
            direction: Direction::Up,
            checksum: Checksum::of(b""),
            rank: 2,
            rollback: Rollback::default(),
            row: None,
            actions: vec![
                step(
                    Phase::Prepare,
                    1,
                    1,
                    StoreName::Postgres,
                    "ALTER TABLE users ADD COLUMN email text;
                     CREATE TABLE mails (id bigint PRIMARY KEY, user_id bigint REFERENCES users);
                     CREATE INDEX ON users (lower(email))",
                ),
                step(
                    Phase::Prepare,
                    2,
                    5,
                    StoreName::Postgres,
                    "CREATE INDEX CONCURRENTLY users_by_email ON users (email)",
                ),
                step(
                    Phase::Execute,
                    1,
                    1,
                    StoreName::Mongo,
                    "db.profiles.updateMany({ email: null }, { $set: { email: '' } })",
                ),
                step(
                    Phase::Cleanup,
                    1,
                    1,
                    StoreName::Postgres,
                    "ALTER TABLE users ALTER email SET NOT NULL; DO $$ BEGIN END $$",
                ),
                Action::Hold,
            ],
        };
        Plan { work: vec![work], ..Plan::default() }
    }

    fn foreseen(plan: &Plan) -> Foreseen {
        let users = QualifiedName { schema: None, name: "users".to_owned() };
        let table = TableFacts { rows: Some(1_200_000), bytes: 340 << 20, has_rows: true };
        let postgres =
            PostgresFacts { tables: [(users, table)].into(), ..PostgresFacts::default() };
        let profiles = CollectionFacts {
            documents: Some(1_100_000),
            bytes: Some(500 << 20),
            ..CollectionFacts::default()
        };
        let id = crate::core::outlook::steps(plan).nth(2).expect("it has three").0;
        let mongo = MongoFacts {
            collections: [("profiles".to_owned(), profiles)].into(),
            matches: [((id, 0), Matches::Documents(41_000))].into(),
            ..MongoFacts::default()
        };
        Foreseen { outlooks: outlooks(plan, &postgres, &mongo), ..Foreseen::default() }
    }

    #[test]
    fn the_tree_says_what_waits_and_fits() {
        let plan = plan();
        let foreseen = foreseen(&plan);
        let at = |width| {
            let look = Look { colour: false, terminal: true, width };
            let text = tree(&plan, &foreseen, look);
            let fits = |line: &str| line.chars().count() <= width;
            assert!(text.lines().all(fits), "{text}");
            text.lines().map(|line| format!("|{line}")).collect::<Vec<_>>().join("\n")
        };
        expect![[r#"
            |up   002-emails
            |  prepare
            |    prepare/postgres/1 Postgres one transaction, with its record
            |      002-emails/prepare.sql:1
            |      ┌ ALTER TABLE users ADD COLUMN email text
            |      │   users: ACCESS EXCLUSIVE, ≈1.2 M rows, 340 MB
            |      │ CREATE TABLE mails (id bigint PRIMARY KEY, user_id bigint REFERENCES us…
            |      │   users: SHARE ROW EXCLUSIVE, ≈1.2 M rows, 340 MB
            |      └ CREATE INDEX ON users (lower(email))
            |          users: SHARE, reads all of it (an index is built), ≈1.2 M rows,
            |            340 MB
            |          warning: SHARE on users (≈1.2 M rows, 340 MB), reads all of it to
            |            build an index: writers wait; CREATE INDEX CONCURRENTLY lets them
            |            through
            |    prepare/postgres/2 Postgres on its own, announced and recorded
            |      002-emails/prepare.sql:5
            |      · CREATE INDEX CONCURRENTLY users_by_email ON users (email)
            |          users: SHARE UPDATE EXCLUSIVE, reads all of it (an index is built),
            |            ≈1.2 M rows, 340 MB
            |  execute
            |    execute/mongo/1    MongoDB  one transaction, with its record
            |      002-emails/execute.mongodb.js:1
            |      · db.profiles.updateMany({ email: null }, { $set: { email: '' } })
            |          profiles: ≈41 k of ≈1.1 M documents
            |          warning: writes ≈41 k documents of profiles in one transaction; a
            |            backfill does it in batches
            |  cleanup
            |    cleanup/postgres/1 Postgres one transaction, with its record
            |      002-emails/cleanup.sql:1
            |      ┌ ALTER TABLE users ALTER email SET NOT NULL
            |      │   users: ACCESS EXCLUSIVE, reads all of it (no row may be null),
            |      │     ≈1.2 M rows, 340 MB
            |      │   warning: ACCESS EXCLUSIVE on users (≈1.2 M rows, 340 MB), reads all
            |      │     of it: readers and writers wait
            |      └ DO $$ BEGIN END $$
            |          unknown: what it locks: what it runs is not in its text
            |  and is held: its cleanup waits
            |3 warnings; nothing was changed"#]]
        .assert_eq(&at(80));
        expect![[r#"
            |up   002-emails
            |  prepare
            |    prepare/postgres/1 Postgres one transaction, with its record  002-emails/prepare.sql:1
            |      ┌ ALTER TABLE users ADD COLUMN email text
            |      │   users: ACCESS EXCLUSIVE, ≈1.2 M rows, 340 MB
            |      │ CREATE TABLE mails (id bigint PRIMARY KEY, user_id bigint REFERENCES users)
            |      │   users: SHARE ROW EXCLUSIVE, ≈1.2 M rows, 340 MB
            |      └ CREATE INDEX ON users (lower(email))
            |          users: SHARE, reads all of it (an index is built), ≈1.2 M rows, 340 MB
            |          warning: SHARE on users (≈1.2 M rows, 340 MB), reads all of it to build an index: writers wait; CREATE INDEX CONCURRENTLY lets
            |            them through
            |    prepare/postgres/2 Postgres on its own, announced and recorded  002-emails/prepare.sql:5
            |      · CREATE INDEX CONCURRENTLY users_by_email ON users (email)
            |          users: SHARE UPDATE EXCLUSIVE, reads all of it (an index is built), ≈1.2 M rows, 340 MB
            |  execute
            |    execute/mongo/1    MongoDB  one transaction, with its record  002-emails/execute.mongodb.js:1
            |      · db.profiles.updateMany({ email: null }, { $set: { email: '' } })
            |          profiles: ≈41 k of ≈1.1 M documents
            |          warning: writes ≈41 k documents of profiles in one transaction; a backfill does it in batches
            |  cleanup
            |    cleanup/postgres/1 Postgres one transaction, with its record  002-emails/cleanup.sql:1
            |      ┌ ALTER TABLE users ALTER email SET NOT NULL
            |      │   users: ACCESS EXCLUSIVE, reads all of it (no row may be null), ≈1.2 M rows, 340 MB
            |      │   warning: ACCESS EXCLUSIVE on users (≈1.2 M rows, 340 MB), reads all of it: readers and writers wait
            |      └ DO $$ BEGIN END $$
            |          unknown: what it locks: what it runs is not in its text
            |  and is held: its cleanup waits
            |3 warnings; nothing was changed"#]].assert_eq(&at(140));
    }

    #[test]
    fn the_object_has_the_same() {
        let plan = plan();
        let object = object(&plan, &foreseen(&plan), Direction::Up);
        let index = &object["migrations"][0]["steps"][0]["statements"][2];
        let expected = json!([{
            "name": "users", "lock": "SHARE", "does": "scan", "why": "an index is built",
            "rows": 1_200_000, "bytes": 340 << 20, "index_bytes": null, "matches": null,
            "exists": true, "made_here": false,
        }]);
        assert_eq!(index["touches"], expected);
        assert_eq!(index["warnings"].as_array().map(Vec::len), Some(1));
        assert_eq!(object["warnings"][0]["version"], 2);
        assert_eq!(object["warnings"][0]["step"], "prepare/postgres/1");
    }
}
