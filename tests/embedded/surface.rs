//! Everything that docs/library.md says is stable, used. A change that would break a
//! service does not compile here.

use crate::support::Database;
use lockstep::mongodb::bson::{Bson, Document, doc};
use lockstep::mongodb::options::ClientOptions;
use lockstep::{
    Applied, Builder, Cleanups, Down, Error, Kind, Migration, MigrationStatus, Migrator,
    MongoBatch, Notice, Pace, Planned, PlannedStep, PostgresBatch, State, Status, Transaction, Up,
    Version, Waiting, tokio_postgres,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

static MIGRATIONS: lockstep::include_dir::Dir<'_> =
    lockstep::embed!("$CARGO_MANIFEST_DIR/examples/migrations");

fn is_a_handle<T: Clone + std::fmt::Debug + Send + Sync + 'static>() {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_promised_is_there() {
    is_a_handle::<Migrator>();
    let database = Database::new("surface");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let postgres: tokio_postgres::Config = database.postgres_url.parse().expect("a URL");
    let mongo = ClientOptions::parse(&database.mongo_uri).await.expect("a URL");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("005-w")).expect("it can be made");
    std::fs::write(folder.path().join("005-w/up.sql"), "CREATE TABLE {{schema}}.w (id int);")
        .expect("it can be written");
    std::fs::write(folder.path().join("005-w/migration.toml"), "template = true\n")
        .expect("it can be written");
    let builder: Builder = Migrator::builder()
        .folder(folder.path())
        .embedded(&MIGRATIONS)
        .migrations([Migration::new("004-v")
            .file("up.sql", "CREATE TABLE v (id int);")
            .file("down.sql", "DROP TABLE v;")])
        .function("fill_names", async |transaction: &Transaction<'_>| {
            transaction.execute("UPDATE people SET name = mail", &[]).await?;
            Ok(())
        })
        .postgres_batch("fill_rows", async |batch: &PostgresBatch<'_>| {
            let (after, upto): (Option<&[String]>, &[String]) = (batch.after(), batch.upto());
            let _ = (after, upto);
            batch.query("SELECT id FROM people WHERE {batch}", &[]).await?;
            batch.query_one("SELECT count(*) FROM people WHERE {batch}", &[]).await?;
            batch.query_opt("SELECT 1 WHERE $1", &[&false]).await?;
            batch.execute("UPDATE people SET name = mail WHERE {batch}", &[]).await
        })
        .mongo_batch("fill_documents", async |batch: &mut MongoBatch<'_>| {
            let (after, upto): (Option<&Bson>, &Bson) = (batch.after(), batch.upto());
            let _ = (after, upto);
            let collection: String = batch.collection().to_owned();
            let _: Vec<Document> = batch.documents().await?;
            let filter: Document = batch.filter();
            let _: Vec<Document> = batch.find(&collection, filter).await?;
            let _: Document = batch.run_command(doc! { "find": "people" }).await?;
            let _: u64 = batch.insert("log", [doc! {}]).await?;
            batch.update_each("people", [(doc! {}, doc! { "$set": { "a": 1 } })]).await
        })
        .var("schema", "public")
        .postgres_config(postgres)
        .mongo_options(mongo, &database.name)
        .history_schema("public")
        .schema("public")
        .on_notice(move |notice: &Notice| {
            if let Notice::MigrationFinished { version, .. } = notice {
                hears.lock().expect("nobody panicked").push(*version);
            }
        })
        .applied_by("surface")
        .lock_wait(Duration::from_secs(90))
        .require_backup(Duration::from_hours(24))
        .connect_wait(Duration::from_secs(30))
        .timeout(Duration::from_mins(5))
        .pace(Pace::unthrottled());
    let migrator: Migrator = builder.build().expect("they can be read");
    let _ = Pace::careful()
        .rate(1000)
        .batch_time(Duration::from_millis(50))
        .replication_lag_max(Duration::from_secs(1));
    let all: Vec<Version> = (1..=5).map(Version::from).collect();
    assert_eq!(migrator.versions(), all);

    let up = Up::all()
        .to(5)
        .steps(9)
        .release("1.0")
        .allow_out_of_order()
        .cleanups(Cleanups::WithTheRest)
        .roll_back_on_failure();
    let planned: Vec<Planned> = migrator.plan(up.clone()).await.expect("there is a plan");
    let Planned { version, folder: name, is_reverted, steps, .. } = &planned[1];
    assert_eq!((version.0, name.as_str(), *is_reverted), (2, "002-names", false));
    let [PlannedStep { name, store, summary, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!((name.as_str(), *store), ("up/postgres/1", "postgres"));
    assert_eq!(summary, "ALTER TABLE people ADD COLUMN name text; and 2 more");

    let applied: Applied = migrator.up(up).await.expect("it works");
    let Applied { finished, ahead, held, waiting, .. } = applied;
    assert_eq!((finished, ahead, held), (all.clone(), vec![], vec![]));
    let waiting: Vec<(Version, Version, String)> = waiting
        .into_iter()
        .map(|Waiting { version, behind, why, .. }| (version, behind, why))
        .collect();
    assert_eq!(waiting, []);
    assert_eq!(*heard.lock().expect("nobody panicked"), all);
    migrator.wait(5, Duration::from_mins(1)).await.expect("it is there");
    assert_eq!(migrator.cleanup().await.expect("nothing is held").finished, []);

    let status: Status = migrator.status().await.expect("it can be read");
    assert!(status.is_up_to_date());
    assert_eq!(status.run, None);
    let MigrationStatus { version, name, state, is_edited, release, .. } = &status.migrations[3];
    assert_eq!((version.0, name.as_str(), *state, *is_edited), (4, "v", State::Completed, false));
    assert_eq!(release.as_deref(), Some("1.0"));

    // 005 has no down script.
    let error: Error = migrator.down(Down::steps(1)).await.expect_err("it is irreversible");
    assert_eq!((error.kind(), error.code()), (Kind::Refused, "IRREVERSIBLE"));
    assert_eq!((error.exit_code(), error.finished()), (9, &[][..]));
    assert!(error.next().is_some_and(|next| next.contains("write a new migration")));
    assert_eq!(error.details().count(), 0);
    assert!(error.to_string().starts_with("005-w cannot be reverted: "), "{error}");
    for down in [Down::to(4), Down::last_run(), Down::release("1.0")] {
        let error = migrator.plan_down(down).await.expect_err("it is irreversible");
        assert_eq!(error.kind(), Kind::Refused);
    }
    migrator.stop();
    assert!(migrator.status().await.is_ok(), "only what was under way was told to stop");
}
