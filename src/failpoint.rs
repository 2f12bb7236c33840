//! Places where a run can be made to die, for tests: before and after everything
//! that it writes, and between the parts of what is written in several.
//!
//! Only in a build with the feature `failpoints`; in any other, nothing of this
//! module is left, and no variable changes what the program does.

#[cfg(feature = "failpoints")]
pub use armed::{Failpoint, arm, heartbeat, lease_term, reach};

#[cfg(not(feature = "failpoints"))]
use std::time::Duration;

/// A place where a run can be made to die.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_place: &'static str) {}

/// Another term of the lease than the real one.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn lease_term() -> Option<Duration> {
    None
}

/// Another pause between two renewals of the lease than the real one.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn heartbeat() -> Option<Duration> {
    None
}

/// An effect, with a failpoint before it and one after it.
///
/// # Errors
/// The effect's own.
pub async fn around<T>(effect: impl Future<Output = T>, place: &'static str) -> T {
    reach(place);
    let result = effect.await;
    reach(place);
    result
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// What this process does differently. It is the whole process that dies, so
    /// this is the whole process's too.
    #[derive(Clone, Copy, Debug)]
    pub struct Failpoint {
        /// The place at which it happens, counted from 1.
        pub at: Option<usize>,
        /// What happens: the process kills or stops itself.
        pub happens: fn(&'static str),
        /// The lease's term.
        pub lease_term: Option<Duration>,
    }

    static ARMED: OnceLock<Failpoint> = OnceLock::new();
    static REACHED: AtomicUsize = AtomicUsize::new(0);

    /// Makes this process fail, if it is told to.
    pub fn arm(failpoint: Failpoint) {
        ARMED.set(failpoint).expect("a process is armed once");
    }

    /// A place where a run can be made to die.
    pub fn reach(place: &'static str) {
        let reached = REACHED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(armed) = ARMED.get()
            && armed.at == Some(reached)
        {
            (armed.happens)(place);
        }
    }

    /// Another term of the lease than the real one: tests wait for its end.
    pub fn lease_term() -> Option<Duration> {
        ARMED.get()?.lease_term
    }

    /// In the same proportion to the term as the real one.
    pub fn heartbeat() -> Option<Duration> {
        lease_term().map(|term| term / 6)
    }
}
