//! The memory backend: the executable specification of the contract.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::backend::LockBackend;
use crate::claim::{Acquire, Claim, HandOver, LeaseInfo, Limits, Release, ReleaseSignal, Renew};
use crate::error::BackendError;
use crate::key::{HolderId, LockKey};

mod record;
mod store;

use store::{Clock, Store};

/// Keys are spread over so many stores, so that tasks on several keys do not wait for each other.
const PARTS: usize = 16;

/// The longest place in a line.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Leases in this process's memory.
///
/// It excludes the tasks of one process from each other and nobody else, and forgets everything
/// with the process: made for tests, examples and as the specification that other backends are
/// compared with. Its clock is tokio's, so a paused test clock moves its leases as well.
///
/// Clones are clients of the same store.
///
/// ```
/// use lockcore::{LockManager, MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lockcore::Error> {
/// let locks = LockManager::new(MemoryBackend::new());
/// let guard = locks.lock("orders/42")?.acquire().await?;
/// assert!(guard.is_valid());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryBackend {
    parts: Arc<[Part; PARTS]>,
}

/// The store of a part of the keys, in lines of the processor's cache that no other part shares.
#[repr(align(128))]
struct Part(Mutex<Store>);

impl Part {
    fn store(&self) -> MutexGuard<'_, Store> {
        // The store is consistent between any two statements that can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBackend {
    /// A new, empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::starting_at(SystemTime::now())
    }

    /// A new, empty store whose clock shows `wall` now, for tests that need the same tokens in
    /// every run.
    #[must_use]
    pub fn starting_at(wall: SystemTime) -> Self {
        let clock = Clock::starting_at(wall.duration_since(UNIX_EPOCH).unwrap_or_default());
        let (id, born) = (HolderId::random().as_u128(), Instant::now());
        let part = |_| Part(Mutex::new(Store::new(clock, id, born)));
        Self { parts: Arc::new(std::array::from_fn(part)) }
    }

    /// Forgets everything, as a store that lost its data does: a fault for tests.
    pub fn wipe(&self) {
        let (id, born) = (HolderId::random().as_u128(), Instant::now());
        for mut store in self.all() {
            store.wipe(id, born);
        }
    }

    fn store(&self, key: &LockKey) -> MutexGuard<'_, Store> {
        self.parts[key.part_of(PARTS)].store()
    }

    /// The whole store, which stands still meanwhile.
    fn all(&self) -> Vec<MutexGuard<'_, Store>> {
        self.parts.iter().map(Part::store).collect()
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for MemoryBackend {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
            .with_line(MAX_WAIT)
            .with_max_in_flight(usize::MAX)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store(&claim.key).acquire(claim))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store(&claim.key).renew(claim))
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store(&claim.key).release(claim))
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.limits().check(from)?;
        self.limits().check(to)?;
        Ok(self.store(&from.key).hand_over(from, to, over))
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store(&claim.key).watch(claim))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        Ok(self.store(key).info(key, Instant::now()))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let all = self.all();
        let mut found: Vec<_> =
            all.iter().flat_map(|store| store.list(prefix, after, limit)).collect();
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        found.truncate(limit);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::store::{RETENTION, micros};
    use super::*;

    fn claim(key: &str) -> Claim {
        let key = LockKey::new(key).expect("valid");
        Claim::new(key, HolderId::random(), Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn old_counters_are_swept_and_tokens_still_rise() {
        let store = MemoryBackend::new();
        let first = claim("first");
        let Ok(Acquire::Acquired(before)) = store.acquire(&first).await else { panic!("free") };
        tokio::time::advance(RETENTION + Duration::from_secs(2)).await;
        for n in 0..1030 {
            store.acquire(&claim(&format!("k{n}"))).await.expect("memory");
        }
        assert!(!store.store(&first.key).records.contains_key(&first.key));
        let Ok(Acquire::Acquired(after)) = store.acquire(&claim("first")).await else {
            panic!("expired")
        };
        assert!(after.token > before.token);
    }

    #[tokio::test(start_paused = true)]
    async fn a_counter_ahead_of_the_clock_is_kept_until_the_clock_is_there() {
        let store = MemoryBackend::new();
        let raised = claim("raised").with_min_token(MAX);
        store.acquire(&raised).await.expect("memory");
        tokio::time::advance(RETENTION * 30).await;
        for n in 0..1030 {
            store.acquire(&claim(&format!("k{n}"))).await.expect("memory");
        }
        let Ok(Acquire::Acquired(after)) = store.acquire(&claim("raised")).await else {
            panic!("expired")
        };
        assert_eq!(after.token, MAX + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_counter_ahead_by_days_is_kept_all_the_way() {
        let store = MemoryBackend::new();
        let Ok(Acquire::Acquired(first)) = store.acquire(&claim("k")).await else { panic!("free") };
        tokio::time::advance(Duration::from_secs(2)).await;
        let ahead = first.token + micros(RETENTION * 10);
        store.acquire(&claim("k").with_min_token(ahead)).await.expect("memory");
        tokio::time::advance(RETENTION * 6).await;
        for n in 0..1030 {
            store.acquire(&claim(&format!("k{n}"))).await.expect("memory");
        }
        let Ok(Acquire::Acquired(after)) = store.acquire(&claim("k")).await else {
            panic!("expired")
        };
        assert_eq!(after.token, ahead + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wipe_takes_the_data_and_leaves_the_clock() {
        let store = MemoryBackend::new();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let Ok(Acquire::Acquired(before)) = store.acquire(&claim("k")).await else {
            panic!("free")
        };
        store.wipe();
        let Ok(Acquire::Acquired(after)) = store.acquire(&claim("k")).await else {
            panic!("wiped")
        };
        // The paused clock has not moved, and a store without data cannot do better.
        assert_eq!(after.token, before.token);
        tokio::time::advance(Duration::from_millis(1)).await;
        store.wipe();
        let Ok(Acquire::Acquired(later)) = store.acquire(&claim("k")).await else {
            panic!("wiped")
        };
        assert_eq!(later.token, before.token + 1000);
    }

    const MAX: u64 = crate::claim::MAX_TOKEN;
}
