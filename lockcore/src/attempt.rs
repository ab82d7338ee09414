//! One holder's conversation with the store, until it has the key or is spent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::backend::LockBackend;
use crate::backoff::Backoff;
use crate::claim::{Acquire, Claim, Contention, Lease, Release};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::manager::Shared;
use crate::queue::Turn;

type InFlight = Pin<Box<dyn Future<Output = Result<Acquire, BackendError>> + Send>>;

/// The answer to asking for the key.
pub(crate) enum Answer {
    /// Granted by a call that began at the moment.
    Acquired(Moment, Lease),
    Contended(Contention),
}

/// Asks for a key as one holder, and cleans up after itself: dropped at any point, it leaves
/// nothing behind that the store would keep for longer than it takes to answer.
pub(crate) struct Attempt {
    shared: Arc<Shared>,
    runtime: Handle,
    claim: Claim,
    turn: Option<Turn>,
    in_flight: Option<InFlight>,
    /// Until when the store may keep a lease of this holder, if it may.
    may_hold: Option<Moment>,
}

impl Attempt {
    pub(crate) fn new(shared: &Arc<Shared>, runtime: &Handle, claim: Claim, turn: Turn) -> Self {
        Self {
            shared: shared.clone(),
            runtime: runtime.clone(),
            claim,
            turn: Some(turn),
            in_flight: None,
            may_hold: None,
        }
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Whether an earlier request may have been granted without our knowing.
    pub(crate) fn may_hold(&self) -> bool {
        self.may_hold.is_some()
    }

    /// Asks once. Cancel safe: dropped, the request in flight is seen to its end in the
    /// background, and undone.
    pub(crate) async fn ask(&mut self) -> Result<Answer, BackendError> {
        let started = Moment::now();
        let held_before = self.may_hold;
        // From the first byte on.
        self.may_hold = Some(started.after(self.claim.ttl));
        let (shared, claim) = (self.shared.clone(), self.claim.clone());
        let request = self.in_flight.insert(Box::pin(async move {
            let acquire = shared.backend.acquire(&claim);
            bounded(shared.settings.request_timeout, acquire).await
        }));
        let result = request.await;
        self.in_flight = None;
        match &result {
            Ok(Acquire::Acquired(_)) | Err(BackendError::Ambiguous(_)) => {}
            Ok(Acquire::Contended(_)) => self.may_hold = None,
            // Nothing happened this time; what may have happened before still may.
            Err(_) => self.may_hold = held_before,
        }
        let answer = match result? {
            Acquire::Acquired(lease) => Answer::Acquired(started, lease),
            Acquire::Contended(contention) => Answer::Contended(contention),
        };
        if let Some(turn) = &mut self.turn {
            let contended = matches!(answer, Answer::Contended(_));
            turn.answered(Moment::now().since(started), contended);
        }
        Ok(answer)
    }

    /// Releases whatever an earlier request may have been granted. After an answer the holder is
    /// spent and holds nothing.
    pub(crate) async fn settle(&mut self) -> Result<(), BackendError> {
        let release = self.shared.backend.release(&self.claim);
        bounded(self.shared.settings.request_timeout, release).await?;
        self.may_hold = None;
        Ok(())
    }

    /// Goes on as another holder. Must hold nothing.
    pub(crate) fn respawn(&mut self, claim: Claim) {
        debug_assert!(self.may_hold.is_none(), "a holder that may hold was given up");
        self.claim = claim;
    }

    /// Hands the granted lease over to a guard: there is nothing to undo any more.
    pub(crate) fn into_claim(mut self) -> (Claim, Option<Turn>) {
        self.may_hold = None;
        (self.claim.clone(), self.turn.take())
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(until) = self.may_hold else { return };
        let (shared, claim) = (self.shared.clone(), self.claim.clone());
        let (in_flight, mut turn) = (self.in_flight.take(), self.turn.take());
        self.shared.background.spawn(&self.runtime, async move {
            // A release that overtook the acquire would be followed by a grant to nobody. In a
            // task of its own, since what a backend that panics was granted is undone as well.
            if let Some(request) = in_flight
                && let Ok(Ok(Acquire::Contended(_))) = tokio::spawn(request).await
            {
                return;
            }
            // The next in line need not wait for a store that does not answer.
            undo(&shared, &claim, until, move || drop(turn.take())).await;
        });
    }
}

/// Releases until the store has answered, or the lease has ended by itself.
async fn undo(shared: &Shared, claim: &Claim, until: Moment, mut after_first: impl FnMut()) {
    let mut backoff = Backoff::new();
    loop {
        let release = shared.backend.release(claim);
        let answer = bounded(shared.settings.request_timeout, release).await;
        after_first();
        match answer {
            Ok(Release::Released | Release::NotHeld) => {
                tracing::debug!(lock.key = %claim.key, lock.holder = %claim.holder, "undid an acquire");
                return;
            }
            Err(BackendError::Unavailable(_) | BackendError::Ambiguous(_)) if !until.has_come() => {
                tokio::time::sleep(backoff.pause().min(until.remaining())).await;
            }
            Err(error) => {
                tracing::warn!(
                    lock.key = %claim.key, lock.holder = %claim.holder, %error,
                    "could not undo an acquire: its lease, if there is one, ends with its ttl"
                );
                return;
            }
        }
    }
}

/// Waits for a backend's answer for at most `limit`. The call is dropped then, and whether it
/// had happened is not known.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(BackendError::ambiguous(format!("no answer within {limit:?}"))),
    }
}
