//! What a backend answers.

use std::time::Duration;

use crate::key::{HolderId, LockKey};

/// The store's promise: the key belongs to the claim's holder for `ttl`, counted from the start
/// of the call that answered it (law L3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The fencing token: greater than that of every earlier lease of the key (law L5).
    pub token: u64,
    /// How long the lease lives unrenewed: at least what was claimed.
    pub ttl: Duration,
    /// For how long the store is known to have kept all its data, as of this call. `None` where
    /// the claim did not ask for it, and from a store that can never tell. A store that cannot
    /// tell right now answers the age zero.
    pub incarnation: Option<Incarnation>,
}

impl Lease {
    /// A lease without an incarnation of its store.
    #[must_use]
    pub fn new(token: u64, ttl: Duration) -> Self {
        Self { token, ttl, incarnation: None }
    }

    /// Adds for how long the store is known to have kept all its data.
    #[must_use]
    pub fn with_incarnation(mut self, incarnation: Option<Incarnation>) -> Self {
        self.incarnation = incarnation;
        self
    }
}

/// One unbroken life of a store's data.
///
/// A quorum uses it to leave out a node that may have lost leases, and to notice that the same
/// store was listed twice. Where a store cannot tell it, the person who lists the store vouches
/// for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incarnation {
    /// Names this store and this life of its data. It changes when data was lost.
    pub id: u128,
    /// For how long all data was kept, by the store's clock; never too large.
    pub age: Duration,
}

impl Incarnation {
    /// The incarnation `id`, unbroken for `age`.
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
    /// holder's lease, where the store knows it. While the key is free and others are ahead in
    /// its line: what is left of the place of the first of them.
    pub retry_after: Option<Duration>,
    /// How many places are ahead of the claim's holder in the key's line. `None`: the holder has
    /// no place, because it does not wait, or the store has no line, or the line is full.
    pub ahead: Option<u32>,
}

impl Contention {
    /// Contended, with a hint when to ask again. The holder has no place in a line.
    #[must_use]
    pub fn new(retry_after: Option<Duration>) -> Self {
        Self { retry_after, ahead: None }
    }

    /// Says how many places are ahead of the holder in the key's line.
    #[must_use]
    pub fn with_ahead(mut self, ahead: Option<u32>) -> Self {
        self.ahead = ahead;
        self
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

/// The answer to acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquire {
    /// The claim's holder has the key.
    Acquired(Lease),
    /// Someone else has it, or is first in the key's line. At most the holder's place in that
    /// line was changed.
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
    Released {
        /// Its fencing token. A holder that was granted another one has lost that lease, and
        /// someone else may have held the key in between.
        token: u64,
    },
    /// No lease of this holder stands. If the holder had a place in the key's line, it is gone.
    NotHeld,
}

impl Release {
    /// Whether a lease stood until now.
    #[must_use]
    pub const fn is_released(&self) -> bool {
        matches!(self, Self::Released { .. })
    }
}

/// The answer to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// The lease of the one holder is gone, and the other holder has the key, with a greater
    /// token.
    Granted(Lease),
    /// The lease of the one holder is gone, and someone else was ahead of the other holder.
    Yielded(Contention),
    /// No lease of the one holder stands; nothing was changed.
    NotHeld,
}
