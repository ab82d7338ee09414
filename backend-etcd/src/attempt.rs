//! One attempt of a holder to have its key, or its place in the key's line, put on a lease of
//! etcd's.

use std::sync::Arc;

use lockcore::{BackendError, Claim};

use crate::keys::lease_id;
use crate::leases::{EtcdLease, Known, Leases, Proof};
use crate::memory::{Reached, State};
use crate::moment::Moment;
use crate::trouble::Trouble;

/// A lease that one attempt of one holder may put its key, or its place, on. Dropped, it goes where it belongs,
/// at whatever point the attempt was (law L8).
pub(crate) struct Attempt {
    leases: Arc<Leases>,
    claim: Claim,
    id: i64,
    class: u32,
    lease: Option<EtcdLease>,
    /// A request that names the lease has no definite answer.
    in_doubt: bool,
}

impl Attempt {
    /// With a lease of this class that was ready.
    pub(crate) fn with_ready(leases: &Arc<Leases>, claim: &Claim, class: u32) -> Option<Self> {
        let lease = leases.take(class)?;
        let (leases, claim) = (Arc::clone(leases), claim.clone());
        Some(Self { leases, claim, id: lease.id, class, lease: Some(lease), in_doubt: false })
    }

    /// With a lease of this class that is about to be asked for.
    pub(crate) fn with_new(leases: &Arc<Leases>, claim: &Claim, class: u32) -> Self {
        let (leases, claim) = (Arc::clone(leases), claim.clone());
        Self { leases, claim, id: lease_id(), class, lease: None, in_doubt: true }
    }

    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// The lease, once it was granted.
    pub(crate) fn lease(&self) -> Option<&EtcdLease> {
        self.lease.as_ref()
    }

    pub(crate) fn granted(&mut self, seconds: u32, began: Moment, state: State, reached: Reached) {
        let (id, class) = (self.id, self.class);
        let revision = state.revision.unwrap_or(0);
        let proof = Proof::Granted(state, reached);
        self.lease = Some(EtcdLease { id, seconds, class, began, proof, revision });
        self.in_doubt = false;
    }

    /// Its ttl began anew.
    pub(crate) fn kept(&mut self, began: Moment, term: u64) {
        if let Some(lease) = &mut self.lease {
            (lease.began, lease.proof) = (began, Proof::Kept(term));
        }
    }

    /// A request that may put something on it is about to be sent.
    pub(crate) fn sending(&mut self) {
        self.in_doubt = true;
    }

    /// The request put nothing on it, and never will.
    pub(crate) fn decided(&mut self) {
        self.in_doubt = false;
    }

    /// Why the request that was sent, which named these leases too, has no result. `Ok`: one of
    /// them has ended, and the request did nothing.
    pub(crate) fn failed<'a>(
        &'a mut self,
        trouble: Trouble,
        others: impl IntoIterator<Item = &'a mut Self>,
    ) -> Result<(), BackendError> {
        let all = std::iter::once(self).chain(others);
        if trouble.lease_not_found() {
            all.for_each(Self::ended);
            return Ok(());
        }
        let error = trouble.of_command();
        if !matches!(error, BackendError::Ambiguous(_)) {
            all.for_each(Self::decided);
        }
        Err(error)
    }

    /// The lease has ended, and takes no key any more.
    pub(crate) fn ended(&mut self) {
        (self.lease, self.in_doubt) = (None, false);
    }

    /// The holder's place was put on it.
    pub(crate) fn into_lease(mut self) -> Option<EtcdLease> {
        self.in_doubt = false;
        self.lease.take()
    }

    /// The key was put on it.
    pub(crate) fn holds(mut self, known: Known) {
        self.in_doubt = false;
        if let Some(lease) = self.lease.take() {
            self.leases.hold(&self.claim, lease, known);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.in_doubt {
            self.leases.doubt(&self.claim, self.id);
        } else if let Some(lease) = self.lease.take() {
            self.leases.put_back(lease);
        }
    }
}
