//! What a backend is asked for, what it answers, and what a store can do.

use std::sync::Arc;
use std::time::Duration;

use crate::key::{HolderId, LockKey};

mod answers;
mod limits;
mod signal;

pub use answers::{Acquire, Contention, HandOver, Incarnation, Lease, LeaseInfo, Release, Renew};
pub use limits::Limits;
pub(crate) use limits::check_label;
pub use signal::ReleaseSignal;

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
    /// Text for people who inspect the store: at most [`Claim::MAX_LABEL`] bytes, no NUL.
    pub label: Arc<str>,
    /// How long the holder keeps a place in the key's line if the key is taken, counted from
    /// when the store sees the request. `None`: the holder does not wait. Stores without a line
    /// ([`Limits::max_wait`] is zero) ignore it.
    pub wait: Option<Duration>,
    /// Whether the answer shall tell the store's [`Incarnation`]. It may cost the store a read.
    pub incarnation: bool,
    /// Whether the release of the lease shall be told to everyone that watches the key without
    /// waiting in its line, as combinations of stores do. It may cost the store a message. Stores
    /// without a line tell every release, and ignore it.
    pub announce: bool,
    /// Whether the holder stands for many processes, which ask independently of each other. A backend
    /// must not conclude from one of them that the holder is done: it gives nothing back but by a
    /// release. A store that decides each request by itself ignores it.
    pub shared: bool,
}

impl Claim {
    /// The longest label, in bytes.
    pub const MAX_LABEL: usize = 256;

    /// A claim without a token floor, without a label, by a holder that does not wait.
    #[must_use]
    pub fn new(key: LockKey, holder: HolderId, ttl: Duration) -> Self {
        let label = Arc::from("");
        Self {
            key,
            holder,
            ttl,
            min_token: 0,
            label,
            wait: None,
            incarnation: false,
            announce: false,
            shared: false,
        }
    }

    /// Demands a token of at least `min_token`.
    #[must_use]
    pub fn with_min_token(mut self, min_token: u64) -> Self {
        self.min_token = min_token;
        self
    }

    /// Adds text for people who inspect the store.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = label.into();
        self
    }

    /// Takes a place in the key's line for this long if the key is taken; `None`: takes none.
    #[must_use]
    pub fn with_wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Has the release of the lease told to everyone that watches the key.
    #[must_use]
    pub fn with_announcement(mut self) -> Self {
        self.announce = true;
        self
    }

    /// Says that the holder stands for many processes.
    #[must_use]
    pub fn with_sharing(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Asks for the store's [`Incarnation`].
    #[must_use]
    pub fn with_incarnation(mut self) -> Self {
        self.incarnation = true;
        self
    }
}
