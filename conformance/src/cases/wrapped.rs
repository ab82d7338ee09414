//! A client with something odd about how it hears from the store.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HandOver, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};

/// How its signals are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signals {
    AsTheyAre,
    /// It has none, and says so.
    None,
    /// They never come, and nobody knows.
    Lost,
    /// They come for nothing, again and again after this time.
    ForNothing(Duration),
}

/// A client with odd signals, or one that is farther from the store.
#[derive(Clone, Debug)]
pub(super) struct Wrapped {
    inner: Arc<dyn LockBackend>,
    signals: Signals,
    away: Duration,
}

impl Wrapped {
    fn new(inner: &Arc<dyn LockBackend>, signals: Signals) -> Self {
        Self { inner: inner.clone(), signals, away: Duration::ZERO }
    }

    /// It has no signals, nor does it know how long a lease still lasts.
    pub(super) fn deaf(inner: &Arc<dyn LockBackend>) -> Self {
        Self::new(inner, Signals::None)
    }

    /// Its signals are lost.
    pub(super) fn unheard(inner: &Arc<dyn LockBackend>) -> Self {
        Self::new(inner, Signals::Lost)
    }

    /// It is signalled for nothing, each time after `every`.
    pub(super) fn misled(inner: &Arc<dyn LockBackend>, every: Duration) -> Self {
        Self::new(inner, Signals::ForNothing(every))
    }

    /// Each request and each answer takes so much longer.
    pub(super) fn farther(inner: &Arc<dyn LockBackend>, away: Duration) -> Self {
        Self { away, ..Self::new(inner, Signals::AsTheyAre) }
    }

    async fn there_and_back<T>(&self, call: impl Future<Output = T>) -> T {
        if self.away.is_zero() {
            return call.await;
        }
        tokio::time::sleep(self.away).await;
        let answer = call.await;
        tokio::time::sleep(self.away).await;
        answer
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LockBackend for Wrapped {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        Ok(match self.there_and_back(self.inner.acquire(claim)).await? {
            Acquire::Contended(contention) if self.signals == Signals::None => {
                Acquire::Contended(Contention::new(None).with_ahead(contention.ahead))
            }
            answer => answer,
        })
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.there_and_back(self.inner.renew(claim)).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        self.there_and_back(self.inner.renew_many(claims)).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.there_and_back(self.inner.release(claim)).await
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.there_and_back(self.inner.hand_over(from, to, over)).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        match self.signals {
            Signals::None => Ok(ReleaseSignal::never()),
            Signals::ForNothing(every) => Ok(ReleaseSignal::new(tokio::time::sleep(every))),
            Signals::Lost => {
                // The store knows that somebody listens.
                let armed = self.inner.watch(claim).await?;
                Ok(ReleaseSignal::new(async move {
                    armed.await;
                    std::future::pending::<()>().await;
                }))
            }
            Signals::AsTheyAre => {
                let signal = self.there_and_back(self.inner.watch(claim)).await?;
                let away = self.away;
                Ok(ReleaseSignal::new(async move {
                    signal.await;
                    tokio::time::sleep(away).await;
                }))
            }
        }
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
