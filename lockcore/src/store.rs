//! The store as the core sees it: a backend, with limits of time and number on each request.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::backend::LockBackend;
use crate::claim::{Acquire, Claim, HandOver, Limits, Release, ReleaseSignal, Renew};
use crate::clock::{Moment, timeout};
use crate::error::BackendError;
use crate::health::Health;
use crate::key::{HolderId, LockKey};
use crate::seams;
use crate::settings::Settings;

/// A backend with the settings of a manager.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) backend: Arc<dyn LockBackend>,
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
    pub(crate) health: Arc<Health>,
    /// How long a place in a line lasts unless its holder asks again; `None`: there are no lines.
    wait: Option<Duration>,
    /// Room for requests that are under way at once; `None`: for any number.
    room: Option<Arc<Semaphore>>,
    /// How many more acquires expect that they have to wait.
    contended: AtomicUsize,
}

/// After an acquire that had to wait, so many that had not are expected to.
const EXPECTED: usize = 64;

impl Store {
    pub(crate) fn new(backend: Arc<dyn LockBackend>, limits: Limits, settings: Settings) -> Self {
        let most = Some(limits.max_in_flight).filter(|most| *most < Semaphore::MAX_PERMITS);
        // A lease must survive some failed renewals, with the pauses between them.
        let longest_pause = (settings.ttl / 15).max(Duration::from_millis(10));
        // Longer than a waiting holder sleeps.
        let wait = settings.poll_every.saturating_add(settings.poll_every / 2);
        // W1: no longer than the ttl, since a late copy of the request may turn it into a lease.
        let wait = wait.min(limits.max_wait).min(settings.ttl);
        Self {
            backend,
            limits,
            settings,
            health: Arc::new(Health::new(longest_pause)),
            wait: limits.has_line().then_some(wait),
            room: most.map(|most| Arc::new(Semaphore::new(most))),
            contended: AtomicUsize::new(0),
        }
    }

    /// The same store for another part of the keys. The parts have in common what they write
    /// rarely, and nothing that is written with every acquire.
    pub(crate) fn for_others(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.label = Arc::from(&*settings.label);
        Self {
            backend: self.backend.clone(),
            limits: self.limits,
            settings,
            health: self.health.clone(),
            wait: self.wait,
            room: self.room.clone(),
            contended: AtomicUsize::new(0),
        }
    }

    /// A claim of a new holder, which waits in the key's line or does not.
    pub(crate) fn claim(&self, key: &LockKey, waits: bool) -> Claim {
        Claim {
            key: key.clone(),
            holder: HolderId::random(),
            ttl: self.settings.ttl,
            min_token: 0,
            label: self.settings.label.clone(),
            wait: self.wait.filter(|_| waits),
            incarnation: false,
            announce: false,
            shared: false,
        }
    }

    /// How long a holder may sleep that has a place for `wait`, so that asking again still finds
    /// the place.
    pub(crate) fn sleeps_at_most(&self, wait: Duration) -> Duration {
        wait.saturating_sub(self.settings.request_timeout.min(wait / 4))
    }

    /// Whether keys were contended lately, so that it is worth arming a signal before asking.
    pub(crate) fn expects_contention(&self) -> bool {
        self.contended.load(Ordering::Relaxed) > 0
    }

    /// Notes whether an acquire had to wait.
    pub(crate) fn contended(&self, contended: bool) {
        if contended {
            self.contended.store(EXPECTED, Ordering::Relaxed);
        } else if let left @ 1.. = self.contended.load(Ordering::Relaxed) {
            self.contended.store(left - 1, Ordering::Relaxed);
        }
    }

    /// Room for one more request, if there is some.
    pub(crate) fn room_at_once(&self) -> Option<Room> {
        let Some(room) = &self.room else { return Some(Room(None)) };
        room.clone().try_acquire_owned().ok().map(|room| Room(Some(room)))
    }

    /// Waits for room for one more request. Nothing is sent before, so no time of the request
    /// passes.
    pub(crate) async fn room(&self) -> Room {
        match &self.room {
            // An error would mean that it was closed, which it never is.
            Some(room) => Room(room.clone().acquire_owned().await.ok()),
            None => Room(None),
        }
    }

    /// Asks for the key; `now` as in [`release`](Self::release).
    pub(crate) async fn acquire(
        &self,
        claim: &Claim,
        now: Moment,
    ) -> Result<Acquire, BackendError> {
        let limit = self.settings.request_timeout;
        let limit = if seams::flawed!(AcquireUnbounded) { Duration::MAX } else { limit };
        let answer = bounded(limit, (*self.backend).acquire(claim)).await;
        self.note(Some(&answer), now);
        answer
    }

    /// Releases; `now` is a moment just before the call, which its callers need themselves.
    pub(crate) async fn release(
        &self,
        claim: &Claim,
        now: Moment,
    ) -> Result<Release, BackendError> {
        self.bounded(now, (*self.backend).release(claim)).await
    }

    /// Hands over; `now` as in [`release`](Self::release).
    pub(crate) async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
        now: Moment,
    ) -> Result<HandOver, BackendError> {
        self.bounded(now, (*self.backend).hand_over(from, to, over)).await
    }

    /// Renews leases: an answer each, or one error for all of them.
    pub(crate) async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let (limit, began) = (self.settings.request_timeout, Moment::now());
        let limit = if seams::flawed!(RenewalUnbounded) { Duration::MAX } else { limit };
        let answers = match claims {
            [claim] => in_time(limit, async { vec![(*self.backend).renew(claim).await] }).await,
            _ => in_time(limit, (*self.backend).renew_many(claims)).await,
        };
        let Some(answers) = answers else {
            let all: Vec<_> = claims.iter().map(|_| Err(no_answer(limit))).collect();
            self.note(all.first(), began);
            return all;
        };
        let answered = answers.iter().find(|answer| answer.is_ok());
        self.note(answered.or(answers.first()), began);
        answers
    }

    pub(crate) async fn watch(
        &self,
        claim: &Claim,
        most: Duration,
    ) -> Result<ReleaseSignal, BackendError> {
        let limit = self.settings.request_timeout.min(most);
        bounded(limit, (*self.backend).watch(claim)).await
    }

    async fn bounded<T>(
        &self,
        began: Moment,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let answer = bounded(self.settings.request_timeout, call).await;
        self.note(Some(&answer), began);
        answer
    }

    /// Notes how a request ended that began at `began`.
    fn note<T>(&self, answer: Option<&Result<T, BackendError>>, began: Moment) {
        match answer {
            Some(Err(error @ (BackendError::Ambiguous(_) | BackendError::Unavailable(_)))) => {
                self.health.failed(error, began);
            }
            // A refusal is an answer.
            Some(_) => self.health.answered(),
            None => {}
        }
    }
}

/// Room for a request, until this is dropped.
pub(crate) struct Room(#[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);

/// Waits for a backend's answer for at most `limit`. The call is dropped then, and its outcome
/// is unknown.
pub(crate) async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Result<T, BackendError> {
    in_time(limit, call).await.unwrap_or_else(|| Err(no_answer(limit)))
}

/// Waits for at most `limit`. What is ready at once costs no timer, nor the room for one.
pub(crate) async fn in_time<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(output) => Some(output),
        Poll::Pending => Box::pin(timeout(limit, work)).await.ok(),
    }
}

fn no_answer(limit: Duration) -> BackendError {
    BackendError::ambiguous(format!("no answer within {limit:?}"))
}
