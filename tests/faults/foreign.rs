//! A session of somebody else.

/// A session of somebody else, in the middle of a transaction.
pub struct Foreign {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Foreign {
    /// Runs `begin`, and stands still.
    pub fn new(url: &str, begin: &str) -> Foreign {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
                .await
                .expect("Postgres answers");
            tokio::spawn(connection);
            client.batch_execute(begin).await.expect("a transaction begins");
            client
        });
        Foreign { runtime, client }
    }

    /// Goes on to its end. A session whose server was killed is just dropped.
    pub fn end(self) {
        self.runtime.block_on(self.client.batch_execute("COMMIT")).expect("it commits");
    }
}
