//! What a backend is asked for, and what it answers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::InvalidInput;
use crate::key::{HolderId, LockKey};

/// The largest fencing token a claim may demand: 2^52.
///
/// Stores that compute in doubles (Lua) stay exact up to 2^53; the gap leaves room for 2^52 more
/// leases after a token was raised to the limit.
pub const MAX_TOKEN: u64 = 1 << 52;

/// One acquisition: what a holder asks of a store.
///
/// The same claim is passed to every call that concerns the acquisition. Build it with
/// [`Claim::new`] and the `with_*` methods; backends check it with [`Limits::check`] before any
/// I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// What is locked.
    pub key: LockKey,
    /// Who asks.
    pub holder: HolderId,
    /// How long the lease shall live unrenewed, by the store's clock. A store that counts in
    /// coarser steps rounds up and says so in [`Lease::ttl`].
    pub ttl: Duration,
    /// The least fencing token the lease may carry; 0 demands nothing (law L9).
    pub min_token: u64,
    /// Words for people who inspect the store: at most [`Claim::MAX_LABEL`] bytes, no NUL.
    pub label: String,
}

impl Claim {
    /// The longest label, in bytes.
    pub const MAX_LABEL: usize = 256;

    /// A claim without a token floor and without a label.
    #[must_use]
    pub fn new(key: LockKey, holder: HolderId, ttl: Duration) -> Self {
        Self { key, holder, ttl, min_token: 0, label: String::new() }
    }

    /// Demands a token of at least `min_token`.
    #[must_use]
    pub fn with_min_token(mut self, min_token: u64) -> Self {
        self.min_token = min_token;
        self
    }

    /// Adds words for people who inspect the store.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }
}

/// The store's promise: the key belongs to the claim's holder for `ttl`, counted from the start
/// of the call that answered it (law L3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The fencing token: greater than that of every earlier lease of the key (law L5).
    pub token: u64,
    /// How long the lease lives unrenewed: at least what was claimed.
    pub ttl: Duration,
    /// How long the store has surely forgotten nothing, as of this call. Acquire and renew both tell
    /// it, with the same care. `None` is for a store that never knows: one that does, and cannot
    /// find out at the moment, tells the age zero.
    pub memory: Option<StoreMemory>,
}

impl Lease {
    /// A lease of a store whose memory is not known.
    #[must_use]
    pub fn new(token: u64, ttl: Duration) -> Self {
        Self { token, ttl, memory: None }
    }

    /// Says how long the store has surely forgotten nothing.
    #[must_use]
    pub fn with_memory(mut self, memory: Option<StoreMemory>) -> Self {
        self.memory = memory;
        self
    }
}

/// How long a store has surely forgotten nothing.
///
/// A quorum uses it to leave out a node that may have given its locks away, and to notice that
/// the same store was listed twice. Where it is `None`, whoever lists the store vouches for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreMemory {
    /// Names this store and this life of its data: another after a wipe.
    pub id: u128,
    /// Since when nothing was forgotten, by the store's clock; never too large.
    pub age: Duration,
}

impl StoreMemory {
    /// The memory `id`, unbroken for `age`.
    #[must_use]
    pub fn new(id: u128, age: Duration) -> Self {
        Self { id, age }
    }
}

/// Someone else holds the key: a normal answer of a healthy store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contention {
    /// When asking again may be worth it even if no release is signalled: what is left of the
    /// holder's lease, where the store knows it.
    pub retry_after: Option<Duration>,
}

impl Contention {
    /// Contended, with a hint when to ask again.
    #[must_use]
    pub fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after }
    }
}

/// A lease as seen by someone who does not hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// What is locked.
    pub key: LockKey,
    /// Who holds it.
    pub holder: HolderId,
    /// The lease's fencing token.
    pub token: u64,
    /// What is left of the lease, by the store's clock, unless it is renewed.
    pub remaining: Duration,
    /// The holder's words about itself.
    pub label: String,
}

impl LeaseInfo {
    /// A lease seen in a store.
    #[must_use]
    pub fn new(
        key: LockKey,
        holder: HolderId,
        token: u64,
        remaining: Duration,
        label: impl Into<String>,
    ) -> Self {
        Self { key, holder, token, remaining, label: label.into() }
    }
}

/// What a store can do: facts, not switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The shortest ttl the store takes.
    pub min_ttl: Duration,
    /// The longest ttl the store takes.
    pub max_ttl: Duration,
    /// How long after its end a lease may still stand in the store (law L3).
    pub expiry_lag: Duration,
    /// The largest `min_token` a claim may carry.
    pub max_token: u64,
}

impl Limits {
    /// Limits on the ttl; no expiry lag, and [`MAX_TOKEN`] as the largest token floor.
    #[must_use]
    pub const fn new(min_ttl: Duration, max_ttl: Duration) -> Self {
        Self { min_ttl, max_ttl, expiry_lag: Duration::ZERO, max_token: MAX_TOKEN }
    }

