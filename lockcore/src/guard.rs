//! The guard: the value that stands for a held lock.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::attempt::bounded;
use crate::backend::LockBackend;
use crate::backoff::Backoff;
use crate::claim::{Claim, Release};
use crate::clock::Moment;
use crate::error::{BackendError, Error, ErrorKind};
use crate::hold::{Held, Keeper, LostReason};
use crate::key::{HolderId, LockKey};
use crate::manager::Shared;
use crate::queue::Turn;

/// A held lock. It renews its lease in the background, and dropping it releases the lock.
///
/// A guard cannot make the impossible true: a process that is paused past its lease wakes up
/// without the lock. It says so the moment it can ([`lost`](Self::lost),
/// [`is_valid`](Self::is_valid)), and the [`fencing_token`](Self::fencing_token) lets the
/// protected thing refuse what a late writer still sends.
///
/// ### Note: release on drop is not immediate
///
/// Dropping the guard stops the renewal and releases the lock from a background task. It never
/// blocks and never panics, within a runtime or without; where the runtime has ended, the lease
/// ends with its ttl. Use [`release`](Self::release) to wait for the store's answer, or
/// [`LockManager::drain`](crate::LockManager::drain) before a program ends.
#[must_use = "dropping the guard releases the lock"]
pub struct LockGuard {
    held: Arc<Held>,
    runtime: Handle,
    keeper: Option<JoinHandle<()>>,
}

impl LockGuard {
    pub(crate) fn new(held: Held, runtime: &Handle) -> Self {
        let held = Arc::new(held);
        let keeper = runtime.spawn(Keeper(held.clone()).run());
        Self { held, runtime: runtime.clone(), keeper: Some(keeper) }
    }

    /// The key that is locked.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.held.claim.key
    }

    /// The identity of this acquisition in the store.
    #[must_use]
    pub fn holder(&self) -> HolderId {
        self.held.claim.holder
    }

    /// The fencing token: greater than that of every earlier holder of the key. Send it with
    /// every write, and let the written thing refuse smaller ones
    /// ([`FenceRegister`](crate::FenceRegister)).
    ///
    /// On a backend made of several stores it may grow while the lock is held; use the latest.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.held.belief().token
    }

    /// Whether the lock is surely held now: a comparison with the clock, no I/O. Once `false`,
    /// always `false`.
    ///
    /// The time counts from before the last confirmed request was sent, less a margin for clock
    /// drift (1 % of the ttl and 2 ms), and counts time the machine was suspended (on Linux,
    /// Android and Windows).
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.held.belief().lost().is_none()
    }

    /// How long the lock is surely held from now on if no renewal succeeds; zero once lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let belief = self.held.belief();
        if belief.lost().is_some() { Duration::ZERO } else { belief.deadline.remaining() }
    }

    /// Resolves when the lock can no longer be believed to be held, at the latest at its
    /// deadline, however the store behaves. It resolves with [`LostReason::Released`] when the
    /// guard is released or dropped first.
    ///
    /// The future does not borrow the guard and can be given to another task. Any number of them
    /// may wait.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; call again to wait on.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime: it sleeps until the deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// # use lockcore::{LockManager, MemoryBackend};
    /// # async fn work() {}
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), lockcore::Error> {
    /// # let locks = LockManager::new(MemoryBackend::new());
    /// let guard = locks.lock("orders/42")?.acquire().await?;
    /// tokio::select! {
    ///     () = work() => guard.release().await?,
    ///     reason = guard.lost() => eprintln!("stopped: {reason}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static {
        let mut beliefs = self.held.follow();
        async move {
            loop {
                let belief = *beliefs.borrow_and_update();
                if let Some(reason) = belief.lost() {
                    return reason;
                }
                tokio::select! {
                    changed = beliefs.changed() => if changed.is_err() {
                        return LostReason::Released;
                    },
                    () = belief.deadline.sleep_until() => {}
                }
            }
        }
    }

    /// Runs `work` while the lock is held, and stops it (drops it) when the lock is lost.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the lock was lost before the work had ended; whatever the work
    /// had returned by then is dropped too, since its last part was not protected.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work`. The lock stays held by the guard.
    ///
    /// # Panics
    ///
    /// When it is polled outside a tokio runtime, as [`lost`](Self::lost).
    pub async fn run<W: Future>(&self, work: W) -> Result<W::Output, Error> {
        let reason = tokio::select! {
            biased;
            reason = self.lost() => reason,
            output = work => match self.held.belief().lost() {
                None => return Ok(output),
                Some(reason) => reason,
            },
        };
        Err(lost(self.key(), reason))
    }

    /// Releases the lock and waits for the store's answer.
    ///
    /// The renewal has ended before the release is sent. An unanswered release is sent again, for
    /// at most the manager's `retry_for`; in the background it goes on until the lease ends.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when the lease had gone before; what was done since
    /// [`remaining`](Self::remaining) reached zero was not protected. [`ErrorKind::Ambiguous`] or
    /// [`ErrorKind::Unavailable`] when the store did not confirm the release: the key may stay
    /// taken until its ttl has passed. [`ErrorKind::Rejected`] when the store refused.
    ///
    /// # Cancel safety
    ///
    /// Once called, the release happens even if the future is dropped before it has ended.
    /// Dropped before its first poll, the guard is dropped, which releases too.
    pub async fn release(mut self) -> Result<(), Error> {
        let Some(job) = self.part() else {
            return Ok(());
        };
        let (shared, trouble) = (self.held.shared.clone(), job.trouble.clone());
        // On the caller's runtime, which is there; the guard's own may have ended.
        let runtime = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let work = shared.background.spawn(&runtime, job.run());
        let limit = shared.settings.retry_for.max(shared.settings.request_timeout);
        let answer = {
            // The caller may be none of a runtime's tasks, and a timer belongs to a runtime.
            let _entered = Handle::try_current().is_err().then(|| self.runtime.enter());
            tokio::time::timeout(limit, work)
        };
        let outcome = match answer.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(stopped)) => {
                Err(Error::new(ErrorKind::Ambiguous, "the release did not run to its end")
                    .with_source(stopped))
            }
            Err(_) => Err(match trouble.take() {
                Some(failure) => failure.into(),
                None => Error::new(
                    ErrorKind::Ambiguous,
                    format!("the store did not confirm the release within {limit:?}"),
                ),
            }),
        };
        outcome.map_err(|error| error.with_key(self.key()))
    }

    /// Ends the guard's part; what is left to do. `None` the second time.
    fn part(&mut self) -> Option<ReleaseJob> {
        let keeper = self.keeper.take()?;
        let belief = self.held.belief();
        let job = ReleaseJob {
            shared: self.held.shared.clone(),
            claim: self.held.claim.clone(),
            lost: belief.lost(),
            deadline: belief.deadline,
            keeper,
            turn: self.held.take_turn(),
            trouble: Trouble::default(),
        };
        self.held.lose(LostReason::Released);
        Some(job)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let Some(job) = self.part() else { return };
        let key = self.key().clone();
        self.held.shared.background.spawn(&self.runtime, async move {
            if let Err(error) = job.run().await
                && error.kind() != ErrorKind::Lost
            {
                tracing::warn!(lock.key = %key, %error, "a dropped lock was not released");
            }
        });
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("key", self.key())
            .field("holder", &self.holder())
            .field("token", &self.fencing_token())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

fn lost(key: &LockKey, reason: LostReason) -> Error {
    Error::new(ErrorKind::Lost, format!("the lock was lost, {reason}")).with_key(key)
}

/// The end of a lock.
struct ReleaseJob {
    shared: Arc<Shared>,
    claim: Claim,
    lost: Option<LostReason>,
    deadline: Moment,
    keeper: JoinHandle<()>,
    /// Kept until the first answer: the next in line asks when the key is free, but need not wait
    /// for a store that does not answer.
    turn: Option<Turn>,
    trouble: Trouble,
}

/// Why a release was not confirmed so far, for whoever stops waiting for it.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<BackendError>>>);

impl Trouble {
    /// Remembers a failure; one that leaves a doubt is not forgotten over one that leaves none.
    fn note(&self, failure: BackendError) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*noted, Some(BackendError::Ambiguous(_))) {
            *noted = Some(failure);
        }
    }

    fn take(&self) -> Option<BackendError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ReleaseJob {
    async fn run(self) -> Result<(), Error> {
        // No renewal may be under way when the release is sent.
        self.keeper.abort();
        let _ = self.keeper.await;
        if self.lost == Some(LostReason::NotHeld) {
            return Err(lost(&self.claim.key, LostReason::NotHeld));
        }
        let Self { shared, claim, lost, deadline, turn, trouble, .. } = self;
        release(&shared, &claim, lost, deadline, turn, &trouble).await
    }
}

