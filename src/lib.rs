//! One migration history for Postgres and MongoDB.

pub mod core;
pub mod engine;
pub mod sandbox;
pub mod store;
