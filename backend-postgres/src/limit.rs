//! How long the server may take for one statement.

use std::time::Duration;

/// How long the server works on one statement, unless set.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement waits for a lock, at most. Locks of ours are held for the time of a
/// commit; longer than this a stranger holds one.
const LOCK_WAIT: u128 = 750;

/// The part of the ttl for which the core waits for a call, unless it is told otherwise.
const PART: u32 = 6;

/// A server with much else to do needs so long now and then, however short the ttl is. What is
/// carried out too late for a lease so short is over soon.
const LEAST: Duration = Duration::from_secs(1);

/// How many times the limit on a statement the next part of a transaction may take to arrive. By
/// default that is less than the core bears failures for, so that others get over such a row.
const SLOW_WIRE: u128 = 4;

/// The limit on one statement, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(u128);

impl Limit {
    pub(crate) fn of(statement: Duration) -> Self {
        // Zero would be no limit at all.
        Self(statement.as_millis().max(1))
    }

    /// That on a call about a lease: an acquire that is carried out when nobody waits for it any
    /// more takes the key for nobody.
    pub(crate) fn for_ttl(self, ttl: Duration) -> Self {
        Self(self.0.min((ttl / PART).max(LEAST).as_millis()))
    }

    /// Short of the limit on the statement, so that the answer says what it waited for.
    fn lock(self) -> u128 {
        LOCK_WAIT.min(self.0 * 3 / 8).max(1)
    }

    pub(crate) fn idle(self) -> u128 {
        self.0 * SLOW_WIRE
    }

    pub(crate) fn values(self) -> [(&'static str, String); 2] {
        [("statement_timeout", self.0.to_string()), ("lock_timeout", self.lock().to_string())]
    }

    /// For the rest of a session.
    pub(crate) fn set(self) -> String {
        let [(statement, limit), (lock, wait)] = self.values();
        format!("SET {statement} = {limit}; SET {lock} = {wait}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: u64) -> Limit {
        Limit::of(Duration::from_millis(millis))
    }

    #[test]
    fn a_lock_is_waited_for_less_long_than_a_statement_may_take() {
        assert_eq!(of(2_000).lock(), 750);
        assert_eq!(of(800).lock(), 300);
        assert_eq!(of(1).lock(), 1);
        assert_eq!(of(0).set(), "SET statement_timeout = 1; SET lock_timeout = 1");
    }

    #[test]
    fn a_statement_takes_no_longer_than_the_core_waits() {
        for (limit, ttl, expected) in [
            (2_000, 30_000, 2_000),
            (2_000, 12_000, 2_000),
            (2_000, 9_000, 1_500),
            (2_000, 6_000, 1_000),
            // Not shorter than a server may need.
            (2_000, 5_000, 1_000),
            (2_000, 10, 1_000),
            (200, 10, 200),
            (60_000, 30_000, 5_000),
        ] {
            assert_eq!(
                of(limit).for_ttl(Duration::from_millis(ttl)),
                of(expected),
                "{limit} {ttl}"
            );
        }
    }
}
