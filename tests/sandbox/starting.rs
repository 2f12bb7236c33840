//! What starts, and what is said when nothing can.

use bson::doc;
use lockstep::core::id::StoreName;
use lockstep::sandbox::{
    MONGOD_VARIABLE, Notice, Options, POSTGRES_VARIABLE, Programs, Sandbox, SandboxError, With,
};
use tokio_postgres::NoTls;

use super::support::{Database, servers};
use super::{env, folder, is_empty, options, processes, script};

async fn postgres_says(url: &str, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn start(options: &Options) -> Result<Sandbox, SandboxError> {
    Sandbox::start(options, &|notice: Notice| eprintln!("{notice}")).await
}

#[tokio::test]
async fn both_servers_take_writes_and_transactions() {
    let temp = folder();
    let sandbox = start(&options(temp.path())).await.unwrap();

    let url = sandbox.postgres_url.as_deref().unwrap();
    assert_eq!(postgres_says(url, "SELECT 1::text").await, "1");
    assert_eq!(postgres_says(url, "SHOW server_encoding").await, "UTF8");
    assert_eq!(postgres_says(url, "SHOW fsync").await, "off");

    let client =
        mongodb::Client::with_uri_str(sandbox.mongo_uri.as_deref().unwrap()).await.unwrap();
    let database = client.default_database().unwrap();
    let hello = database.run_command(doc! { "hello": 1 }).await.unwrap();
    assert!(hello.get_bool("isWritablePrimary").unwrap(), "{hello}");
    assert_eq!(hello.get_str("setName").unwrap(), "rs0");

    database.create_collection("things").await.unwrap();
    let things = database.collection("things");
    let mut session = client.start_session().await.unwrap();
    for (id, commit) in [(1, true), (2, false)] {
        session.start_transaction().await.unwrap();
        things.insert_one(doc! { "_id": id }).session(&mut session).await.unwrap();
        if commit {
            session.commit_transaction().await.unwrap();
        } else {
            session.abort_transaction().await.unwrap();
        }
    }
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1);

    for store in StoreName::BOTH {
        let pid = format!("{} ", sandbox.pid(store).unwrap());
        assert!(processes(temp.path()).iter().any(|line| line.starts_with(&pid)));
    }
    sandbox.stop().await.unwrap();
    assert!(is_empty(temp.path()));
    assert_eq!(processes(temp.path()), [""; 0]);
}

#[tokio::test]
async fn two_at_once_do_not_collide() {
    let temp = folder();
    let options = options(temp.path());
    let (one, other) = tokio::try_join!(start(&options), start(&options)).unwrap();
    assert_ne!(one.postgres_url, other.postgres_url);
    assert_ne!(one.mongo_uri, other.mongo_uri);
    assert_ne!(one.dir, other.dir);
    one.stop().await.unwrap();
    let url = other.postgres_url.as_deref().unwrap();
    assert_eq!(postgres_says(url, "SELECT 'still there'").await, "still there");
    other.stop().await.unwrap();
    assert!(is_empty(temp.path()));
}

