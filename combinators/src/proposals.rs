//! Proposals for the next token, so that the stores need not be asked twice.
//!
//! Stores that date their tokens answer different ones when asked at once. A proposal that is
//! greater than each of them would choose is taken by all: they agree in the first round. It is
//! derived from what stores have answered, and from this process's clock no more than the time
//! since: a wrong clock cannot push the tokens of a key into the future. Safety does not depend on
//! it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What the first proposal adds to the greatest token seen: for differences of clocks and of
/// network delays. A proposal that is too small costs a second round.
const LEAD: Duration = Duration::from_millis(2);

/// Guesses the greatest token that any of the stores would choose now.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    seen: Mutex<Option<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    token: u64,
    at: Instant,
}

impl Seen {
    fn now(self) -> u64 {
        self.token.saturating_add(micros(self.at.elapsed()))
    }
}

impl Proposals {
    /// A floor for the next claim, at least `least` and at most `most`.
    pub(crate) fn next(&self, least: u64, most: u64) -> u64 {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map_or(least, |seen| seen.now().min(most).max(least))
    }

    /// Learns a token that a store chose itself when asked at `asked`, greater than was proposed.
    pub(crate) fn learn(&self, token: u64, asked: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = match *seen {
            None => Some(Seen { token: token.saturating_add(micros(LEAD)), at: asked }),
            // Without a lead of its own: two processes must not drive each other ahead.
            Some(now) if token > now.now() => Some(Seen { token, at: asked }),
            same => same,
        };
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn proposals_follow_the_stores_and_not_the_clock_of_this_machine() {
        let proposals = Proposals::default();
        assert_eq!(proposals.next(0, u64::MAX), 0);
        assert_eq!(proposals.next(7, u64::MAX), 7);
        proposals.learn(1_000_000, Instant::now());
        assert_eq!(proposals.next(0, u64::MAX), 1_002_000);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(proposals.next(0, u64::MAX), 1_003_000);
        assert_eq!(proposals.next(2_000_000, u64::MAX), 2_000_000);
        assert_eq!(proposals.next(0, 1_000), 1_000);
        // Not back, and ahead only as far as a store is.
        proposals.learn(900_000, Instant::now());
        assert_eq!(proposals.next(0, u64::MAX), 1_003_000);
        proposals.learn(5_000_000, Instant::now());
        assert_eq!(proposals.next(0, u64::MAX), 5_000_000);
    }
}
