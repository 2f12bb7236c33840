//! Reading migrations: bytes in, [`Migration`]s out, or every problem that the
//! files have, each with file, line and column and what to do instead.
//!
//! [`Migration`]: crate::core::migration::Migration

pub mod folder;
pub mod manifest;
pub mod mongosh;
pub mod sql;
