//! The calls of a store with one flaw.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, Lease, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};
use tokio::sync::Notify;

use super::{Broken, EPOCH};
use crate::flaws::Flaw;

#[async_trait]
impl LockBackend for Broken {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 60 * 60))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let claim = self.claim(claim)?;
        self.step().await?;
        if self.is(Flaw::AcquireChecksThenSets) {
            let free = {
                let mut store = self.store();
                self.expire(&mut store);
                !store.leases.contains_key(&claim.key)
            };
            tokio::task::yield_now().await;
            if free {
                return Ok(self.grant(&mut self.store(), &claim));
            }
        }
        let store = &mut *self.store();
        self.expire(store);
        match store.leases.get(&claim.key) {
            Some(held) if held.holder == claim.holder => Ok(self.again(store, &claim)),
            Some(_) if self.is(Flaw::AcquireTakesOver) => Ok(self.grant(store, &claim)),
            Some(held) if self.is(Flaw::ClientsShareALease) && held.client == self.client => {
                Ok(self.grant(store, &claim))
            }
            Some(_) => self.contended(store, &claim),
            None if self.is(Flaw::NothingIsGranted) => {
                Ok(Acquire::Contended(Contention::new(None)))
            }
            None => Ok(self.grant(store, &claim)),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let claim = self.claim(claim)?;
        self.step().await?;
        let store = &mut *self.store();
        self.expire(store);
        let ends = self.ends(&claim);
        if !self.mine(store, &claim, Flaw::RenewByAnyone) {
            match self.flaw {
                Flaw::RenewCreates if !store.leases.contains_key(&claim.key) => {
                    self.grant(store, &claim);
                }
                Flaw::RenewRevives if !store.leases.contains_key(&claim.key) => {
                    let Some(mut held) =
                        store.ended.remove(&claim.key).filter(|held| held.holder == claim.holder)
                    else {
                        return Ok(Renew::NotHeld);
                    };
                    held.ends = ends;
                    store.leases.insert(claim.key.clone(), held);
                }
                Flaw::RenewByAnotherExtends => {
                    if let Some(held) = store.leases.get_mut(&claim.key) {
                        held.ends = held.ends.max(ends);
                    }
                    return Ok(Renew::NotHeld);
                }
                Flaw::RenewByTheLastExtends => {
                    let had = store.ended.get(&claim.key);
                    if had.is_some_and(|had| had.holder == claim.holder)
                        && let Some(held) = store.leases.get_mut(&claim.key)
                    {
                        held.ends = held.ends.max(ends);
                    }
                    return Ok(Renew::NotHeld);
                }
                Flaw::RenewStealsBack => {
                    self.grant(store, &claim);
                }
                Flaw::RenewAlwaysWorks => {
                    return Ok(Renew::Renewed(Lease::new(EPOCH, self.granted(&claim))));
                }
                Flaw::NotHeldIsAnError => return Err(BackendError::unavailable("not held")),
                _ => return Ok(Renew::NotHeld),
            }
        }
        if self.is(Flaw::RenewNeverWorks) {
            return Ok(Renew::NotHeld);
        }
        let held = store.leases.get_mut(&claim.key).expect("mine");
        held.ends = match self.flaw {
            Flaw::RenewDoesNotExtend => held.ends,
            Flaw::RenewShortens => ends,
            _ => held.ends.max(ends),
        };
        let mut token = held.token.max(claim.min_token);
        match self.flaw {
            Flaw::RenewCounts => token += 1,
            Flaw::RenewLowers if claim.min_token > 0 => token = claim.min_token,
            Flaw::RenewRaisesTooFar if claim.min_token > held.token => token += 1,
            Flaw::RenewDoesNotRaise => token = held.token,
            Flaw::TokensAreRounded if token >= 1 << 51 => token &= !3,
            _ => {}
        }
        if !self.is(Flaw::RaisesAreNotStored) {
            held.token = token;
        }
        if self.is(Flaw::RenewDropsTheLabel) {
            held.label.clear();
        }
        if !self.is(Flaw::RaisesAreForgotten) {
            store.tokens.insert(claim.key.clone(), token);
        }
        let memory = self.memory_when_renewed(store, &claim);
        Ok(Renew::Renewed(Lease::new(token, self.granted(&claim)).with_incarnation(memory)))
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let mut claims = claims.to_vec();
        match self.flaw {
            Flaw::RenewManyExtendsAlike => {
                let ttl = claims.first().map_or(Duration::ZERO, |claim| claim.ttl);
                claims.iter_mut().for_each(|claim| claim.ttl = ttl);
            }
            Flaw::RenewManyForgetsFloors => claims.iter_mut().for_each(|claim| claim.min_token = 0),
            Flaw::RenewManyAnswersNobody if claims.is_empty() => return vec![Ok(Renew::NotHeld)],
            Flaw::RenewManyFailsTogether => {
                let limits = self.limits();
                if claims.iter().any(|claim| limits.check(claim).is_err()) {
                    let refused = || Err(BackendError::rejected("one of them is wrong"));
                    return claims.iter().map(|_| refused()).collect();
                }
            }
            Flaw::RenewManyDoesNothing => {
                let renewed = |claim: &Claim| Renew::Renewed(Lease::new(EPOCH, claim.ttl));
                return claims.iter().map(|claim| Ok(renewed(claim))).collect();
            }
            _ => {}
        }
        let mut answers = Vec::new();
        for claim in &claims {
            answers.push(self.renew(claim).await);
        }
        match self.flaw {
            Flaw::RenewManyAnswersBackwards => answers.reverse(),
            Flaw::RenewManyAnswersAlike => {
                if let Some(Ok(first)) = answers.first() {
                    let first = *first;
                    answers.iter_mut().for_each(|answer| *answer = Ok(first));
                }
            }
            _ => {}
        }
        answers
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let floor = claim.min_token;
        let claim = self.claim(claim)?;
        self.step().await?;
        let store = &mut *self.store();
        self.expire(store);
        if self.is(Flaw::ReleaseIsSpentOnNobody) && !store.leases.contains_key(&claim.key) {
            return Err(BackendError::rejected("there is nothing to release"));
        }
        if !self.mine(store, &claim, Flaw::ReleaseByAnyone) {
            return Ok(if self.is(Flaw::ReleaseAlwaysWorks) {
                Release::Released { token: store.tokens.get(&claim.key).copied().unwrap_or(1) }
            } else {
                Release::NotHeld
            });
        }
        let held = store.leases.get(&claim.key).expect("mine").clone();
        if self.is(Flaw::ReleaseMatchesTheToken) && held.token > store.now_us() + 500 && floor == 0
        {
            return Ok(Release::NotHeld);
        }
        let token = match self.flaw {
            Flaw::ReleaseTellsTheFirstToken => {
                store.firsts.get(&claim.holder).copied().unwrap_or(held.token)
            }
            _ => held.token,
        };
        if !self.is(Flaw::ReleaseDoesNothing) {
            store.leases.remove(&claim.key);
            store.ended.insert(claim.key.clone(), held);
        }
        let watchers = store.watchers.remove(&claim.key).unwrap_or_default();
        for (n, watcher) in watchers.iter().enumerate() {
            match self.flaw {
                Flaw::ReleaseIsSilent => {}
                Flaw::ReleaseWakesOne if n > 0 => {}
                _ => watcher.notify_one(),
            }
        }
        let released = Release::Released { token };
        Ok(if self.is(Flaw::ReleaseNeverWorks) { Release::NotHeld } else { released })
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        let claim = self.claim(claim)?;
        self.step().await?;
        let bell = Arc::new(Notify::new());
        let arm = {
            let (store, bell, key) = (self.store.clone(), bell.clone(), claim.key.clone());
            move || {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                store.watched += 1;
                store.watchers.entry(key).or_default().push(bell);
            }
        };
        if self.is(Flaw::WatchIsArmedLate) {
            return Ok(ReleaseSignal::new(async move {
                arm();
                bell.notified().await;
            }));
        }
        arm();
        if self.is(Flaw::WatchWorksOnce) && self.store().watched > 1 {
            return Ok(ReleaseSignal::never());
        }
        Ok(ReleaseSignal::new(async move { bell.notified().await }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.step().await?;
        let store = &mut *self.store();
        self.expire(store);
        let lower = self.key(key);
        let held = store.leases.get(&lower).or_else(|| {
            store.ended.get(&lower).filter(|_| self.is(Flaw::InspectShowsWhatHasEnded))
        });
        Ok(held.filter(|_| !self.is(Flaw::InspectSeesNothing)).map(|held| self.info(key, held)))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.step().await?;
        let store = &mut *self.store();
        self.expire(store);
        let mut list: Vec<_> = store
            .leases
            .iter()
            .filter(|(key, _)| match self.flaw {
                Flaw::ListIgnoresThePrefix => true,
                // As a pattern in which `?` stands for any character.
                Flaw::ListTakesAPattern => {
                    prefix.len() <= key.as_str().len()
                        && prefix
                            .bytes()
                            .zip(key.as_str().bytes())
                            .all(|(p, k)| p == b'?' || p == k)
                }
                _ => key.as_str().starts_with(prefix),
            })
            .filter(|(key, _)| {
                after.is_none_or(|after| *key > after) || self.is(Flaw::ListBeginsAnew)
            })
            .map(|(key, held)| self.info(key, held))
            .collect();
        if self.is(Flaw::ListShowsWhatHasEnded) {
            let ended = store.ended.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
            list.extend(ended.map(|(key, held)| self.info(key, held)));
        }
        if self.is(Flaw::ListIsUnsorted) {
            list.reverse();
        }
        if !self.is(Flaw::ListIgnoresTheLimit) {
            list.truncate(limit);
        }
        Ok(list)
    }
}
