//! The end of a lock: releasing it, or handing it over to the next task of the process.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::backoff::Backoff;
use crate::claim::{HandOver, Release};
use crate::clock::{Moment, sleep};
use crate::error::{BackendError, Error, ErrorKind};
use crate::health::Purpose;
use crate::held::{Held, LostReason};
use crate::key::LockKey;
use crate::queue::{Baton, Turn};
use crate::seams;
use crate::shared::Shared;

pub(crate) fn lost(key: &LockKey, reason: LostReason) -> Error {
    Error::new(ErrorKind::Lost, format!("the lock was lost, {reason}")).with_key(key)
}

type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A release under way. It is polled where it is awaited, and goes on in the background when it
/// is dropped before its end.
pub(crate) struct Releasing {
    work: Option<Work>,
    shared: Arc<Shared>,
    runtime: Handle,
    until: Moment,
}

impl Releasing {
    /// Ends what is believed of the lease, and prepares its release. `runtime` is for the rest of
    /// a release that is dropped outside any runtime.
    pub(crate) fn new(shared: &Arc<Shared>, held: &Arc<Held>, runtime: Handle) -> Self {
        let (belief, was_lost, turn) = held.end();
        if !seams::flawed!(RenewalAfterRelease) {
            shared.forget(held);
        }
        // A lock that was lost to `max_hold` leaves its lease to end. One that was not is released
        // for as long as its lease may stand.
        let gives_up = was_lost.is_some() || seams::flawed!(ReleaseEndsWithMaxHold);
        let until = if gives_up { belief.deadline } else { belief.may_stand };
        let mut end = Ending {
            shared: shared.clone(),
            held: held.clone(),
            token: belief.token,
            was_lost,
            believed_until: belief.lease_end,
            deadline: until,
            turn,
        };
        Self {
            work: Some(Box::pin(async move { end.run().await })),
            shared: shared.clone(),
            runtime,
            until,
        }
    }
}

impl Future for Releasing {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(Ok(())) };
        let answer = work.as_mut().poll(cx);
        if answer.is_ready() {
            self.work = None;
        }
        answer
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Inside a runtime that one is run; the guard's own may have ended.
        let runtime = self.shared.runtime().unwrap_or_else(|| self.runtime.clone());
        self.shared.background.spawn(&runtime, self.until, async move {
            if let Err(error) = work.await
                && error.kind() != ErrorKind::Lost
            {
                tracing::warn!(%error, "a dropped lock was not released");
            }
        });
    }
}

/// The end of a lease.
struct Ending {
    shared: Arc<Shared>,
    held: Arc<Held>,
    token: u64,
    was_lost: Option<LostReason>,
    /// Until when the lease stands for sure.
    believed_until: Moment,
    /// Until when its release matters.
    deadline: Moment,
    /// Kept until the first answer: the next in line asks when the key is free, but need not wait
    /// for a store that does not answer.
    turn: Option<Turn>,
}

impl Ending {
    async fn run(&mut self) -> Result<(), Error> {
        let may_hand_over = self.shared.store.limits.has_line()
            && (self.was_lost.is_none() || seams::flawed!(HandsOverTooLate));
        let is_wanted = may_hand_over && self.turn.as_ref().is_some_and(Turn::ends);
        // W9: a guard whose deadline has passed does not hand over. Its holder may have another
        // lease by now, from a late copy of its request. The clock is read anew, since a dropped
        // guard's release may begin late, and only where somebody waits.
        let next = self.turn.take_if(|_| {
            is_wanted && (!self.believed_until.has_come() || seams::flawed!(HandsOverTooLate))
        });
        let handed_over = match next {
            // Boxed: it is large, and most releases are none.
            Some(turn) => Box::pin(self.hand_over(turn)).await,
            None => None,
        };
        let outcome = match handed_over {
            Some(outcome) => outcome,
            None => self.release(false).await,
        };
        outcome.map_err(|error| error.with_key(self.key()))
    }

    fn key(&self) -> &LockKey {
        &self.held.claim.key
    }

