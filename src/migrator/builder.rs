//! Which migrations, and where they go.

use super::failed::Error;
use super::{Migrator, MongoPlace, Project};
use crate::core::migration::MigrationSet;
use crate::core::notice::Notice;
use crate::core::pace;
use crate::core::parse::folder::{self, Folder};
use crate::core::problem::Problem;
use crate::core::step::{Body, Step};
use crate::core::template::Vars;
use crate::failure::Failure;
use crate::failure::exit::Exit;
use crate::source;
use crate::store::mongo::{MongoBatch, MongoConfig, MongoFunctions};
use crate::store::postgres::{ConnectError, Functions, PostgresBatch, PostgresConfig, Transaction};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// A run that meets another one waits this long for it.
const LOCK_WAIT: Duration = Duration::from_mins(1);

/// Where migrations come from when several places are named.
enum Place {
    Folder(PathBuf),
    Here(Vec<Folder>),
}

/// A migration that is written in the service and not in a folder. What a folder would
/// have as files are texts here, and mean the same.
///
/// ```
/// use lockstep::Migration;
/// let migration = Migration::new("004-fill-names")
///     .file("up.sql", "CALL lockstep.fill_names('1');")
///     .file("down.sql", "UPDATE people SET name = NULL;");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Migration(Folder);

impl Migration {
    /// Called as its folder would be: `004-fill-names`.
    pub fn new(folder: impl Into<String>) -> Migration {
        Migration(Folder { name: folder.into(), files: BTreeMap::new() })
    }

    /// With a file: `up.sql`, `down.mongodb.js`, `migration.toml`.
    pub fn file(mut self, name: impl Into<String>, text: impl Into<String>) -> Migration {
        self.0.files.insert(name.into(), text.into().into_bytes());
        self
    }
}

/// How fast backfills go.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Pace(pace::Settings);

impl Pace {
    /// Watched and throttled, and gentle where rows are locked: as much time between two
    /// batches as they take.
    pub fn careful() -> Pace {
        Pace::default()
    }

    /// As fast as can be: no probes, no pauses.
    pub fn unthrottled() -> Pace {
        Pace(pace::Settings { throttled: false, ..pace::Settings::default() })
    }

    /// This many keys per second at most.
    pub fn rate(mut self, keys_per_second: u64) -> Pace {
        self.0.rate = Some(keys_per_second);
        self
    }

    /// What a batch should take: rows are locked for so long.
    pub fn batch_time(mut self, time: Duration) -> Pace {
        self.0.batch_time = time;
        self
    }

    /// Stands still while a standby or a secondary is further behind.
    pub fn replication_lag_max(mut self, lag: Duration) -> Pace {
        self.0.limits.replication_lag = lag;
        self
    }
}

