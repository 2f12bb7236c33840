//! What people do: files, commands one after the other, and what they do when
//! one of them dies.

use crate::store::{Sim, connect};
use crate::world::{Book, World};
use lockstep::core::history::Timestamp;
use lockstep::core::id::{StoreName, Version};
use lockstep::core::migration::{Migration, MigrationSet};
use lockstep::core::notice::Notice;
use lockstep::core::pace;
use lockstep::core::parse::folder::{self, Folder};
use lockstep::core::plan::{Down, Goal, Up};
use lockstep::core::server::{MongoServer, PostgresServer, Servers, Topology};
use lockstep::engine::run::{self, Meanwhile, Report, RunError, Settings};
use lockstep::engine::{Clock, Means, Stop};
use lockstep::store::Run;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What people do, from the first command to the last.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The migrations folder, before and after edits.
    pub sets: Vec<MigrationSet>,
    pub servers: Servers,
    pub stages: Vec<Stage>,
    pub book: Rc<Book>,
}

/// One command.
#[derive(Clone, Debug)]
pub struct Stage {
    pub goal: Goal,
    /// Which of the sets.
    pub set: usize,
    pub ends: Ends,
    /// The next command; `None` after the last one.
    pub then: Option<usize>,
    /// The commands that somebody may type when this one died: any of them.
    pub after_crash: Vec<usize>,
    /// The command with the text from before an edit, which somebody restores
    /// when this one is refused because a step in doubt was edited.
    pub before_edit: Option<usize>,
}

/// A command that ends well, and after which there is another one. Who sees it
/// die types it again.
pub fn stage(goal: Goal, at: usize, then: Option<usize>) -> Stage {
    let ends = Ends::Well;
    Stage { goal, set: 0, ends, then, after_crash: vec![at], before_edit: None }
}

/// How a command ends that nothing disturbs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ends {
    Well,
    /// A statement in it is refused.
    Refused,
    /// The same, and what its migration had done is taken back.
    RolledBack,
}

pub fn up() -> Goal {
    Goal::Up(Up::default())
}

pub fn down_to(version: u64) -> Goal {
    Goal::Down(Down::To(Version(version)))
}

/// Reads a folder.
pub fn migration(name: &str, files: &[(&str, &str)]) -> Migration {
    let files = files.iter().map(|(file, text)| ((*file).to_owned(), text.as_bytes().to_vec()));
    let folder = Folder { name: name.to_owned(), files: files.collect() };
    folder::read(&folder).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub fn set(migrations: &[Migration]) -> MigrationSet {
    MigrationSet::new(migrations.to_vec()).expect("versions differ")
}

/// What a project with these stores runs on.
pub fn servers(stores: &[StoreName], topology: Topology) -> Servers {
    let has = |store| stores.contains(&store);
    Servers {
        postgres: has(StoreName::Postgres).then(|| PostgresServer { version: "17.2".to_owned() }),
        mongo: has(StoreName::Mongo).then(|| MongoServer { version: "8.0".to_owned(), topology }),
    }
}

impl Scenario {
    pub fn new(name: &'static str, sets: Vec<MigrationSet>, stages: Vec<Stage>) -> Scenario {
        let servers = servers(&StoreName::BOTH, Topology::ReplicaSet);
        let book = Rc::new(Book::of(&sets));
        Scenario { name, sets, servers, stages, book }
    }

    /// Only `up`, again and again.
    pub fn only_up(name: &'static str, migrations: &[Migration]) -> Scenario {
        Scenario::new(name, vec![set(migrations)], vec![stage(up(), 0, None)])
    }

    pub fn on(self, servers: Servers) -> Scenario {
        Scenario { servers, ..self }
    }

    pub fn start(&self) -> World {
        self.book.start.clone()
    }
}

/// How one run of the engine ended.
pub enum Ended {
    Died,
    /// It looks again and again, with nobody beside it.
    Waits,
    Returned(Result<Report, RunError>),
}

/// A clock that stands still: nothing but what people read depends on it.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
}

