//! What a store can do, and which claims it takes.

use std::time::Duration;

use super::{Claim, MAX_TOKEN};
use crate::input::InvalidInput;

/// What a store can do: facts, not switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The shortest ttl the store takes.
    pub min_ttl: Duration,
    /// The longest ttl the store takes.
    pub max_ttl: Duration,
    /// How long after its end a lease may still stand in the store (law L3).
    pub expiry_lag: Duration,
    /// The largest `min_token` a claim may carry.
    pub max_token: u64,
    /// The longest that a claim may ask a place in a key's line for. Zero: the store has no lines,
    /// and every acquire competes with all others.
    pub max_wait: Duration,
    /// The most requests that shall be under way in the store at once for one manager. More of
    /// them wait in the process, without using up the time of their requests.
    pub max_in_flight: usize,
}

impl Limits {
    /// Limits on the ttl; no expiry lag, [`MAX_TOKEN`] as the largest token floor, no line, and
    /// 1,024 requests at once.
    #[must_use]
    pub const fn new(min_ttl: Duration, max_ttl: Duration) -> Self {
        Self {
            min_ttl,
            max_ttl,
            expiry_lag: Duration::ZERO,
            max_token: MAX_TOKEN,
            max_wait: Duration::ZERO,
            max_in_flight: 1024,
        }
    }

    /// Says how long after its end a lease may still stand in the store.
    #[must_use]
    pub const fn with_expiry_lag(mut self, expiry_lag: Duration) -> Self {
        self.expiry_lag = expiry_lag;
        self
    }

    /// Lowers the largest token floor; it is never above [`MAX_TOKEN`].
    #[must_use]
    pub const fn with_max_token(mut self, max_token: u64) -> Self {
        self.max_token = if max_token < MAX_TOKEN { max_token } else { MAX_TOKEN };
        self
    }

    /// Says that the store keeps a line for each key, with places of at most `max_wait`.
    #[must_use]
    pub const fn with_line(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Whether the store keeps a line for each key.
    #[must_use]
    pub const fn has_line(&self) -> bool {
        !self.max_wait.is_zero()
    }

    /// Bounds how many requests are under way in the store at once.
    #[must_use]
    pub const fn with_max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = if requests == 0 { 1 } else { requests };
        self
    }

    /// Checks a claim. Every backend calls this first in every call that takes a claim, so that
    /// bad input gets the same answer everywhere, before any I/O.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] when the ttl lies outside `min_ttl..=max_ttl`, the token floor above
    /// `max_token`, the wait is longer than `max_wait` on a store with lines, or the label is
    /// longer than [`Claim::MAX_LABEL`] bytes or contains NUL.
    pub fn check(&self, claim: &Claim) -> Result<(), InvalidInput> {
        self.check_ttl(claim.ttl)?;
        if claim.min_token > self.max_token {
            return Err(InvalidInput::new(format!(
                "a token floor is at most {}, this one is {}",
                self.max_token, claim.min_token
            )));
        }
        if self.has_line() && claim.wait.is_some_and(|wait| wait > self.max_wait) {
            return Err(InvalidInput::new(format!(
                "a place in a line of this store lasts at most {:?}, this claim waits for {:?}",
                self.max_wait,
                claim.wait.unwrap_or_default()
            )));
        }
        check_label(&claim.label)
    }

    pub(crate) fn check_ttl(&self, ttl: Duration) -> Result<(), InvalidInput> {
        if ttl < self.min_ttl || ttl > self.max_ttl {
            return Err(InvalidInput::new(format!(
                "this store takes a ttl from {:?} to {:?}, not {ttl:?}",
                self.min_ttl, self.max_ttl
            )));
        }
        Ok(())
    }
}

pub(crate) fn check_label(label: &str) -> Result<(), InvalidInput> {
    if label.len() > Claim::MAX_LABEL {
        return Err(InvalidInput::new(format!(
            "a label has at most {} bytes, this one has {}",
            Claim::MAX_LABEL,
            label.len()
        )));
    }
    if label.contains('\0') {
        return Err(InvalidInput::new("a label must not contain a NUL byte"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{HolderId, LockKey};

    fn claim(ttl: Duration) -> Claim {
        Claim::new(LockKey::new("k").expect("valid"), HolderId::from_u128(1), ttl)
    }

    #[test]
    fn limits_refuse_what_no_store_can_serve() {
        let limits = Limits::new(Duration::from_millis(10), Duration::from_secs(60));
        let good = claim(Duration::from_secs(1));
        assert_eq!(limits.check(&good), Ok(()));
        for ttl in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
            assert!(limits.check(&claim(ttl)).is_err(), "{ttl:?}");
        }
        assert_eq!(limits.check(&good.clone().with_min_token(MAX_TOKEN)), Ok(()));
        assert!(limits.check(&good.clone().with_min_token(MAX_TOKEN + 1)).is_err());
        assert!(limits.check(&good.clone().with_label("x".repeat(257))).is_err());
        assert!(limits.check(&good.with_label("a\0b")).is_err());
        assert_eq!(limits.with_max_token(u64::MAX).max_token, MAX_TOKEN);
    }
}
