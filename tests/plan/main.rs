//! The planner by text: files and a history in, the plan out. No database, and
//! no clock; see `text` for the language.

mod text;

mod baseline;
mod down;
mod edited;
mod gap;
mod order;
mod partial;
mod phased;
mod reverting;
mod runs;
mod status;
mod up;
