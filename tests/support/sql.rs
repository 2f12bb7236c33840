//! Statements in a session of their own.

use super::{block_on, chain};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Runs statements. Returns the first column of every row.
#[track_caller]
pub fn sql(url: &str, statements: &str) -> Vec<String> {
    let ran = block_on(async || {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(statements).await;
        drop(client);
        // The session is gone when this returns.
        let _ = connection.await;
        messages
    });
    let messages = ran.unwrap_or_else(|error| panic!("{statements}: {}", chain(&error)));
    let first = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.into_iter().filter_map(first).collect()
}

/// The answer to a question.
#[track_caller]
pub fn number(url: &str, question: &str) -> i64 {
    let answer = sql(url, question).into_iter().next();
    let answer = answer.unwrap_or_else(|| panic!("{question}: no answer"));
    answer.parse().unwrap_or_else(|_| panic!("{question}: {answer} is no number"))
}
