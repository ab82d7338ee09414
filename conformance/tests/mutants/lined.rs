//! A store in memory that keeps a line for each key, with one flaw.

pub(crate) mod flaws;
mod record;
mod verbs;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::{BoxError, HolderId, LockKey};
use lockcore_conformance::{Case, Clock, Failure, Fault, Harness, Verdict, on};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::flaws::LineFlaw;
use self::record::Record;

/// A client of a store with lines.
#[derive(Debug)]
pub(crate) struct Lined {
    flaw: LineFlaw,
    store: Arc<Mutex<Store>>,
    /// Who was given a place by way of this client.
    joined: Mutex<HashSet<HolderId>>,
}

#[derive(Debug)]
struct Store {
    began: Instant,
    records: BTreeMap<LockKey, Record>,
    /// Signals of those that wait, and of those that only watch.
    listeners: HashMap<HolderId, oneshot::Sender<()>>,
    watchers: BTreeMap<LockKey, Vec<oneshot::Sender<()>>>,
    released: HashSet<HolderId>,
}

/// Microseconds at which these stores' clocks begin.
const EPOCH: u64 = 1_700_000_000_000_000;

impl Store {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            records: BTreeMap::new(),
            listeners: HashMap::new(),
            watchers: BTreeMap::new(),
            released: HashSet::new(),
        }
    }

    fn now_us(&self) -> u64 {
        EPOCH + u64::try_from(self.began.elapsed().as_micros()).expect("a short test")
    }
}

impl Lined {
    fn is(&self, flaw: LineFlaw) -> bool {
        self.flaw == flaw
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Mutant {
    flaw: LineFlaw,
    store: Arc<Mutex<Store>>,
}

impl Harness for Mutant {
    type Backend = Lined;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self { flaw: LineFlaw::None, store: Arc::new(Mutex::new(Store::new())) })
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<Lined, BoxError> {
        Ok(Lined { flaw: self.flaw, store: self.store.clone(), joined: Mutex::default() })
    }

    async fn inflict(&self, fault: Fault) -> bool {
        if fault == Fault::Wipe {
            self.store.lock().expect("unpoisoned").records.clear();
        }
        fault == Fault::Wipe
    }

    fn remembers(&self) -> bool {
        false
    }

    fn clock() -> Clock {
        Clock::Paused
    }
}

/// Runs a case on a store with lines.
pub(crate) fn run(case: &Case, flaw: LineFlaw) -> Result<Verdict, Failure> {
    let outside = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (case, handle) = (*case, outside.handle().clone());
    let run = std::thread::spawn(move || {
        let store = Arc::new(Mutex::new(Store::new()));
        on(&case, Arc::new(Mutant { flaw, store }), &handle)
    });
    run.join().unwrap_or_else(|_| Err("it panicked".to_owned().into()))
}
