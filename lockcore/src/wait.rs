//! Waiting for a key that someone else holds.

use std::time::Duration;

use crate::backoff::between;
use crate::claim::{Claim, Contention, ReleaseSignal};
use crate::clock::{Moment, sleep};
use crate::seams;
use crate::store::Store;

/// How long a holder that is not signalled sleeps for each place ahead of it, and its own.
const STEP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

/// The state of one task's waiting.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    signal: Option<ReleaseSignal>,
    wakes: u32,
    /// How often in a row the holder's lease should have ended and had not.
    overdue: u32,
}

impl Wait {
    /// Resolves when it is time to ask again. `asked` is when the last answered request began.
    pub(crate) async fn out(
        &mut self,
        store: &Store,
        claim: &Claim,
        contention: Contention,
        asked: Moment,
    ) {
        let listens = self.signal.as_ref().is_some_and(|signal| !signal.is_never());
        let nap = self.nap(store, contention, listens);
        // A place must not end while its holder sleeps.
        let keeps = claim
            .wait
            .filter(|_| contention.ahead.is_some())
            .map(|wait| asked.after(store.sleeps_at_most(wait)));
        let nap = keeps.map_or(nap, |keeps| nap.min(keeps.remaining()));
        let nap = if seams::flawed!(NeverPolls) { Duration::MAX } else { nap };
        let asleep = sleep(nap);
        if store.limits.has_line() && contention.ahead.is_none() {
            // The line is full: nobody signals a holder without a place.
            self.signal = None;
            return asleep.await;
        }
        let Some(signal) = &mut self.signal else {
            // What was released before the signal was armed is seen by asking again at once.
            self.arm(store, claim, nap).await;
            if self.signal.as_ref().is_none_or(ReleaseSignal::is_never) {
                asleep.await;
            }
            return;
        };
        tokio::select! {
            biased;
            () = signal => {}
            () = asleep => return,
        }
        // The new signal is armed before the old one goes, so that a backend can keep its
        // subscription, and before asking, so that nothing falls between the two.
        // A place must not end meanwhile either.
        let most = keeps.map_or(store.settings.poll_every, Moment::remaining);
        self.arm(store, claim, most).await;
        self.wakes += 1;
        if contention.ahead.is_none() && self.wakes > 1 && fastrand::bool() {
            // Others were faster before. Those who lost together come at different times now,
            // and half of them at once, lest a holder that comes back at once always wins.
            sleep(between(Duration::ZERO, Duration::from_millis(4))).await;
        }
    }

    /// Whether a signal has come; only a flaw asks.
    pub(crate) fn was_signalled(&self) -> bool {
        self.wakes > 0
    }

    /// Arms the signal before the first request, where another request would follow anyway.
    /// A place that the holder has must not end meanwhile.
    pub(crate) async fn arm_early(&mut self, store: &Store, claim: &Claim, in_line: bool) {
        let place = claim.wait.filter(|_| in_line).map(|wait| wait / 8);
        self.arm(store, claim, place.unwrap_or(store.settings.poll_every)).await;
    }

    /// How long to sleep when no release is signalled: until the holder's lease ends, and never
    /// longer than the polling interval.
    fn nap(&mut self, store: &Store, contention: Contention, listens: bool) -> Duration {
        let every = store.settings.poll_every;
        let most = between(every.mul_f64(0.9), every);
        if let Some(ahead) = contention.ahead {
            return match (ahead, listens) {
                // The first in line asks when the lease ends.
                (0, true) => self.until_the_end(contention, every).min(most),
                (_, true) => most,
                // Those that are not signalled ask sooner the nearer they are to the front.
                (ahead, false) => {
                    between(STEP.0, STEP.1).saturating_mul(ahead.saturating_add(1)).min(most)
                }
            };
        }
        self.until_the_end(contention, every).min(most)
    }

    fn until_the_end(&mut self, contention: Contention, every: Duration) -> Duration {
        let Some(left) = contention.retry_after else { return every };
        // A store that is slow to end a lease is asked less and less often meanwhile.
        let soon = Duration::from_millis(1) * (1 << self.overdue);
        self.overdue = if left < soon { (self.overdue + 1).min(20) } else { 0 };
        // A little more, so that it has ended for sure and not everybody comes at once.
        let least = left.max(soon);
        between(least, least.saturating_add(Duration::from_millis(10)))
    }

    /// Arms the signal, or goes without where that takes longer than sleeping for `most` would.
    async fn arm(&mut self, store: &Store, claim: &Claim, most: Duration) {
        match store.watch(claim, most).await {
            Ok(signal) => self.signal = Some(signal),
            Err(error) => {
                self.signal = None;
                tracing::debug!(lock.key = %claim.key, %error, "no release signal: polling");
            }
        }
    }
}
