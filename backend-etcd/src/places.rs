//! The places that this process's holders have in lines, and who is first behind them, as it saw
//! both last.
//!
//! Nothing here is believed: every transaction that relies on it compares it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockcore::{Claim, HolderId, LockKey};

use crate::leases::{EtcdLease, Proof};
use crate::moment::Moment;
use crate::record::ttl;
use crate::spot::Spot;

/// A holder's place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) created: i64,
    /// The lease of etcd's that it is on, and that lease's ttl.
    pub(crate) lease: i64,
    pub(crate) seconds: u32,
    /// When that ttl began at the earliest; `None`: another process knows.
    began: Option<Moment>,
    /// Ready for others once the place is gone: it is ours, and nothing else names it.
    ours: Option<Box<EtcdLease>>,
    /// How often its holder was answered that it has to wait.
    pub(crate) asked: u32,
    /// The lease that the key was on when it was asked how long it stands, and until when.
    busy: Option<(i64, Instant)>,
}

impl Place {
    /// On a lease of this process.
    pub(crate) fn on(lease: EtcdLease, created: i64) -> Self {
        let EtcdLease { id, seconds, began, .. } = lease;
        let (began, ours) = (Some(began), Some(Box::new(lease)));
        Self { created, lease: id, seconds, began, ours, asked: 0, busy: None }
    }

    /// As it was found. Its holder was answered before.
    pub(crate) fn found(spot: &Spot) -> Self {
        let Spot { created, lease, seconds, .. } = *spot;
        Self { created, lease, seconds, began: None, ours: None, asked: 1, busy: None }
    }

    /// The same place, whose holder was answered so often.
    pub(crate) fn asked(mut self, times: u32) -> Self {
        self.asked = times;
        self
    }

    /// Whether it stands for so long from now on, as far as is known.
    pub(crate) fn lasts(&self, wait: Duration) -> bool {
        let now = Moment::now();
        let left = |began: &Moment| ttl(self.seconds).saturating_sub(now.since(began));
        self.began.as_ref().is_some_and(|began| left(began) >= wait)
    }
}

#[derive(Debug, Default)]
struct Inner {
    places: HashMap<(HolderId, LockKey), Place>,
    /// The first in line besides the holder of this process, by key; `None`: nobody was.
    firsts: HashMap<LockKey, Option<Spot>>,
    sweep_at: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Inner>);

/// From so many on, what is of no more use is forgotten.
const MANY: usize = 1024;

impl Places {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, claim: &Claim) -> Option<Place> {
        self.inner().places.get(&name(claim)).cloned()
    }

    pub(crate) fn has(&self, claim: &Claim) -> bool {
        self.inner().places.contains_key(&name(claim))
    }

    /// The holder has this place.
    pub(crate) fn took(&self, claim: &Claim, place: Place) {
        let mut inner = self.inner();
        if inner.places.len() >= inner.sweep_at.max(MANY) {
            // Holders that never came back: their places have ended.
            inner.places.retain(|_, place| place.lasts(Duration::ZERO));
            inner.sweep_at = inner.places.len() * 2;
        }
        inner.places.insert(name(claim), place);
    }

    /// The place's ttl began anew.
    pub(crate) fn kept(&self, claim: &Claim, lease: i64, began: Moment, term: u64) {
        if let Some(place) = self.inner().places.get_mut(&name(claim))
            && place.lease == lease
        {
            place.began = Some(began);
            if let Some(lease) = &mut place.ours {
                (lease.began, lease.proof) = (began, Proof::Kept(term));
            }
        }
    }

    /// The holder was answered that it has to wait. How often before.
    pub(crate) fn asked(&self, claim: &Claim) -> u32 {
        let mut inner = self.inner();
        let Some(place) = inner.places.get_mut(&name(claim)) else { return 0 };
        let before = place.asked;
        place.asked = before.saturating_add(1);
        before
    }

    /// How long the lease that the key is on stands from now on, unless it is released, as far as is
    /// known.
    pub(crate) fn busy(&self, claim: &Claim, lease: i64) -> Option<Duration> {
        let (of, until) = self.inner().places.get(&name(claim))?.busy?;
        (of == lease).then(|| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn saw_busy(&self, claim: &Claim, lease: i64, left: Duration) {
        if let Some(place) = self.inner().places.get_mut(&name(claim)) {
            place.busy = Instant::now().checked_add(left).map(|until| (lease, until));
        }
    }

    /// The holder's place is gone. Its lease may be used again only if a definite answer said so.
    pub(crate) fn lost(&self, claim: &Claim) -> Option<EtcdLease> {
        self.inner().places.remove(&name(claim))?.ours.map(|lease| *lease)
    }

    /// Who was first in a key's line, as of an answer: `None`: not known.
    pub(crate) fn first(&self, key: &LockKey) -> Option<Option<Spot>> {
        self.inner().firsts.get(key).cloned()
    }

    pub(crate) fn saw_first(&self, key: &LockKey, first: Option<Spot>) {
        let mut inner = self.inner();
        if inner.firsts.len() >= MANY {
            inner.firsts.clear();
        }
        inner.firsts.insert(key.clone(), first);
    }

    pub(crate) fn forget_first(&self, key: &LockKey) {
        self.inner().firsts.remove(key);
    }
}

fn name(claim: &Claim) -> (HolderId, LockKey) {
    (claim.holder, claim.key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim::new(LockKey::new("k").expect("valid"), HolderId::random(), Duration::from_secs(10))
    }

    fn lease(id: i64) -> EtcdLease {
        let (began, proof) = (Moment::now(), Proof::Kept(1));
        EtcdLease { id, seconds: 3, class: 3, began, proof, revision: 5 }
    }

    fn spot(lease: i64) -> Spot {
        let (holder, channel) = (HolderId::from_u128(7), String::new());
        Spot { holder, seconds: 3, channel, lease, created: 8, modified: 9 }
    }

    #[test]
    fn only_the_lease_of_this_process_is_used_again() {
        let (places, mine, other) = (Places::default(), claim(), claim());
        places.took(&mine, Place::on(lease(1), 8));
        places.took(&other, Place::found(&spot(2)));
        assert_eq!(places.of(&mine).map(|place| place.created), Some(8));
        assert_eq!(places.lost(&mine).map(|lease| lease.id), Some(1));
        assert!(places.lost(&other).is_none());
        assert!(!places.has(&mine) && !places.has(&other));
    }

    #[test]
    fn a_place_lasts_as_long_as_is_known() {
        let (places, mine) = (Places::default(), claim());
        places.took(&mine, Place::found(&spot(2)));
        let lasts = |wait| places.of(&mine).expect("took").lasts(Duration::from_secs(wait));
        assert!(!lasts(0), "another process's");
        places.kept(&mine, 1, Moment::now(), 4);
        assert!(!lasts(0), "another lease");
        places.kept(&mine, 2, Moment::now(), 4);
        assert!(lasts(2) && !lasts(3));
        assert_eq!((places.asked(&mine), places.asked(&mine)), (1, 2));
    }

    #[test]
    fn a_kept_lease_is_believed_in_its_term_alone() {
        let (places, mine) = (Places::default(), claim());
        places.took(&mine, Place::on(lease(1), 8));
        places.kept(&mine, 1, Moment::now(), 4);
        let lease = places.lost(&mine).expect("ours");
        assert!(matches!(lease.proof, Proof::Kept(4)), "{lease:?}");
    }
}
