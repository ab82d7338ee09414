//! One holder's conversation with the store, until it has the key or is spent.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::backoff::Backoff;
use crate::claim::{Acquire, Claim, Contention, Lease};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::queue::{Baton, Turn};
use crate::seams;
use crate::shared::Shared;
use crate::store::in_time;

type InFlight = Pin<Box<dyn Future<Output = Result<Acquire, BackendError>> + Send>>;

/// The answer to asking for the key.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Granted by a call that began at the moment.
    Acquired(Moment, Lease),
    /// Answered to a call that began at the moment.
    Contended(Moment, Contention),
}

/// Asks for a key as one holder, and cleans up after itself: dropped at any point, it leaves
/// nothing behind that the store would keep for longer than it takes to answer.
pub(crate) struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    runtime: &'a Handle,
    claim: Claim,
    turn: Option<Turn>,
    in_flight: Option<InFlight>,
    /// Until when the store may keep a lease of this holder, if it may.
    may_hold: Option<Moment>,
    /// The same without the request in flight.
    held_before: Option<Moment>,
    /// Whether the holder has a place in the key's line.
    in_line: bool,
}

impl<'a> Attempt<'a> {
    /// Asks as the holder of `claim`, which has a place in the key's line already if `in_line`.
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        runtime: &'a Handle,
        claim: Claim,
        turn: Turn,
        in_line: bool,
    ) -> Self {
        Self {
            shared,
            runtime,
            claim,
            turn: Some(turn),
            in_flight: None,
            may_hold: None,
            held_before: None,
            in_line,
        }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Keeps the turn until this moment at least, though the task only sleeps.
    pub(crate) fn keeps_turn_until(&self, until: Moment) {
        if let Some(turn) = &self.turn {
            turn.lasts_until(until.after(self.claim.ttl));
        }
    }

    /// Whether others have taken the turn over, while this task or its runtime did not run. They ask
    /// as a holder of their own: two of one process would stand in the key's line.
    ///
    /// If not, the turn is this task's for another ttl.
    pub(crate) fn is_overtaken(&self) -> bool {
        let until = Moment::now().after(self.claim.ttl);
        let goes_on = self.turn.as_ref().is_some_and(|turn| turn.goes_on(until));
        !goes_on && !seams::flawed!(OvertakenGoesOn)
    }

    /// Waits for something that may take longer than a turn lasts, and keeps the turn meanwhile:
    /// the task runs, and is not to be taken for one that does not.
    pub(crate) async fn keeps_turn_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let soon = Backoff::LARGEST;
            self.keeps_turn_until(Moment::now().after(soon));
            if let Some(output) = in_time(soon, work.as_mut()).await {
                return output;
            }
        }
    }

    /// Whether an earlier request may have been granted without our knowing.
    pub(crate) fn may_hold(&self) -> bool {
        self.may_hold.is_some()
    }

    /// Whether the holder has a place in the key's line, so that it asks again as the same holder.
    pub(crate) fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Asks once. Cancel safe: dropped, the request in flight is seen to its end in the
    /// background, and undone.
    ///
    /// `now`: a moment of just before, if the caller has looked at the clock already.
    pub(crate) async fn ask(&mut self, now: Option<Moment>) -> Result<Answer, BackendError> {
        let (room, now) = match self.shared.store.room_at_once() {
            Some(room) => (room, now),
            None => {
                let store = self.shared.store.clone();
                // Boxed: rare, and large.
                let room = Box::pin(self.keeps_turn_during(async move { store.room().await }));
                (room.await, None)
            }
        };
        // L3: before the request is sent. Where that is earlier by a little, so is the deadline.
        let started = now.unwrap_or_else(Moment::now);
        self.held_before = self.may_hold;
        // From here on the request may reach the store. Dropping this must release.
        self.may_hold = Some(started.after(self.claim.ttl));
        let (shared, claim) = (self.shared.clone(), self.claim.clone());
        let request = self.in_flight.insert(Box::pin(async move {
            let answer = shared.store.acquire(&claim, started).await;
            drop(room);
            answer
        }));
        let result = request.await;
        self.in_flight = None;
        let result = match result {
            Err(BackendError::Unavailable(_)) if seams::flawed!(UnavailableIsContended) => {
                Ok(Acquire::Contended(Contention::default()))
            }
            Err(BackendError::Ambiguous(source)) if seams::flawed!(AmbiguousIsUnavailable) => {
                Err(BackendError::Unavailable(source))
            }
            result => result,
        };
        match &result {
            Ok(Acquire::Acquired(_)) => self.in_line = false,
            Err(BackendError::Ambiguous(_)) => {}
            Ok(Acquire::Contended(contention)) => {
                self.may_hold = None;
                self.in_line = contention.ahead.is_some();
            }
            // Nothing happened this time; what may have happened before still may.
            Err(_) => self.may_hold = self.held_before,
        }
        let answer = match result? {
            Acquire::Acquired(lease) => Answer::Acquired(started, lease),
            Acquire::Contended(contention) => Answer::Contended(started, contention),
        };
        if let Some(turn) = self.turn.as_mut().filter(|_| !self.shared.store.limits.has_line()) {
            let contended = matches!(answer, Answer::Contended(..));
            turn.answered(Moment::now().since(started), contended);
        }
        Ok(answer)
    }

    /// Releases whatever an earlier request may have been granted. After an answer the holder is
    /// spent and holds nothing.
    pub(crate) async fn settle(&mut self) -> Result<(), BackendError> {
        if !seams::flawed!(RespawnWithoutRelease) {
            self.shared.store.release(&self.claim, Moment::now()).await?;
        }
        self.may_hold = None;
        self.in_line = false;
        Ok(())
    }

    /// Goes on as another holder. Must hold nothing, and have no place.
    pub(crate) fn respawn(&mut self, claim: Claim) {
        debug_assert!(self.may_hold.is_none(), "a holder that may hold was given up");
        debug_assert!(!self.in_line, "a holder that has a place was given up");
        self.claim = claim;
    }

    /// Hands the granted lease over to a guard: there is nothing to undo any more.
    pub(crate) fn take_claim(&mut self) -> (Claim, Option<Turn>) {
        self.may_hold = None;
        self.in_line = false;
        (self.claim.clone(), self.turn.take())
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let Some(until) = self.may_hold else {
            // A place belongs to the process: the next task in the queue has it.
            if self.in_line
                && !seams::flawed!(PlaceDropped)
                && let Some(turn) = self.turn.take()
            {
                seams::reached("a place was passed on");
                if let Some(left) = turn.pass(Baton::Place(self.claim.clone()))
                    && !seams::flawed!(OrphanKept)
                {
                    self.shared.give_back(left);
                }
            }
            return;
        };
        let (shared, claim) = (self.shared.clone(), self.claim.clone());
        let (mut in_flight, mut turn) = (self.in_flight.take(), self.turn.take());
        if seams::flawed!(ReleaseOvertakesAcquire) {
            in_flight = None;
        }
        let (held_before, in_line) = (self.held_before, self.in_line);
        self.shared.background.spawn(self.runtime, until, async move {
            // A release that overtook the acquire would be followed by a grant to nobody. In a
            // task of its own, since what a backend that panics was granted is undone as well.
            let answer = match in_flight {
                Some(request) => seams::spawn_here(request).await.ok(),
                None => None,
            };
            match answer {
                _ if seams::flawed!(DroppedAcquireNotUndone) => return,
                Some(Ok(Acquire::Contended(contention))) => {
                    if contention.ahead.is_some()
                        && let Some(turn) = turn
                        && let Some(left) = turn.pass(Baton::Place(claim))
                    {
                        shared.give_back_now(left).await;
                    }
                    return;
                }
                // Nothing has happened.
                Some(Err(
                    BackendError::Unavailable(_)
                    | BackendError::Rejected(_)
                    | BackendError::InvalidInput(_),
                )) if held_before.is_none() && !in_line => return,
                _ => {}
            }
            // The next in line need not wait for a store that does not answer.
            shared.undo(&claim, until, move || drop(turn.take())).await;
        });
    }
}
