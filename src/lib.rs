//! One migration history for Postgres and MongoDB.
//!
//! A service embeds [`Migrator`]; the program `migrate` is the same engine with a command
//! line around it. What is listed here is what stays: the modules behind it are public for
//! the program and its tests, are not documented here, and change from release to release.
//!
//! | feature | what it adds |
//! |---|---|
//! | `cli` (default) | the program `migrate`; a service does without it |
//! | `serve` (default) | `migrate serve` |
//! | `embed` (default) | [`embed!`](crate::embed) and `Builder::embedded`: migrations compiled into the service |
//!
//! ```toml
//! [dependencies]
//! lockstep = { version = "0.1", default-features = false, features = ["embed"] }
//! ```

pub mod migrator;

pub use crate::core::id::Version;
pub use crate::core::notice::Notice;
pub use migrator::{
    Applied, Builder, Cleanups, Down, Error, Kind, Migration, MigrationStatus, Migrator, Pace,
    Planned, PlannedStep, State, Status, Up, Waiting,
};
pub use store::mongo::MongoBatch;
pub use store::postgres::{PostgresBatch, Transaction};

/// Its types are part of [`Builder::mongo_options`] and [`MongoBatch`].
pub use mongodb;
/// Its types are part of [`Builder::postgres_config`], [`Transaction`] and
/// [`PostgresBatch`].
pub use tokio_postgres;

/// What [`embed!`](crate::embed) is made with.
#[cfg(feature = "embed")]
pub use include_dir;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod core;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod failpoint;
#[doc(hidden)]
pub mod failure;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod report;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod sandbox;
#[cfg(feature = "serve")]
mod serve;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod store;
