//! The guard: the value that stands for a held lock.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::held::{Held, LostReason};
use crate::key::{HolderId, LockKey};
use crate::release::{Releasing, lost};
use crate::seams;
use crate::shared::Shared;
use crate::store::in_time;

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
    shared: Arc<Shared>,
    held: Arc<Held>,
    /// Where the rest of a release runs that is dropped outside any runtime; `None`: it has begun.
    runtime: Option<Handle>,
}

impl LockGuard {
    pub(crate) fn new(shared: &Arc<Shared>, held: Arc<Held>, runtime: Handle) -> Self {
        shared.keep(&held, &runtime);
        Self { shared: shared.clone(), held, runtime: Some(runtime) }
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
        let belief = self.held.belief();
        if seams::flawed!(LossByFlagAlone) {
            return belief.lost.is_none();
        }
        belief.lost().is_none()
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
        let held = self.held.clone();
        async move { held.until_lost().await }
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
    /// No renewal is sent after the release. An unanswered release is sent again, for
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
        // A guard that was not dropped has not begun to end.
        let Some(releasing) = self.end() else { return Ok(()) };
        // The first is asked for speed: a handle is shared by all that a runtime runs.
        if tokio::task::try_id().is_some() || Handle::try_current().is_ok() {
            return released(&self.shared, &self.held, releasing).await;
        }
        // The caller is no task of a runtime, and requests and timers need one that is run.
        let (done, outcome) = oneshot::channel();
        let (shared, held) = (self.shared.clone(), self.held.clone());
        let work = move || {
            let outcome = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(released(&shared, &held, releasing)),
                Err(error) => Err(not_sent(&held.claim.key).with_source(error)),
            };
            let _ = done.send(outcome);
        };
        let thread = std::thread::Builder::new().name("leaselock-release".to_owned()).spawn(work);
        match thread {
            Ok(_) => outcome.await.unwrap_or_else(|_| Err(not_sent(self.key()))),
            Err(error) => Err(not_sent(self.key()).with_source(error)),
        }
    }

    fn end(&mut self) -> Option<Releasing> {
        let runtime = self.runtime.take()?;
        Some(Releasing::new(&self.shared, &self.held, runtime))
    }
}

/// Waits for a release for as long as failed requests are repeated. It goes on in the background.
async fn released(shared: &Shared, held: &Held, releasing: Releasing) -> Result<(), Error> {
    let limit = shared.retry_for().max(shared.store.settings.request_timeout);
    in_time(limit, releasing).await.unwrap_or_else(|| {
        let error = match held.take_last_failure() {
            Some(failure) => failure.into(),
            None => Error::new(
                ErrorKind::Ambiguous,
                format!("the store did not confirm the release within {limit:?}"),
            ),
        };
        Err(error.with_key(&held.claim.key))
    })
}

fn not_sent(key: &LockKey) -> Error {
    Error::new(ErrorKind::Ambiguous, "the release did not run to its end").with_key(key)
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.runtime.is_some() && !seams::flawed!(DroppedGuardNotReleased) {
            // Its own drop sees to the rest. Until that runs, a task that tries the key waits for it.
            self.held.ends();
            drop(self.end());
        }
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
