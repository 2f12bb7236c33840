//! Engines and stores with one rule broken. The suite is only worth something
//! if none of them gets through.

use crate::crash::Explorer;
use crate::down::there_and_back;
use crate::race::{Race, two_ups, two_ups_in_mongodb};
use crate::scenario::{Scenario, no_index, posts, users};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One broken rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutant {
    /// Effect and record in two transactions.
    RecordOutsideTheTransaction,
    /// What is in doubt is always done again.
    NoHolds,
    /// What is in doubt is always taken for done.
    AlwaysHolds,
    /// What an interrupted statement left stays.
    NoClear,
    /// A run writes although another has taken its lease.
    NoFence,
    /// The fence is looked at, and then the transaction begins.
    FenceCheckedBeforeTheTransaction,
    /// A migration that has a row is taken for done.
    RowTakenForTruth,
    /// The lease is given back before the work is over.
    LeaseReleasedEarly,
    /// A lease that was taken over before its run was written down is used.
    LeaseNotLookedAtAgain,
    /// Whoever asks is told that the lease is still theirs.
    LeaseNeverLost,
    /// What no transaction holds is not announced.
    StartedNotRecorded,
    /// The way back is not announced.
    RevertingNotAnnounced,
    /// The record comes before the effect.
    AppliedBeforePerform,
    /// Entries of one write are not written together.
    AppendDropsTheSecondHalf,
    /// Decisions look at one history only.
    ReadsOnlyPostgres,
    /// A lost reply is taken for a no.
    ReplyLostTakenForFailure,
    /// A lost request is taken for a yes.
    LossTakenForSuccess,
}

/// Those that a crash must show.
const SHOWN_BY_A_CRASH: [Mutant; 12] = [
    Mutant::NoHolds,
    Mutant::RevertingNotAnnounced,
    Mutant::RecordOutsideTheTransaction,
    Mutant::AlwaysHolds,
    Mutant::NoClear,
    Mutant::RowTakenForTruth,
    Mutant::StartedNotRecorded,
    Mutant::AppliedBeforePerform,
    Mutant::AppendDropsTheSecondHalf,
    Mutant::ReadsOnlyPostgres,
    Mutant::ReplyLostTakenForFailure,
    Mutant::LossTakenForSuccess,
];

/// Those that only two engines at once show, and where.
fn shown_by_a_race() -> [(Mutant, Scenario); 5] {
    [
        (Mutant::NoFence, two_ups()),
        (Mutant::FenceCheckedBeforeTheTransaction, two_ups()),
        (Mutant::LeaseReleasedEarly, two_ups()),
        (Mutant::LeaseNeverLost, two_ups()),
        (Mutant::LeaseNotLookedAtAgain, two_ups_in_mongodb()),
    ]
}

#[test]
fn every_mutant_dies_in_a_race() {
    for (mutant, scenario) in shown_by_a_race() {
        let mut race = Race::new(&scenario, None, [0, 0, 0]);
        race.mutant = Some(mutant);
        match race.explore() {
            Ok(()) => panic!("{mutant:?} survived: the suite has a hole"),
            Err(bad) => println!("{mutant:?}: {}", bad.why),
        }
    }
}

#[test]
fn every_mutant_dies() {
    let scenarios = [
        Scenario::only_up("up", &[users(), posts(), no_index()]),
        there_and_back("up, down to 0, up", 0),
    ];
    for mutant in SHOWN_BY_A_CRASH {
        let died = scenarios.iter().any(|scenario| {
            let mut explorer = Explorer::new(scenario);
            explorer.mutant = Some(mutant);
            // An engine that waits for ever has failed too.
            let told = catch_unwind(AssertUnwindSafe(|| explorer.explore(1).is_err()));
            told.unwrap_or(true)
        });
        assert!(died, "{mutant:?} survived: the suite has a hole");
    }
}
