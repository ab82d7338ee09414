//! Moments by clocks that also count while the machine sleeps.

use std::time::{Duration, Instant, SystemTime};

/// An instant by two clocks: one that never jumps, and one that also counts while the machine
/// sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now() }
    }

    /// How long after an earlier moment this is, at most: by the clock that shows more.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let slept = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.at.saturating_duration_since(earlier.at).max(slept)
    }
}
