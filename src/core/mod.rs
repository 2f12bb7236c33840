//! Decides. Nothing in here does I/O, waits, or knows the time: what two
//! databases and a folder of files say goes in, what to do comes out.
//!
//! Invariant (a test holds it): nothing under `src/core` names tokio, a
//! database driver, the file system, the network or a clock.
//!
//! Reading order: [`id`], [`step`], [`migration`], [`history`], [`plan`];
//! then [`parse`], which makes migrations from bytes.

pub mod backfill;
pub mod backup;
pub mod causes;
pub mod checksum;
pub mod compare;
pub mod destroys;
pub mod doctor;
pub mod duration;
pub mod expectation;
pub mod grouped;
pub mod hex;
pub mod history;
pub mod id;
pub mod import;
#[cfg(feature = "cli")]
pub mod lint;
pub mod locks;
pub mod mapping;
pub mod migration;
pub mod notice;
pub mod one_line;
pub mod outlook;
pub mod pace;
pub mod parse;
pub mod plan;
pub mod problem;
pub mod repair;
pub mod server;
pub mod status;
pub mod step;
pub mod template;
pub mod touches;
pub mod verify;
