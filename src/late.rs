//! Stores on Postgres that were not there when they were opened.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use lockcore::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};
use lockcore_postgres::PostgresBackend;

/// Sees to it that the table is there, once, at the first call that reaches the server: what
/// connecting would have done.
pub(crate) struct Late {
    store: PostgresBackend,
    is_ready: AtomicBool,
}

impl Late {
    pub(crate) fn new(store: PostgresBackend) -> Self {
        Self { store, is_ready: AtomicBool::new(false) }
    }

    async fn ready(&self) -> Result<&PostgresBackend, BackendError> {
        if !self.is_ready.load(Ordering::Relaxed) {
            // Any number of calls may do so at once.
            self.store.ensure_schema().await?;
            self.is_ready.store(true, Ordering::Relaxed);
        }
        Ok(&self.store)
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.store, f)
    }
}

#[async_trait]
impl LockBackend for Late {
    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        self.ready().await?.acquire(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        self.ready().await?.renew(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        self.ready().await?.release(claim).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        match self.ready().await {
            Ok(store) => store.renew_many(claims).await,
            // No lease stands without the table: each claim learns it by itself.
            Err(_) => {
                let mut answers = Vec::with_capacity(claims.len());
                for claim in claims {
                    answers.push(self.renew(claim).await);
                }
                answers
            }
        }
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.limits().check(from)?;
        self.limits().check(to)?;
        self.ready().await?.hand_over(from, to, over).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        self.ready().await?.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.ready().await?.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.ready().await?.list(prefix, after, limit).await
    }
}
