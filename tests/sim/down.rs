//! Crashes on the way back, and on the way up after it.

use crate::crash::visit;
use crate::scenario::{Ends, Scenario, Stage, down_to, no_index, posts, set, up, users};
use crate::store::Faults;

/// Up; down, which somebody who sees it die types again, or gives up for an
/// `up`; and up.
pub fn there_and_back(name: &'static str, last: u64) -> Scenario {
    let set = set(&[users(), posts(), no_index()]);
    let up_first =
        Stage { goal: up(), set: 0, ends: Ends::Well, then: Some(1), after_crash: vec![0] };
    let down =
        Stage { goal: down_to(last), then: Some(2), after_crash: vec![1, 2], ..up_first.clone() };
    let up_again = Stage { goal: up(), then: None, after_crash: vec![2], ..up_first.clone() };
    Scenario::new(name, vec![set], vec![up_first, down, up_again])
}

/// Up, which somebody who sees it die types again, or gives up for a `down`.
pub fn given_up(name: &'static str) -> Scenario {
    let set = set(&[users(), posts(), no_index()]);
    let up = Stage { goal: up(), set: 0, ends: Ends::Well, then: Some(1), after_crash: vec![0, 1] };
    let down = Stage { goal: down_to(0), then: None, after_crash: vec![1], ..up.clone() };
    Scenario::new(name, vec![set], vec![up, down])
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
