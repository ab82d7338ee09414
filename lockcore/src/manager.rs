//! The entrance for users: managers and locks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::acquire::{Patience, acquire};
use crate::backend::LockBackend;
use crate::claim::LeaseInfo;
use crate::error::{Error, ErrorKind};
use crate::guard::LockGuard;
use crate::key::LockKey;
use crate::settings::{Overrides, Settings};
use crate::shared::{PARTS, Shared};
use crate::store::bounded;

/// Locks on one store, with one set of settings.
///
/// Make one per store and process and clone it: clones share the queue in which the tasks of the
/// process wait for a key, so that only one of them at a time talks to the store about it.
///
/// ```
/// use std::time::Duration;
/// use lockcore::{LockManager, MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lockcore::Error> {
/// let locks = LockManager::builder(MemoryBackend::new())
///     .ttl(Duration::from_secs(10))
///     .max_hold(Duration::from_secs(600))
///     .build()?;
/// let orders = locks.lock("orders/42")?;
/// let guard = orders.acquire().await?;
/// assert!(orders.try_acquire().await?.is_none());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LockManager {
    /// By the part of the keys.
    parts: Arc<[Arc<Shared>]>,
}

impl LockManager {
    /// A manager with the default settings (see [`ManagerBuilder`]). Where the store does not
    /// take the default ttl, the nearest that it takes.
    pub fn new(backend: impl LockBackend) -> Self {
        let settings = Settings::from_overrides(Overrides::default(), &backend.limits());
        Self { parts: Shared::new(Arc::new(backend), settings, None) }
    }

    /// Chooses the settings.
    pub fn builder(backend: impl LockBackend) -> ManagerBuilder {
        ManagerBuilder {
            backend: Arc::new(backend),
            overrides: Overrides::default(),
            runtime: None,
        }
    }

    /// The lock of this key: cheap, no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] when the key is not 1 to 512 bytes of UTF-8 without NUL.
    pub fn lock(&self, key: impl AsRef<str>) -> Result<Lock, Error> {
        let key = LockKey::new(key)?;
        Ok(Lock { shared: self.parts[key.part_of(PARTS)].clone(), key })
    }

    /// For what all parts have in common.
    fn any(&self) -> &Shared {
        &self.parts[0]
    }

    /// Who holds a key now, as the store sees it; `None` if nobody does. A look, no promise: it
    /// may be outdated when it arrives.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] for a wrong key; [`ErrorKind::Unavailable`] when the store did
    /// not answer; [`ErrorKind::Rejected`] when it refused.
    pub async fn inspect(&self, key: impl AsRef<str>) -> Result<Option<LeaseInfo>, Error> {
        let key = LockKey::new(key)?;
        let call = (*self.any().store.backend).inspect(&key);
        bounded(self.any().store.settings.request_timeout, call).await.map_err(|e| read(e.into()))
    }

    /// Who holds the keys that start with `prefix`: the first `limit` of those greater than
    /// `after`, in the order of their bytes. Pass the last key seen to go on.
    ///
    /// # Errors
    ///
    /// As [`inspect`](Self::inspect); it may take as long as `retry_for`.
    pub async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, Error> {
        let settings = &self.any().store.settings;
        // A store may have to go through all its keys: that is more than one request.
        let limit_of_time = settings.retry_for.max(settings.request_timeout);
        let call = (*self.any().store.backend).list(prefix, after, limit);
        bounded(limit_of_time, call).await.map_err(|e| read(e.into()))
    }

    /// Waits until what goes on in the background now has ended: releases of dropped guards, and
    /// the undoing of dropped acquires. Call it before a program ends, so that its keys are free at
    /// once and not a ttl later.
    ///
    /// It takes no longer than the leases concerned live. Guards that are still held do not
    /// count, nor does what begins while it waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn drain(&self) {
        self.any().background.drained().await;
    }
}

/// Nothing is changed by reading: without an answer, nothing can have happened.
fn read(error: Error) -> Error {
    if error.kind() == ErrorKind::Ambiguous {
        error.into_kind(ErrorKind::Unavailable)
    } else {
        error
    }
}

impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockManager")
            .field("backend", &self.any().store.backend)
            .field("settings", &self.any().store.settings)
            .finish_non_exhaustive()
    }
}

/// The settings of a [`LockManager`], checked once, by [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct ManagerBuilder {
    backend: Arc<dyn LockBackend>,
    overrides: Overrides,
    runtime: Option<Handle>,
}

