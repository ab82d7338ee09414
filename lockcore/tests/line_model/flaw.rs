//! What must not be done. The search finds each of these.

/// A mistake of the store or of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    // The store: places.
    /// Any process may take a free key past the line.
    NewcomerPasses,
    /// A place never ends by itself.
    PlacesWithoutEnd,
    /// The first in line loses its right to a free key before its place ends.
    RightEndsBeforeThePlace,
    /// The latest ask sets the end of a place, even where that is earlier.
    LateAskShortensThePlace,
    /// The latest ask sets the end of a lease, even where that is earlier.
    LateAskShortensTheLease,
    /// Who asks again goes to the tail.
    AskingAgainGoesToTheTail,
    /// Who asks again gets another place.
    AskingAgainAppends,
    /// A holder that has the lease asks again, and is granted without a later end.
    AskingAgainDoesNotExtend,
    /// A granted holder keeps its place.
    GrantLeavesThePlace,
    /// A grant to a waiting holder has the token of the lease before.
    GrantKeepsTheToken,
    /// A release ends only the lease.
    ReleaseForgetsThePlace,
    /// An ask without a wait gets a place too.
    AskWithoutWaitStays,
    /// Renew grants a free key to the first in line.
    RenewTakesTheRightOfWay,
    /// A listener that the store takes for gone loses its place.
    PassedIsRemoved,
    /// A poller is taken for gone, since it does not listen.
    PollerTakenForGone,

    // The store: hand_over.
    /// `to` is granted though the lease of `from` has gone.
    HandOverNeedsNoFrom,
    /// `to` is granted though the burst is over and others wait.
    HandOverIgnoresTheLine,
    /// The lease changes its holder and keeps its token.
    HandOverKeepsTheToken,
    /// A holder that yields gets a place though it has one.
    YieldAppendsTwice,
    /// A holder that yields gets no place where the line is full.
    YieldDroppedFromAFullLine,

    // The core: asking.
    /// A signal is taken for a grant.
    SignalBelieved,
    /// A contended task asks again as another holder.
    AskingAgainAsANewHolder,
    /// The lease is counted from the answer.
    BeliefFromTheAnswer,
    /// The place is counted from the answer.
    PlaceFromTheAnswer,
    /// The answer to an abandoned call is taken for the answer to the present one.
    LateAnswerTaken,
    /// A grant whose answer came after its lease had ended is dropped without a release.
    LateGrantForgotten,
    /// The claim waits for longer than its ttl.
    WaitLongerThanTtl,

    // The core: giving up.
    /// A waiting task that gives up does not release, because the store said that it holds nothing.
    AbandonedWaiterKeepsItsPlace,
    /// A task that gives up releases the holder, though other tasks of the process wait.
    OneTaskLeavesForAll,
    /// The next task of the process asks as another holder.
    PassedOnAsANewHolder,
    /// Only waiters are looked up for a signal: that of a holder with a guard is answered by a
    /// release.
    SignalReleasesTheHeld,
    /// A holder that is being handed the lease is not known to the signals.
    SignalReleasesTheHandedOver,
    /// Any Released is a success, whatever its token.
    ReleasedWithoutToken,

    // The core: hand_over.
    /// A guard whose deadline has passed hands over, and was told that it had held till then.
    HandOverPastTheDeadline,
    /// After an ambiguous hand_over `to` asks before `from` was released.
    AcquireToFirst,
    /// An ambiguous hand_over is undone by both releases at once.
    UndoAtOnce,
    /// After an ambiguous hand_over the lease is handed to another holder.
    HandOverAgainToAnother,
    /// A handed-over lease is granted to nobody, since the task gave up meanwhile, and not released.
    HandedToNobody,
}
