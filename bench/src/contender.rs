//! Contenders: everything that acquires and releases keys is measured through this trait.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{Lock, LockManager};
use tokio::sync::Mutex;

use crate::Result;

/// The ttl of every lock here, unless a row says otherwise: no lock is renewed while it is measured.
pub(crate) const TTL: Duration = Duration::from_secs(30);

/// Acquires keys in one way.
#[async_trait]
pub(crate) trait Contender: Send + Sync {
    /// Waits until the key is acquired. Those that cannot wait fail where the key is held.
    async fn acquire(&self, key: &str) -> Result<Held>;

    /// Makes a key ready for several processes. One of them calls this, before the others start.
    async fn prepare(&self, _key: &str) -> Result<()> {
        Ok(())
    }
}

type Releasing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// An acquired key.
pub(crate) struct Held(Box<dyn FnOnce() -> Releasing + Send>);

impl Held {
    pub(crate) fn new<F>(release: F) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(release)))
    }

    pub(crate) async fn release(self) -> Result<()> {
        (self.0)().await
    }
}

/// The library itself.
pub(crate) struct Leaselock(pub(crate) LockManager);

#[async_trait]
impl Contender for Leaselock {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let lock: Lock = self.0.lock(key)?;
        let guard = lock.acquire().await?;
        Ok(Held::new(async move { Ok(guard.release().await?) }))
    }
}

/// A record whose holder is replaced by the next one in one command.
#[async_trait]
pub(crate) trait Swap: Send + Sync + 'static {
    /// Puts `next` in the place of `last`, or in an empty place.
    async fn swap(&self, key: &str, last: Option<u128>, next: u128) -> Result<()>;
}

/// The least that a hand-over inside a process can cost: a queue in memory, and one command per
/// holder. The key stays taken.
pub(crate) struct Fused<S> {
    store: S,
    last: Arc<Mutex<Option<(String, u128)>>>,
}

impl<S> Fused<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, last: Arc::default() }
    }
}

#[async_trait]
impl<S: Swap> Contender for Fused<S> {
    async fn acquire(&self, key: &str) -> Result<Held> {
        // Tokio's mutex is first come, first served.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let next = fastrand::u128(..);
        let before = last.as_ref().filter(|(of, _)| of == key).map(|(_, holder)| *holder);
        self.store.swap(key, before, next).await?;
        *last = Some((key.to_owned(), next));
        Ok(Held::new(async move {
            drop(last);
            Ok(())
        }))
    }
}
