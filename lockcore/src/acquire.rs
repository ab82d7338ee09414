//! Acquiring: asking, asking again, waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::attempt::{Answer, Attempt, bounded};
use crate::backend::LockBackend;
use crate::backoff::{Backoff, between};
use crate::claim::{Claim, Contention, ReleaseSignal};
use crate::clock::Moment;
use crate::error::{BackendError, Error, ErrorKind};
use crate::guard::LockGuard;
use crate::hold::Held;
use crate::key::LockKey;
use crate::manager::Shared;
use crate::settings::useful;

/// How long to wait for a key that someone else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all, and not for a failing store either.
    Once,
    /// Not at all.
    None,
    /// For this long in all.
    For(Duration),
    /// As long as it takes.
    Endless,
}

impl Patience {
    fn waits(self) -> bool {
        matches!(self, Self::For(_) | Self::Endless)
    }
}

/// Acquires `key`; `None` only where nobody waits, when someone else holds it or is ahead.
pub(crate) async fn acquire(
    shared: &Arc<Shared>,
    key: &LockKey,
    patience: Patience,
) -> Result<Option<LockGuard>, Error> {
    let Ok(runtime) = Handle::try_current() else {
        return Err(Error::new(ErrorKind::InvalidInput, "a lock needs a tokio runtime to run in")
            .with_key(key));
    };
    let mut progress = Progress::default();
    let work = Acquiring { shared, key, runtime: &runtime, patience, progress: &mut progress };
    let outcome = match patience {
        Patience::For(limit) => {
            let end = Moment::now().after(limit);
            tokio::select! {
                biased;
                outcome = work.run() => outcome,
                () = end.sleep_until() => Err(progress.out_of_time()),
            }
        }
        Patience::Once | Patience::None | Patience::Endless => work.run().await,
    };
    outcome.map_err(|error| error.with_key(key))
}

/// What is known when the time limit strikes.
#[derive(Debug, Default)]
struct Progress {
    /// A request is with the store.
    asking: bool,
    /// Why the last request failed, unless it was answered.
    failure: Option<BackendError>,
    /// The store has answered at least once.
    answered: bool,
}

impl Progress {
    fn out_of_time(&mut self) -> Error {
        match self.failure.take() {
            Some(failure) => doubtful(failure, self.asking).into(),
            None if self.asking && !self.answered => {
                Error::new(ErrorKind::Ambiguous, "the time limit ran out before the store answered")
            }
            None => Error::new(ErrorKind::Contended, "the time limit ran out while others held it"),
        }
    }
}

struct Acquiring<'a> {
    shared: &'a Arc<Shared>,
    key: &'a LockKey,
    runtime: &'a Handle,
    patience: Patience,
    progress: &'a mut Progress,
}