    /// Hands the lease over to the next task of the process. `None`: nothing has happened.
    async fn hand_over(&mut self, turn: Turn) -> Option<Result<(), Error>> {
        let store = &self.shared.store;
        let to = store.claim(self.key(), true);
        let started = Moment::now();
        let over = turn.burst_is_over() && !seams::flawed!(BurstHasNoEnd);
        match store.hand_over(&self.held.claim, &to, over, started).await {
            Ok(HandOver::Granted(lease)) => {
                if let Some(left) = turn.pass(Baton::Lease(to, started, lease)) {
                    self.shared.give_back_now(left).await;
                }
                Some(Ok(()))
            }
            Ok(HandOver::Yielded(contention)) => {
                // W9: `to` has joined the line, at its tail.
                if contention.ahead.is_some()
                    && !seams::flawed!(YieldedPlaceDropped)
                    && let Some(left) = turn.pass(Baton::Place(to))
                {
                    self.shared.give_back_now(left).await;
                }
                Some(Ok(()))
            }
            Ok(HandOver::NotHeld) => Some(Err(lost(self.key(), LostReason::NotHeld))),
            Err(BackendError::Ambiguous(error)) => {
                // W10: release the one until that is answered, then the other. The next task of
                // the process asks as a holder of its own.
                self.held.note_failure(BackendError::Ambiguous(error));
                self.turn = Some(turn);
                let undo = self.shared.clone();
                let until = started.after(to.ttl);
                if seams::flawed!(OtherReleasedFirst) {
                    undo.undo(&to, until, || {}).await;
                }
                let outcome = self.release(true).await;
                // The next in line need not wait for a store that does not answer.
                let turn = self.turn.take();
                undo.undo(&to, until, move || drop(turn)).await;
                Some(outcome)
            }
            Err(failure) => {
                // Nothing has happened.
                self.held.note_failure(failure);
                self.turn = Some(turn);
                None
            }
        }
    }

    /// Releases until the store has answered. `ended`: an earlier request may have ended the
    /// lease.
    async fn release(&mut self, ended: bool) -> Result<(), Error> {
        let (mut backoff, mut may_have_worked) = (Backoff::new(), ended);
        // Sent all the same: a late copy of the request may have brought the holder back.
        let is_gone = self.was_lost == Some(LostReason::NotHeld);
        loop {
            let now = Moment::now();
            let failure = match self.shared.store.release(&self.held.claim, now).await {
                // The store's word that the lease stood until now outweighs our own doubts.
                Ok(Release::Released { token })
                    if token <= self.token || seams::flawed!(ReleaseIgnoresTheToken) =>
                {
                    tracing::debug!(
                        lock.key = %self.key(), lock.holder = %self.held.claim.holder, "released"
                    );
                    return Ok(());
                }
                // A late copy of our own request was granted after our lease had ended: a later
                // lease has a greater token (L5).
                Ok(Release::Released { .. }) => {
                    return Err(lost(self.key(), LostReason::NotHeld));
                }
                // An earlier release of ours worked and its answer was lost.
                Ok(Release::NotHeld)
                    if may_have_worked && !is_gone || seams::flawed!(NotHeldIsReleased) =>
                {
                    return Ok(());
                }
                Ok(Release::NotHeld) => {
                    let reason = self.was_lost.unwrap_or(LostReason::NotHeld);
                    return Err(lost(self.key(), reason));
                }
                Err(failure @ BackendError::Ambiguous(_)) => {
                    // It was sent in time.
                    may_have_worked |= now < self.deadline.min(self.believed_until);
                    failure
                }
                Err(failure @ BackendError::Unavailable(_)) => failure,
                Err(refused) => return Err(refused.into()),
            };
            drop(self.turn.take());
            if is_gone || self.deadline.has_come() {
                return Err(match self.was_lost {
                    Some(reason) => lost(self.key(), reason),
                    None => failure.into(),
                });
            }
            self.held.note_failure(failure);
            // Boxed: rare, and large.
            Box::pin(self.pause(backoff.pause())).await;
        }
    }

    /// Waits before the next request after a failed one.
    async fn pause(&self, pause: Duration) {
        sleep(pause.min(self.deadline.remaining())).await;
        self.shared.store.health.turn_to_try(Purpose::Lease, self.deadline).await;
    }
}
