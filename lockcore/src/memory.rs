//! The memory backend: the executable specification of the contract.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::LockBackend;
use crate::claim::{
    Acquire, Claim, Contention, Lease, LeaseInfo, Limits, Release, ReleaseSignal, Renew,
    StoreMemory,
};
use crate::error::BackendError;
use crate::key::{HolderId, LockKey};

/// How long a token outlives the later of its last use and the instant it names.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

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
    store: Arc<Mutex<Store>>,
}

impl MemoryBackend {
    /// A new, empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { store: Arc::new(Mutex::new(Store::new())) }
    }

    /// Forgets everything, as a store that lost its data does: a fault for tests.
    pub fn wipe(&self) {
        let mut store = self.store();
        // The clock is not data. Nor is anybody told: data does not vanish with a message.
        let (clock, watchers) = (store.clock, std::mem::take(&mut store.watchers));
        *store = Store { clock, watchers, ..Store::new() };
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // The store is consistent between any two statements that can panic.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
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

struct Store {
    clock: Clock,
    id: u128,
    born: Instant,
    leases: BTreeMap<LockKey, Held>,
    /// The last token of each key.
    tokens: BTreeMap<LockKey, Counter>,
    watchers: BTreeMap<LockKey, Vec<oneshot::Sender<()>>>,
    /// Sweep away old counters when there are this many.
    sweep_at: usize,
}

/// The wall clock when the store began; from there on time passes as tokio's clock does.
#[derive(Clone, Copy)]
struct Clock {
    began: Instant,
    began_us: u64,
}

impl Clock {
    fn us(self, now: Instant) -> u64 {
        self.began_us.saturating_add(micros(now.duration_since(self.began)))
    }
}

#[derive(Clone)]
struct Held {
    holder: HolderId,
    token: u64,
    ends: Instant,
    label: String,
}

#[derive(Clone, Copy)]
struct Counter {
    token: u64,
    used: Instant,
}

impl Store {
    fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Instant::now();
        Self {
            clock: Clock { began: now, began_us: micros(wall) },
            id: HolderId::random().as_u128(),
            born: now,
            leases: BTreeMap::new(),
            tokens: BTreeMap::new(),
            watchers: BTreeMap::new(),
            sweep_at: 1024,
        }
    }

    /// The lease that stands on `key` now.
    fn standing(&mut self, key: &LockKey, now: Instant) -> Option<&mut Held> {
        if self.leases.get(key).is_some_and(|held| held.ends <= now) {
            self.leases.remove(key);
        }
        self.leases.get_mut(key)
    }

    /// The lease that stands on the claim's key now, if it is the claim's holder's.
    fn mine(&mut self, claim: &Claim, now: Instant) -> Option<&mut Held> {
        self.standing(&claim.key, now).filter(|held| held.holder == claim.holder)
    }

    fn memory(&self, now: Instant) -> StoreMemory {
        StoreMemory::new(self.id, now.duration_since(self.born))
    }

    fn acquire(&mut self, claim: &Claim) -> Acquire {
        let now = Instant::now();
        let ends = now + claim.ttl;
        let memory = Some(self.memory(now));
        if let Some(held) = self.standing(&claim.key, now) {
            if held.holder != claim.holder {
                return Acquire::Contended(Contention::new(Some(held.ends - now)));
            }
            held.ends = held.ends.max(ends);
            return Acquire::Acquired(Lease::new(held.token, claim.ttl).with_memory(memory));
        }
        let last = self.tokens.get(&claim.key).map_or(0, |counter| counter.token);
        let token = (last + 1).max(self.clock.us(now)).max(claim.min_token);
        self.sweep(now);
        self.tokens.insert(claim.key.clone(), Counter { token, used: now });
        self.leases.insert(
            claim.key.clone(),
            Held { holder: claim.holder, token, ends, label: claim.label.clone() },
        );
        Acquire::Acquired(Lease::new(token, claim.ttl).with_memory(memory))
    }

    fn renew(&mut self, claim: &Claim) -> Renew {
        let now = Instant::now();
        let memory = Some(self.memory(now));
        let Some(held) = self.mine(claim, now) else {
            return Renew::NotHeld;
        };
        held.ends = held.ends.max(now + claim.ttl);
        held.token = held.token.max(claim.min_token);
        let token = held.token;
        self.tokens.insert(claim.key.clone(), Counter { token, used: now });
        Renew::Renewed(Lease::new(token, claim.ttl).with_memory(memory))
    }

    fn release(&mut self, claim: &Claim) -> Release {
        let now = Instant::now();
        if self.mine(claim, now).is_none() {
            return Release::NotHeld;
        }
        self.leases.remove(&claim.key);
        for watcher in self.watchers.remove(&claim.key).unwrap_or_default() {
            // Whoever stopped waiting does not need to know.
            let _ = watcher.send(());
        }
        Release::Released
    }

    fn watch(&mut self, key: &LockKey) -> ReleaseSignal {
        let (sender, receiver) = oneshot::channel();
        let watchers = self.watchers.entry(key.clone()).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        watchers.push(sender);
        ReleaseSignal::new(async move {
            let _ = receiver.await;
        })
    }

    fn info(&self, key: &LockKey, now: Instant) -> Option<LeaseInfo> {
        let held = self.leases.get(key).filter(|held| held.ends > now)?;
        let remaining = held.ends - now;
        Some(LeaseInfo::new(key.clone(), held.holder, held.token, remaining, held.label.clone()))
    }

    fn list(&self, prefix: &str, after: Option<&LockKey>, limit: usize) -> Vec<LeaseInfo> {
        let now = Instant::now();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.leases
            .range::<LockKey, _>((start, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .filter_map(|(key, _)| self.info(key, now))
            .take(limit)
            .collect()
    }

    /// Forgets counters that no longer matter and leases that have ended, so that a store with
    /// ever new key names does not grow for ever.
    fn sweep(&mut self, now: Instant) {
        if self.tokens.len() < self.sweep_at {
            return;
        }
        let now_us = self.clock.us(now);
        self.leases.retain(|_, held| held.ends > now);
        let leases = &self.leases;
        self.tokens.retain(|key, counter| {
            let token_gone_by = Duration::from_micros(now_us.saturating_sub(counter.token));
            let unused = now.duration_since(counter.used);
            leases.contains_key(key) || unused.min(token_gone_by) < RETENTION
        });
        self.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
        self.sweep_at = (self.tokens.len() * 2).max(1024);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[async_trait]
impl LockBackend for MemoryBackend {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store().acquire(claim))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store().renew(claim))
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store().release(claim))
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        Ok(self.store().watch(&claim.key))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        Ok(self.store().info(key, Instant::now()))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        Ok(self.store().list(prefix, after, limit))
    }
}

#[cfg(test)]
mod tests {
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
        assert!(!store.store().tokens.contains_key(&first.key));
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
