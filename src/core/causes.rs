//! An error and its causes, on one line.

use std::error::Error;

/// What an error says, and what each of its causes says: drivers leave those out of
/// their own text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