/// Says which migrations, and where they go. See [`Migrator::builder`].
#[must_use]
pub struct Builder {
    places: Vec<Place>,
    vars: BTreeMap<String, String>,
    functions: Functions,
    mongo_functions: MongoFunctions,
    postgres: Option<Result<PostgresConfig, ConnectError>>,
    postgres_url: Option<String>,
    mongo: Option<MongoPlace>,
    history_schema: Option<String>,
    schema: Option<String>,
    applied_by: Option<String>,
    lock_wait: Duration,
    require_backup: Option<Duration>,
    connect_wait: Option<Duration>,
    timeout: Option<Duration>,
    pace: Pace,
    sink: super::Sink,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            places: Vec::new(),
            vars: BTreeMap::new(),
            functions: Functions::default(),
            mongo_functions: MongoFunctions::default(),
            postgres: None,
            postgres_url: None,
            mongo: None,
            history_schema: None,
            schema: None,
            applied_by: None,
            lock_wait: LOCK_WAIT,
            require_backup: None,
            connect_wait: None,
            timeout: None,
            pace: Pace::default(),
            sink: Arc::new(Mutex::new(|_: &Notice| {})),
        }
    }

    /// The migrations of a folder, which is read by [`build`](Builder::build).
    pub fn folder(mut self, folder: impl AsRef<Path>) -> Builder {
        self.places.push(Place::Folder(folder.as_ref().to_owned()));
        self
    }

    /// The migrations of a folder that was compiled into the service.
    ///
    /// ```no_run
    /// # use lockstep::Migrator;
    /// static MIGRATIONS: lockstep::include_dir::Dir<'_> =
    ///     lockstep::embed!("$CARGO_MANIFEST_DIR/migrations");
    /// let builder = Migrator::builder().embedded(&MIGRATIONS);
    /// ```
    #[cfg(feature = "embed")]
    pub fn embedded(mut self, folder: &include_dir::Dir<'_>) -> Builder {
        self.places.push(Place::Here(super::embedded::folders(folder)));
        self
    }

    /// Migrations that are written in the service.
    pub fn migrations(mut self, migrations: impl IntoIterator<Item = Migration>) -> Builder {
        self.places.push(Place::Here(migrations.into_iter().map(|it| it.0).collect()));
        self
    }

    /// A function that scripts for Postgres call: `CALL lockstep.NAME('1')`.
    ///
    /// It runs in the transaction of its step, between the statements around the call, and
    /// what it writes is committed together with the record that the step is applied: both
    /// or neither, whatever dies. What the call says is part of the step's checksum, so
    /// write a revision into it, and change that when the function comes to do something
    /// else. `CALL` in a down script reverts.
    ///
    /// The program `migrate` has no such function. It says so, and changes nothing, when
    /// it is asked to run or revert such a migration; to everything else it is a migration
    /// like any other.
    ///
    /// ```
    /// use lockstep::{Migration, Migrator};
    ///
    /// let builder = Migrator::builder()
    ///     .migrations([Migration::new("004-fill-names")
    ///         .file("up.sql", "CALL lockstep.fill_names('1');")
    ///         .file("down.sql", "UPDATE people SET name = NULL;")])
    ///     .function("fill_names", async |transaction| {
    ///         for row in transaction.query("SELECT id, mail FROM people", &[]).await? {
    ///             let (id, mail): (i64, String) = (row.get(0), row.get(1));
    ///             let name = mail.split('@').next();
    ///             let update = "UPDATE people SET name = $1 WHERE id = $2";
    ///             transaction.execute(update, &[&name, &id]).await?;
    ///         }
    ///         Ok(())
    ///     });
    /// ```
    pub fn function<F>(mut self, name: &str, function: F) -> Builder
    where
        F: AsyncFn(&Transaction<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        self.functions.add(name, function);
        self
    }

    /// A function that backfills in Postgres call for each of their batches:
    /// `call = "lockstep.NAME('1')"` in the place of `set` or `sql`.
    ///
    /// It runs in the transaction of the batch, which moves the cursor of the backfill
    /// too: of each row, what it writes is committed once, whatever dies. It returns how
    /// many rows it wrote. Everything else (the key, the pace, workers, what is paused,
    /// stopped, or goes on after a crash) is as with any backfill.
    ///
    /// What the call says is part of the step's checksum, as with
    /// [`function`](Builder::function), and what is said there of the program `migrate`
    /// holds here. [`PostgresBatch`] is what it is given.
    ///
    /// ```
    /// use lockstep::{Migration, Migrator};
    ///
    /// let builder = Migrator::builder()
    ///     .migrations([Migration::new("005-fill-names")
    ///         .file("prepare.sql", "ALTER TABLE people ADD COLUMN name text;")
    ///         .file("prepare.down.sql", "ALTER TABLE people DROP COLUMN name;")
    ///         .file("migration.toml", r#"
    ///             [[backfill]]
    ///             name = "names out of mails"
    ///             postgres = { table = "people", call = "lockstep.fill_names('1')" }
    ///         "#)])
    ///     .postgres_batch("fill_names", async |batch| {
    ///         let mut written = 0;
    ///         let mails = "SELECT id, mail FROM people WHERE {batch} FOR UPDATE";
    ///         for row in batch.query(mails, &[]).await? {
    ///             let (id, mail): (i64, String) = (row.get(0), row.get(1));
    ///             let name = mail.split('@').next();
    ///             let update = "UPDATE people SET name = $1 WHERE id = $2";
    ///             written += batch.execute(update, &[&name, &id]).await?;
    ///         }
    ///         Ok(written)
    ///     });
    /// ```
    pub fn postgres_batch<F>(mut self, name: &str, function: F) -> Builder
    where
        F: AsyncFn(&PostgresBatch<'_>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        self.functions.add_batch(name, function);
        self
    }

    /// The same for backfills in MongoDB, where it runs in the transaction of a session,
    /// and so needs a replica set. [`MongoBatch`] is what it is given.
    ///
    /// ```
    /// use lockstep::{Migration, Migrator, mongodb::bson::doc};
    ///
    /// let builder = Migrator::builder()
    ///     .migrations([Migration::new("006-fill-names").file("migration.toml", r#"
    ///         irreversible = "nobody reads the field until then"
    ///
    ///         [[backfill]]
    ///         name = "names out of mails"
    ///         mongo = { collection = "people", call = "lockstep.fill_names('1')" }
    ///     "#)])
    ///     .mongo_batch("fill_names", async |batch| {
    ///         let mut updates = Vec::new();
    ///         for person in batch.documents().await? {
    ///             let name = person.get_str("mail")?.split('@').next().unwrap_or_default();
    ///             let filter = doc! { "_id": person.get("_id") };
    ///             updates.push((filter, doc! { "$set": { "name": name } }));
    ///         }
    ///         batch.update_each("people", updates).await
    ///     });
    /// ```
    pub fn mongo_batch<F>(mut self, name: &str, function: F) -> Builder
    where
        F: AsyncFn(&mut MongoBatch<'_>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>>
            + Send
            + Sync
            + 'static,
    {
        self.mongo_functions.add_batch(name, function);
        self
    }

    /// A variable for migrations that are templates.
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// Where Postgres is: a URL, or libpq's `key=value` form.
    pub fn postgres_url(mut self, url: impl AsRef<str>) -> Builder {
        self.postgres = Some(PostgresConfig::parse(url.as_ref()));
        self.postgres_url = Some(url.as_ref().to_owned());
        self
    }

    /// Where Postgres is, as the driver has it. Not a connection: a run has several.
    pub fn postgres_config(mut self, config: tokio_postgres::Config) -> Builder {
        self.postgres = Some(PostgresConfig::of_driver(config));
        self.postgres_url = None;
        self
    }

    /// Where MongoDB is: a connection string with a database in it.
    pub fn mongo_url(mut self, url: impl Into<String>) -> Builder {
        self.mongo = Some(MongoPlace::Url(url.into()));
        self
    }

    /// Where MongoDB is, as the driver has it. Not a client: what it is told about
    /// durability and where it reads are meant for the service, and a history needs the
    /// strictest.
    pub fn mongo_options(
        mut self,
        options: mongodb::options::ClientOptions,
        database: &str,
    ) -> Builder {
        self.mongo = Some(MongoPlace::Given(Box::new(MongoConfig::of_driver(options, database))));
        self
    }

    /// The schema of the history's tables; `public` if nobody says.
    pub fn history_schema(mut self, schema: impl Into<String>) -> Builder {
        self.history_schema = Some(schema.into());
        self
    }

    /// The `search_path` of the scripts; the server's if nobody says.
    pub fn schema(mut self, schema: impl Into<String>) -> Builder {
        self.schema = Some(schema.into());
        self
    }

    /// Told what happens, while it happens, on the thread of the run.
    pub fn on_notice(mut self, sink: impl FnMut(&Notice) + Send + 'static) -> Builder {
        self.sink = Arc::new(Mutex::new(sink));
        self
    }

    /// Who applies, for the history: the name of the program if nobody says. The machine is
    /// added.
    pub fn applied_by(mut self, name: impl Into<String>) -> Builder {
        self.applied_by = Some(name.into());
        self
    }

    /// Waits this long for another run, a minute if nobody says.
    pub fn lock_wait(mut self, wait: Duration) -> Builder {
        self.lock_wait = wait;
        self
    }

    /// Cleanups begin only with a backup of each store that they touch that is younger
    /// than this: one that `migrate backup record` has recorded. Without, none is asked for.
    pub fn require_backup(mut self, limit: Duration) -> Builder {
        self.require_backup = Some(limit);
        self
    }

    /// Waits this long for databases that are not up yet; not at all if nobody says.
    pub fn connect_wait(mut self, wait: Duration) -> Builder {
        self.connect_wait = Some(wait);
        self
    }

    /// Stops a call between two steps after this time.
    pub fn timeout(mut self, limit: Duration) -> Builder {
        self.timeout = Some(limit);
        self
    }

    /// How fast backfills go.
    pub fn pace(mut self, pace: Pace) -> Builder {
        self.pace = pace;
        self
    }

    /// Reads the migrations. Reaches no database.
    ///
    /// # Errors
    /// [`Kind::Usage`](super::Kind::Usage): everything that is wrong with them, or a URL
    /// that cannot be read.
    pub fn build(self) -> Result<Migrator, Error> {
        let (set, folder) = read(self.places, &self.vars)?;
        let mut postgres = self.postgres.transpose().map_err(|error| {
            Failure::new(Exit::Usage, "BAD_URL", error.to_string())
                .next("write postgres://user:password@host:5432/database")
        })?;
        if postgres.is_none() && self.mongo.is_none() {
            let message = "no database is named";
            let next = "name one with `postgres_url` or `mongo_url`, or both";
            return Err(Failure::new(Exit::Usage, "CONFIG_NO_STORE", message).next(next).into());
        }
        let set = match postgres {
            Some(_) => set,
            None => set.remembered_in_mongo(),
        };
        if let Some(config) = &mut postgres {
            config.history_schema = self.history_schema.unwrap_or(config.history_schema.clone());
            config.schema = self.schema;
        }
        let mongo_url = match &self.mongo {
            Some(MongoPlace::Url(url)) => Some(url.clone()),
            Some(MongoPlace::Given(_)) | None => None,
        };
        Ok(Migrator {
            project: Arc::new(Project {
                set: set
                    .with_functions(self.functions.names())
                    .with_functions(self.mongo_functions.names()),
                folder,
                postgres,
                mongo: self.mongo,
                functions: self.functions,
                mongo_functions: self.mongo_functions,
                urls: [self.postgres_url, mongo_url],
                applied_by: self.applied_by.unwrap_or_else(program),
                lock_wait: self.lock_wait,
                require_backup: self.require_backup,
                connect_wait: self.connect_wait,
                timeout: self.timeout,
                pace: self.pace.0,
                sink: self.sink,
                stop: watch::Sender::new(None),
            }),
        })
    }
}

