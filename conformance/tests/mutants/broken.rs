//! A store in memory with one flaw.

mod verbs;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HolderId, Incarnation, Lease, LeaseInfo, LockBackend,
    LockKey,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flaws::Flaw;

/// A client of a broken store.
#[derive(Debug)]
pub(crate) struct Broken {
    flaw: Flaw,
    store: Arc<Mutex<Store>>,
    client: u64,
    /// Calls that were begun and neither ended nor cleaned up after.
    stuck: AtomicU64,
    /// The memory at the first grant to this client.
    told: Mutex<Option<Incarnation>>,
}

#[derive(Debug)]
pub(crate) struct Store {
    began: Instant,
    born: Instant,
    id: u128,
    leases: BTreeMap<LockKey, Held>,
    ended: BTreeMap<LockKey, Held>,
    tokens: BTreeMap<LockKey, u64>,
    /// The first token of each holder.
    firsts: HashMap<HolderId, u64>,
    watchers: BTreeMap<LockKey, Vec<Arc<Notify>>>,
    watched: u64,
    clients: u64,
}

#[derive(Clone, Debug)]
struct Held {
    holder: HolderId,
    token: u64,
    ends: Instant,
    label: String,
    client: u64,
}

/// Microseconds at which these stores' clocks begin.
const EPOCH: u64 = 1_700_000_000_000_000;

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            born: Instant::now(),
            id: HolderId::random().as_u128(),
            leases: BTreeMap::new(),
            ended: BTreeMap::new(),
            tokens: BTreeMap::new(),
            firsts: HashMap::new(),
            watchers: BTreeMap::new(),
            watched: 0,
            clients: 0,
        }
    }

    pub(crate) fn wipe(&mut self, flaw: Flaw) {
        let (began, born, id) = (self.began, self.born, self.id);
        *self = Self { clients: self.clients, ..Self::new() };
        match flaw {
            Flaw::MemorySurvivesAWipe => (self.began, self.born, self.id) = (began, born, id),
            Flaw::TheClockIsWipedToo => {}
            _ => self.began = began,
        }
    }

    fn now_us(&self) -> u64 {
        EPOCH + u64::try_from(self.began.elapsed().as_micros()).expect("a short test")
    }
}

