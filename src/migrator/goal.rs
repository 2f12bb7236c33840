//! What is wanted: how far up, how far down.

use crate::core::id::Version;
use crate::core::migration::OnFailure;
use crate::core::parse::manifest::CleanupPolicy;
use crate::core::plan;

/// How far up.
///
/// ```
/// use lockstep::Up;
/// let up = Up::all().to(7).release("2026.11");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Up {
    to: Option<Version>,
    steps: Option<usize>,
    out_of_order: plan::OutOfOrder,
    cleanups: Cleanups,
    on_failure: OnFailure,
    pub(super) release: Option<String>,
}

/// When cleanups run, of migrations that do not say it themselves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cleanups {
    /// With the rest of their migration, if its invariants hold.
    #[default]
    WithTheRest,
    /// When [`Migrator::cleanup`](super::Migrator::cleanup) or `migrate cleanup` says so.
    Held,
    /// When the next release goes up.
    NextRelease,
}

impl Up {
    /// Everything that is pending.
    pub fn all() -> Up {
        Up::default()
    }

    /// Up to and including this version.
    pub fn to(mut self, version: impl Into<Version>) -> Up {
        self.to = Some(version.into());
        self
    }

    /// This many migrations at most.
    pub fn steps(mut self, migrations: usize) -> Up {
        self.steps = Some(migrations);
        self
    }

    /// The release that goes up, for the history and for
    /// [`Down::release`].
    pub fn release(mut self, release: impl Into<String>) -> Up {
        self.release = Some(release.into());
        self
    }

    /// Applies as well what has a lower version than what is applied already, which is
    /// refused else.
    pub fn allow_out_of_order(mut self) -> Up {
        self.out_of_order = plan::OutOfOrder::Allow;
        self
    }

    /// When cleanups run.
    pub fn cleanups(mut self, cleanups: Cleanups) -> Up {
        self.cleanups = cleanups;
        self
    }

    /// Takes a migration that fails back, with its down scripts.
    pub fn roll_back_on_failure(mut self) -> Up {
        self.on_failure = OnFailure::Rollback;
        self
    }

    pub(super) fn goal(self) -> plan::Up {
        let Up { to, steps, out_of_order, cleanups, on_failure, release } = self;
        let policy = match cleanups {
            Cleanups::WithTheRest => CleanupPolicy::Auto,
            Cleanups::Held => CleanupPolicy::Hold,
            Cleanups::NextRelease => CleanupPolicy::NextRelease,
        };
        plan::Up { to, steps, out_of_order, through: None, policy, release, on_failure }
    }
}

/// How far down.
///
/// ```
/// use lockstep::Down;
/// let everything_above_007 = Down::to(7);
/// let one = Down::steps(1);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Down(plan::Down);

impl Down {
    /// To this version, which stays; 0 is the beginning.
    pub fn to(version: impl Into<Version>) -> Down {
        Down(plan::Down::To(version.into()))
    }

    /// This many migrations, newest applied first.
    pub fn steps(migrations: usize) -> Down {
        Down(plan::Down::Steps(migrations))
    }

    /// What the newest run applied.
    pub fn last_run() -> Down {
        Down(plan::Down::LastRun)
    }

    /// What was applied with this [`Up::release`].
    pub fn release(release: impl Into<String>) -> Down {
        Down(plan::Down::Release(release.into()))
    }

    pub(super) fn goal(self) -> plan::Down {
        self.0
    }
}
