//! Two databases that are compared.

use crate::support::Database;
use bson::{Document, doc};
use lockstep::core::compare::{Difference, Kind, Verdict};
use lockstep::core::history::Record;
use lockstep::core::id::Version;
use lockstep::core::notice::Notices;
use lockstep::core::parse::manifest::{self, Check};
use lockstep::core::step::Timeouts;
use lockstep::engine::Stop;
use lockstep::engine::compare::{Compared, Task, Unanswered, compare};
use lockstep::store::mongo::{Mongo, MongoConfig};
use lockstep::store::postgres::{Postgres, PostgresConfig};
use lockstep::store::{Lease, Outcome, Run, Store as _};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// Differences are looked at again after this: nobody here is later.
pub const AGAIN: Duration = Duration::from_millis(100);

pub struct Pair {
    pub sql: Client,
    pub mongo: mongodb::Database,
    pub database: Database,
    again: Duration,
}

impl Pair {
    pub async fn new() -> Pair {
        let database = Database::new("compare");
        let (sql, connection) =
            tokio_postgres::connect(&database.postgres_url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let mongo = mongodb::Client::with_uri_str(&database.mongo_uri).await.unwrap();
        let mongo = mongo.database(&database.name);
        Pair { sql, mongo, database, again: AGAIN }
    }

    /// With another time between two looks.
    pub fn looking_again_after(self, again: Duration) -> Pair {
        Pair { again, ..self }
    }

    pub async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.mongo.collection(name)
    }

    /// What `compare = { … }` finds.
    pub async fn try_compare(&self, toml: &str, stop: &Stop) -> Result<Compared, Unanswered> {
        self.told(toml, stop, None, &mut |_| {}).await
    }

    /// The same with a record, and with somebody who listens.
    pub async fn told(
        &self,
        toml: &str,
        stop: &Stop,
        kept: Option<Kept<'_>>,
        notices: &mut dyn Notices,
    ) -> Result<Compared, Unanswered> {
        let toml = format!("[[invariant]]\nname = 'x'\ncompare = {toml}");
        let mut manifest = manifest::read(&toml).unwrap();
        let Check::Compare { postgres, mongo, key, .. } = manifest.invariants.remove(0).check
        else {
            panic!("{toml}");
        };
        let config = PostgresConfig::parse(&self.database.postgres_url).unwrap();
        let run = kept.as_ref().map_or("a", |kept| &kept.run.id);
        let mut in_postgres = Postgres::connect(config, run).await.unwrap();
        if let Some(kept) = &kept {
            in_postgres.found("a pair").await.unwrap();
            let lease = in_postgres.acquire(kept.run).await.unwrap();
            assert!(matches!(lease, Lease::Ours { .. }), "{lease:?}");
        }
        let config = MongoConfig::parse(&self.database.mongo_uri).await.unwrap();
        let mut in_mongo = Mongo::connect(config, "a").await.unwrap();
        let task = Task {
            version: Version(1),
            name: "x",
            record: kept.as_ref().map(|kept| kept.record),
            postgres: &postgres,
            mongo: &mongo,
            key: &key,
            max_age: kept.as_ref().map_or(Duration::MAX, |kept| kept.max_age),
            timeouts: Timeouts::default(),
            again: self.again,
            keep: Duration::ZERO,
        };
        let compared = compare(&mut in_postgres, &mut in_mongo, task, stop, notices).await;
        if kept.is_some() {
            let outcome = Outcome { word: "stopped", error: None, to_version: None };
            in_postgres.release(&outcome).await.unwrap();
        }
        compared
    }

    pub async fn compare(&self, toml: &str) -> Compared {
        let (_sender, stop) = Stop::new();
        self.try_compare(toml, &stop).await.unwrap()
    }

    /// The differences, each as people read it.
    pub async fn differences(&self, toml: &str) -> Vec<String> {
        told(&self.compare(toml).await).iter().map(ToString::to_string).collect()
    }

    /// Nothing differs, and so many rows were compared.
    #[track_caller]
    pub fn expect_clean(compared: &Compared, rows: u64) {
        assert_eq!((&compared.verdict, compared.rows), (&Verdict::Clean, rows));
    }
}

/// Where a comparison records how far it is.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub run: &'a Run,
    pub record: &'a Record,
    pub max_age: Duration,
}

/// The differences of a verdict.
pub fn told(compared: &Compared) -> Vec<Difference> {
    match &compared.verdict {
        Verdict::Clean => Vec::new(),
        Verdict::Diverged { differences, .. } | Verdict::Unresolved { differences, .. } => {
            differences.clone()
        }
    }
}

/// Of a kind.
pub fn of_kind(differences: &[Difference], kind: Kind) -> usize {
    differences.iter().filter(|difference| difference.kind == kind).count()
}

/// A document with some of its fields changed.
pub fn set(fields: Document) -> Document {
    doc! { "$set": fields }
}
