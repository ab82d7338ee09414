//! The leases of etcd's that this process has to do with: those that its holders' keys are on, and
//! those that are ready for the next key.
//!
//! Nothing here is believed: every transaction that relies on it compares it.
//!
//! An etcd lease is reused, so that a lock costs one write to take and one to release. The rules:
//!
//! - A lease is of one holder at a time. It is ready for the next one only after every request
//!   that could put a key on it has had a definite answer.
//! - A lease that was handed to a revoke is never used again, and a key found on it is not taken
//!   over: the revoke may arrive at any time (S1).
//! - While an attempt is in doubt its lease is not revoked: the same holder may ask again and
//!   find its key on it. A release revokes it, and so a late attempt takes nothing.
//! - Requests that end or renew a key's lease compare the key's revision, never the lease's id: a
//!   late one cannot meet the next holder on the same lease.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockcore::{Claim, HolderId, LockKey};

use crate::memory::{Reached, State};
use crate::moment::Moment;
use crate::record::{Held, Life, seconds, ttl};

/// How much longer than its claim a lease of etcd's lives, in seconds. For so long it can be
/// reused without being kept alive first.
pub(crate) const SPARE: u32 = 1;

/// How many leases are kept ready: as many as requests are under way at once.
pub(crate) const READY: usize = 128;

/// Why a lease is believed to have had all of its ttl before it at some moment.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    /// It was granted, in this state of the store, with what had been reached there before.
    Granted(State, Reached),
    /// It was kept alive in this raft term. That is true if a transaction that went through the
    /// log later was in the same term (S11).
    Kept(u64),
}

/// A lease of etcd's, and when its ttl began.
#[derive(Clone, Debug)]
pub(crate) struct EtcdLease {
    pub(crate) id: i64,
    pub(crate) seconds: u32,
    /// The ttl that was asked for.
    pub(crate) class: u32,
    /// Before the request that began its ttl was sent.
    pub(crate) began: Moment,
    pub(crate) proof: Proof,
    /// A revision that had been reached in the life of the store that granted it.
    pub(crate) revision: u64,
}

impl EtcdLease {
    /// How much of the ttl is left at a moment, at least.
    pub(crate) fn left(&self, at: &Moment) -> Duration {
        let gone = at.since(&self.began);
        // Our clock may run slower than the store's, by less than one in a hundred.
        ttl(self.seconds).saturating_sub(gone + gone / 100)
    }

    /// Whether the store that granted the lease is not the one that wrote this memory, or has
    /// gone back since: a backup was restored.
    pub(crate) fn is_restored(&self, life: &Life) -> bool {
        match &self.proof {
            Proof::Granted(state, reached) => reached.is_restored(life, *state),
            Proof::Kept(_) => false,
        }
    }
}

/// A holder's key as this process saw it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) lease: i64,
    pub(crate) seconds: u32,
    pub(crate) modified: i64,
    pub(crate) token: u64,
}

impl From<&Held> for Known {
    fn from(held: &Held) -> Self {
        let Held { record, token, lease, modified, .. } = held;
        Self { lease: *lease, seconds: record.seconds, modified: *modified, token: *token }
    }
}

/// What is kept for one holder and key.
#[derive(Debug, Default)]
struct Own {
    known: Option<Known>,
    /// The lease that the key was put on by this process. Others may have moved the key since.
    granted: Option<Box<EtcdLease>>,
    /// Leases of attempts without a definite answer, and those that the key was moved from.
    doubtful: Vec<i64>,
    /// The key was not there after the last of them came into doubt.
    checked: bool,
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Inner {
    own: HashMap<(HolderId, LockKey), Own>,
    /// By the ttl asked for; the freshest last.
    ready: HashMap<u32, Vec<EtcdLease>>,
    revoked: HashSet<i64>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<Inner>);

impl Leases {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known(&self, claim: &Claim) -> Option<Known> {
        self.inner().own.get(&name(claim))?.known
    }

    /// Whether the holder has or may have the key, as far as this process knows.
    pub(crate) fn may_hold(&self, claim: &Claim) -> bool {
        let inner = self.inner();
        let own = inner.own.get(&name(claim));
        own.is_some_and(|own| own.known.is_some() || !own.doubtful.is_empty() && !own.checked)
    }

    /// The holder's key was seen, by an answer to what it asked.
    pub(crate) fn saw(&self, claim: &Claim, known: Known) {
        self.inner().own(claim, known.seconds).known = Some(known);
    }

