//! What a process has of a key.

use crate::claim::{Claim, Lease};
use crate::clock::Moment;

/// What a process has of a key, passed on with the turn.
#[derive(Debug)]
pub(crate) enum Baton {
    /// A holder that may have a place in the key's line.
    Place(Claim),
    /// A lease that was granted by a call that began at the moment.
    Lease(Claim, Moment, Lease),
}

impl Baton {
    /// The holder to release, and until when that matters.
    pub(crate) fn into_claim(self) -> (Claim, Moment) {
        match self {
            Self::Place(claim) => {
                // W1: a wait is no longer than the ttl.
                let until = Moment::now().after(claim.ttl);
                (claim, until)
            }
            Self::Lease(claim, started, lease) => (claim, started.after(lease.ttl)),
        }
    }
}
