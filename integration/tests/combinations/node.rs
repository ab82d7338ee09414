//! A store as a part of a combination.

use std::sync::Arc;
use std::time::Duration;

use leaselock::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};

/// The shortest ttl. Of the ttl a quorum gives each store a twelfth to answer, and a switch a sixth:
/// a tenth of a second, with the ttl of the suite's plain claims, is nothing on a machine that runs
/// servers for two suites. With this one it is five times that.
const MIN_TTL: Duration = Duration::from_secs(5);

/// A store for a busy machine, and one whose memory somebody vouches for.
///
/// A quorum counts no grant of a store that began, or was restarted or emptied, less than its
/// `max_ttl` ago: that is tested where time costs nothing, and on real servers in few places. Here
/// it would cost every server a minute. Servers are broken all at once, and what a single store
/// must keep over that, and may lose, is the measure. (A switch does not look at the memory.)
#[derive(Debug)]
pub(crate) struct Node(pub(crate) Arc<dyn LockBackend>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LockBackend for Node {
    fn limits(&self) -> Limits {
        let mut limits = self.0.limits();
        limits.min_ttl = limits.min_ttl.max(MIN_TTL);
        limits
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        Ok(match self.0.acquire(claim).await? {
            Acquire::Acquired(lease) => Acquire::Acquired(lease.with_incarnation(None)),
            contended => contended,
        })
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        Ok(match self.0.renew(claim).await? {
            Renew::Renewed(lease) => Renew::Renewed(lease.with_incarnation(None)),
            not_held => not_held,
        })
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.0.release(claim).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        self.0.renew_many(claims).await
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.0.hand_over(from, to, over).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.0.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.0.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.0.list(prefix, after, limit).await
    }
}
