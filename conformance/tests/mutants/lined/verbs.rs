//! The calls of a store with lines that has one flaw.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, HolderId, Lease, LeaseInfo, Limits, LockBackend,
    LockKey, Release, ReleaseSignal, Renew, async_trait,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::flaws::LineFlaw;
use super::record::Record;
use super::{Lined, Store};

impl Lined {
    fn check(&self, claim: &Claim) -> Result<(), BackendError> {
        let mut claim = claim.clone();
        if self.is(LineFlaw::TheWaitIsNotChecked) {
            claim.wait = None;
        }
        Ok(self.limits().check(&claim)?)
    }

    /// Tells whoever may have its turn now.
    fn signal(&self, listeners: &mut HashMap<HolderId, oneshot::Sender<()>>, record: &mut Record) {
        if self.is(LineFlaw::ReleaseTellsAll) {
            for place in &record.line {
                let _ = listeners.remove(&place.holder).map(|it| it.send(()));
            }
            return;
        }
        if self.is(LineFlaw::ReleaseTellsTheLast) {
            if let Some(last) = record.line.back() {
                let _ = listeners.remove(&last.holder).map(|it| it.send(()));
            }
            return;
        }
        let polls = |listens: bool| !listens && !self.is(LineFlaw::PollersAreTakenForGone);
        let mut removed = Vec::new();
        for place in record.line.iter_mut().filter(|place| !place.passed) {
            if polls(place.listens) {
                break;
            }
            if listeners.remove(&place.holder).is_some_and(|it| it.send(()).is_ok()) {
                break;
            }
            place.passed = true;
            if self.is(LineFlaw::GoneListenersAreRemoved) {
                removed.push(place.holder);
            }
        }
        record.line.retain(|place| !removed.contains(&place.holder));
    }

    fn join(&self, store: &mut Store, claim: &Claim) -> Result<(), BackendError> {
        let Some(wait) = claim.wait.or_else(|| {
            self.is(LineFlaw::ContendedLeavesAPlace).then_some(Duration::from_secs(10))
        }) else {
            return Ok(());
        };
        let listens = store.listeners.get(&claim.holder).is_some_and(|it| !it.is_closed());
        let record = store.records.get_mut(&claim.key).expect("just seen");
        let had = record.position(claim.holder).is_some();
        let mut joined = self.joined.lock().expect("unpoisoned");
        if self.is(LineFlaw::AWipedPlaceIsRefused) && !had && joined.contains(&claim.holder) {
            return Ok(());
        }
        joined.insert(claim.holder);
        if !record.join(claim, wait, listens, self.flaw) && self.is(LineFlaw::AFullLineIsAnError) {
            return Err(BackendError::rejected("the line is full"));
        }
        if self.is(LineFlaw::ALateAskNeverEnds) && store.released.contains(&claim.holder) {
            record.never_ends(claim.holder);
        }
        Ok(())
    }

    /// Whether a free key is for this holder.
    fn may_have(&self, record: &Record, claim: &Claim) -> bool {
        let first = record.first(self.flaw);
        let newcomer = record.position(claim.holder).is_none();
        match self.flaw {
            LineFlaw::NewcomersTakeAFreeKey if newcomer => true,
            LineFlaw::TriesTakeAFreeKey if newcomer && claim.wait.is_none() => true,
            _ => first.is_none_or(|first| first == claim.holder),
        }
    }
}

