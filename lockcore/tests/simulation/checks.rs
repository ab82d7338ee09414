//! What must never happen.

use std::fmt;

macro_rules! checks {
    ($($check:ident => $text:literal,)*) => {
        /// A promise that is looked after all the time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Check {
            $(#[doc = $text] $check,)*
        }

        impl fmt::Display for Check {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$check => $text,)* })
            }
        }
    };
}

checks! {
    AcquireSeenToEnd => "a request is dropped only once its time is over",
    Bounded => "each operation ends within its bound",
    ContendedHasCause => "who is told that the key is taken has an answer or a neighbour that says so",
    Deadline => "a guard is not valid after its deadline",
    Exclusion => "two guards of one key are never valid at once",
    FromFirst => "after a hand-over of unknown outcome the old holder is released first",
    HandsOverInTime => "only a guard whose deadline has not passed hands over",
    Hang => "nobody waits for ever",
    LeaseBehindGuard => "the lease of a valid guard stands in the store",
    LeftBehind => "once drained, no process has a lease without a guard",
    LetsOthersIn => "a process whose burst is over lets the line in",
    LossHasCause => "no guard is lost without a cause",
    LossIsFinal => "a lost guard stays lost",
    LossIsTold => "lost() resolves at the deadline",
    MaxHold => "a guard is not valid after max_hold",
    NotHeldEnds => "a guard whose store says that the lease has gone is not valid",
    OneRequest => "a holder has one request in flight, renewals aside",
    Order => "tasks of a process get the key in the order in which they asked",
    OutageRate => "a store that fails is tried by few requests",
    OutageTried => "a store that fails is tried again while tasks wait",
    OutageTold => "all tasks that wait are told of an outage",
    PlaceKept => "a place in line is kept, passed on or released",
    QueueFree => "a free key can be acquired in each process",
    ReleaseFirst => "another holder of a process asks only once a release was sent for the last",
    ReleaseGoesOn => "a release that fails is sent again while the lease stands",
    ReleaseIsTrue => "who released successfully had the key to itself until then",
    RenewalsGoOn => "a valid guard is renewed in time",
    SpentHolder => "a spent holder asks no more",
    Starves => "nobody waits while others get the key again and again",
    Stranded => "in the end no lease stands",
    TimeLimit => "acquire_timeout keeps its limit",
    TokenOfItsLease => "a guard has the token of its lease",
    TokensRise => "tokens of a key rise",
    TurnEnds => "a turn ends with its lease where nobody runs its task",
    UnavailableHasCause => "who is told that the store is unavailable has seen it fail",
    ValidWhenGiven => "a guard is valid when it is given",
    WorkFails => "no task panics",
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) check: Check,
    pub(crate) text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}: {}", self.check, self.text)
    }
}
