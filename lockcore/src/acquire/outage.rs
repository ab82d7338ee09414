//! Acquiring while the store fails.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::{BackendError, Error};
use crate::health::Purpose;
use crate::seams;
use crate::shared::Shared;

/// What was known of the store's health when a task began to acquire.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) since: Moment,
    pub(super) failures: u64,
}

/// In an outage one request at a time tries the store, and the others learn from it. A task that
/// has waited in the queue for `retry_for` does not wait for that long again.
pub(super) async fn may_begin(
    shared: &Shared,
    retry_for: Duration,
    began: Known,
) -> Result<(), Error> {
    let health = &shared.store.health;
    let was_patient = !retry_for.is_zero() && began.since.after(retry_for).has_come();
    let known = if was_patient { began.failures } else { health.failures() };
    if was_patient && let Some(failure) = health.given_up(retry_for, known) {
        return Err(failure);
    }
    loop {
        let soon = Moment::now().after(Duration::from_secs(1));
        let until = if retry_for.is_zero() { Moment::now() } else { soon };
        if health.turn_to_try(Purpose::Ask, until).await {
            return Ok(());
        }
        let given_up = match retry_for {
            Duration::ZERO => health.failure(),
            retry_for => health.given_up(retry_for, known),
        };
        if let Some(failure) = given_up {
            return Err(failure);
        }
    }
}

/// Where another request may have been granted, the whole is as doubtful as that.
pub(super) fn doubtful(failure: BackendError, may_hold: bool) -> BackendError {
    match failure {
        BackendError::Unavailable(source) if may_hold => BackendError::Ambiguous(source),
        other => other,
    }
}

/// How long the store has been failing, as far as one task is concerned.
pub(super) struct Outage {
    pub(super) retry_for: Duration,
    /// `None`: not asked yet, or not failed since the last good answer.
    last_good: Option<Moment>,
    asked_again: bool,
    backoff: Backoff,
}

impl Outage {
    pub(super) fn new(retry_for: Duration) -> Self {
        Self { retry_for, last_good: None, asked_again: false, backoff: Backoff::new() }
    }

    pub(super) fn over(&mut self) {
        *self = Self::new(self.retry_for);
    }

    /// How long to pause before the next try, and until when to try; `None` to give up. The outage
    /// counts from when the store began to fail, if that is longer ago. `begins`: this failure is the
    /// first.
    pub(super) fn next(
        &mut self,
        failure: &BackendError,
        since: Option<Moment>,
        begins: bool,
    ) -> Option<(Duration, Moment)> {
        if matches!(failure, BackendError::InvalidInput(_) | BackendError::Rejected(_)) {
            return None;
        }
        // One lost reply is the most common fault, and asking again at once settles it.
        let first = begins && matches!(failure, BackendError::Ambiguous(_)) && !self.asked_again;
        let last_good = *self.last_good.get_or_insert_with(Moment::now);
        let began = since.map_or(last_good, |since| since.min(last_good));
        let patience = if seams::flawed!(RetriesForEver) { Duration::MAX } else { self.retry_for };
        let end = began.after(patience);
        if end.has_come() {
            return None;
        }
        if first {
            self.asked_again = true;
            return Some((Duration::ZERO, end));
        }
        Some((self.backoff.pause().min(end.remaining()), end))
    }
}
