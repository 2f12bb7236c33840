//! `unlock`, and what each flag of `repair` asks, does and leaves behind.

use bson::doc;
use serde_json::{Value, json};

use crate::damaged::applied;
use crate::project::{Project, Running, until};
use crate::session::session;

/// The second migration takes as long as there is a row in `gate`.
const FILES: [(&str, &str); 6] = [
    ("001-gate/up.sql", "CREATE TABLE gate (id integer);\nCREATE TABLE a (id integer);"),
    ("001-gate/down.sql", "DROP TABLE gate;\nDROP TABLE a;"),
    ("001-gate/up.mongodb.js", "db.createCollection(\"a\");"),
    ("001-gate/down.mongodb.js", "db.a.drop();"),
    (
        "002-slow/up.sql",
        "INSERT INTO a VALUES (1);\n\
         DO $$ BEGIN WHILE EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;",
    ),
    ("002-slow/up.mongodb.js", "db.a.insertOne({ _id: 1 });"),
];

/// With a run that is in its long step, and its id.
fn at_work(name: &str) -> (Project, Running, String) {
    let project = Project::new(name, &FILES);
    project.ok(&["up", "--to", "1"]);
    project.database.sql("INSERT INTO gate VALUES (1)");
    let running = project.start(&["up"]);
    let id = "SELECT substr(application_name, 10) FROM pg_stat_activity \
         WHERE datname = current_database() AND query LIKE 'DO %' AND state = 'active'";
    until("a run to be in its long step", || !project.database.sql(id).is_empty());
    let id = project.database.value(id);
    (project, running, id)
}

fn open(project: &Project) {
    project.database.sql("DELETE FROM gate");
}

/// What `history` says about a run.
fn audited(project: &Project, command: &str) -> Vec<Value> {
    let history = project.json(0, &["history"]).pop().unwrap();
    let runs = history["runs"].as_array().unwrap().clone();
    runs.into_iter().filter(|run| run["command"] == command).collect()
}

/// The reasons that each store keeps of one command.
fn reasons(project: &Project, command: &str) -> Vec<String> {
    let mut reasons = project
        .database
        .sql(&format!("SELECT reason FROM migration_runs WHERE command = '{command}'"));
    let runs = project.database.documents("migration_runs");
    let of_command = runs.iter().filter(|run| run.get_str("command").is_ok_and(|it| it == command));
    reasons.extend(of_command.map(|run| run.get_str("reason").unwrap_or("NULL").to_owned()));
    reasons
}

#[test]
fn the_lease_of_a_killed_run_is_taken_away_at_once() {
    let (project, running, id) = at_work("unlock_killed");
    running.kill();
    let locked = project.fails(4, &["up", "--lock-wait", "1ms"]);
    assert!(locked.stderr.contains(&id), "{locked}");
    let status = project.json(0, &["status"]).pop().unwrap();
    assert_eq!(status["lease"]["run_id"], id.as_str());

    let unlocked = project.json(0, &["unlock", "--run", &id, "--reason", "the pod is gone"]);
    let [object] = &unlocked[..] else { panic!("one object") };
    assert_eq!(object["event"], "unlock");
    assert_eq!(object["run_id"], id.as_str());
    assert_eq!(object["stores"], json!(["postgres", "mongo"]));
    assert_eq!(project.database.holders(), Vec::<String>::new());
    assert_eq!(reasons(&project, "unlock"), ["the pod is gone", "the pod is gone"]);
    let [audit] = &audited(&project, "unlock")[..] else { panic!("one row") };
    assert_eq!(audit["reason"], "the pod is gone");
    assert_eq!(audit["stores"], json!(["postgres", "mongo"]));
    let died = audited(&project, "up");
    let died = died.iter().find(|run| run["run_id"] == id.as_str()).unwrap();
    assert_eq!((&died["outcome"], &died["reason"]), (&json!("died"), &json!("the pod is gone")));

    // Its statement is still at work, and is ended before anything else.
    let next = project.start(&["up", "--lock-wait", "1ms"]);
    let old =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lockstep/{id}'");
    until("the dead run's session to be ended", || project.database.value(&old) == "0");
    open(&project);
    let next = next.end();
    assert_eq!(next.code, 0, "{next}");
    assert_eq!(project.database.sql("SELECT id FROM a"), ["1"]);
    assert_eq!(project.database.documents("a").len(), 1);
    project.ok(&["verify"]);
}