#[tokio::test]
async fn one_store_alone_can_be_asked_for() {
    let temp = folder();
    let options =
        Options { stores: vec![StoreName::Postgres], durable: true, ..options(temp.path()) };
    let sandbox = start(&options).await.unwrap();
    assert_eq!(sandbox.mongo_uri, None);
    let url = sandbox.postgres_url.as_deref().unwrap();
    assert_eq!(postgres_says(url, "SHOW fsync").await, "on");
    assert_eq!(postgres_says(url, "SHOW synchronous_commit").await, "on");
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_the_log_and_leaves_nothing() {
    let temp = folder();
    let broken = folder();
    let mongod = script(broken.path(), "mongod", "echo what is wrong; exit 3");
    let mut options = options(temp.path());
    options.programs.mongod = Some(mongod);
    let error = start(&options).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "MongoDB ended (exit status: 3) instead of starting; the end of its log:\nwhat is wrong"
    );
    assert!(is_empty(temp.path()));
    assert_eq!(processes(temp.path()), [""; 0]);
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_is_given_up_for_another() {
    let temp = folder();
    let broken = folder();
    let mongod = env_programs().mongod.unwrap();
    // The first time, it finds its port taken; the second time it is the real one.
    let once = broken.path().join("once");
    let text = format!(
        "mkdir {once} 2>/dev/null && {{ echo Address already in use; exit 48; }}\nexec {mongod} \"$@\"",
        once = once.display(),
        mongod = mongod.display()
    );
    let mut options = Options { stores: vec![StoreName::Mongo], ..options(temp.path()) };
    options.programs.mongod = Some(script(broken.path(), "mongod", &text));
    let sandbox = start(&options).await.unwrap();
    assert!(once.exists());
    sandbox.stop().await.unwrap();
}

fn env_programs() -> Programs {
    Options::new(&env).programs
}

#[tokio::test]
async fn without_programs_it_says_how_to_get_them() {
    let temp = folder();
    let options = Options { programs: Programs::default(), ..options(temp.path()) };
    let text = start(&options).await.unwrap_err().to_string();
    let expected = "\
found no server programs for Postgres and MongoDB on this machine, and no docker either. One of these helps:
  in a clone of lockstep: run scripts/setup
  Postgres: apt-get install postgresql, brew install postgresql@16, or set LOCKSTEP_POSTGRES_BIN to the folder with initdb
  MongoDB: install mongodb-org-server, brew install mongodb-community, or set LOCKSTEP_MONGOD to the program mongod
  both: install and start Docker, then run `migrate sandbox --with docker`";
    assert_eq!(text, expected);
    assert!(is_empty(temp.path()));

    let mongo = Options { stores: vec![StoreName::Mongo], with: With::Programs, ..options };
    let text = start(&mongo).await.unwrap_err().to_string();
    assert!(
        text.starts_with("found no server programs for MongoDB on this machine. One"),
        "{text}"
    );
    assert!(!text.contains("Postgres"), "{text}");
}

#[tokio::test]
async fn docker_without_a_daemon_is_not_taken_for_a_way_out() {
    let temp = folder();
    let fake = folder();
    let docker = script(fake.path(), "docker", "echo 'Cannot connect to the daemon' >&2; exit 1");
    let programs = Programs { docker: Some(docker), ..Programs::default() };
    let auto = Options { programs, ..options(temp.path()) };
    let text = start(&auto).await.unwrap_err().to_string();
    assert!(
        text.contains("docker is there but does not answer (Cannot connect to the daemon). One"),
        "{text}"
    );
    let asked = Options { with: With::Docker, ..auto };
    let text = start(&asked).await.unwrap_err().to_string();
    assert!(text.starts_with("docker is there but does not answer (Cannot"), "{text}");
    let none = Options { programs: Programs::default(), ..asked };
    let text = start(&none).await.unwrap_err().to_string();
    assert!(text.starts_with("found no program `docker` on the PATH"), "{text}");
}

#[tokio::test]
async fn a_variable_that_names_nothing_is_told() {
    let temp = folder();
    for (variable, expected) in [
        (POSTGRES_VARIABLE, "there is no program /nowhere/initdb; mend LOCKSTEP_POSTGRES_BIN"),
        (MONGOD_VARIABLE, "there is no program /nowhere; mend LOCKSTEP_MONGOD"),
    ] {
        let lookup = |name: &str| {
            if name == variable { Some("/nowhere".to_owned()) } else { env(name) }
        };
        let options = Options { temp: temp.path().to_owned(), ..Options::new(&lookup) };
        let text = start(&options).await.unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
}

/// There is no Docker on most machines that run this: a program that logs what
/// it is asked for stands in, with a real pair behind the ports it names.
#[tokio::test]
async fn containers_are_started_found_and_removed() {
    let temp = folder();
    let fake = folder();
    let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let real = start(&options(temp.path())).await.unwrap();
    let log = fake.path().join("log");
    let docker = script(
        fake.path(),
        "docker",
        &format!(
            "echo \"$*\" >>{log}\n\
             case \"$1 $3\" in 'port 5432/tcp') echo 127.0.0.1:{};; 'port 27017/tcp') echo 127.0.0.1:{};; esac",
            port(real.postgres_url.as_deref().unwrap()),
            port(real.mongo_uri.as_deref().unwrap()),
            log = log.display(),
        ),
    );
    let programs = Programs { docker: Some(docker), ..Programs::default() };
    let sandbox = start(&Options { programs, ..options(temp.path()) }).await.unwrap();
    assert_eq!(sandbox.postgres_url, real.postgres_url);
    assert_eq!(sandbox.mongo_uri, real.mongo_uri);
    assert_eq!(sandbox.pid(StoreName::Postgres), None);
    let (dir, name) = (sandbox.dir.clone(), sandbox.dir.file_name().unwrap().to_owned());
    sandbox.stop().await.unwrap();
    assert!(!dir.exists());

    let name = name.to_str().unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    for expected in [
        format!("--name {name}-postgres --label lockstep.sandbox={name}"),
        format!("--name {name}-mongo --label lockstep.sandbox={name}"),
        format!("port {name}-postgres 5432/tcp"),
        format!("rm -f -v {name}-postgres"),
        format!("rm -f -v {name}-mongo"),
    ] {
        assert!(log.contains(&expected), "{expected}\nis not in\n{log}");
    }
    real.stop().await.unwrap();
}

#[tokio::test]
async fn each_test_has_a_database_of_its_own() {
    let one = Database::new("same-name");
    let other = Database::new("same-name");
    assert_ne!(one.name, other.name);
    assert_eq!(postgres_says(&one.postgres_url, "SELECT current_database()::text").await, one.name);
    let client = mongodb::Client::with_uri_str(&one.mongo_uri).await.unwrap();
    let database = client.default_database().unwrap();
    assert_eq!(database.name(), one.name);
    database.collection("things").insert_one(doc! { "_id": 1 }).await.unwrap();
    let (name, count) =
        (one.name.clone(), "SELECT count(*)::text FROM pg_database WHERE datname = ");
    drop(one);
    let url = &servers().postgres_url;
    assert_eq!(postgres_says(url, &format!("{count}'{name}'")).await, "0");
    assert!(!client.list_database_names().await.unwrap().contains(&name));
}
