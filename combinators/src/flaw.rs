//! Mistakes that are easily made here. Tests make them one at a time, and see to it that each is
//! found (`tests/mutants.rs`); elsewhere none is ever made.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A store that may have forgotten a lease counts.
    NoGate,
    /// It counts for renewals.
    RenewalsPassTheGate,
    /// Tokens need not be equal.
    #[cfg(test)]
    AtLeast,
    /// Whoever was asked to raise its token is taken to have done so.
    RaiseUnseen,
    /// A majority of those who answered is enough.
    #[cfg(test)]
    MajorityOfAnswers,
    /// The same store twice counts twice in a renewal.
    RenewedTwice,
    /// A renewal counts stores that it gives the lease to.
    CountsJoined,
    /// The ttl counts from the last round, and not from the call.
    TtlOfLastRound,
    /// An attempt takes back what a later one of the same holder was granted.
    UndoesTheNext,
    /// An attempt takes back what the holder was granted before it asked again.
    UndoesWhatStands,
    /// A holder may ask again after its release.
    NeverSpent,
    /// Who asks again after it was taken back is not told why.
    NoVerdict,
    /// Calls do not wait for each other.
    NoOrder,
    /// A renewal that finds a majority gone takes back what is left, which a guard may rely on.
    TakesFromTheGuard,
    /// A release that has its answer waits for stores that are hung.
    WaitsForTheHung,
    /// What is released, or taken back, is so in one store alone.
    ReleasesOne,
    /// Stores are given a lease again for longer than its holder may believe in it.
    JoinsForLonger,
    /// Keys that were idle have no floor.
    NoFloor,
    /// Tokens are answered that whoever leaves the store later does not know of.
    CeilingForgotten,
    /// The same, for a moment.
    CeilingLate,
    /// A floor is found once.
    FloorKept,
    /// A process looks for others before it registers, and not after.
    LooksTooEarly,
    /// Leases are granted as long as there is a registration.
    OutlivesRegistration,
    /// A lock is believed in for as long as the store has granted it, and not as was promised.
    BelievesTheGrant,
    /// Leaving does not wait for locks.
    LeavesAtOnce,
    /// Any release in any store wakes a waiter.
    WakesItself,
}

/// Whether this mistake is made now.
#[cfg(not(test))]
pub(crate) const fn flawed(_: Flaw) -> bool {
    false
}

#[cfg(test)]
pub(crate) use crate::tests::flawed;
