//! A lease in use: what its guard believes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::claim::{Claim, Lease};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::queue::Turn;
use crate::seams;
use crate::settings::{Settings, useful};

/// Why a lock can no longer be believed to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The store did not confirm the lease before the deadline.
    Expired,
    /// It was held for as long as [`max_hold`](crate::ManagerBuilder::max_hold) allows.
    MaxHold,
    /// The store answered that the lease is gone: its data was lost, or someone took it away.
    NotHeld,
    /// The guard was released or dropped.
    Released,
}

impl std::fmt::Display for LostReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "the store did not confirm the lease in time",
            Self::MaxHold => "it was held for as long as allowed",
            Self::NotHeld => "the store says that the lease is gone",
            Self::Released => "the guard was released",
        })
    }
}

/// What is believed of a lease. Only `lost` is a flag. That time has passed is seen by looking at
/// the clock, so that no stuck task can keep a dead lease alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    pub(crate) deadline: Moment,
    pub(crate) token: u64,
    pub(crate) lost: Option<LostReason>,
    /// Until when the lease may be believed in, whatever `max_hold` allows.
    pub(crate) lease_end: Moment,
    /// Until when it may stand, because of a renewal whose outcome is not known.
    pub(crate) may_stand: Moment,
    pub(crate) hold_end: Option<Moment>,
}

impl Belief {
    /// Why the lock is lost now, if it is.
    pub(crate) fn lost(&self) -> Option<LostReason> {
        if self.lost.is_some() || !self.deadline.has_come() {
            return self.lost;
        }
        let at_hold_end = self.hold_end.is_some_and(|end| end <= self.deadline);
        Some(if at_hold_end { LostReason::MaxHold } else { LostReason::Expired })
    }

    fn believe(&mut self, started: Moment, lease: Lease) {
        // L3: the lease stands for its ttl from the start of the call, and not from its answer.
        let from = if seams::flawed!(DeadlineFromAnswer) { Moment::now() } else { started };
        self.lease_end = self.lease_end.max(from.after(useful(lease.ttl)));
        self.may_stand = self.may_stand.max(self.lease_end);
        let hold_end = if seams::flawed!(MaxHoldIgnored) { None } else { self.hold_end };
        self.deadline = hold_end.map_or(self.lease_end, |end| self.lease_end.min(end));
        self.token = self.token.max(lease.token);
    }
}

/// A lease in use.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) claim: Claim,
    /// When the call began that granted it.
    pub(crate) granted: Moment,
    state: Mutex<State>,
    /// Tells those who wait for the loss.
    lost: Notify,
}

#[derive(Debug)]
struct State {
    belief: Belief,
    turn: Option<Turn>,
    /// Its place among the renewals.
    place: Option<Place>,
    /// It was released or dropped.
    is_over: bool,
    /// Why a release was not confirmed so far.
    last_failure: Option<BackendError>,
}

/// The place of a lock among the renewals of its manager.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Among those that nobody has looked at yet.
    New(usize),
    /// By when it is due, and a number that tells apart what is due at the same moment.
    Due(Moment, u64),
}

impl Held {
    pub(crate) fn new(
        settings: &Settings,
        claim: Claim,
        turn: Turn,
        granted: Moment,
        lease: Lease,
        from_store: bool,
    ) -> Arc<Self> {
        let hold_end = settings.max_hold.map(|max| Moment::now().after(max));
        let (deadline, lease_end, token) = (granted, granted, lease.token);
        let mut belief =
            Belief { deadline, token, lost: None, lease_end, may_stand: granted, hold_end };
        belief.believe(granted, lease);
        turn.holds(belief.deadline, from_store.then_some(granted));
        tracing::debug!(
            lock.key = %claim.key, lock.holder = %claim.holder, lock.token = lease.token, "acquired"
        );
        let state = Mutex::new(State {
            belief,
            turn: Some(turn),
            place: None,
            is_over: false,
            last_failure: None,
        });
        Arc::new(Self { claim, granted, state, lost: Notify::new() })
    }

    pub(crate) fn belief(&self) -> Belief {
        self.state().belief
    }

    /// Latches the loss; the first reason stays. Others of this process may ask for the key.
    pub(crate) fn lose(&self, reason: LostReason) {
        let (reason, first, turn) = {
            let mut state = self.state();
            let first = state.belief.lost.is_none();
            // The deadline may have passed with nobody looking.
            let known = state.belief.lost().unwrap_or(reason);
            state.belief.lost = Some(known);
            (known, first, state.turn.take())
        };
        drop(turn);
        if first {
            self.lost.notify_waiters();
            self.tell(reason);
        }
    }

    /// Waits for the loss.
    pub(crate) async fn until_lost(&self) -> LostReason {
        loop {
            let told = self.lost.notified();
            let belief = self.belief();
            if let Some(reason) = belief.lost() {
                return reason;
            }
            tokio::select! {
                biased;
                () = told => {}
                () = belief.deadline.sleep_until() => {}
            }
        }
    }

    /// The turn is about to be given back.
    pub(crate) fn ends(&self) {
        if let Some(turn) = &self.state().turn {
            turn.ends();
        }
    }

    /// Ends it by a release: what was believed, why it was lost before, and the turn.
    pub(crate) fn end(&self) -> (Belief, Option<LostReason>, Option<Turn>) {
        let (belief, was_lost, turn) = {
            let mut state = self.state();
            let (belief, was_lost) = (state.belief, state.belief.lost());
            state.belief.lost = Some(was_lost.unwrap_or(LostReason::Released));
            state.is_over = true;
            (belief, was_lost, state.turn.take())
        };
        self.lost.notify_waiters();
        if let Some(reason) = was_lost.filter(|_| belief.lost.is_none()) {
            self.tell(reason);
        }
        (belief, was_lost, turn)
    }

    /// Remembers why a release was not confirmed so far. A failure that leaves a doubt is not
    /// forgotten over one that leaves none.
    pub(crate) fn note_failure(&self, failure: BackendError) {
        let noted = &mut self.state().last_failure;
        if !matches!(noted, Some(BackendError::Ambiguous(_))) {
            *noted = Some(failure);
        }
    }

    pub(crate) fn take_last_failure(&self) -> Option<BackendError> {
        self.state().last_failure.take()
    }

    fn tell(&self, reason: LostReason) {
        tracing::error!(
            lock.key = %self.claim.key, lock.holder = %self.claim.holder, %reason, "lost"
        );
    }

    /// A renewal is sent: the lease may stand for a ttl from now on, whatever its caller hears.
    pub(crate) fn renews(&self, now: Moment) {
        self.state().belief.may_stand = now.after(self.claim.ttl);
    }

    /// Moves the deadline after a renewal that began at `started`; `false` if it came too late.
    pub(crate) fn renewed(&self, started: Moment, lease: Lease) -> bool {
        let mut state = self.state();
        // Once the deadline has passed, somebody may have seen it: there is no way back.
        if state.belief.lost().is_some() && !seams::flawed!(LateRenewalCounts) {
            return false;
        }
        state.belief.believe(started, lease);
        let deadline = state.belief.deadline;
        if let Some(turn) = &state.turn {
            turn.lasts_until(deadline);
        }
        true
    }

    /// Notes its place among the renewals; `false` if it needs none any more.
    pub(crate) fn is_at(&self, place: Place) -> bool {
        let mut state = self.state();
        let renews = !state.is_over || seams::flawed!(RenewalAfterRelease);
        state.place = renews.then_some(place);
        renews
    }

    pub(crate) fn take_place(&self) -> Option<Place> {
        self.state().place.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
