//! The shell around the cases: one named test each, side by side, on one shared store.

use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use clap::Parser;
use libtest_mimic::{Completion, Failed, Trial};
use lockcore::{Limits, LockBackend};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::case::{Case, Failure, Needs};
use crate::harness::{Clock, Harness};
use crate::options::Options;
use crate::report::{CaseResult, Record, Report};
use crate::run::{Abilities, Verdict, run};
use crate::{cases, check_history};

/// Cases at once. They mostly sleep, but each has connections of its own.
const THREADS: usize = 32;

/// Servers for the cases that break them, at once.
const OWN_SERVERS: usize = 2;

/// Runs the whole suite on a harness: the `main` of a test with `harness = false`.
///
/// It takes libtest's arguments (filters, `--list`, `--exact`, `--test-threads`, …), starts the
/// store when the first case needs it, and drops the harness after the last. Besides:
///
/// - `--report FILE` writes what came out to `FILE` as JSON and beside it in Markdown.
/// - `--seed N` repeats the random choices of the run that printed this seed. A case has the same
///   ones whichever others run.
/// - `--check-history FILE` runs nothing, and checks a history that a failed case has printed.
///
/// | Variable | |
/// |---|---|
/// | `LOCKCORE_TEST_SEED` | as `--seed` |
/// | `LOCKCORE_TEST_REPORT` | a folder for a report of each run, named after the test and the store |
/// | `LOCKCORE_TEST_SUMMARY` | a file to which a line is added: the store, and the numbers of cases passed, failed and not applicable, separated by tabs |
///
/// ```no_run
/// use std::net::SocketAddr;
/// use lockcore::{BoxError, MemoryBackend};
/// use lockcore_conformance::Harness;
///
/// struct MyStore(MemoryBackend);
///
/// impl Harness for MyStore {
///     type Backend = MemoryBackend;
///
///     async fn start() -> Result<Self, BoxError> {
///         Ok(Self(MemoryBackend::new()))
///     }
///
///     async fn connect(&self, _: &[SocketAddr]) -> Result<MemoryBackend, BoxError> {
///         Ok(self.0.clone())
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     lockcore_conformance::main::<MyStore>()
/// }
/// ```
#[must_use = "the exit code says whether the suite passed"]
pub fn main<H: Harness>() -> ExitCode {
    let mut options = Options::parse();
    if let Some(file) = &options.check_history {
        return check(file);
    }
    options.libtest.test_threads.get_or_insert(THREADS);
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let suite = match Suite::<H>::new(seed) {
        Ok(suite) => Arc::new(suite),
        Err(error) => {
            eprintln!("error: the suite's runtime did not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trials = options.wanted(cases().map(|case| suite.clone().trial(case)).collect());
    let conclusion = libtest_mimic::run(&options.libtest, trials);
    let mut code = conclusion.exit_code();
    if let Some(report) = suite.report() {
        println!("{}", report.summary());
        if let Err(error) = report.write(options.report.as_deref()) {
            eprintln!("error: the report was not written: {error}");
            code = ExitCode::FAILURE;
        }
    }
    suite.stop();
    code
}

fn check(file: &std::path::Path) -> ExitCode {
    let checked = std::fs::read_to_string(file).map_err(Failure::from);
    match checked.and_then(|text| check_history(&text)) {
        Ok(()) => {
            println!("nothing in this history contradicts the laws");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// One run of the suite.
struct Suite<H> {
    runtime: Runtime,
    seed: u64,
    began: Instant,
    /// The store that most cases share, or why it could not be started.
    shared: OnceLock<Result<Shared<H>, String>>,
    abilities: Abilities,
    own_servers: Permits,
    /// Servers that a case has had to itself, and left whole.
    spare: Mutex<Vec<Arc<H>>>,
    records: Mutex<Vec<Record>>,
}

struct Shared<H> {
    harness: Arc<H>,
    limits: Option<Limits>,
}

impl<H: Harness> Suite<H> {
    fn new(seed: u64) -> std::io::Result<Self> {
        Ok(Self {
            runtime: Builder::new_multi_thread().worker_threads(2).enable_all().build()?,
            seed,
            began: Instant::now(),
            shared: OnceLock::new(),
            abilities: Abilities::default(),
            own_servers: Permits::new(OWN_SERVERS),
            spare: Mutex::default(),
            records: Mutex::default(),
        })
    }

    fn trial(self: Arc<Self>, case: &'static Case) -> Trial {
        let (name, law, seed) = (case.name(), case.law(), self.seed);
        let test = move || {
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
        };
        Trial::ignorable_test(name, test).with_kind(law)
    }

    fn run(&self, case: &Case, began: &mut Instant) -> Result<(Verdict, Vec<String>), Failure> {
        let handle = self.runtime.handle();
        let shared = match self.shared.get_or_init(|| Shared::start(handle)) {
            Ok(shared) => shared.harness.clone(),
            Err(error) => return Err(Failure::new(format!("the store did not start: {error}"))),
        };
        let Needs::Faults(_) = case.requirement() else {
            return run(case, shared, handle, self.seed, &self.abilities);
        };
        // Breaking the shared server would break everybody's case.
        let _permit = self.own_servers.take();
        // Its turn is no time of its own.
        *began = Instant::now();
        let spare = self.spare().pop();
        let own = match spare {
            Some(own) => own,
            None => match handle.block_on(H::start()) {
                Ok(own) => Arc::new(own),
                Err(error) => return Err(Failure::new(format!("no server of its own: {error}"))),
            },
        };
        let verdict = run(case, own.clone(), handle, self.seed, &self.abilities);
        if verdict.is_ok() {
            self.spare().push(own);
        } else {
            // In whatever state it is.
            let _inside = handle.enter();
            drop(own);
        }
        verdict
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
            Err(_) => {
                (format!("{} (not started)", std::any::type_name::<H::Backend>()), None, false)
            }
        };
        let mut records = self.records().clone();
        let place = |record: &Record| cases().position(|case| case.name() == record.name);
        records.sort_by_key(place);
        let seconds = self.began.elapsed().as_secs_f64();
        Some(Report { store, limits, signals, seed: self.seed, seconds, cases: records })
    }

    /// Drops the harnesses inside their runtime, where containers are taken down.
    fn stop(self: Arc<Self>) {
        let Ok(suite) = Arc::try_unwrap(self) else {
            return;
        };
        let _inside = suite.runtime.enter();
        drop((suite.shared, suite.spare));
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

/// A number of permits, for threads.
struct Permits {
    left: Mutex<usize>,
    returned: Condvar,
}

impl Permits {
    fn new(count: usize) -> Self {
        Self { left: Mutex::new(count), returned: Condvar::new() }
    }

    fn take(&self) -> Permit<'_> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = self
            .returned
            .wait_while(left, |left| *left == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        Permit(self)
    }
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}
