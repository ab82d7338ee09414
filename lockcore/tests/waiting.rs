//! Waiting for a store that answers oddly.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, ErrorKind, LeaseInfo, Limits, LockBackend, LockKey,
    LockManager, MemoryBackend, Release, ReleaseSignal, Renew, async_trait,
};

/// Somebody else has every key, and for how long is what it says.
#[derive(Debug)]
struct Taken {
    retry_after: Option<Duration>,
    asked: AtomicUsize,
}

#[async_trait]
impl LockBackend for Taken {
    fn limits(&self) -> Limits {
        MemoryBackend::new().limits()
    }

    async fn acquire(&self, _: &Claim) -> Result<Acquire, BackendError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Acquire::Contended(Contention::new(self.retry_after)))
    }

    async fn renew(&self, _: &Claim) -> Result<Renew, BackendError> {
        Ok(Renew::NotHeld)
    }

    async fn release(&self, _: &Claim) -> Result<Release, BackendError> {
        Ok(Release::NotHeld)
    }

    async fn watch(&self, _: &Claim) -> Result<ReleaseSignal, BackendError> {
        Ok(ReleaseSignal::never())
    }

    async fn inspect(&self, _: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        Ok(None)
    }

    async fn list(
        &self,
        _: &str,
        _: Option<&LockKey>,
        _: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        Ok(Vec::new())
    }
}

/// A lease that should have ended and has not, as where a store ends leases now and then.
#[tokio::test(start_paused = true)]
async fn an_overdue_lease_is_asked_for_less_and_less() -> Result<(), Box<dyn Error>> {
    for retry_after in [Some(Duration::ZERO), Some(Duration::MAX), None] {
        let store = Arc::new(Taken { retry_after, asked: AtomicUsize::new(0) });
        let lock = LockManager::new(store.clone()).lock("k")?;
        let error = lock.acquire_timeout(Duration::from_secs(10)).await.err();
        assert_eq!(error.map(|error| error.kind()), Some(ErrorKind::Contended));
        let asked = store.asked.load(Ordering::Relaxed);
        // At a floor of a second, and some more in the first second.
        assert!((10..=30).contains(&asked), "{retry_after:?}: asked {asked} times in 10 s");
    }
    Ok(())
}
