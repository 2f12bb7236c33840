//! One migration history for Postgres and MongoDB.

pub mod cli;
pub mod core;
pub mod engine;
pub mod failpoint;
pub mod report;
pub mod sandbox;
pub mod source;
pub mod store;
