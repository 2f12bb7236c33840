//! Metrics: what a monitoring system reads.
//!
//! A run that ends leaves its figures in a file for the node exporter, or with a
//! Pushgateway: nobody can ask a process that is gone.

pub mod file;
pub mod push;
pub mod run;
pub mod text;
