//! What must not be done.

/// A mistake that is easily made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    /// Who leaves releases the phase.
    LeavingReleases,
    /// Who leaves releases the phase if it sees nobody else in it.
    LastOutReleases,
    /// Who is refused takes its registration back.
    RefusedReleases,
    /// An acquire of the phase that was not answered is taken back.
    UnansweredIsTakenBack,
    /// A renewal counts whatever the token.
    TokenNotCompared,
    /// The opposite phase is looked for before registering, and not after.
    LooksBeforeOnly,
    /// A phase is joined before it is confirmed.
    JoinsUnconfirmed,
    /// Any confirmation counts, also that of an earlier run.
    ConfirmationNotTied,
    /// What is believed counts from the answer.
    BeliefFromAnswer,
    /// Locks are granted for longer than the phase is known to stand.
    LocksOutlive,
    /// Who has lost its phase takes it again without a look.
    AcquiresWithoutLook,
    /// Locks have no floor.
    NoFloor,
    /// Who joins has no floor.
    JoinsWithoutFloor,
    /// A floor is kept over a loss of the phase.
    FloorKept,
    /// The ceiling is not raised.
    CeilingForgotten,
    /// The ceiling is read before the last look.
    CeilingBeforeLook,
    /// A store that does not answer counts as gone (C9).
    SilenceIsGone,
    /// `New` leaves its mark after its look.
    MarkAfterLook,
    /// A look does not see all that stands (C2).
    PartialSight,
    /// Locks in the store being left that nobody is known to hold are not looked for (C7).
    PlainUnseen,
    /// Who was out comes back at any time (C8).
    ComesBackForEver,
    /// Plain processes take over without a wait.
    FinishesAtOnce,
    /// How long one was out is looked at before it enters, and not after.
    AwayBeforeOnly,
}
