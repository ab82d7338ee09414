//! Acquiring: asking, asking again, waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::attempt::{Answer, Attempt};
use crate::claim::{Claim, Lease};
use crate::clock::{Moment, sleep};
use crate::error::{BackendError, Error, ErrorKind};
use crate::guard::LockGuard;
use crate::health::Purpose;
use crate::held::Held;
use crate::key::LockKey;
use crate::queue::{Baton, Turn};
use crate::seams;
use crate::settings::useful;
use crate::shared::Shared;
use crate::store::in_time;
use crate::wait::Wait;

mod outage;

use outage::{Known, Outage, doubtful, may_begin};

/// How long to wait for a key that someone else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all, and not for a failing store either.
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
    // The chosen runtime runs tasks; timers and requests run where the caller is polled.
    let Ok(here) = Handle::try_current() else {
        return Err(Error::new(ErrorKind::InvalidInput, "a lock needs a tokio runtime to run in")
            .with_key(key));
    };
    let runtime = shared.runtime_or(here);
    let mut progress = Progress::default();
    let mut work = Acquiring { shared, key, runtime: &runtime, patience, progress: &mut progress };
    let outcome = match patience {
        Patience::For(limit) => {
            let end = Moment::now().after(limit);
            tokio::select! {
                biased;
                outcome = work.run() => outcome,
                () = end.sleep_until(), if !seams::flawed!(TimeLimitIgnored) => {
                    Err(progress.out_of_time(shared))
                }
            }
        }
        Patience::None | Patience::Endless => work.run().await,
    };
    match outcome {
        Ok(held) => Ok(held.map(|held| LockGuard::new(shared, held, runtime))),
        Err(error) => Err(error.with_key(key)),
    }
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
    fn out_of_time(&mut self, shared: &Shared) -> Error {
        match self.failure.take() {
            Some(failure) => doubtful(failure, self.asking).into(),
            None if self.asking && !self.answered => {
                Error::new(ErrorKind::Ambiguous, "the store did not answer within the time limit")
            }
            // Behind others of this process: their outage is this task's too.
            None => shared.store.health.failure().unwrap_or_else(|| {
                Error::new(ErrorKind::Contended, "the time limit ran out while others held it")
            }),
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

/// What came of one turn.
enum Outcome {
    Acquired(Arc<Held>),
    /// Someone else has the key, and nobody waits.
    Taken,
    /// Others have taken the turn over: the task has to queue again.
    Overtaken,
}

impl Acquiring<'_> {
    async fn run(&mut self) -> Result<Option<Arc<Held>>, Error> {
        let now = Moment::now();
        let began = Known { since: now, failures: self.shared.store.health.failures() };
        if let Some(turn) = self.shared.queue.try_enter(self.key) {
            match self.talk(turn, began, now).await? {
                Outcome::Acquired(held) => return Ok(Some(held)),
                Outcome::Taken => return Ok(None),
                Outcome::Overtaken => {}
            }
        }
        // Boxed, as all that an acquire of a free key does not need: it makes the future of every
        // acquire large, and large futures are copied about.
        if self.patience.waits() {
            Box::pin(self.queued(began)).await
        } else {
            Box::pin(self.after_a_release(began)).await
        }
    }

    /// Waits for the turn behind others of this process, then goes on as they did.
    async fn queued(&mut self, began: Known) -> Result<Option<Arc<Held>>, Error> {
        loop {
            let turn = self.enter().await?;
            // It may have lain there while the runtime of this task stood still.
            let now = Moment::now();
            let until = now.after(self.shared.store.settings.ttl);
            if !turn.goes_on(until) && !seams::flawed!(OvertakenGoesOn) {
                continue;
            }
            match self.talk(turn, began, now).await? {
                Outcome::Acquired(held) => return Ok(Some(held)),
                Outcome::Taken => return Ok(None),
                Outcome::Overtaken => seams::reached("a task that was overtaken queued again"),
            }
        }
    }

    /// Waits for the turn of this task.
    async fn enter(&self) -> Result<Turn, Error> {
        let Shared { queue, store, .. } = &**self.shared;
        let (health, retry_for) = (&store.health, store.settings.retry_for);
        let failures = health.failures();
        let give_up =
            || health.given_up(retry_for, failures).filter(|_| !seams::flawed!(OutageNotTold));
        queue.enter(self.key, give_up).await
    }

    /// Asks once, if a release of this process is on its way. `None` where another task has the key
    /// or wants it. The whole takes no longer than one request may.
    async fn after_a_release(&mut self, began: Known) -> Result<Option<Arc<Held>>, Error> {
        let Shared { queue, store, .. } = &**self.shared;
        if let Some(failure) = store.health.failure() {
            return Err(failure);
        }
        if !queue.is_ending(self.key) {
            return Ok(None);
        }
        let limit = store.settings.request_timeout;
        // Half of it is left for the request.
        let turn = queue.enter(self.key, || store.health.failure());
        let Some(turn) = in_time(limit / 2, turn).await else { return Ok(None) };
        let left = began.since.after(limit).remaining();
        match in_time(left, self.talk(turn?, began, Moment::now())).await {
            Some(Ok(Outcome::Acquired(held))) => Ok(Some(held)),
            Some(Ok(Outcome::Taken | Outcome::Overtaken)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(self.progress.out_of_time(self.shared)),
        }
    }

    /// Asks for the key, with the turn, which the task has got at the moment `now`.
    async fn talk(&mut self, mut turn: Turn, began: Known, now: Moment) -> Result<Outcome, Error> {
        let mut wait = Wait::default();
        let (claim, in_line) = match turn.take_baton() {
            Some(Baton::Lease(claim, started, lease)) => {
                if !started.after(useful(lease.ttl)).has_come() {
                    let settings = &self.shared.store.settings;
                    let held = Held::new(settings, claim, turn, started, lease, false);
                    return Ok(Outcome::Acquired(held));
                }
                // It lay there for too long. The holder may still have it: that ends first.
                self.end(claim, started.after(lease.ttl));
                (self.claim(), false)
            }
            Some(Baton::Place(claim)) if self.patience.waits() => (claim, true),
            // W7: to ask without waiting ends the place, too.
            Some(Baton::Place(claim)) => (claim.with_wait(None), true),
            None => (self.claim(), false),
        };
        let store = &self.shared.store;
        let has_line = store.limits.has_line();
        // For as long as the task has not slept.
        let mut now = Some(now);
        if self.patience.waits()
            && !has_line
            // A task that asks once does not hurry, and must not wait.
            && let Some(pause) = turn.give_way()
        {
            Box::pin(sleep(pause)).await;
            now = None;
        }
        // From here on the place is passed on if this is dropped.
        let mut attempt = Attempt::new(self.shared, self.runtime, claim, turn, in_line);
        if self.patience.waits() && has_line && (in_line || store.expects_contention()) {
            Box::pin(wait.arm_early(store, attempt.claim(), in_line)).await;
            now = None;
        }
        self.converse(&mut attempt, wait, began, now).await
    }

    async fn converse(
        &mut self,
        attempt: &mut Attempt<'_>,
        mut wait: Wait,
        began: Known,
        mut now: Option<Moment>,
    ) -> Result<Outcome, Error> {
        let mut outage = Outage::new(match self.patience {
            Patience::None => Duration::ZERO,
            _ => self.shared.retry_for(),
        });
        if self.shared.store.health.is_failing() && !seams::flawed!(EachTriesAtOnce) {
            let shared = self.shared.clone();
            let begins = may_begin(&shared, outage.retry_for, began);
            Box::pin(attempt.keeps_turn_during(begins)).await?;
            now = None;
        }
        let mut waited = false;
        loop {
            // What it may hold, or have in line, is released when it is dropped.
            if now.is_none() && attempt.is_overtaken() {
                return Ok(Outcome::Overtaken);
            }
            let failure = match self.ask(attempt, now.take()).await {
                Ok(Answer::Acquired(started, lease)) => {
                    let good_until = started.after(useful(lease.ttl));
                    if !good_until.has_come() || seams::flawed!(LateGrantHandedOut) {
                        let held = self.held(attempt, started, lease, waited);
                        return Ok(held.map_or(Outcome::Overtaken, Outcome::Acquired));
                    }
                    // The process or the store stood still meanwhile: nobody may rely on this.
                    BackendError::unavailable("the grant came after its lease had ended")
                }
                Ok(Answer::Contended(..)) if !self.patience.waits() => return Ok(Outcome::Taken),
                Ok(Answer::Contended(asked, contention)) => {
                    waited = true;
                    self.shared.store.contended(true);
                    let store = &self.shared.store;
                    if !attempt.is_in_line() && !seams::flawed!(SpentHolderAsksAgain) {
                        // A definite answer: this holder is spent.
                        attempt.respawn(self.claim());
                    }
                    // From now on: the process may have been stopped since it asked.
                    attempt.keeps_turn_until(Moment::now().after(store.settings.poll_every));
                    Box::pin(wait.out(store, attempt.claim(), contention, asked)).await;
                    if seams::flawed!(SignalBelieved) && wait.was_signalled() {
                        let lease = Lease::new(u64::MAX, attempt.claim().ttl);
                        let held = self.held(attempt, Moment::now(), lease, waited);
                        return Ok(held.map_or(Outcome::Overtaken, Outcome::Acquired));
                    }
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
            Box::pin(self.recover(attempt, &mut outage, failure)).await?;
        }
    }

    /// Gets ready to ask again after a failure, or gives up.
    async fn recover(
        &mut self,
        attempt: &mut Attempt<'_>,
        outage: &mut Outage,
        failure: BackendError,
    ) -> Result<(), Error> {
        // Only after Ambiguous may the same holder ask again. Whatever else came, if it may
        // hold from earlier on, that is released before another holder asks.
        let ask_again = matches!(failure, BackendError::Ambiguous(_))
            || (attempt.is_in_line() && !attempt.may_hold());
        self.pause(attempt, outage, failure).await?;
        if !ask_again {
            self.settle(attempt, outage).await?;
            attempt.respawn(self.claim());
        }
        Ok(())
    }

    fn held(
        &self,
        attempt: &mut Attempt<'_>,
        started: Moment,
        lease: Lease,
        waited: bool,
    ) -> Option<Arc<Held>> {
        if !waited {
            self.shared.store.contended(false);
        }
        let (claim, turn) = attempt.take_claim();
        let turn = turn?;
        let from_store = self.shared.store.limits.has_line();
        let settings = &self.shared.store.settings;
        Some(Held::new(settings, claim, turn, started, lease, from_store))
    }

    fn claim(&self) -> Claim {
        self.shared.store.claim(self.key, self.patience.waits())
    }

    /// Releases what this process has of the key from before.
    fn end(&self, claim: Claim, until: Moment) {
        let shared = self.shared.clone();
        let undo = async move { shared.undo(&claim, until, || {}).await };
        self.shared.background.spawn(self.runtime, until, undo);
    }

    async fn ask(
        &mut self,
        attempt: &mut Attempt<'_>,
        now: Option<Moment>,
    ) -> Result<Answer, BackendError> {
        self.progress.asking = true;
        let answer = attempt.ask(now).await;
        self.progress.asking = false;
        if answer.is_ok() {
            self.progress.answered = true;
            self.progress.failure = None;
        }
        answer
    }

    async fn settle(
        &mut self,
        attempt: &mut Attempt<'_>,
        outage: &mut Outage,
    ) -> Result<(), Error> {
        while attempt.may_hold() {
            if let Err(failure) = attempt.settle().await {
                self.pause(attempt, outage, failure).await?;
            }
        }
        Ok(())
    }

    /// Waits before the next request after a failed one, or gives up.
    async fn pause(
        &mut self,
        attempt: &mut Attempt<'_>,
        outage: &mut Outage,
        failure: BackendError,
    ) -> Result<(), Error> {
        tracing::debug!(lock.key = %self.key, error = %failure, "the store did not answer");
        let health = &self.shared.store.health;
        // Others have asked again at once already, where theirs failed before.
        let begins = health.failures() <= 1;
        let pause = outage.next(&failure, health.failing_since(), begins);
        let failure = doubtful(failure, attempt.may_hold());
        let Some((pause, end)) = pause else { return Err(failure.into()) };
        self.progress.failure = Some(failure);
        if pause.is_zero() {
            return Ok(());
        }
        let may_try = attempt
            .keeps_turn_during(async {
                sleep(pause).await;
                health.turn_to_try(Purpose::Ask, end).await
            })
            .await;
        if !may_try && let Some(failure) = self.progress.failure.take() {
            return Err(failure.into());
        }
        Ok(())
    }
}
