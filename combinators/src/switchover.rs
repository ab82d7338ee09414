//! Moving locks from one store to another without a gap.

mod builder;
mod ceiling;
mod registration;
mod reserved;
mod status;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use lockcore::{
    Acquire, BackendError, Claim, InvalidInput, Lease, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};

pub use self::builder::SwitchoverBuilder;
pub use self::status::{Held, Process, Status};

use self::ceiling::Ceiling;
use self::registration::Registration;
use crate::flaw::{Flaw, flawed};
use crate::group::Group;

/// Where the locks are while a team moves them from an old store to a new one.
///
/// Neighbouring phases exclude each other, for they share a store; `Old` and `New` do not, and
/// must never run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// In the old store alone.
    Old,
    /// In both, the old one first.
    Both,
    /// In the new store alone.
    New,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Both => "both",
            Self::New => "new",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Phase {
    type Err = InvalidInput;

    fn from_str(name: &str) -> Result<Self, InvalidInput> {
        [Self::Old, Self::Both, Self::New]
            .into_iter()
            .find(|phase| phase.name() == name)
            .ok_or_else(|| {
                InvalidInput::new(format!("a phase is `old`, `both` or `new`, not `{name}`"))
            })
    }
}

/// Locks on their way from an old store to a new one, in one of three [phases](Phase).
///
/// Start it with [`Switchover::builder`]. See the [crate documentation](crate) for the protocol,
/// and for what it promises.
///
/// Clones share one registration, which ends when the last of them is dropped.
#[derive(Clone)]
pub struct Switchover {
    inner: Arc<Inner>,
}

struct Inner {
    phase: Phase,
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
    both: Group,
    limits: Limits,
    registration: Registration,
    /// Of the store of an exclusive phase.
    ceilings: Vec<Ceiling>,
}

impl Switchover {
    /// Settings for a process that takes its locks from `old` to `new` and is in this phase.
    pub fn builder(
        old: impl LockBackend,
        new: impl LockBackend,
        phase: Phase,
    ) -> SwitchoverBuilder {
        SwitchoverBuilder::new(Arc::new(old), Arc::new(new), phase)
    }

    /// The phase that this process is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inner.phase
    }

    /// The least token of this process's leases, see [`SwitchoverBuilder::floor`].
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.inner.registration.floor()
    }

    /// Who runs in which phase, and what is held where.
    ///
    /// # Errors
    ///
    /// Those of the stores, one of which may not be reached.
    pub async fn status(&self) -> Result<Status, BackendError> {
        Status::of(&*self.inner.old, &*self.inner.new).await
    }

    /// Ends the registration, and waits until the stores know: others may enter the opposite
    /// phase from then on.
    ///
    /// Nothing is granted or renewed any more from the call on. It waits for the locks of this
    /// process to be released or to end: release them before, or it takes as long as their ttl.
    /// Where a store cannot be reached it waits until the registration has ended there by itself,
    /// for which others wait as well.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves this process without leases to give, and registered until the last
    /// clone is dropped. Call it again to go on.
    pub async fn leave(&self) {
        self.inner.registration.leave().await;
    }

    /// The one store of an exclusive phase.
    fn single(&self) -> Option<&dyn LockBackend> {
        match self.inner.phase {
            Phase::Old => Some(&*self.inner.old),
            Phase::New => Some(&*self.inner.new),
            Phase::Both => None,
        }
    }

    /// Nobody believes in a lease for longer than its claim has promised, also where a store grants
    /// more, and nobody sees a token of which whoever enters the opposite phase later does not know.
    async fn cover(&self, mut lease: Lease, claim: &Claim) -> Result<Lease, BackendError> {
        if !flawed(Flaw::BelievesTheGrant) {
            lease.ttl = lease.ttl.min(claim.ttl);
        }
        match ceiling::cover(&self.inner.ceilings, lease.token).await {
            Ok(()) => Ok(lease),
            // The lease stands: asking again is granted again.
            Err(error) => Err(BackendError::ambiguous(error)),
        }
    }

    /// What must be so before the store is asked for or about a lease.
    fn check(&self, claim: &Claim) -> Result<(), InvalidInput> {
        self.inner.limits.check(claim)?;
        reserved::refuse(&claim.key)
    }
}

impl fmt::Debug for Switchover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switchover")
            .field("phase", &self.inner.phase)
            .field("old", &self.inner.old)
            .field("new", &self.inner.new)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for Switchover {
    fn limits(&self) -> Limits {
        self.inner.limits
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.check(claim)?;
        // A lease must end before the registration does: whoever enters the opposite phase looks
        // at the registrations alone.
        let floor = self.inner.registration.promise(claim)?;
        let answer = match self.single() {
            Some(store) => {
                let floor = if flawed(Flaw::NoFloor) { 0 } else { floor.max(claim.min_token) };
                store.acquire(&claim.clone().with_min_token(floor)).await
            }
            None => self.inner.both.acquire(claim).await,
        };
        match answer {
            Ok(Acquire::Acquired(lease)) => self.cover(lease, claim).await.map(Acquire::Acquired),
            Ok(Acquire::Contended(_)) => {
                self.inner.registration.released(claim.holder);
                answer
            }
            Err(_) => answer,
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.check(claim)?;
        self.inner.registration.promise(claim)?;
        let answer = match self.single() {
            Some(store) => store.renew(claim).await,
            None => self.inner.both.renew(claim).await,
        };
        match answer {
            Ok(Renew::Renewed(lease)) => self.cover(lease, claim).await.map(Renew::Renewed),
            Ok(Renew::NotHeld) => {
                self.inner.registration.released(claim.holder);
                answer
            }
            Err(_) => answer,
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.check(claim)?;
        self.inner.registration.released(claim.holder);
        match self.single() {
            Some(store) => store.release(claim).await,
            None => self.inner.both.release(claim).await,
        }
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.check(claim)?;
        match self.single() {
            Some(store) => store.watch(claim).await,
            None => self.inner.both.watch(claim).await,
        }
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        match self.single() {
            Some(store) => store.inspect(key).await,
            None => self.inner.both.inspect(key).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        match self.single() {
            Some(store) => store.list(prefix, after, limit).await,
            None => self.inner.both.list(prefix, after, limit).await,
        }
    }
}
