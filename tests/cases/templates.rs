//! Templates: what stands for a name, from where, and what becomes of it when the
//! value changes.

use std::fs;

use crate::project::{Project, Ran, write};

const FILES: [(&str, &str); 5] = [
    ("001-a/migration.toml", "template = true\n"),
    (
        "001-a/up.sql",
        "CREATE TABLE {{table}} (region text);\nINSERT INTO {{table}} VALUES ('{{region}}');\n",
    ),
    ("001-a/down.sql", "DROP TABLE {{table}};\n"),
    ("001-a/up.mongodb.js", "db.{{table}}.insertOne({ _id: 1, region: \"{{region}}\" });\n"),
    ("001-a/down.mongodb.js", "db.{{table}}.drop();\n"),
];

/// Variables, flags, and the value that counts.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str], &'a str);

/// `migrate` with variables of the environment.
fn with(project: &Project, variables: &[(&str, &str)], code: i32, arguments: &[&str]) -> Ran {
    let mut command = project.command(arguments);
    command.envs(variables.iter().copied());
    let ran = Ran::of(arguments, command.output().unwrap());
    assert_eq!(ran.code, code, "{ran}");
    ran
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let project = Project::new("templates_layers", &FILES);
    let toml =
        "[vars]\ntable = 'places'\nregion = 'file'\n[env.production.vars]\nregion = 'section'\n";
    write(&project.path("migrate.toml"), toml);
    let region = || project.database.value("SELECT region FROM places");
    let variables = [("MIGRATE_VAR_REGION", "variable")];
    let cases: [Case<'_>; 4] = [
        (&[], &[], "file"),
        (&[], &["--env", "production"], "section"),
        (&variables, &["--env", "production"], "variable"),
        (&variables, &["--var", "region=flag", "--env", "production"], "flag"),
    ];
    for (variables, flags, expected) in cases {
        with(&project, variables, 0, &[&["up"], flags].concat());
        assert_eq!(region(), expected, "{flags:?}");
        let document = project.database.documents("places").remove(0);
        assert_eq!(document.get_str("region").ok(), Some(expected));
        // Without the values, and without the files: the history has what was applied.
        fs::rename(project.path("migrations"), project.path("gone")).unwrap();
        project.ok(&["down", "--yes"]);
        fs::rename(project.path("gone"), project.path("migrations")).unwrap();
        assert_eq!(project.database.objects(), "");
    }
}

#[test]
fn down_needs_no_values() {
    let project = Project::new("templates_down", &FILES);
    project.ok(&["up", "--var", "table=places", "--var", "region=eu"]);
    let ran = project.ok(&["plan", "down"]);
    assert!(ran.stdout.contains("DROP TABLE places"), "{ran}");
    project.ok(&["down", "--yes"]);
    assert_eq!(project.database.objects(), "");
}

#[test]
fn the_plan_shows_what_will_run() {
    let project = Project::new("templates_plan", &FILES);
    let flags = ["--var", "table=places", "--var", "region=eu-1"];
    let ran = project.ok(&[&["plan"], &flags[..]].concat());
    assert!(ran.stdout.contains("CREATE TABLE places"), "{ran}");
    assert!(ran.stdout.contains("'eu-1'"), "{ran}");
    assert!(!ran.said().contains("{{"), "{ran}");
}

#[test]
fn a_name_that_stands_for_nothing_is_told_before_a_database_is_asked() {
    let project = Project::new("templates_unknown", &FILES);
    let nobody = "postgres://app@127.0.0.1:1/shop";
    let arguments = ["up", "--var", "tabel=places", "--var", "region=eu", "--postgres", nobody];
    let ran = project.fails(2, &arguments);
    for part in ["001-a/up.sql:1:14", "there is no variable `table`", "did you mean `tabel`?"] {
        assert!(ran.stderr.contains(part), "`{part}` is not in it:\n{ran}");
    }
    let objects = project.json(2, &arguments);
    let error = &objects[0]["error"];
    assert_eq!(error["code"], "BAD_MIGRATION");
    let more = error["more"].as_array().expect("an array");
    assert_eq!(more.len(), 4, "each of them: {error}");
    let place = more.iter().find(|it| it["file"] == "migrations/001-a/up.sql").expect("its own");
    assert_eq!((&place["line"], &place["column"]), (&1.into(), &14.into()), "{error}");
    assert_eq!(project.database.ours(), Vec::<String>::new());
}

