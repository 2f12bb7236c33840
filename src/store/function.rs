//! Functions of the program around us: what is alike about them in both stores.

use std::any::Any;
use std::error::Error;

/// Why a function did not do what it was to do. Whatever it says, what it was called in
/// leaves nothing.
pub(super) type Because = Box<dyn Error + Send + Sync>;

/// What a function said that panicked.
pub(super) fn said_in(panic: &(dyn Any + Send)) -> &str {
    let said = panic.downcast_ref::<&str>().copied();
    said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// An error of this kind, however a function has wrapped it.
pub(super) fn find<'a, T: Error + 'static>(
    mut because: &'a (dyn Error + 'static),
) -> Option<&'a T> {
    loop {
        match because.downcast_ref() {
            Some(error) => return Some(error),
            None => because = because.source()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no names were filled in")]
    struct Wrapped(#[source] Because);

    #[test]
    fn what_the_driver_said_is_found_however_it_is_wrapped() {
        let said = "port=x".parse::<tokio_postgres::Config>().expect_err("no settings");
        let text = said.to_string();
        let wrapped = Wrapped(Box::new(Wrapped(Box::new(said))));
        let found = find::<tokio_postgres::Error>(&wrapped);
        assert_eq!(found.map(ToString::to_string), Some(text));
        let other = Wrapped("nothing of the driver".into());
        assert!(find::<tokio_postgres::Error>(&other).is_none());
    }
}
