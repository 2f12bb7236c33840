//! One file per command.

pub mod backfill;
pub mod backup;
pub mod baseline;
pub mod cleanup;
pub mod completions;
pub mod doctor;
pub mod down;
pub mod history;
pub mod import;
pub mod init;
pub mod lint;
pub mod man;
pub mod new;
pub mod plan;
pub mod prove;
pub mod repair;
pub mod sandbox;
#[cfg(feature = "serve")]
pub mod serve;
pub mod status;
pub mod unlock;
pub mod up;
pub mod verify;
pub mod wait;
