//! Metrics: what a monitoring system reads.

pub mod text;
