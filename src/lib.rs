//! One migration history for Postgres and MongoDB.

pub mod core;
pub mod sandbox;
