//! The suite, tested: every flaw is found by the case that is there for it, a store without a
//! flaw passes, and there is no case that nothing could fail.

mod broken;
mod flaws;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use lockcore::BoxError;
use lockcore_conformance::{Case, Clock, Failure, Fault, Harness, Verdict, cases, on};

use crate::broken::{Broken, Store};
use crate::flaws::{FLAWS, Flaw};

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
fn every_flaw_is_found_by_its_case() {
    let missed: Vec<_> = FLAWS
        .iter()
        .filter(|(flaw, name)| run(case(name), *flaw).is_ok())
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
        idle.retain(|name| run(case(name), *flaw).is_ok());
    }
    assert!(idle.is_empty(), "nothing fails these cases: {idle:#?}");
}
