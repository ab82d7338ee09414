//! One run of the suite, on one shared store and some for the cases that break theirs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Instant;

use libtest_mimic::{Completion, Failed, Trial};
use lockcore::{Limits, LockBackend};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::case::{Case, Failure};
use crate::cases;
use crate::harness::{Clock, Harness};
use crate::permits::{Permit, Permits};
use crate::report::{CaseResult, Record, Report};
use crate::run::{Abilities, Verdict, run, seed_of};

/// Servers for the cases that break them, at once.
const OWN_SERVERS: usize = 2;

/// Where a suite has its place among others.
#[derive(Debug)]
pub(crate) struct Place {
    /// What its cases' names begin with, if anything.
    pub(crate) name: &'static str,
    pub(crate) number: usize,
    pub(crate) seed: u64,
    /// Where the harnesses live.
    pub(crate) runtime: Handle,
    /// The turn of the suites, a few of which run at once.
    pub(crate) turns: Arc<Permits>,
    /// The turn of the cases on the stores that they share.
    pub(crate) cases: Arc<Permits>,
    /// Where its report goes.
    pub(crate) done: mpsc::Sender<(usize, Report)>,
}

/// One run of the suite. It ends, with a report, when the last of its tests is dropped: run, or
/// filtered out.
pub(crate) struct Suite<H: Harness> {
    place: Place,
    /// The store that most cases share, or why it could not be started.
    shared: OnceLock<Result<Shared<H>, String>>,
    abilities: Abilities,
    own_servers: Arc<Permits>,
    /// Servers that a case has had to itself, and left whole.
    spare: Mutex<Vec<Arc<H>>>,
    records: Mutex<Vec<Record>>,
    turn: OnceLock<(Permit, Instant)>,
}

struct Shared<H> {
    harness: Arc<H>,
    limits: Option<Limits>,
}

impl<H: Harness> Suite<H> {
    /// A test for each case with any of these texts in its name.
    pub(crate) fn trials(place: Place, wanted: &[&str]) -> Vec<Trial> {
        let suite = Arc::new(Self {
            place,
            shared: OnceLock::new(),
            abilities: Abilities::default(),
            own_servers: Arc::new(Permits::new(OWN_SERVERS)),
            spare: Mutex::default(),
            records: Mutex::default(),
            turn: OnceLock::new(),
        });
        let wanted = |case: &&Case| wanted.iter().any(|text| case.name().contains(text));
        let mut cases: Vec<_> = cases().filter(wanted).collect();
        // Those with faults wait for each other, and so take longest. Of the rest, neighbours are
        // alike, and some keep a small machine busy: in several suites they do not come at once.
        let Place { name, number, .. } = suite.place;
        cases.sort_by_key(|case| {
            let spread = if name.is_empty() { 0 } else { seed_of(case, number as u64) };
            (case.requirement().faults().is_none(), spread)
        });
        cases.into_iter().map(|case| suite.clone().trial(case)).collect()
    }

    fn trial(self: Arc<Self>, case: &'static Case) -> Trial {
        let (law, seed) = (case.law(), self.place.seed);
        let name = match self.place.name {
            "" => case.name().to_owned(),
            suite => format!("{suite}::{}", case.name()),
        };
        let test = {
            let name = name.clone();
            move || {
                // A case that panics has failed, and is to be found in the report.
                let mut recorded = Recorded {
                    suite: &self,
                    case,
                    began: Instant::now(),
                    notes: Vec::new(),
                    result: None,
                };
                let result = match self.run(case, &mut recorded.began) {
                    Ok((Verdict::Passed, notes)) => {
                        recorded.notes = notes;
                        CaseResult::Passed
                    }
                    Ok((Verdict::NotApplicable(why), _)) => CaseResult::NotApplicable(why),
                    Err(failure) => CaseResult::Failed(format!(
                        "law {law}: {failure}\n    again with the same random choices: \
                         --seed {seed} --exact {name}"
                    )),
                };
                recorded.end(result.clone());
                match result {
                    CaseResult::Passed => Ok(Completion::Completed),
                    CaseResult::Failed(why) => Err(Failed::from(why)),
                    CaseResult::NotApplicable(why) => {
                        Ok(Completion::ignored_with(format!("not applicable: {why}")))
                    }
                }
            }
        };
        Trial::ignorable_test(name, test).with_kind(law)
    }