    /// The holder's key was not there.
    pub(crate) fn forget(&self, claim: &Claim) {
        let mut inner = self.inner();
        if let Some(own) = inner.own.get_mut(&name(claim)) {
            (own.known, own.granted, own.checked) = (None, None, true);
            if own.doubtful.is_empty() {
                inner.own.remove(&name(claim));
            }
        }
    }

    /// The holder's lease had all of its ttl before it from this moment on.
    pub(crate) fn kept(&self, claim: &Claim, id: i64, began: Moment, term: u64) {
        if let Some(own) = self.inner().own.get_mut(&name(claim))
            && let Some(lease) = own.granted.as_deref_mut().filter(|lease| lease.id == id)
        {
            (lease.began, lease.proof) = (began, Proof::Kept(term));
        }
    }

    /// The holder's key is no longer there, by a definite answer to its release: deleted, where
    /// `known` says what was. The holder is spent. These leases are to be revoked.
    pub(crate) fn released(&self, claim: &Claim, known: Option<Known>) -> Vec<i64> {
        let mut inner = self.inner();
        let own = inner.own.remove(&name(claim)).unwrap_or_default();
        let mut revoke = own.doubtful;
        match (own.granted, known) {
            // No request is under way that could put a key on it.
            (Some(lease), Some(known)) if lease.id == known.lease => {
                // An attempt that was in doubt and worked.
                let late = revoke.contains(&lease.id);
                if !late && let Some(surplus) = inner.put(*lease) {
                    revoke.push(surplus);
                }
            }
            // Another process's, or this one's from before the key was moved.
            (granted, known) => {
                revoke.extend(granted.map(|lease| lease.id));
                revoke.extend(known.map(|known| known.lease));
            }
        }
        revoke.sort_unstable();
        revoke.dedup();
        revoke
    }

    /// From here on the lease may end at any time.
    pub(crate) fn revoking(&self, id: i64) {
        let mut inner = self.inner();
        inner.revoked.insert(id);
        for ready in inner.ready.values_mut() {
            ready.retain(|lease| lease.id != id);
        }
    }

    /// The lease has ended, and what was on it has gone.
    pub(crate) fn revoked(&self, id: i64) {
        self.inner().revoked.remove(&id);
    }

    pub(crate) fn is_revoked(&self, id: i64) -> bool {
        self.inner().revoked.contains(&id)
    }

    /// The key is on a lease of this process.
    pub(crate) fn hold(&self, claim: &Claim, lease: EtcdLease, known: Known) {
        let mut inner = self.inner();
        let own = inner.own(claim, lease.seconds);
        own.known = Some(known);
        if let Some(old) = own.granted.replace(Box::new(lease)) {
            own.doubtful.push(old.id);
        }
    }

    /// An attempt on this lease had no definite answer.
    pub(crate) fn doubt(&self, claim: &Claim, id: i64) {
        let mut inner = self.inner();
        let own = inner.own(claim, class(claim));
        own.doubtful.push(id);
        own.checked = false;
    }

    /// A lease of this class that was ready, and is taken out.
    pub(crate) fn take(&self, class: u32) -> Option<EtcdLease> {
        let now = Moment::now();
        let mut inner = self.inner();
        let ready = inner.ready.get_mut(&class)?;
        // A second before its end nobody knows whether it still stands.
        ready.retain(|lease| lease.left(&now) > Duration::from_secs(1));
        ready.pop()
    }

    pub(crate) fn put_back(&self, lease: EtcdLease) {
        // One that is not taken ends with its ttl.
        let _ = self.inner().put(lease);
    }
}

impl Inner {
    fn own(&mut self, claim: &Claim, seconds: u32) -> &mut Own {
        if self.own.len() >= self.sweep_at.max(1024) {
            let now = Instant::now();
            // Holders that were never released, whose leases have ended long ago.
            self.own.retain(|_, own| own.until.is_none_or(|until| until > now));
            self.sweep_at = self.own.len() * 2;
        }
        let own = self.own.entry(name(claim)).or_default();
        own.until = Instant::now().checked_add(ttl(seconds) * 2 + Duration::from_secs(60));
        own
    }