/// What this program is called.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "service".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// All migrations, and where the programs of those from a folder run.
fn read(
    places: Vec<Place>,
    vars: &BTreeMap<String, String>,
) -> Result<(MigrationSet, PathBuf), Error> {
    let vars = &Values(vars);
    let mut migrations = Vec::new();
    let mut problems = Vec::new();
    let mut dir = None;
    for place in places {
        let (folders, of) = match place {
            Place::Folder(of) => {
                let found = source::folders(&of)
                    .map_err(|error| Failure::of_source(error, &of.display().to_string()))?;
                (found, Some(of))
            }
            Place::Here(folders) => (folders, None),
        };
        let runs = of.is_some() && dir.is_none();
        for folder in folders {
            match folder::read_with(&folder, vars) {
                Ok(migration) => {
                    if !runs && let Some(step) = migration.steps.iter().find(|it| is_program(it)) {
                        let message = "a program runs in its folder, and there is none";
                        let problem = Problem::whole(&step.file, message);
                        problems.push(
                            problem.hint(
                                "name one folder of migrations, the first one, with `folder`",
                            ),
                        );
                    }
                    migrations.push(migration);
                }
                Err(found) => problems.extend(found),
            }
        }
        dir = dir.or(of);
    }
    match MigrationSet::new(migrations) {
        Ok(set) if problems.is_empty() => return Ok((set, dir.unwrap_or_default())),
        Ok(_) => {}
        Err(problem) => problems.push(problem),
    }
    Err(Failure::of_problems(problems).into())
}

fn is_program(step: &Step) -> bool {
    matches!(step.body, Body::Program(_))
}

/// Variables for templates. What is secret is the service's own to know.
struct Values<'a>(&'a BTreeMap<String, String>);

impl Vars for Values<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
    fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
    fn is_secret(&self, _: &str) -> bool {
        false
    }
}