    fn run(&self, case: &Case, began: &mut Instant) -> Result<(Verdict, Vec<String>), Failure> {
        let Place { runtime, seed, .. } = &self.place;
        let shared = match self.shared.get_or_init(|| self.start()) {
            Ok(shared) => shared.harness.clone(),
            Err(error) => return Err(Failure::new(format!("the store did not start: {error}"))),
        };
        if case.requirement().faults().is_none() {
            let _permit = self.place.cases.take();
            // Its turn is no time of its own.
            *began = Instant::now();
            return run(case, shared, runtime, *seed, &self.abilities);
        }
        // Breaking the shared server would break everybody's case.
        let _permit = self.own_servers.take();
        *began = Instant::now();
        // Should the case panic, its server is dropped on the way, and taken down in there.
        let _inside = runtime.enter();
        let spare = self.spare().pop();
        let own = match spare {
            Some(own) => own,
            None => match runtime.block_on(H::start()) {
                Ok(own) => Arc::new(own),
                Err(error) => return Err(Failure::new(format!("no server of its own: {error}"))),
            },
        };
        let verdict = run(case, own.clone(), runtime, *seed, &self.abilities);
        // Else it is in whatever state, and goes.
        if matches!(verdict, Ok((Verdict::Passed, _))) {
            self.spare().push(own);
        }
        verdict
    }

    /// Starts the shared store, when it is this suite's turn.
    fn start(&self) -> Result<Shared<H>, String> {
        let turn = self.place.turns.take();
        let _ = self.turn.set((turn, Instant::now()));
        Shared::start(&self.place.runtime)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Arc<H>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing where no case was run.
    fn report(&self) -> Option<Report> {
        let shared = self.shared.get()?;
        let (store, limits, signals) = match shared {
            Ok(Shared { harness, limits }) => (harness.about(), *limits, harness.signals()),
            Err(_) => (format!("{} (not started)", self.name()), None, false),
        };
        let mut records = self.records().clone();
        let place = |record: &Record| cases().position(|case| case.name() == record.name);
        records.sort_by_key(place);
        let seconds = self.turn.get().map_or(0.0, |(_, began)| began.elapsed().as_secs_f64());
        let seed = self.place.seed;
        Some(Report { store, limits, signals, seed, seconds, cases: records })
    }

    /// What is known without a store.
    fn name(&self) -> &'static str {
        match self.place.name {
            "" => std::any::type_name::<H::Backend>(),
            name => name,
        }
    }
}

impl<H: Harness> Drop for Suite<H> {
    /// Drops the harnesses inside their runtime, where containers are taken down.
    fn drop(&mut self) {
        if let Some(report) = self.report() {
            // Nobody listens where nothing is run.
            let _ = self.place.done.send((self.place.number, report));
        }
        let _inside = self.place.runtime.enter();
        self.shared.take();
        self.spare.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<H: Harness> Shared<H> {
    fn start(runtime: &Handle) -> Result<Self, String> {
        let harness = runtime.block_on(H::start()).map_err(|error| error.to_string())?;
        // For the report; the cases say it if nobody can connect.
        let connecting = async { harness.connect(&harness.endpoints()).await };
        let client = match H::clock() {
            Clock::Real => runtime.block_on(connecting).ok(),
            // Whatever it waits for passes by itself, as in the cases.
            Clock::Paused => paused().ok().and_then(|own| own.block_on(connecting).ok()),
        };
        Ok(Self { limits: client.map(|client| client.limits()), harness: Arc::new(harness) })
    }
}

fn paused() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}

/// Puts a case into the report, at the latest when it panics.
struct Recorded<'a, H: Harness> {
    suite: &'a Suite<H>,
    case: &'static Case,
    began: Instant,
    notes: Vec<String>,
    result: Option<CaseResult>,
}

impl<H: Harness> Recorded<'_, H> {
    fn end(mut self, result: CaseResult) {
        self.result = Some(result);
    }
}

impl<H: Harness> Drop for Recorded<'_, H> {
    fn drop(&mut self) {
        let result = self.result.take();
        let result = result.unwrap_or_else(|| CaseResult::Failed("it panicked".to_owned()));
        let (name, law) = (self.case.name(), self.case.law());
        let (time, notes) = (self.began.elapsed(), std::mem::take(&mut self.notes));
        self.suite.records().push(Record { name, law, result, time, notes });
    }
}