    /// Makes a lease ready for the next claim. There is room for so many: the id of one too many.
    fn put(&mut self, lease: EtcdLease) -> Option<i64> {
        if self.revoked.contains(&lease.id) {
            return None;
        }
        if self.ready.values().map(Vec::len).sum::<usize>() >= READY {
            let now = Moment::now();
            for ready in self.ready.values_mut() {
                ready.retain(|lease| lease.left(&now) > Duration::from_secs(1));
            }
            if self.ready.values().map(Vec::len).sum::<usize>() >= READY {
                return Some(lease.id);
            }
        }
        self.ready.entry(lease.class).or_default().push(lease);
        None
    }
}

fn name(claim: &Claim) -> (HolderId, LockKey) {
    (claim.holder, claim.key.clone())
}

/// What is asked of etcd for a claim.
pub(crate) fn class(claim: &Claim) -> u32 {
    class_of(claim.ttl)
}

/// What is asked of etcd for a ttl, or for a wait.
pub(crate) fn class_of(ttl: Duration) -> u32 {
    seconds(ttl).saturating_add(SPARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        let key = LockKey::new("k").expect("valid");
        Claim::new(key, HolderId::random(), Duration::from_secs(10))
    }

    fn lease(id: i64) -> EtcdLease {
        let (class, began, proof) = (11, Moment::now(), Proof::Kept(1));
        EtcdLease { id, seconds: 11, class, began, proof, revision: 5 }
    }

    fn known(lease: i64) -> Known {
        Known { lease, seconds: 11, modified: 7, token: 9 }
    }

    #[test]
    fn a_lease_is_ready_again_after_a_definite_release() {
        let (leases, mine) = (Leases::default(), claim());
        leases.hold(&mine, lease(1), known(1));
        assert_eq!(leases.known(&mine), Some(known(1)));
        assert!(leases.take(class(&mine)).is_none());
        assert!(leases.released(&mine, Some(known(1))).is_empty());
        assert!(!leases.may_hold(&mine));
        assert_eq!(leases.take(class(&mine)).map(|lease| lease.id), Some(1));
        assert!(leases.take(class(&mine)).is_none(), "one holder at a time");
    }

    #[test]
    fn a_lease_is_ready_for_the_same_ttl_only() {
        let (leases, mine) = (Leases::default(), claim());
        leases.put_back(lease(1));
        let mut longer = mine.clone();
        longer.ttl = Duration::from_secs(11);
        assert!(leases.take(class(&longer)).is_none());
        assert!(leases.take(class(&mine)).is_some());
    }

    #[test]
    fn what_is_in_doubt_or_not_held_is_revoked_and_never_ready() {
        let (leases, mine) = (Leases::default(), claim());
        leases.doubt(&mine, 1);
        leases.hold(&mine, lease(2), known(2));
        assert_eq!(leases.released(&mine, Some(known(2))), [1]);
        assert_eq!(leases.take(class(&mine)).map(|lease| lease.id), Some(2));
        // The attempt in doubt worked.
        leases.doubt(&mine, 3);
        leases.saw(&mine, known(3));
        assert_eq!(leases.released(&mine, Some(known(3))), [3]);
        // The key had gone, or another process has moved it.
        leases.hold(&mine, lease(4), known(4));
        assert_eq!(leases.released(&mine, None), [4]);
        leases.hold(&mine, lease(5), known(5));
        assert_eq!(leases.released(&mine, Some(known(6))), [5, 6]);
        assert!(leases.take(class(&mine)).is_none());
    }

    #[test]
    fn what_is_handed_to_a_revoke_is_never_ready() {
        let (leases, mine) = (Leases::default(), claim());
        leases.put_back(lease(1));
        leases.revoking(1);
        assert!(leases.is_revoked(1));
        assert!(leases.take(class(&mine)).is_none());
        leases.put_back(lease(1));
        assert!(leases.take(class(&mine)).is_none());
        leases.revoked(1);
        assert!(!leases.is_revoked(1));
    }

    #[test]
    fn only_so_many_are_kept_ready() {
        let leases = Leases::default();
        for id in (0_i64..).take(READY) {
            let mine = claim();
            leases.hold(&mine, lease(id), known(id));
            assert!(leases.released(&mine, Some(known(id))).is_empty());
        }
        let mine = claim();
        leases.hold(&mine, lease(1000), known(1000));
        assert_eq!(leases.released(&mine, Some(known(1000))), [1000]);
    }

    #[test]
    fn what_is_left_is_counted_by_the_clock_that_shows_more() {
        let long_ago = Duration::from_secs(4);
        let mut slept = lease(1);
        slept.began.wall -= long_ago;
        assert!(slept.left(&Moment::now()) <= Duration::from_secs(7));
        let mut set_back = lease(1);
        set_back.began.wall += long_ago;
        assert!(set_back.left(&Moment::now()) > Duration::from_secs(10));
        let leases = Leases::default();
        slept.began.wall -= long_ago * 2;
        leases.put_back(slept);
        assert!(leases.take(class(&claim())).is_none(), "it ended while the machine slept");
    }
}
