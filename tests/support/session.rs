//! A session with Postgres that lives as long as a test wants.

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls};

/// A session, and the runtime on which it goes on while the test does something
/// else. Begins with a statement.
pub fn session(config: &Config, begin: &str) -> (Runtime, Client) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let client = runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.expect("Postgres answers");
        tokio::spawn(connection);
        client.batch_execute(begin).await.expect("it begins");
        client
    });
    (runtime, client)
}
