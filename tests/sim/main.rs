//! Exhaustive simulation: the real plans, the real execution and the real lock
//! over two databases in memory.

mod choices;
mod crash;
mod deed;
mod down;
mod edits;
mod mutants;
mod named;
mod race;
mod rollback;
mod scenario;
mod store;
mod world;
