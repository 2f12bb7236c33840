//! Comparison of real servers, row by row: what differs is found and named, and
//! nothing else, whatever orders the keys have and whoever writes meanwhile.

#[path = "../support/mod.rs"]
mod support;

mod keys;
mod pair;
mod planted;
mod resumed;
mod writers;
