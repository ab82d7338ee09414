//! Moving locks from one store to another without a gap.

mod builder;
mod ceiling;
mod check;
mod entrance;
mod keys;
mod neighbours;
mod phase;
mod registration;
mod status;
mod survey;
mod turns;

use std::fmt;
use std::sync::Arc;

use lockcore::{
    Acquire, BackendError, Claim, InvalidInput, Lease, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};
use tokio::time::Instant;

pub use self::builder::SwitchoverBuilder;
pub use self::check::Check;
pub use self::phase::Phase;
pub use self::registration::Standing;
pub use self::status::{Held, Process, Stands, Status};

use self::ceiling::Ceiling;
use self::registration::Registration;
use self::turns::Turns;
use crate::both::{Both, of_a_part};

/// Locks on their way from an old store to a new one, in one of three [phases](Phase).
///
/// Start it with [`Switchover::builder`]. See the [crate documentation](crate) for the protocol,
/// and for what it promises.
///
/// Clones share one part in the phase, which ends when the last of them is dropped.
#[derive(Clone)]
pub struct Switchover {
    inner: Arc<Inner>,
}

struct Inner {
    phase: Phase,
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
    both: Both,
    limits: Limits,
    registration: Registration,
    /// Of the store of an exclusive phase.
    ceiling: Option<Ceiling>,
    turns: Turns,
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
    /// Those of the stores, if neither is reached.
    pub async fn status(&self) -> Result<Status, BackendError> {
        Status::of(&*self.inner.old, &*self.inner.new).await
    }

    /// Whether it grants locks now.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.standing() == Standing::In
    }

    /// How it stands in its phase.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.inner.registration.standing().borrow().clone()
    }

    /// Waits until it stands in another way than this.
    pub async fn changed(&self, from: &Standing) -> Standing {
        let mut standing = self.inner.registration.standing();
        let changed = standing.wait_for(|now| now != from).await;
        changed.map_or(Standing::Left, |now| now.clone())
    }

    /// Ends its part in the phase: nothing is granted or renewed any more from the call on.
    ///
    /// It waits for the locks of this process to be released or to end: release them before, or it
    /// takes as long as their ttl. Nothing is taken back in the stores: the opposite phase can be
    /// entered when no process has renewed this one for three times
    /// [`max_ttl`](SwitchoverBuilder::max_ttl).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves this process without leases to give. Call it again to go on.
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
        lease.ttl = lease.ttl.min(claim.ttl);
        let Some(ceiling) = &self.inner.ceiling else { return Ok(lease) };
        match ceiling.cover(lease.token).await {
            Ok(()) => Ok(lease),
            // The lease stands: asking again is granted again.
            Err(error) => Err(BackendError::ambiguous(error)),
        }
    }

    /// What must be so before the store is asked for or about a lease.
    fn check(&self, claim: &Claim) -> Result<(), InvalidInput> {
        self.inner.limits.check(claim)?;
        keys::refuse(&claim.key)
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
        self.inner.turns.come(&claim.key).await;
        // A lease must end before the phase does: whoever enters the opposite one looks at that alone.
        let floor = self.inner.registration.promise(claim)?;
        let answer = match self.single() {
            Some(store) => {
                let floor = floor.max(claim.min_token);
                store.acquire(&of_a_part(claim).with_min_token(floor)).await
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
            Some(store) => store.renew(&of_a_part(claim)).await,
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
        let began = Instant::now();
        let answer = match self.single() {
            Some(store) => store.release(&of_a_part(claim)).await,
            None => self.inner.both.release(claim).await,
        };
        self.inner.turns.released(&claim.key, began);
        answer
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.check(claim)?;
        match self.single() {
            Some(store) => store.watch(&of_a_part(claim)).await,
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
