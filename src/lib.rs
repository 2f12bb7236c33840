//! One migration history for Postgres and MongoDB.

#[cfg(feature = "cli")]
pub mod cli;
pub mod core;
pub mod engine;
pub mod failpoint;
pub mod failure;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "cli")]
pub mod sandbox;
#[cfg(feature = "serve")]
mod serve;
pub mod source;
pub mod store;
