//! Holding: what a guard believes, and the renewal that keeps it true.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::attempt::{Attempt, bounded};
use crate::backend::LockBackend;
use crate::backoff::between;
use crate::claim::{Claim, Lease, Renew};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::manager::Shared;
use crate::queue::Turn;
use crate::settings::useful;

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
            Self::MaxHold => "it was held for as long as it may be",
            Self::NotHeld => "the store no longer has the lease",
            Self::Released => "it was released",
        })
    }
}

/// What is believed of a lease. Only `lost` is a flag; that time has passed is seen by looking
/// at the clock, so that no stuck task can keep a dead lease alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belief {
    pub(crate) deadline: Moment,
    pub(crate) token: u64,
    pub(crate) lost: Option<LostReason>,
    hold_end: Option<Moment>,
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
        let deadline = started.after(useful(lease.ttl));
        let deadline = self.hold_end.map_or(deadline, |end| deadline.min(end));
        self.deadline = self.deadline.max(deadline);
        self.token = self.token.max(lease.token);
    }
}

/// A lease in use.
pub(crate) struct Held {
    pub(crate) shared: Arc<Shared>,
    pub(crate) claim: Claim,
    belief: watch::Sender<Belief>,
    renew_at: Moment,
    turn: Mutex<Option<Turn>>,
}

impl Held {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        attempt: Attempt,
        started: Moment,
        lease: Lease,
    ) -> Self {
        let (claim, turn) = attempt.into_claim();
        let hold_end = shared.settings.max_hold.map(|max| Moment::now().after(max));
        let mut belief = Belief { deadline: started, token: lease.token, lost: None, hold_end };
        belief.believe(started, lease);
        tracing::debug!(
            lock.key = %claim.key, lock.holder = %claim.holder, lock.token = lease.token, "acquired"
        );
        Self {
            shared: shared.clone(),
            claim,
            belief: watch::Sender::new(belief),
            renew_at: started.after(next_renewal(shared)),
            turn: Mutex::new(turn),
        }
    }

    pub(crate) fn belief(&self) -> Belief {
        *self.belief.borrow()
    }

    pub(crate) fn follow(&self) -> watch::Receiver<Belief> {
        self.belief.subscribe()
    }

    /// Latches the loss; the first reason stays.
    pub(crate) fn lose(&self, reason: LostReason) {
        let mut reason = reason;
        let first = self.belief.send_if_modified(|belief| {
            let first = belief.lost.is_none();
            // The deadline may have passed with nobody looking.
            reason = belief.lost().unwrap_or(reason);
            belief.lost = Some(reason);
            first
        });
        if first && reason != LostReason::Released {
            tracing::error!(
                lock.key = %self.claim.key, lock.holder = %self.claim.holder, %reason, "lost"
            );
        }
    }

    pub(crate) fn take_turn(&self) -> Option<Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Moves the deadline after a renewal that began at `started`; `false` if it came too late.
    fn renewed(&self, started: Moment, lease: Lease) -> bool {
        self.belief.send_if_modified(|belief| {
            // Once the deadline has passed, somebody may have seen it: there is no way back.
            let in_time = belief.lost().is_none();
            if in_time {
                belief.believe(started, lease);
            }
            in_time
        })
    }

    /// Renews until the lock is lost.
    async fn keep(&self) {
        let mut next = self.renew_at;
        loop {
            let belief = self.belief();
            if let Some(reason) = belief.lost() {
                return self.lose(reason);
            }
            let renewing = self.shared.settings.renew_every.is_some()
                && belief.hold_end.is_none_or(|end| belief.deadline < end);
            if !renewing {
                belief.deadline.sleep_until().await;
                continue;
            }
            if !next.has_come() {
                next.min(belief.deadline).sleep_until().await;
                continue;
            }
            let started = Moment::now();
            match self.renew(belief).await {
                Ok(Renew::Renewed(lease)) => {
                    if self.renewed(started, lease) {
                        next = started.after(next_renewal(&self.shared));
                    }
                }
                Ok(Renew::NotHeld) => return self.lose(LostReason::NotHeld),
                Err(error) => {
                    tracing::warn!(
                        lock.key = %self.claim.key, lock.holder = %self.claim.holder, %error,
                        "a renewal failed; the next one follows while the lease is good"
                    );
                    let ttl = self.shared.settings.ttl;
                    next = Moment::now().after(between(ttl / 40, ttl / 20));
                }
            }
        }
    }

    async fn renew(&self, belief: Belief) -> Result<Renew, BackendError> {
        // A hung store must not delay the loss.
        let limit = self.shared.settings.request_timeout.min(belief.deadline.remaining());
        // A backend made of several stores repairs one that has missed the token. A token may be
        // larger than what a claim may demand: then the most that is allowed is asked for.
        let floor = belief.token.min(self.shared.backend.limits().max_token);
        let claim = self.claim.clone().with_min_token(floor);
        bounded(limit, self.shared.backend.renew(&claim)).await
    }
}

/// The task of a guard. Nothing depends on its running on time but the renewal itself: see
/// [`Belief::lost`].
pub(crate) struct Keeper(pub(crate) Arc<Held>);

impl Keeper {
    /// Renews until the lock is lost.
    pub(crate) async fn run(self) {
        self.0.keep().await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Whatever ended it, the loss, a panic of the backend or the end of the runtime: nobody
        // renews any more, and others of this process may ask for the key.
        drop(self.0.take_turn());
    }
}

/// When the next renewal is due, counted from the start of the last: a little earlier than set,
/// by chance, so that locks taken together are not renewed together.
fn next_renewal(shared: &Shared) -> Duration {
    let every = shared.settings.renew_every.unwrap_or(shared.settings.ttl);
    between(every.mul_f64(0.9), every)
}
