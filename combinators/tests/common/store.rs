//! A store in memory whose tokens are made as one likes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lockcore::{
    Acquire, Claim, Contention, HolderId, Incarnation, Lease, LeaseInfo, LockKey, Release,
    ReleaseSignal, Renew,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How a store makes its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// The microseconds of its clock, which is wrong by so many milliseconds.
    Clock(i64),
    /// One more than the key's last, and no clock.
    PerKey,
    /// A number of all writes to the store and a base, as in etcd: a floor moves the base of a part
    /// of the keys, and others write as well.
    Revision,
}

#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tokens: Tokens,
    began: Instant,
    id: Option<u128>,
    born: Instant,
    leases: BTreeMap<LockKey, (HolderId, u64, Instant, Arc<str>)>,
    counters: BTreeMap<LockKey, u64>,
    revision: u64,
    bases: BTreeMap<u8, u64>,
    watchers: BTreeMap<LockKey, Vec<oneshot::Sender<()>>>,
    /// It counts in steps of this, and rounds up.
    step: Duration,
}

/// The clocks' reading when a store begins: any, as long as it is large.
const EPOCH: u64 = 1_700_000_000_000_000;

impl Store {
    pub(crate) fn new(tokens: Tokens) -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(Inner {
            tokens,
            began: now,
            id: Some(HolderId::random().as_u128()),
            born: now,
            leases: BTreeMap::new(),
            counters: BTreeMap::new(),
            revision: 1,
            bases: BTreeMap::new(),
            watchers: BTreeMap::new(),
            step: Duration::from_millis(1),
        })))
    }

    /// Loses all data; the clock goes on.
    pub(crate) fn wipe(&self) {
        let mut inner = self.inner();
        inner.id = inner.id.map(|_| HolderId::random().as_u128());
        inner.born = Instant::now();
        inner.leases.clear();
        inner.counters.clear();
        inner.revision = 1;
        inner.bases.clear();
    }

    /// Begins anew with all its data, which it may have gone back to.
    pub(crate) fn restart(&self) {
        self.inner().born = Instant::now();
    }

    /// From now on its clock is wrong by so many milliseconds.
    pub(crate) fn set_clock(&self, wrong: i64) {
        self.inner().tokens = Tokens::Clock(wrong);
    }

    /// From now on it counts a ttl in steps of this, and rounds up.
    pub(crate) fn round_to(&self, step: Duration) {
        self.inner().step = step;
    }

    /// It does not know how long it has forgotten nothing.
    pub(crate) fn forget_memory(&self) {
        self.inner().id = None;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while it is locked")
    }

    pub(crate) fn acquire(&self, claim: &Claim) -> Acquire {
        let now = Instant::now();
        let mut inner = self.inner();
        let ttl = inner.rounded(claim.ttl);
        let memory = inner.memory(now);
        if let Some((holder, token, ends, _)) = inner.standing(&claim.key, now) {
            if *holder != claim.holder {
                return Acquire::Contended(Contention::new(Some(*ends - now)));
            }
            *ends = (*ends).max(now + ttl);
            return Acquire::Acquired(Lease::new(*token, ttl).with_incarnation(memory));
        }
        let token = inner.next(&claim.key, now).max(claim.min_token);
        inner.remember(&claim.key, token);
        let lease = (claim.holder, token, now + ttl, claim.label.clone());
        inner.leases.insert(claim.key.clone(), lease);
        Acquire::Acquired(Lease::new(token, ttl).with_incarnation(memory))
    }

    pub(crate) fn renew(&self, claim: &Claim) -> Renew {
        let now = Instant::now();
        let mut inner = self.inner();
        let ttl = inner.rounded(claim.ttl);
        let lease = inner.standing(&claim.key, now);
        let Some((_, token, ends, _)) = lease.filter(|lease| lease.0 == claim.holder) else {
            return Renew::NotHeld;
        };
        *ends = (*ends).max(now + ttl);
        *token = (*token).max(claim.min_token);
        let token = *token;
        inner.remember(&claim.key, token);
        Renew::Renewed(Lease::new(token, ttl).with_incarnation(inner.memory(now)))
    }

    pub(crate) fn release(&self, claim: &Claim) -> Release {
        let mut inner = self.inner();
        if inner.standing(&claim.key, Instant::now()).is_none_or(|lease| lease.0 != claim.holder) {
            return Release::NotHeld;
        }
        let token = inner.leases.remove(&claim.key).map_or(0, |lease| lease.1);
        if claim.announce {
            for watcher in inner.watchers.remove(&claim.key).unwrap_or_default() {
                let _ = watcher.send(());
            }
        }
        Release::Released { token }
    }

    pub(crate) fn watch(&self, key: &LockKey) -> ReleaseSignal {
        let (sender, receiver) = oneshot::channel();
        self.inner().watchers.entry(key.clone()).or_default().push(sender);
        ReleaseSignal::new(async move {
            let _ = receiver.await;
        })
    }

    pub(crate) fn info(&self, key: &LockKey) -> Option<LeaseInfo> {
        let now = Instant::now();
        let mut inner = self.inner();
        let (holder, token, ends, label) = inner.standing(key, now)?;
        Some(LeaseInfo::new(key.clone(), *holder, *token, *ends - now, &**label))
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Vec<LeaseInfo> {
        let keys: Vec<_> = self.inner().leases.keys().cloned().collect();
        keys.iter()
            .filter(|key| key.as_str().starts_with(prefix) && Some(*key) > after)
            .filter_map(|key| self.info(key))
            .take(limit)
            .collect()
    }
}

impl Inner {
    fn standing(
        &mut self,
        key: &LockKey,
        now: Instant,
    ) -> Option<&mut (HolderId, u64, Instant, Arc<str>)> {
        if self.leases.get(key).is_some_and(|lease| lease.2 <= now) {
            self.leases.remove(key);
        }
        self.leases.get_mut(key)
    }

    fn next(&mut self, key: &LockKey, now: Instant) -> u64 {
        let last = self.counters.get(key).copied().unwrap_or(0);
        match self.tokens {
            Tokens::PerKey => last + 1,
            Tokens::Clock(wrong) => {
                let micros = Duration::as_micros(&(now - self.began));
                let clock = EPOCH + u64::try_from(micros).expect("a short test");
                (last + 1).max(clock.saturating_add_signed(wrong * 1000))
            }
            Tokens::Revision => {
                self.revision += 1_000;
                self.revision + self.bases.get(&shard(key)).copied().unwrap_or(0)
            }
        }
    }

    fn memory(&self, now: Instant) -> Option<Incarnation> {
        self.id.map(|id| Incarnation::new(id, now - self.born))
    }

    fn rounded(&self, ttl: Duration) -> Duration {
        let steps = ttl.as_nanos().div_ceil(self.step.as_nanos());
        self.step * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    fn remember(&mut self, key: &LockKey, token: u64) {
        let base = self.bases.entry(shard(key)).or_default();
        *base = token.saturating_sub(self.revision).max(*base);
        self.counters.insert(key.clone(), token);
    }
}

fn shard(key: &LockKey) -> u8 {
    key.as_str().bytes().fold(0, u8::wrapping_add) % 8
}
