//! The suite, tested: every flaw is found by the case that is there for it, a store without a
//! flaw passes, and there is no case that nothing could fail.

mod broken;
mod flaws;
mod lined;
mod wired;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lockcore::{BoxError, LockBackend};
use lockcore_conformance::{
    Case, Clock, Failure, Fault, Harness, Verdict, cases, check_history, on,
};

use crate::broken::{Broken, Store};
use crate::flaws::{FLAWS, Flaw};
use crate::lined::flaws::{LINE_FLAWS, LineFlaw};

struct Mutant {
    flaw: Flaw,
    store: Arc<Mutex<Store>>,
}

impl Mutant {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, store: Arc::new(Mutex::new(Store::new())) }
    }
}

impl Harness for Mutant {
    type Backend = Broken;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self::new(Flaw::None))
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<Broken, BoxError> {
        Ok(Broken::connect(self.flaw, &self.store))
    }

    async fn inflict(&self, fault: Fault) -> bool {
        if fault == Fault::Wipe {
            self.store.lock().expect("unpoisoned").wipe(self.flaw);
        }
        fault == Fault::Wipe
    }

    /// Nothing is written, so any client without a flaw will do.
    async fn fixture(&self) -> Result<Option<Arc<dyn LockBackend>>, BoxError> {
        Ok(Some(Arc::new(Broken::connect(Flaw::None, &self.store))))
    }

    fn clock() -> Clock {
        Clock::Paused
    }
}

fn run(case: &Case, flaw: Flaw) -> Result<Verdict, Failure> {
    let outside = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // A flaw may break what a case takes for granted; that it notices by a panic counts too.
    let case = *case;
    let handle = outside.handle().clone();
    let run = std::thread::spawn(move || on(&case, Arc::new(Mutant::new(flaw)), &handle));
    run.join().unwrap_or_else(|_| Err("it panicked".to_owned().into()))
}

/// Not by the check of its history, which follows every case: what a case is there for it must
/// say itself.
fn by_the_case_itself(failure: &Failure) -> bool {
    !failure.to_string().starts_with("the history: ")
}

/// The check of histories finds flaws too, in cases that do not look for them.
#[test]
fn histories_find_flaws() {
    let found = |flaw: Flaw, name: &str, what: &str| {
        let failure = run(case(name), flaw);
        let failure = failure.expect_err(&format!("{flaw:?} in {name}")).to_string();
        assert!(failure.starts_with(&format!("the history: {what}")), "{flaw:?}: {failure}");
    };
    found(Flaw::AcquireTakesOver, "expiry::gone_after_its_ttl", "two holders at once");
    let under_faults = "contention::histories_hold_under_faults";
    found(Flaw::AcquireChecksThenSets, under_faults, "two holders at once");
    found(Flaw::TokensArePerClient, "contention::a_counter_counts", "tokens fell");
    let contended = "contended, and nobody can have it";
    found(Flaw::AskingAgainIsContended, "retry::core_gives_up_in_time", contended);
    let release = "retry::core_counts_a_lost_release_as_done";
    found(Flaw::ReleaseAlwaysWorks, release, "released twice");
}

/// What a failed case prints is the same each time, and says the same when it is checked again.
#[test]
fn a_failure_can_be_repeated_and_checked_again() {
    let case = case("contention::histories_hold_under_faults");
    let failure = || run(case, Flaw::AcquireTakesOver).expect_err("a flaw").to_string();
    let (first, second) = (failure(), failure());
    let history = |text: &str| text[text.find("\nhistory 1 ").expect("a history")..].to_owned();
    // The store's clock had been running for some time.
    let untold = |text: &str| {
        let words = history(text);
        let words = words.split(' ').filter(|word| !word.starts_with("token="));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(untold(&first), untold(&second));
    let again = check_history(&history(&first)).expect_err("the same").to_string();
    assert!(first.starts_with(again.lines().next().expect("a line")), "{first}\n{again}");
}

fn case(name: &str) -> &'static Case {
    cases().find(|case| case.name() == name).unwrap_or_else(|| panic!("no case {name}"))
}

#[test]
fn a_store_without_a_flaw_passes() {
    for case in cases() {
        if let Err(failure) = run(case, Flaw::None) {
            panic!("{}: {failure}", case.name());
        }
    }
}

#[test]
fn a_store_with_lines_and_without_a_flaw_passes() {
    for case in cases() {
        if let Err(failure) = lined::run(case, LineFlaw::None) {
            panic!("{}: {failure}", case.name());
        }
    }
}

/// A store without lines need not pass what is about them, and is told why.
#[test]
fn a_store_without_lines_is_excused() {
    let why = "the store has no line".to_owned();
    for case in cases().filter(|case| case.name().starts_with("line::")) {
        let verdict = run(case, Flaw::None).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(verdict, Verdict::NotApplicable(why.clone()), "{}", case.name());
    }
}

#[test]
fn every_flaw_of_a_line_is_found_by_its_case() {
    let found =
        |flaw, name| lined::run(case(name), flaw).is_err_and(|why| by_the_case_itself(&why));
    let missed: Vec<_> = LINE_FLAWS
        .iter()
        .filter(|(flaw, name)| !found(*flaw, name))
        .map(|(flaw, name)| format!("{flaw:?} passes {name}"))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_case_about_lines_finds_a_flaw() {
    let passes = |case: &&Case| matches!(run(case, Flaw::None), Ok(Verdict::Passed));
    let lined = |case: &&Case| matches!(lined::run(case, LineFlaw::None), Ok(Verdict::Passed));
    let mut idle: BTreeSet<&str> =
        cases().filter(lined).filter(|case| !passes(case)).map(Case::name).collect();
    for (flaw, _) in LINE_FLAWS {
        idle.retain(|name| {
            !lined::run(case(name), *flaw).is_err_and(|why| by_the_case_itself(&why))
        });
    }
    assert!(idle.is_empty(), "nothing fails these cases: {idle:#?}");
}

#[test]
fn every_flaw_is_found_by_its_case() {
    let missed: Vec<_> = FLAWS
        .iter()
        .filter(|(flaw, name)| !run(case(name), *flaw).is_err_and(|why| by_the_case_itself(&why)))
        .map(|(flaw, name)| format!("{flaw:?} passes {name}"))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// A case that no flaw fails proves nothing, or the flaw that it is there for is missing.
#[test]
fn every_case_finds_a_flaw() {
    let mut idle: BTreeSet<&str> = cases()
        .filter(|case| matches!(run(case, Flaw::None), Ok(Verdict::Passed)))
        .map(Case::name)
        .collect();
    // Those that grant nothing at all would be found by every case.
    for (flaw, _) in FLAWS.iter().filter(|(flaw, _)| *flaw != Flaw::NothingIsGranted) {
        idle.retain(|name| !run(case(name), *flaw).is_err_and(|why| by_the_case_itself(&why)));
    }
    assert!(idle.is_empty(), "nothing fails these cases: {idle:#?}");
}
