//! Hearing of a release.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, Claim, LeaseInfo, LockBackend, LockKey, ReleaseSignal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::sight::{Enough, Sights};
use super::{Group, NoAgreement};
use crate::ballot::Stand;
use crate::flaw::{Flaw, flawed};

impl Group {
    /// Resolves when the key may have become free.
    ///
    /// Where several must agree, as many must have told of a release: after the first, asking
    /// again would find the others still held. Where a lease may be in one store alone, one is
    /// enough, but a look at all of them comes before: an attempt that takes the first store and
    /// finds the second held gives the first back, and must not wake itself and its like for it.
    pub(crate) async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits.check(claim)?;
        let (told, limit) = (Arc::new(Semaphore::new(0)), self.limit(claim));
        let once = self.seen == self.need;
        let (armed, mut arming) = mpsc::unbounded_channel();
        // Dropping the signal ends the tasks, and with them the watches.
        let mut watches = JoinSet::new();
        for (index, node) in self.calls.nodes().iter().enumerate() {
            let (backend, claim) = (node.backend.clone(), claim.clone());
            let (armed, told) = (armed.clone(), told.clone());
            watches.spawn(async move {
                let mut signal = match arm(&*backend, &claim, limit).await {
                    Ok(signal) => signal,
                    Err(error) => return drop(armed.send((index, Err(error)))),
                };
                let _ = armed.send((index, Ok(())));
                drop(armed);
                loop {
                    signal.await;
                    // Armed anew before anybody looks.
                    let next = if once { None } else { arm(&*backend, &claim, limit).await.ok() };
                    told.add_permits(1);
                    let Some(next) = next else { return };
                    signal = next;
                }
            });
        }
        drop(armed);
        let mut stands: Vec<_> = self.calls.nodes().iter().map(|_| Stand::Asked).collect();
        let mut left = self.seen;
        // The rest joins when it is armed.
        while left > 0 {
            let Some((index, outcome)) = arming.recv().await else {
                let error = NoAgreement::new(self, &stands);
                return Err(BackendError::unavailable(error));
            };
            left -= usize::from(outcome.is_ok());
            if let (Some(stand), Err(error)) = (stands.get_mut(index), outcome) {
                *stand = Stand::Failed(error);
            }
        }
        let (group, key) = (self.clone(), claim.key.clone());
        let enough = u32::try_from(self.seen).unwrap_or(u32::MAX);
        Ok(ReleaseSignal::new(async move {
            let _watches = watches;
            // Never closed; and if it were, asking again does no harm.
            while let Ok(permits) = told.acquire_many(enough).await {
                permits.forget();
                if once || flawed(Flaw::WakesItself) || !group.is_held(&key).await {
                    break;
                }
            }
        }))
    }

    /// Whether a store shows somebody's lease; asking is what settles a doubt.
    async fn is_held(&self, key: &LockKey) -> bool {
        let any_held = |sights: &Sights<Option<LeaseInfo>>| {
            sights.iter().any(|sight| matches!(sight, Ok(Some(_))))
        };
        let enough = |sights: &_| if any_held(sights) { Enough::Yes } else { Enough::No };
        any_held(&self.inspect_all(key, enough).await)
    }
}

async fn arm(
    backend: &dyn LockBackend,
    claim: &Claim,
    limit: Duration,
) -> Result<ReleaseSignal, BackendError> {
    timeout(limit, backend.watch(claim))
        .await
        .unwrap_or_else(|_| Err(BackendError::ambiguous(format!("no answer within {limit:?}"))))
}