#[test]
fn without_template_two_braces_are_two_braces() {
    let project = Project::new(
        "templates_off",
        &[(
            "001-a/up.sql",
            "CREATE TABLE a AS SELECT '{{region}}' AS text, '{{1,2},{3,4}}'::int[] AS grid;",
        )],
    );
    project.ok(&["up", "--var", "region=eu"]);
    assert_eq!(project.database.value("SELECT text FROM a"), "{{region}}");
    let files = [
        ("migration.toml", "template = true\n"),
        (
            "up.sql",
            "CREATE TABLE b AS SELECT '\\{{region}} {{region}}' AS text, '{ {1,2},{3,4}}'::int[] AS grid;",
        ),
    ];
    for (file, text) in files {
        project.write(&format!("002-b/{file}"), text);
    }
    project.ok(&["up", "--var", "region=eu"]);
    assert_eq!(project.database.value("SELECT text FROM b"), "{{region}} eu");
}

#[test]
fn what_migration_toml_says_is_filled_in_too() {
    let toml = "template = true\n[[backfill]]\nname = 'regions'\n\
        postgres = { table = '{{table}}', set = \"region = '{{region}}'\", where = 'region IS NULL' }\n\
        [[invariant]]\nname = 'every place has a region'\n\
        postgres = \"SELECT count(*) FROM {{table}} WHERE region IS DISTINCT FROM '{{region}}'\"\n";
    let project = Project::new(
        "templates_toml",
        &[
            (
                "001-a/up.sql",
                "CREATE TABLE places (id int PRIMARY KEY, region text);\nINSERT INTO places VALUES (1), (2);",
            ),
            ("002-b/migration.toml", toml),
        ],
    );
    project.ok(&["up", "--var", "table=places", "--var", "region=eu"]);
    assert_eq!(project.database.sql("SELECT region FROM places"), ["eu", "eu"]);
    // Of what is completed nobody needs the values any more, but for applying more.
    project.ok(&["status", "--exit-code"]);
    let ran = project.ok(&["verify"]);
    assert!(ran.stderr.contains("002 is a template whose values are not known here"), "{ran}");
    let ran = project.ok(&["lint"]);
    assert!(ran.stderr.contains("002-b is a template without all of its values"), "{ran}");
    for command in ["up", "plan"] {
        let ran = project.fails(2, &[command, "--var", "table=places"]);
        assert!(ran.stderr.contains("002-b/migration.toml:4:"), "{ran}");
    }
    project.write("002-b/migration.toml", &format!("{toml}# edited\n"));
    let ran = project.ok(&["status"]);
    assert!(ran.stdout.contains("edited after it was applied"), "{ran}");
    project.fails(5, &["verify"]);
    project.write("003-c/migration.toml", "template = true\n");
    project.write("003-c/up.sql", "CREATE TABLE {{other}} (id bigint);");
    // What is pending is shown with what it lacks, and what is done lacks nothing.
    let ran = project.ok(&["status"]);
    let lacks = "`up` refuses it: 003-c/up.sql:1:14: there is no variable `other`";
    assert!(ran.stdout.contains(lacks), "{ran}");
    assert!(!ran.stdout.contains("`region`"), "{ran}");
}

/// Whoever runs nothing needs no values: only what would run refuses.
#[test]
fn what_is_pending_without_values_is_shown_and_not_run() {
    let project = Project::new("templates_pending", &FILES);
    project.write("002-b/up.sql", "CREATE TABLE b (id bigint PRIMARY KEY);");
    for command in ["up", "plan"] {
        let ran = project.fails(2, &[command]);
        assert!(ran.stderr.contains("001-a/up.sql:1:14"), "{ran}");
    }
    let reason =
        "`up` refuses it: 001-a/down.mongodb.js:1:4: there is no variable `table` (and 6 more)";
    let status = project.json(3, &["status", "--exit-code"]).remove(0);
    let [first, second] = &status["migrations"].as_array().expect("an array")[..] else {
        panic!("{status}")
    };
    assert_eq!((&first["state"], &first["reason"]), (&"pending".into(), &reason.into()));
    assert_eq!((&second["state"], second.get("reason")), (&"pending".into(), None));
    assert_eq!(status["pending"], 2);
    let ran = project.ok(&["verify"]);
    let said = "001 is a template whose values are not known here: `up` needs them";
    assert!(ran.stderr.contains(said), "{ran}");

    // The other checks are made all the same.
    let found = project.json(1, &["doctor"]).remove(0);
    let findings = found["findings"].as_array().expect("an array");
    let of = |check: &str| findings.iter().filter(|it| it["check"] == check).collect::<Vec<_>>();
    let [lacks] = of("migrations")[..] else { panic!("{found}") };
    assert_eq!(lacks["level"], "problem");
    let message = lacks["message"].as_str().expect("a text");
    assert!(message.contains("001-a/down.mongodb.js:1:4"), "{found}");
    for check in ["reachable", "history", "requires", "privileges"] {
        assert!(!of(check).is_empty(), "{check} was not looked at: {found}");
    }
    assert_eq!(project.database.ours(), Vec::<String>::new());

    // With the values, nothing lacks.
    let values = ["--var", "table=places", "--var", "region=eu"];
    let status = project.json(0, &[&["status"], &values[..]].concat()).remove(0);
    assert_eq!(status["migrations"][0].get("reason"), None);
    project.ok(&[&["up"], &values[..]].concat());
    let status = project.json(0, &["status", "--exit-code"]).remove(0);
    assert_eq!(status["migrations"][0]["state"], "completed");
    assert_eq!(status["migrations"][0].get("reason"), None);
}

