//! The binary on real servers, as somebody would type it.
//!
//! Most cases are transcripts: `tests/cases/<name>/case.txt`, with the migrations
//! beside it. See `transcript.rs` for what may stand in one;
//! `UPDATE_EXPECT=1 cargo test --test cases` writes down what happened. The
//! modules at the end hold what is clumsy in a transcript.

#[path = "../support/session.rs"]
mod session;
#[path = "../support/mod.rs"]
mod support;

mod databases;
mod project;
mod transcript;

mod transcripts;

mod backups;
mod compared;
mod crowd;
mod damaged;
mod errors;
mod hooks;
mod imported;
mod json;
mod many;
mod mended;
mod newcomers;
mod odd;
mod restored;
mod sample;
mod screens;
mod secrets;
mod settings;
mod shells;
mod stores;
mod tampered;
mod templates;
mod unlocked;
mod unreachable;
mod wait;
mod written;
mod zero_downtime;
