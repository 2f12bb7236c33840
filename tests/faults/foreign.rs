//! A session of somebody else.

use crate::session::session;

/// A session of somebody else, in the middle of a transaction.
pub struct Foreign {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Foreign {
    /// Runs `begin`, and stands still.
    pub fn new(url: &str, begin: &str) -> Foreign {
        let (runtime, client) = session(&url.parse().expect("a URL"), begin);
        Foreign { runtime, client }
    }

    /// Goes on to its end. A session whose server was killed is just dropped.
    pub fn end(self) {
        self.runtime.block_on(self.client.batch_execute("COMMIT")).expect("it commits");
    }
}