async fn release(
    shared: &Shared,
    claim: &Claim,
    was_lost: Option<LostReason>,
    deadline: Moment,
    mut turn: Option<Turn>,
    trouble: &Trouble,
) -> Result<(), Error> {
    let mut backoff = Backoff::new();
    let mut may_have_worked = false;
    loop {
        let in_time = !deadline.has_come();
        let call = shared.backend.release(claim);
        let failure = match bounded(shared.settings.request_timeout, call).await {
            // The store's word that the lease stood until now outweighs our own doubts.
            Ok(Release::Released) => {
                tracing::debug!(lock.key = %claim.key, lock.holder = %claim.holder, "released");
                return Ok(());
            }
            // An earlier release of ours worked and its answer was lost.
            Ok(Release::NotHeld) if may_have_worked => return Ok(()),
            Ok(Release::NotHeld) => {
                return Err(lost(&claim.key, was_lost.unwrap_or(LostReason::NotHeld)));
            }
            Err(failure @ BackendError::Ambiguous(_)) => {
                may_have_worked |= in_time;
                failure
            }
            Err(failure @ BackendError::Unavailable(_)) => failure,
            Err(refused) => return Err(refused.into()),
        };
        drop(turn.take());
        if deadline.has_come() {
            return Err(match was_lost {
                Some(reason) => lost(&claim.key, reason),
                None => failure.into(),
            });
        }
        trouble.note(failure);
        tokio::time::sleep(backoff.pause().min(deadline.remaining())).await;
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;
    use crate::clock::pretend_suspended;
    use crate::{LockManager, MemoryBackend};

    /// The store's clock went on while the machine slept.
    #[tokio::test(start_paused = true)]
    async fn a_guard_is_lost_over_a_suspend() {
        let locks = LockManager::new(MemoryBackend::new());
        let guard = locks.lock("k").expect("a key").acquire().await.expect("free");
        pretend_suspended(Duration::from_secs(29));
        assert!(guard.is_valid());
        pretend_suspended(Duration::from_secs(30));
        assert!(!guard.is_valid());
        assert!(guard.remaining().is_zero());
        // Timers do not count suspended time, and are not relied on for longer than a second.
        let woken = tokio::time::Instant::now();
        assert_eq!(guard.lost().await, LostReason::Expired);
        assert!(woken.elapsed() <= Duration::from_secs(1));
        pretend_suspended(Duration::ZERO);
    }
}