impl Acquiring<'_> {
    async fn run(mut self) -> Result<Option<LockGuard>, Error> {
        let queue = &self.shared.queue;
        let mut turn = match queue.try_enter(self.key) {
            Some(turn) => turn,
            None if !self.patience.waits() => return Ok(None),
            None => queue.enter(self.key).await,
        };
        // Who asks once does not hurry, and must not wait.
        if self.patience.waits()
            && let Some(pause) = turn.give_way()
        {
            tokio::time::sleep(pause).await;
        }
        let mut attempt = Attempt::new(self.shared, self.runtime, self.claim(), turn);
        let mut outage = Outage::new(match self.patience {
            Patience::Once => Duration::ZERO,
            _ => self.shared.settings.retry_for,
        });
        let mut wait = Wait::default();
        loop {
            let failure = match self.ask(&mut attempt).await {
                Ok(Answer::Acquired(started, lease)) => {
                    if !started.after(useful(lease.ttl)).has_come() {
                        let held = Held::new(self.shared, attempt, started, lease);
                        return Ok(Some(LockGuard::new(held, self.runtime)));
                    }
                    // The process or the store stood still meanwhile: nobody may rely on this.
                    BackendError::unavailable("the grant came after its lease had ended")
                }
                Ok(Answer::Contended(_)) if !self.patience.waits() => return Ok(None),
                Ok(Answer::Contended(contention)) => {
                    // A definite answer: this holder is spent.
                    attempt.respawn(self.claim());
                    wait.out(self.shared, attempt.claim(), contention).await;
                    // Only now: while nobody asks, the store does not fail.
                    outage.over();
                    continue;
                }
                Err(error) => error,
            };
            match failure {
                BackendError::Ambiguous(_) | BackendError::Unavailable(_) => {}
                refused => return Err(refused.into()),
            }
            // Only after Ambiguous may the same holder ask again. Whatever else came, if it may
            // hold from earlier on, that is released before another holder asks.
            let ask_again = matches!(failure, BackendError::Ambiguous(_));
            self.pause(&mut outage, failure, attempt.may_hold()).await?;
            if !ask_again {
                self.settle(&mut attempt, &mut outage).await?;
                attempt.respawn(self.claim());
            }
        }
    }

    fn claim(&self) -> Claim {
        self.shared.claim(self.key)
    }

    async fn ask(&mut self, attempt: &mut Attempt) -> Result<Answer, BackendError> {
        self.progress.asking = true;
        let answer = attempt.ask().await;
        self.progress.asking = false;
        if answer.is_ok() {
            self.progress.answered = true;
            self.progress.failure = None;
        }
        answer
    }

    async fn settle(&mut self, attempt: &mut Attempt, outage: &mut Outage) -> Result<(), Error> {
        while attempt.may_hold() {
            if let Err(failure) = attempt.settle().await {
                self.pause(outage, failure, true).await?;
            }
        }
        Ok(())
    }

    /// Waits before the next request after a failed one, or gives up.
    async fn pause(
        &mut self,
        outage: &mut Outage,
        failure: BackendError,
        may_hold: bool,
    ) -> Result<(), Error> {
        tracing::debug!(lock.key = %self.key, error = %failure, "the store did not answer");
        let pause = outage.next(&failure);
        let failure = doubtful(failure, may_hold);
        let Some(pause) = pause else { return Err(failure.into()) };
        self.progress.failure = Some(failure);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Where another request may have been granted, the whole is as doubtful as that.
fn doubtful(failure: BackendError, may_hold: bool) -> BackendError {
    match failure {
        BackendError::Unavailable(source) if may_hold => BackendError::Ambiguous(source),
        other => other,
    }
}

/// How long the store has been failing.
struct Outage {
    retry_for: Duration,
    last_good: Moment,
    asked_again: bool,
    backoff: Backoff,
}

impl Outage {
    fn new(retry_for: Duration) -> Self {
        Self { retry_for, last_good: Moment::now(), asked_again: false, backoff: Backoff::new() }
    }

    fn over(&mut self) {
        *self = Self::new(self.retry_for);
    }

    /// How long to pause before the next try; `None` to give up.
    fn next(&mut self, failure: &BackendError) -> Option<Duration> {
        let left = self.last_good.after(self.retry_for).remaining();
        if left.is_zero() || matches!(failure, BackendError::InvalidInput(_)) {
            return None;
        }
        if matches!(failure, BackendError::Rejected(_)) {
            return None;
        }
        // One lost reply is the most common fault, and asking again at once settles it.
        if matches!(failure, BackendError::Ambiguous(_)) && !self.asked_again {
            self.asked_again = true;
            return Some(Duration::ZERO);
        }
        Some(self.backoff.pause().min(left))
    }
}

/// Waiting for a key that someone else holds.
#[derive(Default)]
struct Wait {
    signal: Option<ReleaseSignal>,
    wakes: u32,
    /// How often in a row the holder's lease should have ended and had not.
    overdue: u32,
}

impl Wait {
    /// Resolves when it is time to ask again.
    async fn out(&mut self, shared: &Shared, claim: &Claim, contention: Contention) {
        let nap = self.nap(shared, contention);
        let asleep = tokio::time::sleep(nap);
        let Some(signal) = &mut self.signal else {
            // What was released before the signal was armed is seen by asking again at once.
            self.arm(shared, claim, nap).await;
            if self.signal.is_none() {
                asleep.await;
            }
            return;
        };
        tokio::select! {
            () = signal => {}
            () = asleep => return,
        }
        // The new signal is armed before the old one goes, so that a backend can keep its
        // subscription, and before asking, so that nothing falls between the two.
        self.arm(shared, claim, shared.settings.poll_floor).await;
        self.wakes += 1;
        if self.wakes > 1 && fastrand::bool() {
            // Others were faster before. Those who lost together come at different times now,
            // and half of them at once, lest a holder that comes back at once always wins.
            tokio::time::sleep(between(Duration::ZERO, Duration::from_millis(4))).await;
        }
    }

    /// How long to sleep when no release is signalled: until the holder's lease ends, and never
    /// longer than the polling floor.
    fn nap(&mut self, shared: &Shared, contention: Contention) -> Duration {
        let floor = shared.settings.poll_floor;
        let nap = match contention.retry_after {
            Some(left) => {
                // A store that is slow to end a lease is asked less and less often meanwhile.
                let soon = Duration::from_millis(1) * (1 << self.overdue);
                self.overdue = if left < soon { (self.overdue + 1).min(20) } else { 0 };
                // A little more, so that it has ended for sure and not everybody comes at once.
                let least = left.max(soon);
                between(least, least.saturating_add(Duration::from_millis(10)))
            }
            None => floor,
        };
        nap.min(between(floor.mul_f64(0.9), floor))
    }

    /// Arms the signal, or goes without where that takes longer than sleeping for `most` would.
    async fn arm(&mut self, shared: &Shared, claim: &Claim, most: Duration) {
        let watch = shared.backend.watch(claim);
        match bounded(shared.settings.request_timeout.min(most), watch).await {
            Ok(signal) => self.signal = Some(signal),
            Err(error) => {
                self.signal = None;
                tracing::debug!(lock.key = %claim.key, %error, "no release signal: polling");
            }
        }
    }
}
