//! Calls that a case makes, noted, and expected to go well.

use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Lease, LeaseInfo, LockBackend, LockKey, Release, Renew,
};
use tokio::time::Instant;

use super::{Cx, Failure, Outcome, ensure, ensure_matches};

impl Cx {
    /// Acquires, and fails the case unless that worked.
    pub(crate) async fn acquire(
        &self,
        backend: &impl LockBackend,
        claim: &Claim,
    ) -> Result<Lease, Failure> {
        let answer = backend.acquire(claim).await?;
        self.trace(format!("acquire {}: {answer:?}", claim.holder));
        match answer {
            Acquire::Acquired(lease) => Ok(lease),
            Acquire::Contended(_) => Err(Failure::new("acquire: contended, expected a lease")),
        }
    }

    /// Acquires from a store that may have lost its data. One made of several is unavailable until
    /// it is sure that no lease was forgotten, and for no longer than the longest there can be.
    pub(crate) async fn acquire_after_loss(
        &self,
        backend: &impl LockBackend,
        key: &LockKey,
    ) -> Result<Lease, Failure> {
        let end = Instant::now() + backend.limits().max_ttl + self.slack();
        loop {
            let claim = self.claim_on(key);
            match backend.acquire(&claim).await {
                Err(BackendError::Unavailable(reason))
                    if self.store.combined() && Instant::now() < end =>
                {
                    self.note(format!("unavailable after the loss: {reason}"));
                    tokio::time::sleep(self.ttl / 4).await;
                }
                answer => {
                    self.note(format!("acquire {}: {answer:?}", claim.holder));
                    ensure_matches!(&answer, Ok(Acquire::Acquired(_)), "acquire after a loss");
                    if let Acquire::Acquired(lease) = answer? {
                        return Ok(lease);
                    }
                }
            }
        }
    }

    /// Asks for a key that another holder has, and fails the case if it is granted.
    pub(crate) async fn contend(&self, backend: &impl LockBackend, claim: &Claim) -> Outcome {
        let answer = backend.acquire(claim).await?;
        self.trace(format!("acquire {}: {answer:?}", claim.holder));
        ensure_matches!(answer, Acquire::Contended(_), "acquire of a held key");
        Ok(())
    }

    /// Whether a combination has given up an attempt, as too few of its stores answered in the time
    /// that it gives them, or refused one of a holder that is spent. That is definite: the holder
    /// has nothing that counts, and may not ask again (laws L2 and L7).
    pub(crate) fn is_given_up(&self, answer: &Result<Acquire, BackendError>) -> bool {
        self.store.combined() && matches!(answer, Err(BackendError::Unavailable(_)))
    }

    /// Renews, and fails the case unless that worked.
    pub(crate) async fn renew(
        &self,
        backend: &impl LockBackend,
        claim: &Claim,
    ) -> Result<Lease, Failure> {
        let answer = backend.renew(claim).await?;
        self.trace(format!("renew {}: {answer:?}", claim.holder));
        match answer {
            Renew::Renewed(lease) => Ok(lease),
            Renew::NotHeld => Err(Failure::new("renew: not held, expected a lease")),
        }
    }

    /// Whether a lease has the token that it had, or was asked for. One of a combination may have
    /// a greater one, when whoever asks next finds a store ahead of the others, and raises them
    /// to it. In memory none is: they share a clock.
    pub(crate) fn same_token(&self, now: u64, before: u64) -> bool {
        now == before || self.store.combined() && !self.exact() && now > before
    }

    /// Releases, and fails the case unless the lease stood.
    pub(crate) async fn release(&self, backend: &impl LockBackend, claim: &Claim) -> Outcome {
        let answer = backend.release(claim).await?;
        self.trace(format!("release {}: {answer:?}", claim.holder));
        ensure_matches!(answer, Release::Released { .. }, "release by the holder");
        Ok(())
    }

    /// Releases a holder that has a place in the line and no lease.
    pub(crate) async fn release_place(&self, backend: &impl LockBackend, claim: &Claim) -> Outcome {
        let answer = backend.release(claim).await?;
        self.trace(format!("release {}: {answer:?}", claim.holder));
        ensure_matches!(answer, Release::NotHeld, "release by one that waits in the line");
        Ok(())
    }

    /// The lease on the case's key, as the second client sees it.
    pub(crate) async fn sight(&self) -> Result<Option<LeaseInfo>, Failure> {
        Ok(self.b.inspect(&self.key).await?)
    }

    /// Fails the case unless this very lease stands on the case's key.
    pub(crate) async fn stands(&self, claim: &Claim, lease: &Lease) -> Outcome {
        let sight = self.sight().await?;
        let untouched = sight.as_ref().is_some_and(|info| {
            info.holder == claim.holder && self.same_token(info.token, lease.token)
        });
        ensure!(
            untouched,
            "expected {} with token {} to stand, saw {sight:?}",
            claim.holder,
            lease.token
        );
        Ok(())
    }

    /// The same, and not even its end has moved.
    pub(crate) async fn stands_as_long(&self, claim: &Claim, lease: &Lease) -> Outcome {
        self.stands(claim, lease).await?;
        let left = self.sight().await?.map(|info| info.remaining);
        ensure!(
            left.is_some_and(|left| left <= lease.ttl),
            "the lease was extended by another: granted for {:?}, {left:?} are left",
            lease.ttl
        );
        Ok(())
    }

    /// Asks until the key is granted; when that was.
    pub(crate) async fn until_acquired(
        &self,
        backend: &impl LockBackend,
        limit: Duration,
    ) -> Result<(Instant, Lease), Failure> {
        self.until_acquired_of(backend, &self.key, limit).await
    }

    /// The same for another key.
    pub(crate) async fn until_acquired_of(
        &self,
        backend: &impl LockBackend,
        key: &LockKey,
        limit: Duration,
    ) -> Result<(Instant, Lease), Failure> {
        let end = Instant::now() + limit;
        loop {
            let answer = backend.acquire(&self.claim_on(key)).await;
            if self.is_given_up(&answer) && Instant::now() < end {
                self.look_again(Duration::from_millis(1)).await;
                continue;
            }
            match answer? {
                Acquire::Acquired(lease) => return Ok((Instant::now(), lease)),
                Acquire::Contended(_) if Instant::now() < end => {
                    self.look_again(Duration::from_millis(1)).await;
                }
                Acquire::Contended(_) => {
                    return Err(Failure::new(format!("the key was not free within {limit:?}")));
                }
            }
        }
    }

    /// Waits until nobody holds the case's key; fails the case if that takes longer than `limit`.
    pub(crate) async fn until_free(&self, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        while let Some(info) = self.sight().await? {
            ensure!(Instant::now() < end, "the key was not free within {limit:?}: {info:?}");
            self.look_again(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The pause between two looks at what is to become so. Each is several requests of a
    /// combination, and many side by side would keep a machine from answering.
    pub(crate) async fn look_again(&self, least: Duration) {
        let many = match (self.store.combined(), self.exact()) {
            (false, _) => 0,
            (true, true) => 25,
            (true, false) => 75,
        };
        let many = Duration::from_millis(many);
        tokio::time::sleep(least.max(many)).await;
    }
}