/// One that stopped in the middle is not done because nobody knows its steps.
#[test]
fn what_was_begun_stays_begun_without_values() {
    let project = Project::new("templates_begun", &FILES);
    let values = ["--var", "table=places", "--var", "region=eu"];
    project.database.sql("CREATE TABLE places ()");
    project.write("001-a/migration.toml", "template = true\norder = ['mongo', 'postgres']\n");
    project.fails(1, &[&["up"], &values[..]].concat());
    for values in [&values[..], &[]] {
        let status = project.json(3, &[&["status", "--exit-code"], values].concat()).remove(0);
        let first = &status["migrations"][0];
        assert_eq!(first["state"], "partial", "{status}");
        assert_eq!(first["postgres"], "pending", "{status}");
        assert_eq!(first["checksum"], "ok", "{status}");
        assert_eq!(first.get("reason").is_some(), values.is_empty(), "{status}");
    }
    let ran = project.ok(&["verify"]);
    assert!(ran.stderr.contains("what is applied of it cannot be compared"), "{ran}");
    project.database.sql("DROP TABLE places");
    project.ok(&[&["up"], &values[..]].concat());
    project.ok(&["verify"]);
}

#[test]
fn values_may_change_when_a_migration_is_done_and_not_before() {
    let project = Project::new("templates_changed", &FILES);
    let values = |region: &'static str| ["--var", "table=places", "--var", region];
    project.ok(&[&["up"], &values("region=eu")[..]].concat());
    // The checksum is that of the template: nothing is edited.
    for command in ["up", "verify", "status"] {
        let ran = project.ok(&[&[command], &values("region=us")[..]].concat());
        assert!(!ran.said().contains("edited"), "{ran}");
    }
    // Even if another value makes other steps of it.
    for command in ["up", "verify"] {
        let region = "region=x'); CREATE INDEX CONCURRENTLY i ON places (region); SELECT ('";
        project.ok(&[&[command], &values(region)[..]].concat());
    }
    assert_eq!(project.database.value("SELECT region FROM places"), "eu");

    // Half of it is there with the value of then: the other half belongs to that.
    project.write("002-b/migration.toml", "template = true\n");
    project.write("002-b/up.sql", "UPDATE {{table}} SET region = '{{region}}';");
    project.write("002-b/up.mongodb.js", "db.{{table}}.insertOne({ _id: 1 });");
    project.fails(1, &[&["up"], &values("region=asia")[..]].concat());
    let ran = project.fails(5, &[&["up"], &values("region=africa")[..]].concat());
    for part in ["002-b", "other values", "run it with the values of then"] {
        assert!(ran.stderr.contains(part), "`{part}` is not in it:\n{ran}");
    }
    let objects = project.json(5, &[&["up"], &values("region=africa")[..]].concat());
    assert_eq!(objects[0]["error"]["code"], "VARIABLES_CHANGED");
    project.database.run(bson::doc! { "delete": "places", "deletes": [{ "q": {}, "limit": 0 }] });
    project.ok(&[&["up"], &values("region=asia")[..]].concat());
    project.ok(&[&["verify"], &values("region=asia")[..]].concat());

    // A template that was edited is what it always was.
    project.write("002-b/up.sql", "UPDATE {{table}} SET region = '{{region}}-1';");
    let ran = project.fails(5, &[&["up"], &values("region=asia")[..]].concat());
    assert!(ran.stderr.contains("edited"), "{ran}");
}

#[test]
fn a_secret_does_not_get_into_a_migration() {
    let project = Project::new("templates_secret", &FILES);
    project.write("001-a/up.sql", "CREATE ROLE app PASSWORD '{{app_password}}';");
    let flags = ["--var", "table=a", "--var", "region=b", "--var", "app_password=hunter2"];
    for arguments in [&["plan"][..], &["up"], &["-v", "status"]] {
        let ran = project.fails(2, &[arguments, &flags[..]].concat());
        assert!(ran.stderr.contains("`app_password` is a secret by its name"), "{ran}");
        assert!(!ran.said().contains("hunter2"), "{ran}");
    }
}