impl Broken {
    pub(crate) fn connect(flaw: Flaw, store: &Arc<Mutex<Store>>) -> Self {
        let client = {
            let mut store = store.lock().expect("unpoisoned");
            store.clients += 1;
            store.clients
        };
        Self {
            flaw,
            store: store.clone(),
            client,
            stuck: AtomicU64::new(0),
            told: Mutex::default(),
        }
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store takes the claim for.
    fn claim(&self, claim: &Claim) -> Result<Claim, BackendError> {
        let mut claim = claim.clone();
        let checked = self.limits().check(&claim);
        match self.flaw {
            Flaw::TtlIsNotChecked => {
                claim.ttl = claim.ttl.max(Duration::from_millis(1)).min(Duration::from_secs(60));
                self.limits().check(&claim)?;
            }
            Flaw::FloorIsNotChecked => {
                claim.min_token = claim.min_token.min(1 << 52);
                self.limits().check(&claim)?;
            }
            Flaw::LabelIsNotChecked => {
                claim.label = claim.label.chars().take(8).collect::<String>().into();
            }
            _ => checked?,
        }
        claim.key = self.key(&claim.key);
        if self.is(Flaw::TheClientIsTheHolder) {
            claim.holder = HolderId::from_u128(self.client.into());
        }
        Ok(claim)
    }

    fn key(&self, key: &LockKey) -> LockKey {
        let text = key.as_str();
        let text = match self.flaw {
            Flaw::KeysIgnoreCase => text.to_lowercase(),
            Flaw::KeysAreTrimmed => text.trim().to_owned(),
            Flaw::KeysAreCutShort => text.chars().take(256).collect(),
            Flaw::KeysShareALease => "one".to_owned(),
            _ => return key.clone(),
        };
        LockKey::new(text).expect("still a key")
    }

    /// A point at which the call can be dropped.
    async fn step(&self) -> Result<(), BackendError> {
        if self.is(Flaw::ADroppedCallBlocks) {
            if self.stuck.load(Ordering::Relaxed) > 0 {
                return Err(BackendError::unavailable("still busy with the last call"));
            }
            self.stuck.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            self.stuck.fetch_sub(1, Ordering::Relaxed);
        }
        if self.is(Flaw::CallsWaitForEachOther) {
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        Ok(())
    }

    fn ends(&self, claim: &Claim) -> Instant {
        Instant::now()
            + match self.flaw {
                Flaw::TtlIsCutShort => claim.ttl / 2,
                Flaw::TtlIsStretched => claim.ttl * 2,
                Flaw::TtlIsRoundedDown => Duration::from_millis(
                    u64::try_from(claim.ttl.as_millis()).expect("a short test"),
                ),
                Flaw::LeasesAreForEver => Duration::from_secs(1_000_000),
                _ => claim.ttl,
            }
    }

    fn granted(&self, claim: &Claim) -> Duration {
        match self.flaw {
            Flaw::GrantsLess => claim.ttl / 2,
            Flaw::GrantsMore => claim.ttl * 2,
            _ => claim.ttl,
        }
    }

    /// Takes away what has ended.
    fn expire(&self, store: &mut Store) {
        let now = Instant::now();
        let ended: Vec<_> = store
            .leases
            .iter()
            .filter(|(_, held)| held.ends <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &ended {
            let held = store.leases.remove(key).expect("just seen");
            store.ended.insert(key.clone(), held);
            if self.is(Flaw::TokensRestartAfterExpiry) {
                store.tokens.remove(key);
            }
        }
        if self.is(Flaw::NeighboursEndTogether) && !ended.is_empty() {
            store.leases.clear();
        }
    }

    fn token(&self, store: &Store, claim: &Claim) -> u64 {
        let last = store.tokens.get(&claim.key).copied().unwrap_or(0);
        let floor = claim.min_token;
        let now = store.now_us();
        match self.flaw {
            Flaw::TokensStandStill => EPOCH.max(floor),
            Flaw::TokensHaveNoClock | Flaw::TokensRestartAfterExpiry => (last + 1).max(floor),
            Flaw::TokensArePerClient => self.client * EPOCH * 8 / self.client.pow(2) + last % 7 + 1,
            Flaw::FloorIsIgnored => (last + 1).max(now),
            Flaw::FloorReplaces if floor > 0 => floor,
            Flaw::FloorIsExceeded if floor > 0 => (last + 1).max(now).max(floor + 1),
            Flaw::TokensAreRounded => {
                let token = (last + 1).max(now).max(floor);
                if token >= 1 << 51 { token & !3 } else { token }
            }
            _ => (last + 1).max(now).max(floor),
        }
    }

    fn memory(&self, store: &Store, claim: &Claim) -> Option<Incarnation> {
        if !claim.incarnation && !self.is(Flaw::MemoryIsToldUnasked) {
            return None;
        }
        let age = if self.is(Flaw::MemoryStandsStill) {
            Duration::from_secs(1)
        } else {
            store.born.elapsed()
        };
        let id = if self.is(Flaw::MemoryIsTheClients) { self.client.into() } else { store.id };
        Some(Incarnation::new(id, age))
    }

    fn memory_when_renewed(&self, store: &Store, claim: &Claim) -> Option<Incarnation> {
        let memory = self.memory(store, claim)?;
        let told = self.told.lock().expect("unpoisoned").unwrap_or(memory);
        match self.flaw {
            Flaw::RenewTellsNoMemory => None,
            Flaw::RenewTellsTheMemoryOfTheGrant => Some(told),
            Flaw::RenewTellsTheIdOfTheGrant => Some(Incarnation::new(told.id, memory.age)),
            Flaw::RenewTellsAnAgeFromBeforeAWipe => {
                Some(Incarnation::new(memory.id, store.began.elapsed()))
            }
            _ => Some(memory),
        }
    }

    fn again(&self, store: &mut Store, claim: &Claim) -> Acquire {
        let (memory, ends) = (self.memory(store, claim), self.ends(claim));
        let held = store.leases.get_mut(&claim.key).expect("just seen");
        held.ends = match self.flaw {
            Flaw::AskingAgainDoesNotExtend => held.ends,
            Flaw::AskingAgainShortens => ends,
            _ => held.ends.max(ends),
        };
        match self.flaw {
            Flaw::AskingAgainIsContended => {
                return Acquire::Contended(Contention::new(Some(held.ends - Instant::now())));
            }
            Flaw::AskingAgainCounts => held.token += 1,
            Flaw::AskingAgainRaises => held.token = held.token.max(claim.min_token),
            _ => {}
        }
        let lease = Lease::new(held.token, self.granted(claim)).with_incarnation(memory);
        store.tokens.insert(claim.key.clone(), lease.token);
        Acquire::Acquired(lease)
    }

    fn contended(&self, store: &mut Store, claim: &Claim) -> Result<Acquire, BackendError> {
        let ends = self.ends(claim);
        let held = store.leases.get_mut(&claim.key).expect("just seen");
        if self.is(Flaw::AskingExtendsAnothers) {
            held.ends = held.ends.max(ends);
        }
        if self.is(Flaw::RefusedIsUndoneLate) {
            let (late, claim) = (Arc::clone(&self.store), claim.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut store = late.lock().expect("unpoisoned");
                if store.leases.get(&claim.key).is_some_and(|held| held.holder == claim.holder) {
                    store.leases.remove(&claim.key);
                }
            });
        }
        if self.is(Flaw::ContendedIsAnError) {
            return Err(BackendError::unavailable("held by another"));
        }
        let left = held.ends - Instant::now();
        Ok(Acquire::Contended(Contention::new(match self.flaw {
            Flaw::RetryAfterIsTooLong => Some(left * 3 + Duration::from_secs(60)),
            _ => Some(left),
        })))
    }

    fn grant(&self, store: &mut Store, claim: &Claim) -> Acquire {
        let token = self.token(store, claim);
        let label = match self.flaw {
            Flaw::LabelsAreCutShort => claim.label.split('|').next().unwrap_or("").to_owned(),
            Flaw::LabelsAreLost => String::new(),
            _ => claim.label.to_string(),
        };
        let held = Held {
            holder: claim.holder,
            token,
            ends: self.ends(claim),
            label,
            client: self.client,
        };
        store.tokens.insert(claim.key.clone(), token);
        store.firsts.entry(claim.holder).or_insert(token);
        store.leases.insert(claim.key.clone(), held);
        let memory = self.memory(store, claim);
        let mut told = self.told.lock().expect("unpoisoned");
        *told = told.or(memory);
        Acquire::Acquired(Lease::new(token, self.granted(claim)).with_incarnation(memory))
    }

    fn mine(&self, store: &Store, claim: &Claim, by_anyone: Flaw) -> bool {
        store.leases.get(&claim.key).is_some_and(|held| {
            (held.holder == claim.holder || self.is(by_anyone))
                && (held.client == self.client || !self.is(Flaw::OnlyOneClientServes))
        })
    }

    fn info(&self, key: &LockKey, held: &Held) -> LeaseInfo {
        let (mut remaining, mut token) = (held.ends - Instant::now(), held.token);
        let mut holder = held.holder;
        match self.flaw {
            Flaw::InspectForgetsRenewals => remaining = remaining.min(Duration::from_millis(900)),
            Flaw::InspectInventsTokens => token += 1,
            Flaw::InspectInventsHolders => holder = HolderId::from_u128(1),
            _ => {}
        }
        LeaseInfo::new(key.clone(), holder, token, remaining, held.label.clone())
    }
}