    /// Says how long after its end a lease may still stand in the store.
    #[must_use]
    pub const fn with_expiry_lag(mut self, expiry_lag: Duration) -> Self {
        self.expiry_lag = expiry_lag;
        self
    }

    /// Lowers the largest token floor; it is never above [`MAX_TOKEN`].
    #[must_use]
    pub const fn with_max_token(mut self, max_token: u64) -> Self {
        self.max_token = if max_token < MAX_TOKEN { max_token } else { MAX_TOKEN };
        self
    }

    /// Checks a claim. Every backend calls this first in acquire, renew, release and watch, so
    /// that bad input gets the same answer everywhere, before any I/O.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] when the ttl lies outside `min_ttl..=max_ttl`, the token floor above
    /// `max_token`, or the label is longer than [`Claim::MAX_LABEL`] bytes or contains NUL.
    pub fn check(&self, claim: &Claim) -> Result<(), InvalidInput> {
        self.check_ttl(claim.ttl)?;
        if claim.min_token > self.max_token {
            return Err(InvalidInput::new(format!(
                "a token floor is at most {}, this one is {}",
                self.max_token, claim.min_token
            )));
        }
        check_label(&claim.label)
    }

    pub(crate) fn check_ttl(&self, ttl: Duration) -> Result<(), InvalidInput> {
        if ttl < self.min_ttl || ttl > self.max_ttl {
            return Err(InvalidInput::new(format!(
                "this store takes a ttl from {:?} to {:?}, not {ttl:?}",
                self.min_ttl, self.max_ttl
            )));
        }
        Ok(())
    }
}

pub(crate) fn check_label(label: &str) -> Result<(), InvalidInput> {
    if label.len() > Claim::MAX_LABEL {
        return Err(InvalidInput::new(format!(
            "a label has at most {} bytes, this one has {}",
            Claim::MAX_LABEL,
            label.len()
        )));
    }
    if label.contains('\0') {
        return Err(InvalidInput::new("a label must not contain a NUL byte"));
    }
    Ok(())
}

/// The answer to acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// The claim's holder has the key.
    Acquired(Lease),
    /// Someone else has it; nothing was changed.
    Contended(Contention),
}

/// The answer to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renew {
    /// The lease stood and now lives for the claimed ttl from the start of this call.
    Renewed(Lease),
    /// No lease of this holder stands; nothing was changed.
    NotHeld,
}

/// The answer to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The lease stood until now and is gone.
    Released,
    /// No lease of this holder stands; nothing was changed.
    NotHeld,
}

/// Resolves when a key may have become free: a hint that never grants anything.
///
/// It may resolve early or never; whoever waits on it also polls. Dropping it ends the watch.
#[must_use = "a signal does nothing unless it is awaited"]
pub struct ReleaseSignal(Pin<Box<dyn Future<Output = ()> + Send>>);

impl ReleaseSignal {
    /// A signal that resolves with `future`.
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }

    /// The signal of a store that has none: waiters poll.
    pub fn never() -> Self {
        Self::new(std::future::pending())
    }

    /// Resolves with the first of `signals`; never, if there are none.
    pub fn any(signals: Vec<Self>) -> Self {
        let mut signals = signals;
        Self::new(std::future::poll_fn(move |cx| {
            // Poll all of them, so that each has the waker of this task.
            let mut ready = false;
            for signal in &mut signals {
                ready |= signal.0.as_mut().poll(cx).is_ready();
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}

impl Future for ReleaseSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for ReleaseSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReleaseSignal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ttl: Duration) -> Claim {
        Claim::new(LockKey::new("k").expect("valid"), HolderId::from_u128(1), ttl)
    }

    #[test]
    fn limits_refuse_what_no_store_can_serve() {
        let limits = Limits::new(Duration::from_millis(10), Duration::from_secs(60));
        let good = claim(Duration::from_secs(1));
        assert_eq!(limits.check(&good), Ok(()));
        for ttl in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
            assert!(limits.check(&claim(ttl)).is_err(), "{ttl:?}");
        }
        assert_eq!(limits.check(&good.clone().with_min_token(MAX_TOKEN)), Ok(()));
        assert!(limits.check(&good.clone().with_min_token(MAX_TOKEN + 1)).is_err());
        assert!(limits.check(&good.clone().with_label("x".repeat(257))).is_err());
        assert!(limits.check(&good.with_label("a\0b")).is_err());
        assert_eq!(limits.with_max_token(u64::MAX).max_token, MAX_TOKEN);
    }

    #[tokio::test]
    async fn any_resolves_with_the_first_signal() {
        ReleaseSignal::any(vec![ReleaseSignal::never(), ReleaseSignal::new(async {})]).await;
        let nothing = tokio::time::timeout(
            Duration::from_millis(1),
            ReleaseSignal::any(vec![ReleaseSignal::never()]),
        );
        assert!(nothing.await.is_err());
    }
}
