//! The leases and lines of a part of the keys.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::record::Record;
use crate::claim::{
    Acquire, Claim, HandOver, Incarnation, Lease, LeaseInfo, Release, ReleaseSignal, Renew,
};
use crate::key::{HolderId, LockKey};

/// The most places in a line.
const MAX_LINE: usize = 256;

/// How long a token outlives the later of its last use and the instant it names.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// With so many records those are swept away that no longer matter.
const SWEEP_AT: usize = 32;

pub(super) struct Store {
    clock: Clock,
    id: u128,
    born: Instant,
    pub(super) records: BTreeMap<LockKey, Record>,
    /// Signals by holder: who listens for its turn.
    listeners: HashMap<HolderId, oneshot::Sender<()>>,
    /// Signals by key, of those that watch it without waiting in its line.
    watchers: BTreeMap<LockKey, Vec<oneshot::Sender<()>>>,
    /// Sweep away old records when there are this many.
    sweep_at: usize,
}

/// The wall clock when the store began; from there on time passes as tokio's clock does.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    began_us: u64,
}

impl Clock {
    /// A clock that shows this time since the epoch now.
    pub(super) fn starting_at(wall: Duration) -> Self {
        Self { began: Instant::now(), began_us: micros(wall) }
    }

    fn us(self, now: Instant) -> u64 {
        self.began_us.saturating_add(micros(now.duration_since(self.began)))
    }
}

impl Store {
    /// An empty store, of a memory of this id that began at that moment.
    pub(super) fn new(clock: Clock, id: u128, born: Instant) -> Self {
        Self {
            clock,
            id,
            born,
            records: BTreeMap::new(),
            listeners: HashMap::new(),
            watchers: BTreeMap::new(),
            sweep_at: SWEEP_AT,
        }
    }

    pub(super) fn wipe(&mut self, id: u128, born: Instant) {
        // The clock is not data. Nor is anybody told: data does not vanish with a message.
        let listeners = std::mem::take(&mut self.listeners);
        let watchers = std::mem::take(&mut self.watchers);
        *self = Self { listeners, watchers, ..Self::new(self.clock, id, born) };
    }

    /// The incarnation, where the claim asks for it.
    fn incarnation(&self, claim: &Claim, now: Instant) -> Option<Incarnation> {
        claim.incarnation.then(|| Incarnation::new(self.id, now.duration_since(self.born)))
    }

    pub(super) fn acquire(&mut self, claim: &Claim) -> Acquire {
        let now = Instant::now();
        let (now_us, incarnation) = (self.clock.us(now), self.incarnation(claim, now));
        let acquired =
            |token| Acquire::Acquired(Lease::new(token, claim.ttl).with_incarnation(incarnation));
        let record = match self.records.get_mut(&claim.key) {
            Some(record) => record,
            None => {
                self.sweep(now);
                self.records.entry(claim.key.clone()).or_insert_with(|| Record::new(now))
            }
        };
        record.settle(now);
        // L2: asking again while the lease stands is granted again, with the same token.
        if let Some(held) = record.lease_of(claim.holder) {
            held.ends = held.ends.max(now + claim.ttl);
            return acquired(held.token);
        }
        let listens = self.listeners.get(&claim.holder).is_some_and(|it| !it.is_closed());
        // W2: asking again clears the mark of a place that was passed over.
        if claim.wait.is_some()
            && let Some(at) = record.position(claim.holder)
        {
            (record.line[at].listens, record.line[at].passed) = (listens, false);
        }
        let first = record.first().map(|first| first.holder);
        if record.lease.is_none() && first.is_none_or(|first| first == claim.holder) {
            return acquired(record.grant(claim, now, now_us));
        }
        match claim.wait {
            // W1: contended, the holder has a place, and is not spent.
            Some(wait) => record.join(claim.holder, now + wait, listens, MAX_LINE),
            // W7: contended without waiting leaves nothing.
            None => {
                if record.leave(claim.holder) && record.lease.is_none() {
                    signal(&mut self.listeners, record);
                }
            }
        }
        Acquire::Contended(record.contention(claim.holder, now))
    }

    pub(super) fn renew(&mut self, claim: &Claim) -> Renew {
        let now = Instant::now();
        let incarnation = self.incarnation(claim, now);
        let Some(record) = self.records.get_mut(&claim.key) else { return Renew::NotHeld };
        record.settle(now);
        let Some(held) = record.lease_of(claim.holder) else { return Renew::NotHeld };
        held.ends = held.ends.max(now + claim.ttl);
        held.token = held.token.max(claim.min_token);
        let token = held.token;
        (record.last, record.used) = (token, now);
        Renew::Renewed(Lease::new(token, claim.ttl).with_incarnation(incarnation))
    }

