//! Hearing of a release.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, Claim, LockBackend, ReleaseSignal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Group, NoAgreement};
use crate::ballot::Stand;
use crate::calls::of_a_part;

impl Group {
    /// Resolves when the key may have become free: when the lead has told of a release, which is asked
    /// first, or as many stores as must agree. After another alone, asking again would find the rest
    /// still held.
    pub(crate) async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits.check(claim)?;
        let (told, limit) = (Arc::new(Semaphore::new(0)), self.limit(claim));
        let lead = self.calls.lead(&claim.key);
        let (armed, mut arming) = mpsc::unbounded_channel();
        // Dropping the signal ends the tasks, and with them the watches.
        let mut watches = JoinSet::new();
        for (index, node) in self.calls.nodes().iter().enumerate() {
            let (backend, claim) = (node.backend.clone(), of_a_part(claim));
            let (armed, told, need) = (armed.clone(), told.clone(), self.need);
            watches.spawn(async move {
                let signal = match arm(&*backend, &claim, limit).await {
                    Ok(signal) => signal,
                    Err(error) => return drop(armed.send((index, Err(error)))),
                };
                let _ = armed.send((index, Ok(())));
                drop(armed);
                signal.await;
                told.add_permits(if Some(index) == lead { need } else { 1 });
            });
        }
        drop(armed);
        let mut stands: Vec<_> = self.calls.nodes().iter().map(|_| Stand::Asked).collect();
        let (mut left, mut without_lead) = (self.need, lead.is_some());
        let patience = lead.map_or(Duration::ZERO, |lead| self.calls.patience(lead));
        let patience = Instant::now() + patience;
        // The rest joins when it is armed.
        while left > 0 || without_lead {
            let next = arming.recv();
            let next = if left > 0 {
                next.await
            } else if let Ok(next) = timeout_at(patience, next).await {
                next
            } else {
                break;
            };
            let Some((index, outcome)) = next else {
                let error = NoAgreement::new(self, &stands);
                return Err(BackendError::unavailable(error));
            };
            left = left.saturating_sub(usize::from(outcome.is_ok()));
            without_lead &= Some(index) != lead;
            if let (Some(stand), Err(error)) = (stands.get_mut(index), outcome) {
                *stand = Stand::Failed(error);
            }
        }
        let enough = u32::try_from(self.need).unwrap_or(u32::MAX);
        Ok(ReleaseSignal::new(async move {
            let _watches = watches;
            // Never closed; and if it were, asking again does no harm.
            let _ = told.acquire_many(enough).await;
        }))
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
