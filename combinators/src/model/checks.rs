//! The configurations: each is searched to its end, and each flaw is found in one of them.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::client::Script;
use super::flaw::Flaw;
use super::quorum::{Clocks, Config};
use super::search::{EXCLUSION, TOKENS};

const ONCE: Script = Script { attempts: 1, again: 0, renewals: 0 };
const TWICE: Script = Script { attempts: 2, ..ONCE };
const AGAIN: Script = Script { again: 1, ..ONCE };
const RENEWS: Script = Script { renewals: 1, ..ONCE };
const RENEWS_TWICE: Script = Script { renewals: 2, ..ONCE };

/// Every property holds in every state, and everything that should happen does.
fn holds(name: &str, config: Config) {
    search(name, config, HasDiscoveries::All).assert_properties();
}

/// The flaw breaks this property.
fn breaks(property: &'static str, flaw: Flaw, config: Config) {
    let config = Config { flaw: Some(flaw), ..config };
    let found = search(&format!("{flaw:?}"), config, HasDiscoveries::AnyFailures);
    trail(&found, property);
}

/// An assumption of the protocol is not met: tokens fall. Exclusion holds nevertheless.
fn tokens_fall(name: &str, config: Config) {
    let found = search(name, config, HasDiscoveries::All);
    trail(&found, TOKENS);
    found.assert_no_discovery(EXCLUSION);
}

fn search(name: &str, config: Config, until: HasDiscoveries) -> impl Checker<Config> + use<> {
    let began = Instant::now();
    let found = config.checker().finish_when(until).spawn_bfs().join();
    let (states, depth) = (found.unique_state_count(), found.max_depth());
    println!("{name}: {states} states, depth {depth}, in {:.1?}", began.elapsed());
    found
}

/// Prints the way to a failure, which must exist.
fn trail(found: &impl Checker<Config>, property: &'static str) {
    let path = found.discovery(property);
    let path = path.unwrap_or_else(|| panic!("nothing breaks: {property}"));
    println!("broken: {property}");
    for (step, event) in path.into_actions().iter().enumerate() {
        println!("{:>3}. {event}", step + 1);
    }
}

/// Clocks and proposals are wild.
fn agreement() -> Config {
    Config {
        stores: 3,
        scripts: [ONCE, ONCE],
        floors: &[0, 4],
        clocks: Clocks::Wild(3),
        wipe: false,
        late_answers: true,
        releases: false,
        flaw: None,
    }
}

/// A client that got no answer in time asks again as the same holder.
fn again() -> Config {
    Config { scripts: [AGAIN, ONCE], floors: &[0], late_answers: false, ..agreement() }
}

/// A client tries again after a roll-back, or takes the lock again. Releases may be late.
fn successive() -> Config {
    Config {
        scripts: [TWICE, ONCE],
        floors: &[0],
        clocks: Clocks::None,
        late_answers: false,
        releases: true,
        ..agreement()
    }
}

/// Guards are renewed. Each call has a ttl of its own.
fn renewals() -> Config {
    Config { scripts: [RENEWS_TWICE, ONCE], floors: &[0], clocks: Clocks::Wild(2), ..agreement() }
}

/// The same with five stores, two of which may be out of reach.
fn five() -> Config {
    Config {
        stores: 5,
        scripts: [RENEWS, ONCE],
        floors: &[0],
        clocks: Clocks::None,
        late_answers: false,
        ..agreement()
    }
}

/// A store loses its memory.
fn wipe() -> Config {
    Config {
        scripts: [RENEWS, RENEWS],
        floors: &[0],
        clocks: Clocks::WithinTheGate(2),
        wipe: true,
        late_answers: false,
        ..agreement()
    }
}

#[test]
fn agreement_holds() {
    holds("agreement", agreement());
}

#[test]
fn asking_again_holds() {
    holds("again", again());
}

#[test]
fn successive_attempts_hold() {
    holds("successive", successive());
}

#[test]
fn renewals_hold() {
    holds("renewals", renewals());
}

#[test]
fn five_stores_hold() {
    holds("five", five());
}

#[test]
fn a_wipe_behind_the_gate_holds() {
    holds("wipe", wipe());
    holds("wipe, late answers", Config { scripts: [ONCE, ONCE], late_answers: true, ..wipe() });
}

#[test]
fn max_of_one_round_is_wrong() {
    breaks(TOKENS, Flaw::MaxOfOneRound, agreement());
}

#[test]
fn at_least_is_no_agreement() {
    breaks(TOKENS, Flaw::AtLeastCounts, agreement());
}

#[test]
fn an_unanswered_write_back_is_wrong() {
    breaks(TOKENS, Flaw::WriteBackUnanswered, agreement());
}

#[test]
fn a_raise_that_lowers_is_wrong() {
    breaks(TOKENS, Flaw::RaiseMayLower, again());
}

#[test]
fn a_reused_holder_is_wrong() {
    breaks(EXCLUSION, Flaw::HolderReused, successive());
}

#[test]
fn a_majority_of_the_answers_is_none() {
    breaks(EXCLUSION, Flaw::AcquireMajorityOfAnswers, agreement());
}

#[test]
fn a_majority_of_the_granted_is_none() {
    breaks(EXCLUSION, Flaw::RenewMajorityOfGranted, five());
}

#[test]
fn old_answers_renew_nothing() {
    breaks(EXCLUSION, Flaw::RenewCountsOldAnswers, renewals());
}

#[test]
fn a_wipe_needs_the_gate() {
    breaks(EXCLUSION, Flaw::NoGate, wipe());
}

#[test]
fn renewals_need_the_gate() {
    breaks(EXCLUSION, Flaw::RenewalsPassTheGate, wipe());
}

#[test]
fn a_renewal_must_not_release() {
    breaks(EXCLUSION, Flaw::RenewalReleases, wipe());
}

#[test]
fn the_last_write_must_not_shorten() {
    breaks(EXCLUSION, Flaw::LastWriteShortens, renewals());
}

#[test]
fn the_answer_is_too_late_to_count_from() {
    breaks(EXCLUSION, Flaw::DeadlineFromAnswer, agreement());
}

#[test]
fn the_last_round_is_too_late_to_count_from() {
    breaks(EXCLUSION, Flaw::DeadlineFromLastRound, agreement());
}

#[test]
fn after_a_wipe_clocks_count() {
    let wild = Config { clocks: Clocks::Wild(2), scripts: [ONCE, ONCE], ..wipe() };
    tokens_fall("clocks that differ by more than the gate", wild);
}

#[test]
fn one_holder_must_not_ask_for_as_long_as_the_gate() {
    let patient = Config { clocks: Clocks::WithinTheGate(0), scripts: [ONCE, AGAIN], ..wipe() };
    tokens_fall("asked again across the gate", patient);
}
