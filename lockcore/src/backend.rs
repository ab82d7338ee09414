//! The contract between a store and the core.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::claim::{Acquire, Claim, LeaseInfo, Limits, Release, ReleaseSignal, Renew};
use crate::error::BackendError;
use crate::key::LockKey;

/// A store that can grant leases: the contract between authors of backends and this crate.
/// Applications use [`LockManager`](crate::LockManager).
///
/// One call is one atomic attempt. A backend does not wait for a key, does not retry, and sets no
/// deadline: the core bounds every call by dropping its future. Only connecting has a limit of
/// its own, in the backend's builder.
///
/// # Laws
///
/// Every backend keeps these, and the conformance suite proves it case by case
/// (`docs/laws.md` has them in full):
///
/// - **L1 exclusion.** At most one holder per key at any instant of the store.
/// - **L2 asking again.** Acquire is idempotent per holder while its lease stands, whatever
///   `min_token` it names: granted again, with the same token.
/// - **L3 time.** Only the store's clock ends a lease. It stands for the granted ttl counted from
///   the start of the call that answered it, and is gone at the latest
///   [`expiry_lag`](Limits::expiry_lag) after. Nothing shortens a live lease: its new end is the
///   later of its current end and now + ttl.
/// - **L4 holders only.** Renew and release match the holder, never the token; by others they
///   change nothing and answer `NotHeld`. An expired lease is never revived by renew.
/// - **L5 tokens rise.** The tokens of a key strictly increase, over release, expiry, reconnects
///   and restarts; over loss of the store's data as long as the clock that dates them has not
///   gone back and no token was raised ahead of it.
/// - **L6 release is idempotent.** The second answer is `NotHeld`, never an error.
/// - **L7 errors are honest.** See [`BackendError`].
/// - **L8 drop.** The future of any call may be dropped at any point; the backend stays usable.
/// - **L9 floors.** A new lease claimed with `min_token = m` gets exactly max(the token it would
///   have had, m); renew with a larger m raises the live lease's token to exactly m, so that
///   later leases are greater. A backend made of several: at least m. What
///   [`Limits::check`] refuses is refused before any I/O.
/// - **L10 sight.** Inspect and list show a lease exactly while it stands.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey, MemoryBackend, Release};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryBackend::new();
/// let key = LockKey::new("orders/42")?;
/// let mine = Claim::new(key.clone(), HolderId::random(), Duration::from_secs(30));
/// let yours = Claim::new(key, HolderId::random(), Duration::from_secs(30));
///
/// let Acquire::Acquired(lease) = store.acquire(&mine).await? else { panic!("free") };
/// assert!(matches!(store.acquire(&yours).await?, Acquire::Contended(_)));
/// let Acquire::Acquired(again) = store.acquire(&mine).await? else { panic!("mine") };
/// assert_eq!(again.token, lease.token);
/// assert_eq!(store.release(&yours).await?, Release::NotHeld);
/// assert_eq!(store.release(&mine).await?, Release::Released);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LockBackend: fmt::Debug + Send + Sync + 'static {
    /// Facts about the store. They do not change while the backend lives.
    fn limits(&self) -> Limits;

    /// Grants the key to the claim's holder if it is free, or again if it is the holder's.
    ///
    /// A holder asks again only after an [`BackendError::Ambiguous`] answer; after a definite one,
    /// or once a release was sent for it, it is spent. An acquire that arrives after its release
    /// may be granted: nobody uses it, it ends with its ttl.
    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError>;

    /// Extends the holder's lease, and raises its token to `min_token` if that is larger.
    ///
    /// The lease that it answers tells the store's [`memory`](crate::Lease::memory) anew: a store
    /// that has lost its data, and was then reached by a late acquire, holds a lease which stands,
    /// but has not kept the holder's.
    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError>;

    /// Ends the holder's lease.
    async fn release(&self, claim: &Claim) -> Result<Release, BackendError>;

    /// Arms a signal for the release of the claim's key: what is released after this call has
    /// returned resolves it. It may resolve without a release now and then, but not every time
    /// and at once: its waiters would ask without a pause. A store that cannot signal returns
    /// [`ReleaseSignal::never`].
    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError>;

    /// Shows the lease that stands on a key.
    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError>;

    /// Shows the leases that stand on keys starting with `prefix` and greater than `after`: the
    /// first `limit` of them, in the order of their keys' bytes. Keys released or taken meanwhile
    /// may or may not be among them; none appears twice.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError>;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        // A method added to the trait later must not be answered by its default here.
        #[deny(clippy::missing_trait_methods)]
        impl<B: LockBackend + ?Sized> LockBackend for $pointer<B> {
            fn limits(&self) -> Limits {
                (**self).limits()
            }

            async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
                (**self).acquire(claim).await
            }

            async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
                (**self).renew(claim).await
            }

            async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
                (**self).release(claim).await
            }

            async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
                (**self).watch(claim).await
            }

            async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
                (**self).inspect(key).await
            }

            async fn list(
                &self,
                prefix: &str,
                after: Option<&LockKey>,
                limit: usize,
            ) -> Result<Vec<LeaseInfo>, BackendError> {
                (**self).list(prefix, after, limit).await
            }
        }
    )*};
}

forward!(Arc, Box);
