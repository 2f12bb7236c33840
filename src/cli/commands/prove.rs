//! `migrate prove`, which comes later.

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;

/// That it is not there yet.
pub fn not_yet() -> Failure {
    Failure::new(Exit::Usage, "NOT_YET", "`migrate prove` is not there yet")
        .next("nothing was touched; until then, `migrate sandbox -- sh -c 'migrate up && migrate down --yes && migrate up'` runs the newest migration up, down and up again on throwaway databases")
}
