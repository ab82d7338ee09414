//! The shell around the cases: one named test each, side by side, on one shared store.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lockcore::{BoxError, LockBackend};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::case::{Case, Cx, Failure, Needs, Outcome, Pending, Store};
use crate::cases;
use crate::harness::{Clock, Fault, Harness};

/// How long one case may take. On the paused clock an hour: it passes in no time when a case
/// waits for nothing, so a hang is found at once.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSED_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How long a case on the paused clock may take in real time: it stands still while tasks that
/// never wait keep each other busy.
const SPIN_LIMIT: Duration = Duration::from_secs(20);

/// Cases at once. They mostly sleep, but each has connections of its own.
const THREADS: usize = 32;

/// Servers of their own, for the cases that break them, at once.
const OWN_SERVERS: usize = 2;

/// Runs the whole suite on a harness: the `main` of a test with `harness = false`.
///
/// It takes libtest's arguments (a filter, `--list`, `--exact`, `--test-threads`, …), starts the
/// store when the first case needs it, and drops the harness after the last. When the
/// environment names a file in `LOCKCORE_TEST_SUMMARY`, a line for a closing report is appended
/// to it: the store, and the numbers of cases passed, failed and not applicable, separated by
/// tabs.
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
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let suite = match Suite::<H>::new() {
        Ok(suite) => Arc::new(suite),
        Err(error) => {
            eprintln!("error: the suite's runtime did not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases::all().map(|case| suite.clone().trial(case)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    suite.report(&conclusion);
    let code = conclusion.exit_code();
    suite.stop();
    code
}

/// One run of the suite.
struct Suite<H> {
    runtime: Runtime,
    /// The store that most cases share, or why it could not be started.
    shared: OnceLock<Result<Arc<H>, String>>,
    own_servers: Permits,
}

impl<H: Harness> Suite<H> {
    fn new() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self { runtime, shared: OnceLock::new(), own_servers: Permits::new(OWN_SERVERS) })
    }

    fn trial(self: Arc<Self>, case: &'static Case) -> Trial {
        Trial::ignorable_test(case.name(), move || match self.run(case) {
            Ok(Verdict::Passed) => Ok(Completion::Completed),
            Ok(Verdict::NotApplicable(why)) => {
                Ok(Completion::ignored_with(format!("not applicable: {why}")))
            }
            Err(failure) => Err(Failed::from(format!("law {}: {failure}", case.law()))),
        })
        .with_kind(case.law())
    }

    fn run(&self, case: &Case) -> Result<Verdict, Failure> {
        let handle = self.runtime.handle();
        let shared = match self.shared.get_or_init(|| {
            handle.block_on(H::start()).map(Arc::new).map_err(|error| error.to_string())
        }) {
            Ok(shared) => shared.clone(),
            Err(error) => return Err(Failure::new(format!("the store did not start: {error}"))),
        };
        let Needs::Faults(_) = case.requirement() else {
            return on(case, shared, handle);
        };
        // Breaking the shared server would break everybody's case.
        let _permit = self.own_servers.take();
        let own = match handle.block_on(H::start()) {
            Ok(own) => Arc::new(own),
            Err(error) => return Err(Failure::new(format!("no server of its own: {error}"))),
        };
        let verdict = on(case, own.clone(), handle);
        let _inside = handle.enter();
        drop(own);
        verdict
    }

    fn report(&self, conclusion: &libtest_mimic::Conclusion) {
        let Some(shared) = self.shared.get() else {
            return;
        };
        let about = match shared {
            Ok(harness) => harness.about(),
            Err(_) => format!("{} (not started)", std::any::type_name::<H::Backend>()),
        };
        let (passed, failed, other) =
            (conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored);
        println!(
            "conformance of {about}: {passed} passed, {failed} failed, {other} not applicable"
        );
        let Some(path) = std::env::var_os("LOCKCORE_TEST_SUMMARY") else {
            return;
        };
        let line = format!("{about}\t{passed}\t{failed}\t{other}\n");
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            eprintln!("error: could not append to {}: {error}", path.display());
        }
    }

    /// Drops the harness inside its runtime, where containers are taken down.
    fn stop(self: Arc<Self>) {
        let Ok(suite) = Arc::try_unwrap(self) else {
            return;
        };
        let _inside = suite.runtime.enter();
        drop(suite.shared);
    }
}

