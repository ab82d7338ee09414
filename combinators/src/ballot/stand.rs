//! Where the stores stand.

use lockcore::{BackendError, Contention, Incarnation, Lease};

use crate::agreement::Vote;

/// Where a store stands.
#[derive(Debug)]
pub(crate) enum Stand {
    /// Not asked: the lead has not granted the key.
    Later,
    Asked,
    Granted(Lease),
    /// Granted, by a store that may have forgotten another's lease.
    Young(Incarnation),
    Contended(Contention),
    NotHeld,
    Failed(BackendError),
}

impl Stand {
    /// Nobody else's lease is the reason, and waiting for a release would not help.
    pub(crate) fn failed(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Young(_))
    }

    /// There is a lease to take back.
    pub(crate) fn granted(&self) -> bool {
        matches!(self, Self::Granted(_) | Self::Young(_))
    }

    pub(super) fn vote(&self) -> Vote {
        match self {
            Self::Later | Self::Asked => Vote::Pending,
            Self::Granted(lease) => Vote::Granted(lease.token),
            Self::Young(_) | Self::Contended(_) | Self::NotHeld | Self::Failed(_) => Vote::Against,
        }
    }
}
