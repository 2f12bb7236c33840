//! `migrate serve` on real servers.
