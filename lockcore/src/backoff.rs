//! Pauses between attempts.

use std::time::Duration;

/// Doubling pauses between retries of a store that does not answer, each drawn between half of
/// it and all of it, so that clients who failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(50);
    pub(crate) const LARGEST: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self::up_to(Self::LARGEST)
    }

    /// Pauses of at most `longest`, and of at most a second.
    pub(crate) fn up_to(longest: Duration) -> Self {
        let longest = longest.min(Self::LARGEST);
        Self { next: Self::FIRST.min(longest), longest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        between(pause / 2, pause)
    }
}

/// A random duration from `least` to `most`.
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    least.saturating_add(most.saturating_sub(least).mul_f64(fastrand::f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::new();
        let mut most = Duration::from_millis(50);
        for _ in 0..10 {
            let pause = backoff.pause();
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
            most = (most * 2).min(Duration::from_secs(1));
        }
        assert_eq!(between(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        assert!(between(Duration::from_secs(1), Duration::MAX) >= Duration::from_secs(1));
    }
}
