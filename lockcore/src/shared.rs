//! What the locks and guards of one manager share, for a part of the keys.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::backend::LockBackend;
use crate::background::Background;
use crate::backoff::Backoff;
use crate::claim::{Claim, Release};
use crate::clock::{Moment, sleep};
use crate::error::BackendError;
use crate::health::Purpose;
use crate::held::Held;
use crate::queue::{Baton, Queue};
use crate::renewal::Renewals;
use crate::settings::Settings;
use crate::store::Store;

/// Keys are spread over so many parts, so that tasks with several keys do not wait for each other:
/// what each acquire writes is common to those of one part alone.
pub(crate) const PARTS: usize = 32;

#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shared {
    part: usize,
    pub(crate) store: Arc<Store>,
    pub(crate) queue: Arc<Queue>,
    renewals: Arc<Renewals>,
    pub(crate) background: Arc<Background>,
    /// Where tasks run, if the manager's builder says so.
    runtime: Option<Handle>,
}

impl Shared {
    /// All parts of a manager.
    pub(crate) fn new(
        backend: Arc<dyn LockBackend>,
        settings: Settings,
        runtime: Option<&Handle>,
    ) -> Arc<[Arc<Self>]> {
        let limits = backend.limits();
        let store = Arc::new(Store::new(backend, limits, settings));
        let renewals = Arc::new(Renewals::new(store.clone(), PARTS));
        let background = Arc::default();
        let part = |part| Self::part(part, &store, &renewals, &background, runtime);
        (0..PARTS).map(part).collect()
    }

    fn part(
        part: usize,
        store: &Store,
        renewals: &Arc<Renewals>,
        background: &Arc<Background>,
        runtime: Option<&Handle>,
    ) -> Arc<Self> {
        let (limits, ttl) = (store.limits, store.settings.ttl);
        let store = Arc::new(store.for_others());
        Arc::new_cyclic(|shared: &Weak<Self>| {
            let shared = shared.clone();
            let orphan = Box::new(move |baton| {
                if let Some(shared) = shared.upgrade() {
                    shared.give_back(baton);
                }
            });
            let queue = Arc::new(Queue::new(limits.has_line(), ttl, orphan));
            let (renewals, background) = (renewals.clone(), background.clone());
            Self { part, store, queue, renewals, background, runtime: runtime.cloned() }
        })
    }

    /// Renews a lease from now on, until it is forgotten or lost.
    pub(crate) fn keep(&self, held: &Arc<Held>, runtime: &Handle) {
        self.renewals.keep(held, self.part, runtime);
    }

    /// Ends the renewal of a lease.
    pub(crate) fn forget(&self, held: &Held) {
        self.renewals.forget(held, self.part);
    }

    /// The runtime for tasks of this manager that begin now: the one that was chosen, or the one
    /// that runs the caller. `None` outside a runtime.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }

    /// The same for a caller on the runtime `here`.
    pub(crate) fn runtime_or(&self, here: Handle) -> Handle {
        self.runtime.clone().unwrap_or(here)
    }

    /// Releases what the process has of a key, after the last of its tasks has left the queue.
    pub(crate) fn give_back(self: &Arc<Self>, baton: Baton) {
        let (claim, until) = baton.into_claim();
        // Outside a runtime it ends with its time.
        if let Some(runtime) = self.runtime() {
            let shared = self.clone();
            let undo = async move { shared.undo(&claim, until, || {}).await };
            self.background.spawn(&runtime, until, undo);
        }
    }

    /// As [`give_back`](Self::give_back), for a task that waits for it: so does `drain` then.
    pub(crate) async fn give_back_now(&self, baton: Baton) {
        let (claim, until) = baton.into_claim();
        self.undo(&claim, until, || {}).await;
    }

    /// Releases until the store has answered, or the lease has ended by itself.
    pub(crate) async fn undo(&self, claim: &Claim, until: Moment, after_first: impl FnOnce()) {
        let mut backoff = Backoff::new();
        let mut after_first = Some(after_first);
        loop {
            let answer = self.store.release(claim, Moment::now()).await;
            if let Some(after_first) = after_first.take() {
                after_first();
            }
            match answer {
                Ok(Release::Released { .. } | Release::NotHeld) => {
                    tracing::debug!(
                        lock.key = %claim.key, lock.holder = %claim.holder, "undid an acquire"
                    );
                    return;
                }
                Err(BackendError::Unavailable(_) | BackendError::Ambiguous(_))
                    if !until.has_come() =>
                {
                    sleep(backoff.pause().min(until.remaining())).await;
                    if !self.store.health.turn_to_try(Purpose::Lease, until).await {
                        return;
                    }
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

    /// How long a failed request is repeated before its caller is told.
    pub(crate) fn retry_for(&self) -> Duration {
        self.store.settings.retry_for
    }
}
