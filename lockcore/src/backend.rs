//! The contract between a store and the core.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::claim::{Acquire, Claim, HandOver, LeaseInfo, Limits, Release, ReleaseSignal, Renew};
use crate::error::BackendError;
use crate::join::join_all;
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
/// A store that keeps a line for each key ([`Limits::max_wait`]) also keeps the laws W1 to W11 of
/// `docs/laws.md`. In short: a contended acquire whose claim waits leaves its holder a place in
/// the line; a free key goes to the first place that stands, and to nobody else; asking again
/// keeps the place; a release signals the first in line alone.
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
/// assert_eq!(store.release(&mine).await?, Release::Released { token: lease.token });
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LockBackend: fmt::Debug + Send + Sync + 'static {
    /// Facts about the store. They do not change while the backend lives.
    fn limits(&self) -> Limits;

    /// Grants the key to the claim's holder if it is free, or again if it is the holder's.
    ///
    /// A holder asks again after an [`BackendError::Ambiguous`] answer, and while it has a place
    /// in the key's line ([`Contention::ahead`](crate::Contention::ahead)). It may ask again after it was
    /// contended: what a store still does about a refused attempt must not end a later lease of the
    /// holder. Once a release was sent for it, or after another error, it is spent. An acquire that arrives after its release may be
    /// granted or take a place: nobody uses it, it ends with its ttl or its wait.
    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError>;

    /// Extends the holder's lease, and raises its token to `min_token` if that is larger.
    ///
    /// Where the claim asks for it, the answer tells the store's
    /// [`incarnation`](crate::Lease::incarnation) anew: a store that has lost its data, and was
    /// then reached by a late acquire, holds a lease which stands, but has not kept the holder's.
    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError>;

    /// Renews many leases, each as [`renew`](Self::renew) does: one answer for each claim, in
    /// their order. The core asks for at most 100 at once, each of another key.
    ///
    /// By default each claim is renewed by a call of its own, all at once. A store that can renew
    /// many leases by one request overrides it.
    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        join_all(claims.iter().map(|claim| self.renew(claim)).collect()).await
    }

    /// Ends the holder's lease, and its place in the key's line if it has one.
    async fn release(&self, claim: &Claim) -> Result<Release, BackendError>;

    /// Ends the lease of `from` and grants the key to `to`, with a greater token: in one atomic
    /// step where the store can do that. Both claims are of the same key.
    ///
    /// Only a standing lease of `from` can be handed over; otherwise the answer is
    /// [`HandOver::NotHeld`], and nothing is changed. With `over`, others go first: if another
    /// holder has a place in the key's line, the lease of `from` ends, the first in line is
    /// signalled, and `to` joins the line if its claim waits. A call that is repeated while the
    /// lease of `to` stands is granted again, with the same token.
    ///
    /// After an [`BackendError::Ambiguous`] answer release `from` until that is answered, and only
    /// then ask for `to`, or release `to`.
    ///
    /// By default it is a release, then an acquire: others may come in between.
    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        let _ = over;
        if self.release(from).await? == Release::NotHeld {
            return Ok(HandOver::NotHeld);
        }
        match self.acquire(to).await {
            Ok(Acquire::Acquired(lease)) => Ok(HandOver::Granted(lease)),
            Ok(Acquire::Contended(contention)) => Ok(HandOver::Yielded(contention)),
            // The release has happened, so no error may say that nothing has.
            Err(error) => Err(error.into_ambiguous()),
        }
    }

    /// Arms a signal for the claim's holder: what happens after this call has returned resolves
    /// it.
    ///
    /// On a store with lines, for a claim that waits, the signal is the holder's alone. It resolves
    /// when the holder is first in the key's line and the key may be free. For a claim that does
    /// not wait it resolves when a lease of the key is released that was claimed with
    /// [`announce`](Claim::announce); on a store without lines, when any is. It may resolve for nothing now and then, but not every time and at
    /// once: its holder would ask without a pause. A store that cannot signal returns
    /// [`ReleaseSignal::never`].
    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError>;

    /// Shows the lease that stands on a key.
    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError>;

    /// Shows the leases that stand on keys starting with `prefix` and greater than `after`: the
    /// first `limit` of them, in the order of their keys' bytes. Keys released or taken meanwhile
    /// may or may not be among them; none appears twice.
    ///
    /// A store that can show a part of the leases only answers
    /// [`Rejected`](BackendError::Rejected), also to a `limit` of 0.
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

            async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
                (**self).renew_many(claims).await
            }

            async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
                (**self).release(claim).await
            }

            async fn hand_over(
                &self,
                from: &Claim,
                to: &Claim,
                over: bool,
            ) -> Result<HandOver, BackendError> {
                (**self).hand_over(from, to, over).await
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
