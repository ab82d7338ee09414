//! What must have happened at least once over all seeds: a simulation that never reaches a state
//! says nothing about it.

macro_rules! sometimes {
    ($($event:ident => $text:literal,)*) => {
        /// Something worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(dead_code, reason = "places in the core are counted by their text")]
        pub(crate) enum Sometimes {
            $(#[doc = $text] $event,)*
        }

        const TEXTS: &[&str] = &[$($text,)*];
    };
}

sometimes! {
    AcquireAmbiguous => "acquire reported an unknown outcome",
    AcquireUnavailable => "acquire reported a store that is unavailable",
    AnswerLost => "an answer was lost",
    AskedAgainFree => "asked again after an unknown outcome: the key was still free",
    AskedAgainGranted => "asked again after an unknown outcome: it had been granted",
    AskedAgainTaken => "asked again after an unknown outcome: another had it",
    Batch => "several leases were renewed by one request",
    CutSurvived => "a guard outlived a cut of its client",
    DroppedAcquireWaiting => "an acquire was dropped while it waited",
    DuplicateHarmless => "a late duplicate met its own lease",
    HandOverAmbiguous => "a hand-over had an unknown outcome",
    HandedOver => "a lease was handed over",
    HandedOverNothing => "a hand-over found no lease",
    LateGrantRefused => "a grant came after its lease had ended",
    LocalQueue => "a task got the key while others of its process waited",
    LostExpired => "a guard was lost: expired",
    LostMaxHold => "a guard was lost: max_hold",
    LostNotHeld => "a guard was lost: not held",
    LostReleased => "a guard was lost: released",
    MixedBatch => "a batch of renewals had a mixed result",
    OvertakenQueues => "a task that was overtaken queued again",
    OutageEnded => "a request ended an outage",
    OutageSurvived => "a guard outlived an outage of the store",
    OutlivedItsEnd => "a release found a lease that its guard no longer believed in",
    PlacePassedOn => "a place was passed on",
    Refused => "a request was refused",
    ReleaseAmbiguous => "release reported an unknown outcome",
    ReleaseArrivedLater => "a release was sent again and worked",
    ReleaseDropped => "a release was dropped before it had ended",
    ReleaseHadWorked => "a release was sent again and had worked",
    ReleaseLost => "release reported a lost lock",
    ReleasedAnother => "a release ended another lease of its holder",
    RenewalRetried => "a renewal worked after one that had failed",
    RequestLost => "a request was lost",
    Reset => "a connection was reset",
    ResumedHolding => "a stopped process came back to a valid guard",
    ResumedLost => "a stopped process came back to a lost guard",
    RunFinished => "work under a guard finished",
    RunStopped => "work under a guard was stopped by the loss",
    StayedForNobody => "a late request was granted to a holder that had gone",
    Straggled => "a request arrived after its caller had given up",
    SuspendedHolding => "a suspended machine came back to a valid guard",
    SuspendedLost => "a suspended machine came back to a lost guard",
    TimeLimit => "acquire_timeout ended with its limit",
    TryHeldElsewhere => "try_acquire found the key taken in another process",
    TryHeldHere => "try_acquire found the key taken in its own process",
    TurnTakenOver => "a turn was taken over",
    TwoAfterWipe => "two believed in one key after the store had lost its data",
    UndoneAcquire => "a granted acquire was undone",
    WokenByPolling => "a waiter got the key without a signal",
    WokenBySignal => "a waiter got the key after a signal",
    Yielded => "a hand-over yielded to the line",
}

/// How often each of them happened.
#[derive(Clone, Debug)]
pub(crate) struct Counts([u64; TEXTS.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; TEXTS.len()])
    }
}

impl Counts {
    pub(crate) fn hit(&mut self, event: Sometimes) {
        self.0[event as usize] += 1;
    }

    /// Counts a place of the core that was reached.
    pub(crate) fn reached(&mut self, place: &str, times: u64) {
        let at = TEXTS.iter().position(|text| *text == place).expect("a place with a line here");
        self.0[at] += times;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.rows().filter(|(_, count)| *count == 0).map(|(text, _)| text).collect()
    }

    /// Each text with its count.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TEXTS.iter().copied().zip(self.0)
    }
}
