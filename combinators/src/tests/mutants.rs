//! Each mistake is found by the test that is there for it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::agreement::{self, Step, Vote};
use crate::flaw::Flaw::{self, *};

thread_local! {
    static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
}

/// Whether this thread's test makes this mistake now.
pub(crate) fn flawed(flaw: Flaw) -> bool {
    FLAW.get() == Some(flaw)
}

/// The step, or one of the mistakes that look like it.
pub(crate) fn step(votes: &[Vote], need: usize) -> Step {
    let answered = votes.iter().filter(|vote| !matches!(vote, Vote::Pending)).count();
    if flawed(MajorityOfAnswers) && answered >= 2 {
        return agreement::step(votes, answered / 2 + 1);
    }
    match agreement::step(votes, need) {
        Step::WaitOrRaise(token) | Step::Raise(token) if flawed(AtLeast) => Step::Agreed(token),
        step => step,
    }
}

/// Runs a test with a mistake, and fails unless it fails.
fn killed(flaw: Flaw, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    FLAW.set(Some(flaw));
    // A test that hangs has failed, too.
    let limit = Duration::from_secs(100_000);
    let outcome =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { timeout(limit, test).await })));
    drop(runtime);
    FLAW.set(None);
    assert!(!matches!(outcome, Ok(Ok(()))), "{flaw:?} was not found");
}

macro_rules! mutants {
    ($($name:ident: $flaw:ident is found by $module:ident::$test:ident;)*) => {$(
        #[test]
        fn $name() {
            killed($flaw, super::$module::$test());
        }
    )*

    /// No mistake is without its test.
    #[test]
    fn every_mistake_is_tried() {
        let tried = [$($flaw),*];
        let source = include_str!("../flaw.rs");
        let flaws = source.lines().filter(|line| {
            let line = line.trim();
            line.ends_with(',') && line.chars().next().is_some_and(char::is_uppercase)
        });
        for flaw in flaws {
            let flaw = flaw.trim().trim_end_matches(',');
            assert!(tried.iter().any(|tried| format!("{tried:?}") == flaw), "{flaw}");
        }
        assert!(tried.len() >= 17);
    }};
}

mutants! {
    no_gate: NoGate is found by losing::an_emptied_node_does_not_give_the_lock_away;
    renewals_pass_the_gate: RenewalsPassTheGate is found by losing::an_emptied_node_does_not_renew;
    at_least: AtLeast is found by quorum::what_is_answered_is_in_a_majority;
    raise_unseen: RaiseUnseen is found by quorum::what_is_answered_is_in_a_majority;
    majority_of_answers: MajorityOfAnswers is found by losing::two_of_five_are_no_majority;
    counts_joined: CountsJoined is found by losing::a_renewal_does_not_count_what_it_gives;
    ttl_of_last_round: TtlOfLastRound is found by quorum::the_lease_stands_for_what_was_answered;
    releases_one: ReleasesOne is found by order::a_loser_releases_everywhere;
    undoes_the_next: UndoesTheNext is found by order::an_attempt_does_not_undo_the_one_after_it;
    undoes_what_stands: UndoesWhatStands is found by order::asking_again_takes_nothing_back;
    never_spent: NeverSpent is found by order::a_holder_that_was_taken_back_is_spent;
    takes_from_the_guard: TakesFromTheGuard is found by losing::what_is_left_keeps_others_out;
    renewed_twice: RenewedTwice is found by losing::one_store_twice_does_not_renew;
    joins_for_longer: JoinsForLonger is found by order::a_store_is_joined_for_what_is_left;
    no_verdict: NoVerdict is found by order::asking_again_after_a_roll_back_tells_why;
    no_order: NoOrder is found by order::a_release_comes_after_the_acquire_that_it_undoes;
    releases_in_silence: ReleasesInSilence is found by
        waiting::a_release_wakes_other_processes;
    asks_without_end: AsksWithoutEnd is found by
        waiting::a_store_that_was_not_needed_is_not_silent;
    waits_in_vain: WaitsInVain is found by liveness::some_are_in_soon;
    no_lead: NoLead is found by liveness::a_crowd_goes_on_with_a_hung_minority;
    guesses_the_token: GuessesTheToken is found by
        quorum::a_release_elsewhere_tells_what_was_agreed;
    guesses_among_those_heard: GuessesTheToken is found by
        quorum::a_release_elsewhere_tells_no_token_that_it_does_not_know;
    waits_for_the_hung: WaitsForTheHung is found by quorum::a_hung_node_adds_nothing;
}