/// A run of a command, as `migrate` does it.
pub async fn engine(
    sim: &Rc<Sim>,
    scenario: &Scenario,
    stage: &Stage,
    run_id: &str,
    lock_wait: Duration,
) -> Result<Report, RunError> {
    let mut stores = connect(sim, &scenario.servers.stores(), run_id);
    let (_, stop) = Stop::new();
    let pace = pace::Settings::default();
    let settings = Settings {
        set: &scenario.sets[stage.set],
        servers: &scenario.servers,
        run: Run {
            id: run_id.to_owned(),
            command: "up".to_owned(),
            user: String::new(),
            host: String::new(),
            pid: 1,
            release: None,
            from_version: None,
            reason: None,
        },
        tool_version: "1",
        clock: &Noon,
        lock_wait,
        stop: &stop,
        meanwhile: Meanwhile::Wait,
        means: Means {
            pace: &pace,
            minute: &|| 0,
            migrations: Path::new("."),
            postgres_url: None,
            mongo_url: None,
            hooks: None,
            require_backup: None,
        },
    };
    run::run(&mut stores, &stage.goal, None, settings, &mut |_: Notice| {}).await
}

/// A run with nobody beside it. Simulated stores answer at once, so it never
/// waits unless it is dead.
pub fn engine_alone(sim: &Rc<Sim>, scenario: &Scenario, stage: &Stage, run_id: &str) -> Ended {
    let run = pin!(engine(sim, scenario, stage, run_id, Duration::ZERO));
    match run.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Ended::Returned(result),
        Poll::Pending if sim.engines.borrow().iter().any(|engine| engine.died) => Ended::Died,
        Poll::Pending => Ended::Waits,
    }
}

/// What tasks are spawned on. It is never driven: no heart ever beats, which is
/// the slowest that a heart can be.
pub struct Stage0(tokio::runtime::Runtime);

impl Stage0 {
    pub fn new() -> Stage0 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        Stage0(runtime.expect("a runtime without I/O"))
    }

    pub fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.0.enter()
    }

    /// Whoever sleeps may wake up. Hearts sleep longer.
    pub fn pass_a_moment(&self) {
        self.0.block_on(tokio::time::advance(Duration::from_millis(250)));
    }

    /// Lets go of the tasks that were cancelled.
    pub fn sweep(&self) {
        self.0.block_on(tokio::task::yield_now());
    }
}

/// Two steps in Postgres, then one in MongoDB.
pub fn users() -> Migration {
    migration(
        "001-users",
        &[
            (
                "up.sql",
                "CREATE TABLE users (n int);\nINSERT INTO users VALUES (1);\nCREATE INDEX CONCURRENTLY users_n ON users (n);",
            ),
            ("up.mongodb.js", "db.users.insertOne({ n: 1 });"),
            ("down.sql", "DROP TABLE IF EXISTS users;"),
            ("down.mongodb.js", "db.users.drop();"),
        ],
    )
}

/// Three steps in MongoDB, then one in Postgres.
pub fn posts() -> Migration {
    migration(
        "002-posts",
        &[
            ("migration.toml", "order = [\"mongo\", \"postgres\"]\n"),
            (
                "up.mongodb.js",
                "db.createCollection(\"posts\");\ndb.posts.createIndex({ a: 1 }, { name: \"posts_a\" });\ndb.posts.insertOne({ a: 2 });",
            ),
            ("up.sql", "INSERT INTO users VALUES (2);"),
            ("down.mongodb.js", "db.posts.drop();"),
            ("down.sql", "DELETE FROM users WHERE n = 2;"),
        ],
    )
}

/// In Postgres only; what it removes is of the first migration.
pub fn no_index() -> Migration {
    migration(
        "003-no-index",
        &[
            ("up.sql", "DROP INDEX CONCURRENTLY users_n;\nINSERT INTO users VALUES (3);"),
            (
                "down.sql",
                "CREATE INDEX CONCURRENTLY users_n ON users (n);\nDELETE FROM users WHERE n = 3;",
            ),
        ],
    )
}