#[async_trait]
impl LockBackend for Lined {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
            .with_line(Duration::from_secs(60))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.check(claim)?;
        let store = &mut *self.store();
        let now_us = store.now_us();
        let listens = store.listeners.get(&claim.holder).is_some_and(|it| !it.is_closed());
        let record = store.records.entry(claim.key.clone()).or_default();
        record.settle(self.flaw);
        if let Some(held) = record.lease_of(claim.holder) {
            if self.is(LineFlaw::HandOverIsNotRecognised) && held.handed {
                return Ok(Acquire::Contended(record.contention(claim.holder, self.flaw)));
            }
            held.ends = held.ends.max(Instant::now() + claim.ttl);
            return Ok(Acquire::Acquired(Lease::new(held.token, claim.ttl)));
        }
        let place = record.position(claim.holder);
        if let (Some(at), Some(_)) = (place, claim.wait) {
            let place = &mut record.line[at];
            place.listens = listens;
            place.passed &= self.is(LineFlaw::GoneListenersStayMarked);
        }
        let again = self.is(LineFlaw::AskingAgainIsGranted) && place.is_some();
        if record.lease.is_none() && self.may_have(record, claim) || again {
            let token = record.grant(claim, now_us, self.flaw);
            return Ok(Acquire::Acquired(Lease::new(token, claim.ttl)));
        }
        if claim.wait.is_none() && !self.is(LineFlaw::AskingWithoutWaitKeepsThePlace) {
            record.leave(claim.holder, self.flaw);
        }
        self.join(store, claim)?;
        let record = store.records.get_mut(&claim.key).expect("just seen");
        Ok(Acquire::Contended(record.contention(claim.holder, self.flaw)))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.check(claim)?;
        let store = &mut *self.store();
        let record = store.records.entry(claim.key.clone()).or_default();
        record.settle(self.flaw);
        let waited_for = !record.line.is_empty();
        let Some(held) = record.lease_of(claim.holder) else { return Ok(Renew::NotHeld) };
        if self.is(LineFlaw::RenewYieldsToTheLine) && waited_for {
            return Ok(Renew::NotHeld);
        }
        held.ends = held.ends.max(Instant::now() + claim.ttl);
        held.token = held.token.max(claim.min_token);
        let token = held.token;
        record.last = token;
        Ok(Renew::Renewed(Lease::new(token, claim.ttl)))
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.check(claim)?;
        let store = &mut *self.store();
        store.released.insert(claim.holder);
        let record = store.records.entry(claim.key.clone()).or_default();
        record.settle(self.flaw);
        let held = record.lease_of(claim.holder).map(|held| held.token);
        if let Some(token) = held {
            let lease = record.lease.take().expect("just seen");
            record.released = Some(claim.holder);
            if lease.claim.announce && !self.is(LineFlaw::AnnouncementsAreSilent) {
                let mut watchers = store.watchers.remove(&claim.key).unwrap_or_default();
                let told = if self.is(LineFlaw::AnnouncementsReachOne) { 1 } else { usize::MAX };
                for watcher in watchers.drain(..told.min(watchers.len())) {
                    let _ = watcher.send(());
                }
                store.watchers.insert(claim.key.clone(), watchers);
            }
            if !self.is(LineFlaw::GrantLeavesThePlace) {
                record.leave(claim.holder, self.flaw);
            }
            if self.is(LineFlaw::ReleaseClearsTheLine) {
                record.line.clear();
            }
            self.signal(&mut store.listeners, record);
            return Ok(Release::Released { token });
        }
        let stays = [LineFlaw::ReleaseForgetsThePlace, LineFlaw::GrantLeavesThePlace];
        let was_first = !stays.contains(&self.flaw) && record.leave(claim.holder, self.flaw);
        if was_first && record.lease.is_none() && !self.is(LineFlaw::LeavingTellsNobody) {
            self.signal(&mut store.listeners, record);
        }
        Ok(Release::NotHeld)
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.check(from)?;
        self.check(to)?;
        if self.is(LineFlaw::HandOverIsTwoSteps) {
            if self.release(from).await? == Release::NotHeld {
                return Ok(HandOver::NotHeld);
            }
            tokio::task::yield_now().await;
            return Ok(match self.acquire(to).await? {
                Acquire::Acquired(lease) => HandOver::Granted(lease),
                Acquire::Contended(contention) => HandOver::Yielded(contention),
            });
        }
        let store = &mut *self.store();
        let now_us = store.now_us();
        let record = store.records.entry(from.key.clone()).or_default();
        record.settle(self.flaw);
        if let Some(held) = record.lease_of(to.holder) {
            match self.flaw {
                LineFlaw::HandOverAgainIsNotHeld => return Ok(HandOver::NotHeld),
                LineFlaw::HandOverAgainCounts => held.token += 1,
                _ => {}
            }
            held.ends = held.ends.max(Instant::now() + to.ttl);
            let lease = Lease::new(held.token, to.ttl);
            record.last = lease.token;
            return Ok(HandOver::Granted(lease));
        }
        let free = record.lease.is_none();
        let held = record.lease_of(from.holder).is_some()
            || match self.flaw {
                LineFlaw::HandOverTakesWhatIsFree => free,
                LineFlaw::HandOverTakesAnothers => !free,
                LineFlaw::HandOverRevives => free && record.ended == Some(from.holder),
                LineFlaw::HandOverOfTheReleased => free && record.released == Some(from.holder),
                _ => false,
            };
        if !held {
            return Ok(HandOver::NotHeld);
        }
        let others = record
            .line
            .iter()
            .any(|place| place.holder != to.holder || self.is(LineFlaw::HandOverYieldsToItself));
        let yields = match self.flaw {
            LineFlaw::HandOverIgnoresTheLine => false,
            LineFlaw::HandOverAlwaysYields => others,
            LineFlaw::HandOverIsNeverDone => true,
            _ => over && others,
        };
        if yields {
            if !self.is(LineFlaw::YieldingKeepsTheLease) {
                record.lease = None;
            }
            record.released = Some(from.holder);
            if !self.is(LineFlaw::YieldingTellsNobody) {
                self.signal(&mut store.listeners, record);
            }
            let mut joins = to.clone();
            if self.is(LineFlaw::YieldingAlwaysJoins) {
                joins.wait = joins.wait.or(Some(Duration::from_secs(10)));
            }
            self.join(store, &joins)?;
            let record = store.records.get_mut(&from.key).expect("just seen");
            if self.is(LineFlaw::YieldingJoinsTheFront) {
                record.line.rotate_right(1);
            }
            return Ok(HandOver::Yielded(record.contention(to.holder, self.flaw)));
        }
        let mut claim = to.clone();
        if self.is(LineFlaw::HandOverKeepsTheClaim) {
            claim = from.clone();
            claim.holder = to.holder;
        }
        let before = record.last;
        let places = std::mem::take(&mut record.line);
        let mut token = record.grant(&claim, now_us, self.flaw);
        record.line = places;
        if self.is(LineFlaw::HandOverKeepsTheToken) {
            (token, record.last) = (before, before);
        }
        if !self.is(LineFlaw::HandOverLeavesThePlace) {
            record.leave(to.holder, self.flaw);
        }
        if let Some(held) = &mut record.lease {
            (held.token, held.handed) = (token, true);
        }
        Ok(HandOver::Granted(Lease::new(token, claim.ttl)))
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.check(claim)?;
        let (sender, receiver) = oneshot::channel();
        let (shared, claim) = (self.store.clone(), claim.clone());
        let late = self.is(LineFlaw::TurnSignalsAreArmedLate);
        let arm = move || {
            let mut store = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if claim.wait.is_some() {
                store.listeners.insert(claim.holder, sender);
            } else {
                store.watchers.entry(claim.key).or_default().push(sender);
            }
        };
        if late {
            return Ok(ReleaseSignal::new(async move {
                arm();
                let _ = receiver.await;
            }));
        }
        arm();
        Ok(ReleaseSignal::new(async move {
            let _ = receiver.await;
        }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let store = &mut *self.store();
        Ok(store.records.get_mut(key).and_then(|record| info(key, record, self.flaw)))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let store = &mut *self.store();
        let wanted = |key: &LockKey| {
            key.as_str().starts_with(prefix) && after.is_none_or(|after| key > after)
        };
        let records = store.records.iter_mut().filter(|(key, _)| wanted(key));
        Ok(records.filter_map(|(key, record)| info(key, record, self.flaw)).take(limit).collect())
    }
}

fn info(key: &LockKey, record: &mut Record, flaw: LineFlaw) -> Option<LeaseInfo> {
    record.settle(flaw);
    let now = Instant::now();
    if record.lease.is_none() && flaw == LineFlaw::InspectShowsPlaces {
        let place = record.line.front()?;
        return Some(LeaseInfo::new(key.clone(), place.holder, record.last, place.ends - now, ""));
    }
    let held = record.lease.as_ref()?;
    let label = &*held.claim.label;
    Some(LeaseInfo::new(key.clone(), held.claim.holder, held.token, held.ends - now, label))
}
