//! A store behind a wire: the server is the one in memory, with its flaws, and the client has some
//! of its own.

mod client;
mod server;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::BoxError;
use lockcore_conformance::{Case, Failure, Fault, Harness, Verdict, cases, on};

use self::client::Wired;
use self::server::Server;
use crate::flaws::{Flaw, WIRE_FLAWS, WireFlaw};
use crate::lined::flaws::LineFlaw;

/// What a server says first.
const GREETING: &str = "wired 1\n";

/// Cases at once. They take real time, mostly asleep.
const THREADS: usize = 24;

struct Mutant {
    server: Server,
    flaw: WireFlaw,
}

impl Harness for Mutant {
    type Backend = Wired;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self { server: Server::start(Flaw::None).await?, flaw: WireFlaw::None })
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<Wired, BoxError> {
        Ok(Wired::new(at[0], self.flaw))
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.server.addr()]
    }

    // Grants carry a token and no more.
    fn remembers(&self) -> bool {
        false
    }

    async fn inflict(&self, fault: Fault) -> bool {
        match fault {
            Fault::Pause => self.server.pause(true),
            Fault::Resume => self.server.pause(false),
            Fault::Kill => self.server.kill().await,
            Fault::Restart => self.server.restart().await,
            Fault::Wipe => self.server.wipe(),
            _ => return false,
        }
        true
    }
}

fn run(case: &Case, flaw: WireFlaw) -> Result<Verdict, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let at_the_server = if let WireFlaw::OfTheServer(flaw) = flaw { flaw } else { Flaw::None };
    let server = runtime.block_on(Server::start(at_the_server)).expect("a server");
    let mutant = Arc::new(Mutant { server, flaw });
    let verdict = on(case, mutant, runtime.handle());
    runtime.shutdown_timeout(Duration::from_secs(1));
    verdict
}

/// Does all of them, side by side, and keeps what they say.
fn side_by_side<T: Send, O: Send>(work: Vec<T>, each: impl Fn(T) -> Option<O> + Sync) -> Vec<O> {
    let (work, said) = (Mutex::new(VecDeque::from(work)), Mutex::new(Vec::new()));
    let next = || work.lock().expect("unpoisoned").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(one) = next() {
                    if let Some(something) = each(one) {
                        said.lock().expect("unpoisoned").push(something);
                    }
                }
            });
        }
    });
    said.into_inner().expect("unpoisoned")
}

/// Those that do not run in memory.
fn of_the_wire() -> Vec<&'static Case> {
    let in_memory = |case: &&Case| {
        matches!(crate::run(case, Flaw::None), Ok(Verdict::Passed))
            || matches!(crate::lined::run(case, LineFlaw::None), Ok(Verdict::Passed))
    };
    cases().filter(|case| !in_memory(case)).collect()
}

#[test]
fn a_wired_store_without_a_flaw_passes() {
    let failed = side_by_side(of_the_wire(), |case| match run(case, WireFlaw::None) {
        Ok(Verdict::Passed) => None,
        Ok(Verdict::NotApplicable(why)) => Some(format!("{}: {why}", case.name())),
        Err(failure) => Some(format!("{}: {failure}", case.name())),
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn every_wire_flaw_is_found_by_its_cases() {
    let work =
        WIRE_FLAWS.iter().flat_map(|(flaw, names)| names.iter().map(move |name| (*flaw, *name)));
    let missed = side_by_side(work.collect(), |(flaw, name)| {
        let verdict = run(crate::case(name), flaw);
        let found = verdict.as_ref().is_err_and(crate::by_the_case_itself);
        (!found).then(|| format!("{flaw:?} passes {name}: {verdict:?}"))
    });
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_case_of_the_wire_has_a_flaw() {
    let named: BTreeSet<&str> =
        WIRE_FLAWS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let idle: Vec<_> =
        of_the_wire().iter().map(|case| case.name()).filter(|name| !named.contains(name)).collect();
    assert!(idle.is_empty(), "nothing fails these cases: {idle:#?}");
}