    pub(super) fn release(&mut self, claim: &Claim) -> Release {
        let now = Instant::now();
        let Some(record) = self.records.get_mut(&claim.key) else { return Release::NotHeld };
        record.settle(now);
        let answer = match record.lease_of(claim.holder).map(|held| (held.token, held.announce)) {
            Some((token, announce)) => {
                record.lease = None;
                if announce {
                    for watcher in self.watchers.remove(&claim.key).unwrap_or_default() {
                        let _ = watcher.send(());
                    }
                }
                Release::Released { token }
            }
            None => Release::NotHeld,
        };
        // W6: release ends the place too. The next in line is signalled.
        let was_first = record.leave(claim.holder);
        if record.lease.is_none() && (was_first || answer != Release::NotHeld) {
            signal(&mut self.listeners, record);
        }
        answer
    }

    pub(super) fn hand_over(&mut self, from: &Claim, to: &Claim, over: bool) -> HandOver {
        let now = Instant::now();
        let (now_us, incarnation) = (self.clock.us(now), self.incarnation(to, now));
        let granted =
            |token| HandOver::Granted(Lease::new(token, to.ttl).with_incarnation(incarnation));
        let Some(record) = self.records.get_mut(&from.key) else { return HandOver::NotHeld };
        record.settle(now);
        if let Some(held) = record.lease_of(to.holder) {
            held.ends = held.ends.max(now + to.ttl);
            return granted(held.token);
        }
        // W9: only while a lease of `from` stands.
        if record.lease_of(from.holder).is_none() {
            return HandOver::NotHeld;
        }
        if over && record.first().is_some_and(|first| first.holder != to.holder) {
            record.lease = None;
            signal(&mut self.listeners, record);
            let listens = self.listeners.get(&to.holder).is_some_and(|it| !it.is_closed());
            if let Some(wait) = to.wait {
                // A full line takes it all the same: it gives up the key.
                record.join(to.holder, now + wait, listens, usize::MAX);
            }
            return HandOver::Yielded(record.contention(to.holder, now));
        }
        granted(record.grant(to, now, now_us))
    }

    pub(super) fn watch(&mut self, claim: &Claim) -> ReleaseSignal {
        let (sender, receiver) = oneshot::channel();
        if claim.wait.is_some() {
            if self.listeners.len() >= 1024 {
                self.listeners.retain(|_, listener| !listener.is_closed());
            }
            self.listeners.insert(claim.holder, sender);
        } else {
            let watchers = self.watchers.entry(claim.key.clone()).or_default();
            watchers.retain(|watcher| !watcher.is_closed());
            watchers.push(sender);
        }
        ReleaseSignal::new(async move {
            let _ = receiver.await;
        })
    }

    pub(super) fn info(&self, key: &LockKey, now: Instant) -> Option<LeaseInfo> {
        let lease = self.records.get(key)?.lease.as_ref();
        let held = lease.filter(|held| held.ends > now)?;
        let remaining = held.ends - now;
        Some(LeaseInfo::new(key.clone(), held.holder, held.token, remaining, &*held.label))
    }

    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Vec<LeaseInfo> {
        let now = Instant::now();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.records
            .range::<LockKey, _>((start, Bound::Unbounded))
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .filter_map(|(key, _)| self.info(key, now))
            .take(limit)
            .collect()
    }

    /// Forgets records that no longer matter, so that a store with ever new key names does not
    /// grow for ever.
    fn sweep(&mut self, now: Instant) {
        if self.records.len() < self.sweep_at {
            return;
        }
        let now_us = self.clock.us(now);
        self.records.retain(|_, record| {
            record.settle(now);
            let token_gone_by = Duration::from_micros(now_us.saturating_sub(record.last));
            let unused = now.duration_since(record.used);
            let used = record.lease.is_some() || !record.line.is_empty();
            used || unused.min(token_gone_by) < RETENTION
        });
        self.watchers.retain(|_, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            !watchers.is_empty()
        });
        self.sweep_at = (self.records.len() * 2).max(SWEEP_AT);
    }
}

/// Tells the first in line that the key may be free. A listener that is gone is passed over, and
/// keeps its position (W8).
fn signal(listeners: &mut HashMap<HolderId, oneshot::Sender<()>>, record: &mut Record) {
    for place in record.line.iter_mut().filter(|place| !place.passed) {
        if !place.listens {
            return;
        }
        let heard = listeners.remove(&place.holder).is_some_and(|it| it.send(()).is_ok());
        if heard {
            return;
        }
        place.passed = true;
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