/// How a case ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// The harness cannot do what the case needs, named here.
    NotApplicable(String),
}

/// Runs one case on a store, on a runtime of its own.
///
/// For shells other than [`main`]; `runtime` is where the harness lives.
///
/// # Errors
///
/// The [`Failure`] of a case that does not hold, with its notes.
pub fn on<H: Harness>(case: &Case, harness: Arc<H>, runtime: &Handle) -> Result<Verdict, Failure> {
    let clock = H::clock();
    match case.requirement() {
        Needs::Wire if harness.endpoints().is_empty() => {
            return Ok(Verdict::NotApplicable("the store has no TCP endpoint".to_owned()));
        }
        Needs::Signals if !harness.signals() => {
            return Ok(Verdict::NotApplicable("the store does not signal releases".to_owned()));
        }
        _ => {}
    }
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    let limit = match clock {
        Clock::Paused => {
            builder.start_paused(true);
            PAUSED_LIMIT
        }
        Clock::Real => LIMIT,
    };
    let store = Arc::new(Shared { harness, runtime: runtime.clone(), clock });
    let own = builder.build()?;
    own.block_on(async {
        if let Needs::Faults(faults) = case.requirement()
            && let Some(fault) = store.missing(faults).await
        {
            return Ok(Verdict::NotApplicable(format!("the harness cannot {fault} its server")));
        }
        let cx = Cx::new(store, clock).await?;
        let outcome: Outcome = tokio::select! {
            outcome = case.start(&cx) => outcome,
            () = tokio::time::sleep(limit) => {
                Err(Failure::new(format!("it hung: no end after {limit:?}")))
            }
            () = spun(clock) => {
                Err(Failure::new(format!("it spun: no end after {SPIN_LIMIT:?} of real time")))
            }
        };
        outcome.map(|()| Verdict::Passed).map_err(|failure| with_notes(failure, &cx))
    })
}

/// Resolves after the limit in real time on the paused clock, which does not move while there is
/// anything to do.
async fn spun(clock: Clock) {
    if clock == Clock::Real {
        return std::future::pending().await;
    }
    let (ring, bell) = tokio::sync::oneshot::channel::<()>();
    let (cancel, cancelled) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if cancelled.recv_timeout(SPIN_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let _ = ring.send(());
        }
    });
    let _ = bell.await;
    drop(cancel);
}

fn with_notes(failure: Failure, cx: &Cx) -> Failure {
    let mut message = failure.to_string();
    for note in cx.notes() {
        let _ = write!(message, "\n    {note}");
    }
    Failure::new(message)
}

/// A harness as cases see it. Its faults are inflicted on its own runtime, where its containers'
/// connections live.
struct Shared<H> {
    harness: Arc<H>,
    runtime: Handle,
    clock: Clock,
}

impl<H: Harness> Shared<H> {
    /// The first of the faults that the harness cannot inflict, found by trying each.
    async fn missing(&self, faults: &[Fault]) -> Option<Fault> {
        for &fault in faults {
            // What is tried is mended at once: the case begins with a whole server.
            let ok = match fault {
                Fault::Pause | Fault::Resume => {
                    self.inflict(Fault::Pause).await && self.inflict(Fault::Resume).await
                }
                Fault::Kill | Fault::Restart => {
                    self.inflict(Fault::Kill).await && self.inflict(Fault::Restart).await
                }
                other => self.inflict(other).await,
            };
            if !ok {
                return Some(fault);
            }
        }
        None
    }
}

impl<H: Harness> Store for Shared<H> {
    fn connect<'a>(
        &'a self,
        at: &'a [SocketAddr],
    ) -> Pending<'a, Result<Arc<dyn LockBackend>, BoxError>> {
        Box::pin(async move {
            let backend = self.harness.connect(at).await?;
            Ok(Arc::new(backend) as Arc<dyn LockBackend>)
        })
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        self.harness.endpoints()
    }

    fn inflict(&self, fault: Fault) -> Pending<'_, bool> {
        if self.clock == Clock::Paused {
            return Box::pin(self.harness.inflict(fault));
        }
        let harness = self.harness.clone();
        let task = self.runtime.spawn(async move { harness.inflict(fault).await });
        Box::pin(async move { task.await.unwrap_or(false) })
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
