//! The flaws, each with the case that must find it.

macro_rules! flaws {
    ($(#[$about:meta])* $name:ident, $all:ident; $($(#[$doc:meta])* $flaw:ident => $case:literal,)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            /// Nothing: the control.
            None,
            $($(#[$doc])* $flaw,)*
        }

        /// Every flaw, and the case that is there to find it.
        pub(crate) const $all: &[($name, &str)] = &[$(($name::$flaw, $case),)*];
    };
}

pub(crate) use flaws;

flaws! {
    /// What can be wrong with a store.
    Flaw, FLAWS;
    AcquireTakesOver => "ownership::one_holder",
    ClientsShareALease => "ownership::one_holder_in_one_client",
    TheClientIsTheHolder => "ownership::one_holder_in_one_client",
    AcquireChecksThenSets => "contention::one_winner_of_many",
    KeysIgnoreCase => "ownership::keys_do_not_meet",
    KeysAreTrimmed => "ownership::keys_do_not_meet",
    KeysShareALease => "contention::keys_do_not_wait_for_each_other",
    KeysAreCutShort => "input::keys",
    ContendedIsAnError => "ownership::one_holder",
    RefusedIsUndoneLate => "retry::acquire_after_contention",
    AskingExtendsAnothers => "retry::acquire_lost_to_another",
    AskingAgainIsContended => "retry::acquire_had_worked",
    AskingAgainCounts => "fencing::same_when_asked_again",
    AskingAgainRaises => "fencing::same_when_asked_again_with_a_floor",
    AskingAgainDoesNotExtend => "expiry::asking_again_extends",
    AskingAgainShortens => "expiry::asking_again_never_shortens",
    OnlyOneClientServes => "ownership::any_client_serves_the_holder",
    TtlIsCutShort => "expiry::stands_for_its_ttl",
    TtlIsStretched => "expiry::gone_after_its_ttl",
    TtlIsRoundedDown => "expiry::fractions_are_not_lost",
    LeasesAreForEver => "waiting::an_expiry_lets_in",
    NeighboursEndTogether => "expiry::a_lease_is_not_its_neighbours",
    GrantsLess => "expiry::grants_what_was_claimed",
    GrantsMore => "guard::never_valid_past_the_lease",
    RetryAfterIsTooLong => "expiry::retry_after_is_true",
    RenewByAnyone => "ownership::renew_needs_the_holder",
    RenewByAnotherExtends => "ownership::renew_needs_the_holder",
    RenewByTheLastExtends => "retry::renew_lost_to_another",
    RenewCreates => "ownership::renew_of_a_free_key",
    RenewRevives => "expiry::expired_is_not_renewed",
    RenewStealsBack => "renewal::does_not_revive",
    RenewAlwaysWorks => "renewal::tells_a_lost_lease_at_once",
    RenewNeverWorks => "renewal::keeps_the_lock",
    NotHeldIsAnError => "ownership::renew_after_release",
    RenewDoesNotExtend => "expiry::renew_extends",
    RenewShortens => "expiry::renew_never_shortens",
    RenewCounts => "fencing::same_when_renewed",
    RenewLowers => "fencing::renew_never_lowers",
    RenewRaisesTooFar => "fencing::renew_raises_exactly",
    RenewDoesNotRaise => "fencing::renew_raises_exactly",
    RenewDropsTheLabel => "sight::inspect_shows_a_label_as_it_is",
    RaisesAreNotStored => "fencing::renew_raises_exactly",
    RaisesAreForgotten => "fencing::rises_over_raise",
    RenewManyAnswersBackwards => "renew_many::answers_each_claim_in_order",
    RenewManyAnswersAlike => "renew_many::answers_each_claim_in_order",
    RenewManyExtendsAlike => "renew_many::extends_each_lease",
    RenewManyForgetsFloors => "renew_many::raises_each_token",
    RenewManyFailsTogether => "renew_many::checks_each_claim",
    RenewManyAnswersNobody => "renew_many::of_none_is_none",
    RenewManyDoesNothing => "renew_many::many_are_renewed_at_once",
    ReleaseTellsTheFirstToken => "fencing::a_release_tells_its_token",
    ReleaseByAnyone => "ownership::release_needs_the_holder",
    ReleaseMatchesTheToken => "ownership::release_matches_the_holder_not_the_token",
    ReleaseAlwaysWorks => "ownership::release_twice",
    ReleaseNeverWorks => "ownership::release_frees_the_key",
    ReleaseIsSpentOnNobody => "ownership::release_of_a_free_key",
    ReleaseDoesNothing => "ownership::release_frees_the_key",
    ReleaseIsSilent => "waiting::a_release_wakes",
    ReleaseWakesOne => "waiting::one_release_wakes_all",
    WatchIsArmedLate => "waiting::a_signal_is_armed_when_returned",
    WatchWorksOnce => "waiting::a_signal_can_be_armed_again",
    TokensStandStill => "fencing::rises_over_release",
    TokensRestartAfterExpiry => "fencing::rises_over_expiry",
    TokensHaveNoClock => "fencing::rises_over_wipe",
    TheClockIsWipedToo => "fencing::rises_over_wipe",
    TokensArePerClient => "fencing::rises_over_reconnect",
    TokensAreRounded => "fencing::the_largest_floor_is_exact",
    FloorIsIgnored => "fencing::a_floor_is_met_exactly",
    FloorIsExceeded => "fencing::a_floor_is_met_exactly",
    FloorReplaces => "fencing::a_low_floor_changes_nothing",
    FloorIsNotChecked => "input::floors",
    TtlIsNotChecked => "input::ttls",
    LabelIsNotChecked => "input::labels",
    LabelsAreCutShort => "sight::inspect_shows_a_label_as_it_is",
    LabelsAreLost => "guard::the_label_is_shown",
    MemoryIsTheClients => "fencing::memory_is_one_and_grows",
    MemoryIsToldUnasked => "fencing::memory_is_told_on_request",
    MemoryStandsStill => "fencing::memory_is_one_and_grows",
    MemorySurvivesAWipe => "fencing::memory_is_another_after_a_wipe",
    RenewTellsNoMemory => "fencing::renewals_tell_the_memory",
    RenewTellsTheMemoryOfTheGrant => "fencing::renewals_tell_the_memory",
    RenewTellsTheIdOfTheGrant => "fencing::renewals_tell_of_a_wipe",
    RenewTellsAnAgeFromBeforeAWipe => "fencing::renewals_tell_of_a_wipe",
    InspectSeesNothing => "sight::inspect_shows_the_lease",
    InspectInventsTokens => "sight::inspect_shows_the_lease",
    InspectInventsHolders => "sight::inspect_shows_the_lease",
    InspectShowsWhatHasEnded => "sight::inspect_ends_with_the_lease",
    InspectForgetsRenewals => "sight::inspect_shows_a_renewal",
    ListIgnoresThePrefix => "sight::list_shows_what_stands",
    ListTakesAPattern => "sight::list_takes_a_prefix_as_it_is",
    ListBeginsAnew => "sight::list_goes_page_by_page",
    ListIsUnsorted => "sight::list_goes_page_by_page",
    ListIgnoresTheLimit => "sight::list_goes_page_by_page",
    ListShowsWhatHasEnded => "sight::list_shows_what_stands",
    ADroppedCallBlocks => "cancellation::any_call_of_the_backend",
    CallsWaitForEachOther => "waiting::try_does_not_wait",
    NothingIsGranted => "input::ttls_at_the_limits_work",
}

/// What can be wrong with a client of a store behind a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireFlaw {
    /// Nothing: the control.
    None,
    /// The server's store has it.
    OfTheServer(Flaw),
    /// A connection that broke is not made again.
    OneConnectionForEver,
    /// After a dropped call nothing works.
    ADroppedCallIsTheLast,
    /// Where nobody listens, it may have happened.
    RefusedIsAmbiguous,
    /// Where nobody listens, nobody ever will.
    RefusedIsFinal,
    /// Sent, and no answer: nothing can have happened.
    LostIsUnavailable,
    /// Sent, and no answer: the store refused.
    LostIsRejected,
    /// Sent, and no answer: contended, not held, nothing in sight.
    LostIsAnAnswer,
    /// A renewal needs no store.
    RenewIsNotSent,
    /// A limit of its own on each call, of 50 ms.
    Impatient,
    /// The same, and what takes longer was refused.
    ImpatientAndSure,
    /// Nothing can be asked while a watch is armed.
    WatchingBlocks,
    /// After a watch that could not be armed none is.
    ABrokenWatchIsTheLast,
    /// The server is asked what it thinks of bad input.
    InputIsNotChecked,
    /// What cannot be understood is a grant.
    AnythingIsYes,
}

/// Every flaw of that kind, and the cases that must find it.
pub(crate) const WIRE_FLAWS: &[(WireFlaw, &[&str])] = &[
    (
        WireFlaw::OneConnectionForEver,
        &[
            "wire::a_cut_connection_heals",
            "wire::a_lost_acquire_request_is_taken",
            "wire::a_cut_while_waiting_is_survived",
            "wire::a_flapping_wire_is_survived",
            "wire::a_stranded_connection_is_left_behind",
            "faults::restarted_while_waiting",
            "faults::restarted_mid_call",
            "faults::killed_between_calls",
        ],
    ),
    (
        WireFlaw::ADroppedCallIsTheLast,
        &[
            "wire::a_black_hole_that_ends_is_survived",
            "wire::a_black_hole_is_left_behind",
            "wire::a_one_way_partition_while_acquiring",
            "wire::a_one_way_partition_while_releasing",
            "wire::a_stall_that_ends_is_survived",
            "faults::paused_for_less_than_the_lease",
            "faults::paused_while_waiting",
            "faults::paused_mid_release",
        ],
    ),
    (WireFlaw::RefusedIsAmbiguous, &["wire::a_refused_connection_is_unavailable"]),
    (
        WireFlaw::RefusedIsFinal,
        &[
            "wire::a_refusal_that_ends_is_survived",
            "faults::down_is_told",
            "faults::killed_while_waiting",
            "faults::killed_mid_call",
        ],
    ),
    (
        WireFlaw::LostIsUnavailable,
        &[
            "wire::a_lost_acquire_answer_is_recognised",
            "wire::acquire_cut_anywhere",
            "wire::renew_cut_anywhere",
            "wire::release_cut_anywhere",
        ],
    ),
    (WireFlaw::LostIsRejected, &["wire::a_lost_release_answer_is_recognised"]),
    (
        WireFlaw::LostIsAnAnswer,
        &[
            "wire::a_lost_renew_answer_is_recognised",
            "wire::acquire_cut_anywhere",
            "wire::renew_cut_anywhere",
            "wire::release_cut_anywhere",
            "wire::inspect_cut_anywhere",
            "wire::list_cut_anywhere",
        ],
    ),
    (
        WireFlaw::RenewIsNotSent,
        &[
            "wire::a_black_hole_is_told_by_the_deadline",
            "wire::a_one_way_partition_is_told_by_the_deadline",
            "faults::paused_while_held",
            "faults::killed_while_held",
        ],
    ),
    (WireFlaw::Impatient, &["wire::a_slow_wire_works", "wire::a_slow_drip_works"]),
    (WireFlaw::ImpatientAndSure, &["wire::a_drip_too_slow_is_given_up"]),
    (
        WireFlaw::WatchingBlocks,
        &[
            "wire::a_deaf_wire_delays_and_no_more",
            "wire::a_stranded_wake_up_path_delays_and_no_more",
        ],
    ),
    (WireFlaw::ABrokenWatchIsTheLast, &["wire::watch_cut_anywhere"]),
    (WireFlaw::InputIsNotChecked, &["wire::bad_input_sends_nothing"]),
    (
        WireFlaw::AnythingIsYes,
        &["wire::a_stranger_at_the_port_is_told", "wire::a_stranger_in_the_stores_place_is_told"],
    ),
    (
        WireFlaw::OfTheServer(Flaw::AcquireTakesOver),
        &[
            "wire::a_lost_acquire_meets_another",
            "wire::an_acquire_arrives_after_another_took_the_key",
        ],
    ),
    (
        WireFlaw::OfTheServer(Flaw::LeasesAreForEver),
        &["wire::an_acquire_arrives_after_its_release"],
    ),
    (
        WireFlaw::OfTheServer(Flaw::RenewShortens),
        &["wire::an_older_renew_arrives_after_a_newer_one"],
    ),
    (
        WireFlaw::OfTheServer(Flaw::ReleaseByAnyone),
        &["wire::a_release_arrives_after_another_took_the_key"],
    ),
    (WireFlaw::OfTheServer(Flaw::RenewCounts), &["faults::paused_mid_renew"]),
    (WireFlaw::OfTheServer(Flaw::ReleaseDoesNothing), &["faults::paused_mid_acquire"]),
    (
        WireFlaw::OfTheServer(Flaw::TokensHaveNoClock),
        &["faults::restarted_while_held", "fencing::rises_over_restart"],
    ),
];
