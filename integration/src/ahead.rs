//! A store whose clock is ahead.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use leaselock::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};

/// By how much.
const AHEAD: Duration = Duration::from_secs(2);

/// A store whose clock, as far as tokens tell, is two seconds ahead of this machine's: each new
/// lease has at least the token that a store with such a clock would give it. How long leases live
/// does not depend on what a clock shows.
#[derive(Debug)]
pub struct Ahead(Arc<dyn LockBackend>);

impl Ahead {
    /// This store, its clock set forward.
    #[must_use]
    pub fn new(store: Arc<dyn LockBackend>) -> Self {
        Self(store)
    }
}

/// The claim with the least token that such a clock would give.
fn ahead(claim: &Claim) -> Claim {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + AHEAD;
    let now = u64::try_from(now.as_micros()).unwrap_or(0);
    claim.clone().with_min_token(now.max(claim.min_token))
}

#[async_trait]
impl LockBackend for Ahead {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.0.acquire(&ahead(claim)).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.0.renew(claim).await
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
        let to = ahead(to);
        self.0.hand_over(from, &to, over).await
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
