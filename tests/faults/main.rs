//! The real binary, on real servers, and everything that can go wrong: killed at
//! every place where it writes, killed at any moment, stopped past its lease,
//! twenty at once, told to stop, servers that die, networks that cut.
//!
//! Whatever happened, the same command again makes both stores what they are
//! after an undisturbed run. Needs the feature `failpoints`, see Cargo.toml.

#[path = "../support/session.rs"]
mod session;
#[path = "../support/mod.rs"]
mod support;

#[path = "../support/members.rs"]
mod members;
#[path = "../support/pooler.rs"]
mod pooler;

mod backfills;
mod baseline;
mod blocker;
mod copies_to_mongo;
mod copies_to_postgres;
mod disk;
mod dump;
mod exact;
mod foreign;
mod imported;
mod joined;
mod killed;
mod leases;
mod network;
mod others;
mod phased;
mod project;
mod roles;
mod rows;
mod servers;
mod sets;
mod signals;
mod stopped;
mod time;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Trials that run at once. They mostly wait for leases of the dead.
const AT_ONCE: usize = 6;

/// Runs a trial for 1, 2, 3 and so on, several at once, until one says that there
/// was nothing left to try. Returns how many there were.
fn count_up(trial: impl Fn(usize) -> bool + Sync) -> usize {
    let next = AtomicUsize::new(1);
    let over = AtomicBool::new(false);
    let tried = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match trial(number) {
                        true => tried.fetch_add(1, Ordering::Relaxed),
                        false => return over.store(true, Ordering::Relaxed),
                    };
                }
            });
        }
    });
    tried.into_inner()
}

/// Runs so many trials, several at once.
fn repeat(trials: usize, trial: impl Fn(usize) + Sync) {
    count_up(|number| {
        if number <= trials {
            trial(number);
        }
        number <= trials
    });
}