impl ManagerBuilder {
    /// How long a lease lives unrenewed, by the store's clock: after a crash of its holder a key
    /// is free again this much later. Defaults to 30 s, within the store's limits.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.overrides.ttl = Some(ttl);
        self
    }

    /// How often a lease is renewed, counted from start to start and up to a tenth less by
    /// chance. Defaults to a third of the ttl.
    pub fn renew_every(mut self, every: Duration) -> Self {
        self.overrides.renew_every = Some(every);
        self
    }

    /// Leases are not renewed: every lock is lost when its ttl is over.
    pub fn no_renewal(mut self) -> Self {
        self.overrides.no_renewal = true;
        self
    }

    /// How long one request to the store may take; then its outcome counts as unknown. Defaults
    /// to a sixth of the ttl, at most 2 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.overrides.request_timeout = Some(timeout);
        self
    }

    /// The longest time between two requests of a task that waits for a key, even if no release
    /// was signalled. Defaults to 1 s.
    pub fn poll_every(mut self, every: Duration) -> Self {
        self.overrides.poll_every = Some(every);
        self
    }

    /// How long a failing store is tried again, counted from its last good answer or, where a
    /// waiter slept since, from when it asked again. Defaults to 10 s; with zero the first failure
    /// is the answer.
    pub fn retry_for(mut self, duration: Duration) -> Self {
        self.overrides.retry_for = Some(duration);
        self
    }

    /// The longest that a lock is held: then the guard is lost and its lease is left to end, so
    /// that work that hangs does not keep a key for ever. Defaults to no limit.
    pub fn max_hold(mut self, max: Duration) -> Self {
        self.overrides.max_hold = Some(max);
        self
    }

    /// Words about the holder for people who inspect the store: at most 256 bytes, no NUL.
    /// Defaults to host name and process id.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.overrides.label = Some(label.into());
        self
    }

    /// The runtime for the tasks of the manager's locks: renewals, and releases of dropped guards.
    /// Defaults to the runtime of the task that acquires or drops. Choose one where that runtime
    /// may end, or may not be run, while locks are held.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Checks the settings against each other and the store's limits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], naming the setting and what it may be.
    pub fn build(self) -> Result<LockManager, Error> {
        let limits = self.backend.limits();
        let settings = Settings::from_overrides(self.overrides, &limits);
        settings.check(&limits)?;
        Ok(LockManager { parts: Shared::new(self.backend, settings, self.runtime.as_ref()) })
    }
}

/// The lock of one key.
///
/// Cloning it is cheap. It is not re-entrant: acquiring a key that a guard of the same process
/// holds waits for that guard.
///
/// # Panics
///
/// The ways to acquire panic on a tokio runtime that was built without its timer
/// (`enable_time`): a lock without a clock cannot be kept. Outside a runtime they answer
/// [`ErrorKind::InvalidInput`].
#[derive(Clone)]
pub struct Lock {
    shared: Arc<Shared>,
    key: LockKey,
}

impl Lock {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &LockKey {
        &self.key
    }

    /// Waits until the lock is acquired.
    ///
    /// Tasks of one manager that want the same key are served first come, first served.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Ambiguous`] when the store failed for as long
    /// as the manager's `retry_for`; [`ErrorKind::Rejected`] at once when it refused. A held key
    /// is no error, however long it is held.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped at any point, it leaves the queue, and a request in flight is seen to
    /// its end and undone in the background ([`LockManager::drain`] waits for that).
    pub async fn acquire(&self) -> Result<LockGuard, Error> {
        self.patiently(Patience::Endless).await
    }

    /// Acquires the lock if nobody holds it: `None` if someone does, in this process or another,
    /// or if a task of this manager is ahead in the queue.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), at once: it asks the store once, and waits for nothing but the
    /// answer. While the store is failing it answers without asking.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        acquire(&self.shared, &self.key, Patience::None).await
    }

    /// Waits until the lock is acquired, for at most `limit` in all. With a limit of zero it asks
    /// once, and waits for nothing but the answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Contended`] when the limit ran out while others held the key, and otherwise
    /// as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_timeout(&self, limit: Duration) -> Result<LockGuard, Error> {
        if limit.is_zero() {
            return self.patiently(Patience::None).await;
        }
        self.patiently(Patience::For(limit)).await
    }

    async fn patiently(&self, patience: Patience) -> Result<LockGuard, Error> {
        let guard = acquire(&self.shared, &self.key, patience).await?;
        guard.ok_or_else(|| {
            Error::new(ErrorKind::Contended, "someone else holds it").with_key(&self.key)
        })
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("key", &self.key).finish_non_exhaustive()
    }
}
