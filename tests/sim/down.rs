//! Crashes on the way back, and on the way up after it.

use crate::crash::visit;
use crate::scenario::{Scenario, Stage, down_to, no_index, posts, set, stage, up, users};
use crate::store::Faults;

/// Up; down, which somebody who sees it die types again, or gives up for an
/// `up`; and up.
pub fn there_and_back(name: &'static str, last: u64) -> Scenario {
    let set = set(&[users(), posts(), no_index()]);
    let down = Stage { after_crash: vec![1, 2], ..stage(down_to(last), 1, Some(2)) };
    Scenario::new(name, vec![set], vec![stage(up(), 0, Some(1)), down, stage(up(), 2, None)])
}

/// Up, which somebody who sees it die types again, or gives up for a `down`.
pub fn given_up(name: &'static str) -> Scenario {
    let set = set(&[users(), posts()]);
    let up = Stage { after_crash: vec![0, 1], ..stage(up(), 0, Some(1)) };
    Scenario::new(name, vec![set], vec![up, stage(down_to(0), 1, None)])
}

#[test]
fn down_survives_every_crash() {
    visit(&there_and_back("up, down to 1, up", 1), 2, Faults::All);
}

#[test]
fn all_the_way_down_survives_every_crash() {
    visit(&there_and_back("up, down to 0, up", 0), 1, Faults::All);
}

#[test]
fn whatever_up_had_done_can_be_reverted() {
    visit(&given_up("up, down to 0"), 2, Faults::All);
}