/// Not dead after all: it writes nothing any more, and says why.
#[test]
fn a_living_run_whose_lease_is_taken_away_changes_nothing() {
    let (project, running, id) = at_work("unlock_living");
    running.signal("STOP");
    project.ok(&["unlock", "--run", &id, "--reason", "it hangs"]);
    open(&project);
    let second = project.ok(&["up", "--lock-wait", "1ms"]);
    let after = (project.database.history(), project.database.documents("a"));
    running.signal("CONT");
    let first = running.end();
    assert_eq!(first.code, 4, "{first}\nafter {second}");
    assert!(first.stderr.contains("next: "), "{first}");
    assert_eq!(project.database.sql("SELECT id FROM a"), ["1"]);
    assert_eq!((project.database.history(), project.database.documents("a")), after);
    assert_eq!(project.database.holders(), Vec::<String>::new());
    project.ok(&["verify"]);
    let died = audited(&project, "up");
    let died = died.iter().find(|run| run["run_id"] == id.as_str()).unwrap();
    assert_eq!(died["outcome"], "died", "its own end does not overwrite that");

    // Nobody followed it: what it had begun is rolled back.
    let (project, running, id) = at_work("unlock_alone");
    running.signal("STOP");
    project.ok(&["unlock", "--run", &id, "--reason", "it hangs"]);
    open(&project);
    running.signal("CONT");
    let first = running.end();
    assert_eq!(first.code, 4, "{first}");
    assert_eq!(project.database.sql("SELECT id FROM a"), Vec::<String>::new());
    assert_eq!(project.database.documents("a").len(), 0);
    project.ok(&["up"]);
    assert_eq!(project.database.sql("SELECT id FROM a"), ["1"]);
}

/// It was stopped with its transaction ready, and the row that fences it is closed
/// to others.
#[test]
fn a_run_that_stands_in_an_open_transaction_is_unlocked() {
    let (project, running, id) = at_work("unlock_open");
    running.signal("STOP");
    // What the run would do next, and does not come to do.
    let session = Holding::new(&project, &id);
    let unlocked = project.ok(&["unlock", "--run", &id, "--reason", "it hangs"]);
    assert!(unlocked.stderr.contains("took the lease in postgres and mongo away"), "{unlocked}");
    drop(session);
    open(&project);
    project.ok(&["up", "--lock-wait", "1ms"]);
    running.signal("CONT");
    assert_eq!(running.end().code, 4);
    assert_eq!(project.database.sql("SELECT id FROM a"), ["1"]);
}

