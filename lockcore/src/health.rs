//! One view of the store's health for all of a manager's locks.
//!
//! One outage is one outage: acquires, tasks that wait in the queue and renewals all learn from
//! the first failed request, and from then on one request at a time tries the store again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::{BackendError, Error, ErrorKind};
use crate::seams;

/// How the store answers.
#[derive(Debug)]
pub(crate) struct Health {
    /// The longest pause between two tries for the sake of a lease.
    longest_pause: Duration,
    /// Read without the lock where all is well.
    failing: AtomicBool,
    outage: Mutex<Option<Outage>>,
    changed: Notify,
}

/// The store has been failing, as far as requests were sent.
#[derive(Debug)]
struct Outage {
    since: Moment,
    failures: u64,
    next_try: Moment,
    backoff: Backoff,
    /// As the two above, for acquires. They hold nothing that ends meanwhile.
    next_ask: Moment,
    asks: Backoff,
    last: String,
}

/// For what a caller tries a store that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For a lease, which lives on: to renew it, or to release it.
    Lease,
    /// To acquire.
    Ask,
}

impl Health {
    /// The health of a store that answers. In an outage pauses between tries are of at most
    /// `longest_pause`, and those between acquires of at most a second.
    pub(crate) fn new(longest_pause: Duration) -> Self {
        Self {
            longest_pause,
            failing: AtomicBool::new(false),
            outage: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A request was answered. A refusal is an answer too.
    pub(crate) fn answered(&self) {
        if !self.failing.load(Ordering::Relaxed) || seams::flawed!(OutageHasNoEnd) {
            return;
        }
        let ended = self.outage().take();
        self.failing.store(false, Ordering::Relaxed);
        if let Some(outage) = ended {
            let lasted = Moment::now().since(outage.since);
            tracing::info!(?lasted, failures = outage.failures, "the store answers again");
            self.changed.notify_waiters();
        }
    }

    /// A request that began at `began` was not answered, or the store was not reached.
    pub(crate) fn failed(&self, error: &BackendError, began: Moment) {
        let now = Moment::now();
        let mut outage = self.outage();
        let begins = outage.is_none();
        let known = outage.get_or_insert_with(|| Outage {
            since: began,
            failures: 0,
            next_try: now,
            backoff: Backoff::up_to(self.longest_pause),
            next_ask: now,
            asks: Backoff::new(),
            last: String::new(),
        });
        known.failures += 1;
        known.last = error.to_string();
        if known.next_try <= now {
            known.next_try = now.after(known.backoff.pause());
        }
        if known.next_ask <= now {
            known.next_ask = now.after(known.asks.pause());
        }
        drop(outage);
        self.failing.store(true, Ordering::Relaxed);
        if begins {
            tracing::warn!(%error, "the store does not answer: it is tried again while leases last");
        }
        self.changed.notify_waiters();
    }

    /// Whether the last request failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How many requests have failed in this outage; zero if there is none.
    pub(crate) fn failures(&self) -> u64 {
        if !self.is_failing() {
            return 0;
        }
        self.outage().as_ref().map_or(0, |outage| outage.failures)
    }

    /// Whether the caller may send a request: the store answers, or it is time to try it again.
    /// In an outage each time to try is one caller's. Otherwise: when to ask here again.
    pub(crate) fn may_try(&self, purpose: Purpose) -> Result<(), Moment> {
        if !self.is_failing() || seams::flawed!(EachTriesAtOnce) {
            return Ok(());
        }
        let now = Moment::now();
        let mut outage = self.outage();
        let Some(known) = &mut *outage else { return Ok(()) };
        let next = match purpose {
            Purpose::Lease => known.next_try,
            Purpose::Ask => known.next_try.max(known.next_ask),
        };
        if next > now || seams::flawed!(NobodyTries) {
            return Err(next.max(now.after(Duration::from_millis(1))));
        }
        known.next_try = now.after(known.backoff.pause());
        if purpose == Purpose::Ask {
            known.next_ask = now.after(known.asks.pause());
        }
        Ok(())
    }

    /// Waits until the caller may send a request, or until `until`; whether it may.
    pub(crate) async fn turn_to_try(&self, purpose: Purpose, until: Moment) -> bool {
        loop {
            let changed = self.changed.notified();
            let Err(next) = self.may_try(purpose) else { return true };
            if until.has_come() {
                return false;
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = next.min(until).sleep_until() => {}
            }
        }
    }

    /// The store's failure as an error of a caller that has sent nothing: when the store has been
    /// failing for `patience`, and failed again since the caller knew of `failures`.
    pub(crate) fn given_up(&self, patience: Duration, failures: u64) -> Option<Error> {
        if !self.is_failing() {
            return None;
        }
        let outage = self.outage();
        let known = outage.as_ref()?;
        let over = known.since.after(patience).has_come() && known.failures != failures;
        over.then(|| unavailable(&known.last))
    }

    /// The store's failure as an error of a caller that has sent nothing.
    pub(crate) fn failure(&self) -> Option<Error> {
        if !self.is_failing() {
            return None;
        }
        self.outage().as_ref().map(|outage| unavailable(&outage.last))
    }

    /// When the store began to fail, if it does.
    pub(crate) fn failing_since(&self) -> Option<Moment> {
        if !self.is_failing() {
            return None;
        }
        self.outage().as_ref().map(|outage| outage.since)
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(last: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "the store is unavailable").with_source(last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_one_request_at_a_time_tries_again() {
        let health = Health::new(Duration::from_secs(1));
        assert_eq!(health.may_try(Purpose::Ask), Ok(()));
        health.failed(&BackendError::unavailable("down"), Moment::now());
        assert!(health.may_try(Purpose::Ask).is_err());
        let mut tries = 0;
        let end = Moment::now().after(Duration::from_secs(10));
        let all = async {
            loop {
                if health.turn_to_try(Purpose::Ask, end).await {
                    tries += 1;
                    health.failed(&BackendError::unavailable("down"), Moment::now());
                }
                if end.has_come() {
                    break;
                }
            }
        };
        all.await;
        assert!((8..=30).contains(&tries), "{tries} tries in 10 s");
        health.answered();
        assert_eq!((health.may_try(Purpose::Ask), health.failures()), (Ok(()), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_gives_up_after_another_failure() {
        let health = Health::new(Duration::from_secs(1));
        health.failed(&BackendError::unavailable("down"), Moment::now());
        let known = health.failures();
        let patience = Duration::from_secs(10);
        tokio::time::advance(patience).await;
        assert!(health.given_up(patience, known).is_none());
        health.failed(&BackendError::unavailable("still down"), Moment::now());
        let error = health.given_up(patience, known).expect("over");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("still down"), "{error}");
    }
}
