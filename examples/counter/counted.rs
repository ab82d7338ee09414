//! A backend around another that counts the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leaselock::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};

/// Counts what a lock sends to its store. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn LockBackend>,
    calls: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn LockBackend>) -> Self {
        Self { inner, calls: Arc::default() }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn count(&self) -> &dyn LockBackend {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &*self.inner
    }
}

#[async_trait]
impl LockBackend for Counted {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.count().acquire(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.count().renew(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.count().release(claim).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        self.count().renew_many(claims).await
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.count().hand_over(from, to, over).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.count().watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.inner.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.inner.list(prefix, after, limit).await
    }
}
