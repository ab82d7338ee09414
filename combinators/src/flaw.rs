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
    /// A release tells a token of the first answers, and not what a majority had.
    GuessesTheToken,
    /// A holder that finds a key held waits for stores that are hung.
    WaitsInVain,
    /// A store is taken to be silent that was not waited for.
    AsksWithoutEnd,
    /// Those who want the same key have no order in which to ask.
    NoLead,
    /// The stores are not asked to announce a release.
    ReleasesInSilence,
    /// What is released, or taken back, is so in one store alone.
    ReleasesOne,
    /// Stores are given a lease again for longer than its holder may believe in it.
    JoinsForLonger,
}

/// Whether this mistake is made now.
#[cfg(not(test))]
pub(crate) const fn flawed(_: Flaw) -> bool {
    false
}

#[cfg(test)]
pub(crate) use crate::tests::flawed;