/// A session of a run's name that has its row in `migration_runs` locked.
struct Holding {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Holding {
    fn new(project: &Project, id: &str) -> Holding {
        let mut config: tokio_postgres::Config =
            project.database.postgres_url.parse().expect("a URL");
        config.application_name(format!("lockstep/{id}"));
        let update =
            format!("BEGIN; UPDATE migration_runs SET writes = writes + 1 WHERE run_id = '{id}'");
        let (runtime, client) = session(&config, &update);
        Holding { runtime, client }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // It was ended: a run whose lease is taken away has nothing to commit.
        let committed = self.runtime.block_on(self.client.batch_execute("COMMIT"));
        assert!(committed.is_err() || std::thread::panicking());
    }
}

#[test]
fn only_the_run_that_has_the_lease_loses_it() {
    let (project, running, id) = at_work("unlock_wrong");
    for wrong in ["00000000-0000-4000-8000-000000000000", "nonsense", ""] {
        let error =
            project.json(2, &["unlock", "--run", wrong, "--reason", "a typo"]).pop().unwrap();
        assert_eq!(error["code"], "NOT_THE_HOLDER", "{error:#}");
        assert!(error["next"].as_str().unwrap().contains("`migrate status`"), "{error:#}");
    }
    let unexplained = project.fails(2, &["unlock", "--run", &id]);
    assert!(unexplained.stderr.contains("--reason"), "{unexplained}");
    assert_eq!(project.database.holders().len(), 2);
    assert_eq!(reasons(&project, "unlock"), Vec::<String>::new());
    open(&project);
    let ended = running.end();
    assert_eq!(ended.code, 0, "{ended}");
    // And now nobody has it.
    project.fails(2, &["unlock", "--run", &id, "--reason", "too late"]);
    let fresh = Project::new("unlock_fresh", &FILES);
    fresh.fails(2, &["unlock", "--run", &id, "--reason", "nobody was here"]);
    assert_eq!(fresh.database.ours(), Vec::<String>::new(), "and nothing was created");
}

/// None of them does anything without somebody's yes, and each leaves a row in both
/// stores with the reason.
#[test]
fn every_repair_is_confirmed_and_audited() {
    let project = applied("audited", &[]);
    let healthy = project.ok(&["repair"]);
    assert!(healthy.stdout.contains("nothing to repair"), "{healthy}");
    let healthy = project.json(0, &["repair"]).pop().unwrap();
    assert_eq!((&healthy["event"], &healthy["findings"]), (&json!("repair"), &json!([])));
    let verify = project.json(0, &["verify"]).pop().unwrap();
    assert_eq!((&verify["ok"], &verify["findings"]), (&json!(true), &json!([])));
    assert_eq!(audited(&project, "repair"), Vec::<Value>::new(), "a question is no repair");

    let before = project.database.history();
    let flags: [&[&str]; 6] = [
        &["--accept-checksum", "2"],
        &["--replay", "postgres"],
        &["--redo", "3/up/postgres/1"],
        &["--pair"],
        &["--mark-reverted", "003/up/postgres/1", "--store", "postgres"],
        &["--mark-applied", "003/up/postgres/1", "--store", "postgres"],
    ];
    for (at, flags) in flags.into_iter().enumerate() {
        let arguments = [&["repair"], flags].concat();
        if !flags.contains(&"--mark-applied") {
            let refused = project.json(9, &arguments).pop().unwrap();
            assert_eq!(refused["code"], "UNCONFIRMED", "{refused:#}");
            assert!(refused["next"].as_str().unwrap().contains("--yes"), "{refused:#}");
        }
        assert_eq!(audited(&project, "repair").len(), at);
        let reason = format!("reason {at}");
        let arguments = [&arguments[..], &["--yes", "--reason", &reason]].concat();
        let done = project.json(0, &arguments).pop().unwrap();
        assert_eq!(done["event"], "repair", "{done:#}");
        let key = if flags.contains(&"--pair") { "pair" } else { "done" };
        assert!(!done[key].is_null(), "{done:#}");
        let audit = audited(&project, "repair");
        assert_eq!(audit.len(), at + 1);
        assert_eq!(audit[0]["reason"], reason.as_str());
        assert_eq!(audit[0]["outcome"], "ok");
        assert_eq!(audit[0]["stores"], json!(["postgres", "mongo"]));
        assert_eq!(project.database.holders(), Vec::<String>::new());
    }
    // --redo has run it once more.
    assert_eq!(project.database.sql("SELECT n FROM users ORDER BY id"), ["202", "204"]);
    project.ok(&["up"]);
    project.ok(&["verify"]);
    assert_eq!(project.database.history().len(), before.len());
}

/// What is not wrong is not mended.
#[test]
fn a_repair_of_what_is_not_broken_is_no_repair() {
    let project = applied("not_broken", &["--to", "2"]);
    let before = (project.database.history(), project.database.sql("SELECT * FROM migration_runs"));
    for (arguments, says) in [
        (&["--accept-checksum", "3"][..], "003 is not applied"),
        (&["--accept-checksum", "9"], "009 is not applied"),
        (&["--mark-applied", "2/up/postgres/1"], "is applied already"),
        (&["--mark-applied", "2/up/postgres/9"], "is not a step that Postgres knows"),
        (&["--mark-applied", "all"], "no record is lacking"),
        (&["--mark-applied", "nonsense"], "is not a step"),
        (&["--mark-reverted", "3/up/postgres/1"], "is not applied already"),
        (&["--mark-reverted", "9"], "009 is not applied"),
        (&["--redo", "3/up/postgres/1"], "003 is not applied"),
        (&["--accept-checksum", "1", "--pair"], "cannot be used with"),
    ] {
        let ran = project.fails(2, &[&["repair"], arguments, &["--yes"]].concat());
        assert!(ran.stderr.contains(says), "{says}\n{ran}");
    }
    let after = (project.database.history(), project.database.sql("SELECT * FROM migration_runs"));
    assert_eq!(after, before);
}

/// A command that nobody can ask the server about, and a run that died in it.
#[test]
fn only_a_person_can_tell() {
    for (flag, runs) in [("--mark-applied", "ok up/mongo/2"), ("--mark-reverted", "ok up/mongo/1")]
    {
        let project = Project::new(
            "in_doubt",
            &[
                (
                    "001-a/up.mongodb.js",
                    "db.runCommand({ planCacheClear: \"a\" });\ndb.a.insertOne({ _id: 1 });",
                ),
                ("001-a/down.mongodb.js", "db.a.drop();"),
            ],
        );
        project.database.run(doc! { "create": "a" });
        project.ok(&["up"]);
        // As if it had died right after the command.
        project.database.run(doc! { "delete": "a", "deletes": [{ "q": {}, "limit": 0 }] });
        for (collection, query) in
            [("migration_steps", doc! { "event": "applied" }), ("migration_history", doc! {})]
        {
            project
                .database
                .run(doc! { "delete": collection, "deletes": [{ "q": query, "limit": 0 }] });
        }
        project.database.sql("DELETE FROM migration_history");
        let asked = project.fails(1, &["up"]);
        let command = format!("migrate repair {flag} 001/up/mongo/1");
        assert!(asked.stderr.contains(&format!("`{command}`")), "{asked}");
        project.ok(&["repair", flag, "001/up/mongo/1", "--yes"]);
        let up = project.ok(&["up"]);
        assert!(up.stderr.contains(runs), "{up}");
        assert_eq!(project.database.documents("a").len(), 1);
        project.ok(&["verify"]);
    }
}

/// Files that were edited or are gone, and histories that differ, all at once.
#[test]
fn verify_finds_everything_at_once() {
    let project = applied("everything", &[]);
    project.write("001-users/down.sql", "DROP TABLE users; -- gone");
    project.write("002-orders/down.sql", "DROP TABLE orders; -- gone");
    let object = project.json(5, &["verify"]).pop().unwrap();
    let findings = object["findings"].as_array().unwrap();
    let seen: Vec<_> =
        findings.iter().map(|it| (it["code"].as_str(), it["version"].as_u64())).collect();
    let edited = Some("CHECKSUM_MISMATCH");
    assert_eq!(seen, [(edited, Some(1)), (edited, Some(2))]);
    for finding in findings {
        let next = finding["next"].as_str().unwrap();
        let accept = format!("`migrate repair --accept-checksum 00{}`", finding["version"]);
        assert!(next.contains(&accept), "{next}");
    }
    project.ok(&["repair", "--accept-checksum", "1", "--yes"]);
    project.fails(5, &["verify"]);
    project.ok(&["repair", "--accept-checksum", "2", "--yes"]);
    project.ok(&["verify"]);

    crate::project::remove(&project.path("migrations/001-users"));
    let verify = project.fails(5, &["verify"]);
    assert!(
        verify.stdout.contains("001 is applied, but no longer in the migrations folder"),
        "{verify}"
    );
    let object = project.json(5, &["verify"]).pop().unwrap();
    assert_eq!(object["findings"][0]["code"], "MISSING");
}
