//! What must not be done: each is found wrong by the model.

use super::client::Said;
use crate::agreement::{Step, step};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The greatest token of one round is taken, and nobody is told.
    MaxOfOneRound,
    /// A token of at least ours counts as agreement.
    AtLeastCounts,
    /// The greatest is written back to the others and nobody looks whether that worked.
    WriteBackUnanswered,
    /// A raise sets the token also where that lowers it.
    RaiseMayLower,
    /// After a roll-back the same holder tries again.
    HolderReused,
    /// A majority of those who have answered is enough to acquire.
    AcquireMajorityOfAnswers,
    /// A majority of those who granted is enough to renew.
    RenewMajorityOfGranted,
    /// Answers from before count in a renewal.
    RenewCountsOldAnswers,
    /// A renewal that finds no majority any more releases, and its caller has gone.
    RenewalReleases,
    /// The grant of a store that has just lost its memory counts.
    NoGate,
    /// The gate is for new leases, and renewals count at once.
    RenewalsPassTheGate,
    /// Acquire and renew set the end of a lease also where that shortens it.
    LastWriteShortens,
    /// The ttl is counted from the answer.
    DeadlineFromAnswer,
    /// The ttl is counted from the last round of a call.
    DeadlineFromLastRound,
}

/// What a client makes of the votes: what the shipped code does, or what it must not do.
pub(super) fn decide(votes: &[Said], need: usize, flaw: Option<Flaw>) -> Step {
    let shipped = || step(&votes.iter().map(|said| (*said).into()).collect::<Vec<_>>(), need);
    let mut granted: Vec<u64> = votes.iter().filter_map(Said::token).map(u64::from).collect();
    granted.sort_unstable_by(|a, b| b.cmp(a));
    let nth = |n: usize| granted.get(n).copied();
    match flaw {
        Some(Flaw::MaxOfOneRound | Flaw::WriteBackUnanswered) if granted.len() >= need => {
            nth(0).map_or(Step::Wait, Step::Agreed)
        }
        Some(Flaw::AtLeastCounts) => nth(need - 1).map_or_else(shipped, Step::Agreed),
        _ => shipped(),
    }
}
