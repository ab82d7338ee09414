//! Each flaw is found by the search. The shortest way to it is printed.

use crate::flaw::Flaw;
use crate::laws::{Law, broken};
use crate::messages::{Holder, Request};
use crate::process::Script;
use crate::promises::Promises;
use crate::search::{EXCLUSION, PROGRESS, PROMISE};
use crate::searches::{
    Broken, PAIR, TASK, TRIES, base, breaks, copies, deaths, full_line, hand_over_copies, late,
    line, signals, tasks,
};
use crate::store::{Call, Lease, Place, Rules, Store};
use crate::world::Config;

/// One test per flaw: its name, the flaw, what it breaks, and where.
macro_rules! found {
    ($($test:ident: $flaw:ident breaks $property:expr, in $config:expr;)*) => {$(
        #[test]
        fn $test() {
            breaks($property, Flaw::$flaw, $config);
        }
    )*};
}

found! {
    a_newcomer_must_not_pass: NewcomerPasses breaks Broken::Law(Law::FirstCome), in line();
    a_place_must_end: PlacesWithoutEnd breaks Broken::Property(PROGRESS), in deaths();
    the_right_of_way_lasts_as_long_as_the_place:
        RightEndsBeforeThePlace breaks Broken::Property(PROMISE), in line();
    a_late_ask_must_not_shorten_the_place:
        LateAskShortensThePlace breaks Broken::Property(PROMISE), in line();
    a_late_ask_must_not_shorten_the_lease:
        LateAskShortensTheLease breaks Broken::Property(EXCLUSION), in copies();
    asking_again_must_not_lose_the_position:
        AskingAgainGoesToTheTail breaks Broken::Law(Law::Order), in line();
    asking_again_must_not_append: AskingAgainAppends breaks Broken::Law(Law::Place), in line();
    asking_again_must_extend: AskingAgainDoesNotExtend breaks Broken::Property(EXCLUSION), in line();
    a_grant_must_take_the_place: GrantLeavesThePlace breaks Broken::Law(Law::Stranded), in line();
    a_grant_needs_a_new_token: GrantKeepsTheToken breaks Broken::Law(Law::Tokens), in line();
    a_release_must_leave_the_line:
        ReleaseForgetsThePlace breaks Broken::Law(Law::Stranded), in line();
    an_ask_without_a_wait_must_leave_nothing:
        AskWithoutWaitStays breaks Broken::Law(Law::NoWait), in base(&[TASK, TRIES]);
    a_renewal_must_not_use_the_right_of_way:
        RenewTakesTheRightOfWay breaks Broken::Law(Law::HoldersOnly), in copies();
    the_passed_must_keep_their_place: PassedIsRemoved breaks Broken::Property(PROMISE), in signals();
    a_poller_is_not_gone: PollerTakenForGone breaks Broken::Law(Law::Gone), in signals();

    hand_over_needs_from: HandOverNeedsNoFrom breaks Broken::Law(Law::Stranded), in tasks_once();
    hand_over_must_yield: HandOverIgnoresTheLine breaks Broken::Law(Law::HandOver), in tasks();
    hand_over_needs_a_new_token: HandOverKeepsTheToken breaks Broken::Law(Law::Tokens), in tasks();
    a_full_line_takes_who_yields: YieldDroppedFromAFullLine breaks Broken::Property(PROMISE), in full_line();

    a_signal_is_no_grant: SignalBelieved breaks Broken::Property(EXCLUSION), in signals();
    asking_again_is_for_the_same_holder:
        AskingAgainAsANewHolder breaks Broken::Law(Law::Stranded), in line();
    belief_counts_from_before_the_ask: BeliefFromTheAnswer breaks Broken::Property(EXCLUSION), in late();
    a_place_counts_from_before_the_ask: PlaceFromTheAnswer breaks Broken::Property(PROMISE), in late();
    a_late_answer_is_of_another_call: LateAnswerTaken breaks Broken::Property(EXCLUSION), in late();
    a_late_grant_must_be_released: LateGrantForgotten breaks Broken::Law(Law::Stranded), in late();
    a_wait_must_not_be_longer_than_the_ttl: WaitLongerThanTtl breaks Broken::Property(PROMISE), in line();

    who_waited_must_release:
        AbandonedWaiterKeepsItsPlace breaks Broken::Law(Law::Stranded), in line();
    one_task_must_not_leave_for_all: OneTaskLeavesForAll breaks Broken::Property(PROMISE), in tasks();
    a_place_is_passed_on: PassedOnAsANewHolder breaks Broken::Property(PROMISE), in tasks();
    a_signal_must_not_release_a_guard: SignalReleasesTheHeld breaks Broken::Property(EXCLUSION), in guarded();
    a_signal_must_not_release_who_is_handed_the_lease:
        SignalReleasesTheHandedOver breaks Broken::Property(PROMISE), in handed_over();
    a_release_must_compare_the_token:
        ReleasedWithoutToken breaks Broken::Law(Law::ReleasedMeansHeld), in copies();

    a_lost_guard_must_not_hand_over:
        HandOverPastTheDeadline breaks Broken::Law(Law::ReleasedMeansHeld), in tasks();
    from_is_released_before_to_asks: AcquireToFirst breaks Broken::Law(Law::Stranded), in tasks();
    an_undo_has_an_order: UndoAtOnce breaks Broken::Law(Law::Stranded), in tasks();
    a_hand_over_is_repeated_to_the_same:
        HandOverAgainToAnother breaks Broken::Law(Law::Stranded), in hand_over_copies();
    what_is_handed_to_nobody_is_released:
        HandedToNobody breaks Broken::Law(Law::Stranded), in tasks();
}

/// A process hands over once. Answers are not late.
fn tasks_once() -> Config {
    base(&[Script { asks: 1, ..PAIR }, Script { asks: 1, ..TASK }])
}

/// A process that listens, and one with a task more.
fn guarded() -> Config {
    Config { listeners: 0b01, ..base(&[TASK, Script { tasks: 2, ..TASK }]) }
}

/// A process that listens and hands over, and answers that are late.
fn handed_over() -> Config {
    Config { listeners: 0b01, late_answers: true, ..base(&[Script { asks: 1, ..PAIR }, TASK]) }
}

/// It takes three late copies to come there, so this is one step and no search.
#[test]
fn a_yield_must_not_append_twice() {
    let holder = |process, number| Holder { process, number };
    let (from, to, other) = (holder(0, 0), holder(0, 1), holder(1, 0));
    let none = Promises::default();
    let place = |holder| Place { holder, stands: none, passed: false, stray: false };
    let lease = Lease { holder: from, token: 1, stands: none, waits: none, stray: true };
    let before = Store { lease: Some(lease), last: 1, line: vec![place(other), place(to)] };
    let request = Request::HandOver { from, to, over: true, floor: 0 };
    let call = Call { promise: none, stray: true, clock: 0, deaf: false };
    let found = [None, Some(Flaw::YieldAppendsTwice)].map(|flaw| {
        let rules = Rules { cap: 8, listeners: 0, flaw };
        let mut after = before.clone();
        let outcome = after.execute(&request, call, &rules);
        broken(&before, &request, call, &outcome, &after, &rules)
    });
    assert_eq!(found, [None, Some(Law::Place)]);
}
