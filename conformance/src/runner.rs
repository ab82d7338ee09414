//! The shell around the cases: one named test each, side by side.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use clap::Parser;
use libtest_mimic::Trial;
use tokio::runtime::Builder;

use crate::case::Failure;
use crate::cases;
use crate::check_history;
use crate::harness::Harness;
use crate::options::Options;
use crate::permits::Permits;
use crate::report::Report;
use crate::suite::{Place, Suite};

/// Cases at once. They mostly sleep, but each has connections of its own, and more of them keep a
/// small machine from answering in time.
const CASES: usize = 24;

/// What waits meanwhile for a server of its own, of one suite.
const WAITING: usize = 16;

/// Suites at once, each with servers of its own: more of them keep a small machine from answering.
const SUITES: usize = 4;

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
    Suites::new().on::<H>("").main()
}

/// The suite on several harnesses, in one test: a few of them at a time, each on stores of its
/// own, and each with a report of its own.
///
/// The arguments and variables are those of [`main`]. Names of cases begin with the name of their
/// suite, as in `quorum::fencing::rises_over_release`; so does that of each report's `FILE`.
///
/// ```no_run
/// # use std::net::SocketAddr;
/// # use lockcore::{BoxError, MemoryBackend};
/// # use lockcore_conformance::Harness;
/// use lockcore_conformance::Suites;
/// # struct Plain;
/// # impl Harness for Plain {
/// #     type Backend = MemoryBackend;
/// #     async fn start() -> Result<Self, BoxError> {
/// #         Ok(Self)
/// #     }
/// #     async fn connect(&self, _: &[SocketAddr]) -> Result<MemoryBackend, BoxError> {
/// #         Ok(MemoryBackend::new())
/// #     }
/// # }
/// # type Durable = Plain;
///
/// fn main() -> std::process::ExitCode {
///     Suites::new().on::<Plain>("plain").some_on::<Durable>("durable", &["faults::"]).main()
/// }
/// ```
#[derive(Default)]
#[must_use = "suites do nothing until `main`"]
pub struct Suites(Vec<(&'static str, Trials)>);

/// Makes the tests of one suite.
type Trials = Box<dyn FnOnce(Place) -> Vec<Trial>>;

impl Suites {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the whole suite on a harness.
    pub fn on<H: Harness>(self, name: &'static str) -> Self {
        self.some_on::<H>(name, &[""])
    }

    /// Adds the cases of the suite that have any of these texts in their names.
    ///
    /// # Panics
    ///
    /// No case has one of them: what is misspelt would never run.
    pub fn some_on<H: Harness>(
        mut self,
        name: &'static str,
        wanted: &'static [&'static str],
    ) -> Self {
        for text in wanted {
            let known = cases().any(|case| case.name().contains(text));
            assert!(known, "no case has {text:?} in its name, which suite {name:?} asks for");
        }
        let trials = move |place| Suite::<H>::trials(place, wanted);
        self.0.push((name, Box::new(trials)));
        self
    }

    /// Runs them.
    #[must_use = "the exit code says whether the suites passed"]
    pub fn main(self) -> ExitCode {
        let mut options = Options::parse();
        if let Some(file) = &options.check_history {
            return check(file);
        }
        let at_once = self.0.len().clamp(1, SUITES);
        options.libtest.test_threads.get_or_insert(CASES + WAITING * at_once);
        let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
        let workers = 2 * at_once;
        let runtime = match Builder::new_multi_thread().worker_threads(workers).enable_all().build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: the suite's runtime did not start: {error}");
                return ExitCode::FAILURE;
            }
        };
        let (done, reports) = mpsc::channel();
        let turns = Arc::new(Permits::new(at_once));
        let cases = Arc::new(Permits::new(CASES));
        let (mut trials, mut names) = (Vec::new(), Vec::new());
        for (name, make) in self.0 {
            trials.extend(make(Place {
                name,
                number: names.len(),
                seed,
                runtime: runtime.handle().clone(),
                turns: turns.clone(),
                cases: cases.clone(),
                done: done.clone(),
            }));
            names.push(name);
        }
        drop(done);
        let trials = options.wanted(trials);
        let mut code = libtest_mimic::run(&options.libtest, trials).exit_code();
        // Every suite has ended with its last case.
        let mut reports: Vec<(usize, Report)> = reports.iter().collect();
        reports.sort_by_key(|(number, _)| *number);
        for (number, report) in reports {
            println!("{}", report.summary());
            let file = options.report.as_deref();
            let file = file.map(|file| file_of(file, names.get(number).copied().unwrap_or("")));
            if let Err(error) = report.write(file.as_deref()) {
                eprintln!("error: the report was not written: {error}");
                code = ExitCode::FAILURE;
            }
        }
        code
    }
}

impl fmt::Debug for Suites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The file for the report of a suite of this name.
fn file_of(file: &Path, name: &str) -> PathBuf {
    if name.is_empty() {
        return file.to_owned();
    }
    let own = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{}-{own}", name.replace("::", "-")))
}

fn check(file: &Path) -> ExitCode {
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use lockcore::{BoxError, MemoryBackend};

    use super::*;

    struct Nothing;

    impl Harness for Nothing {
        type Backend = MemoryBackend;

        async fn start() -> Result<Self, BoxError> {
            Ok(Self)
        }

        async fn connect(&self, _: &[SocketAddr]) -> Result<MemoryBackend, BoxError> {
            Ok(MemoryBackend::new())
        }
    }

    #[test]
    fn a_text_is_of_some_case() {
        let suites = Suites::new().some_on::<Nothing>("some", &["faults::", "renews"]);
        assert_eq!(format!("{suites:?}"), "[\"some\"]");
    }

    #[test]
    #[should_panic(expected = "no case has \"fautls::\" in its name")]
    fn a_text_that_no_case_has_is_told() {
        let _ = Suites::new().some_on::<Nothing>("some", &["fencing::", "fautls::"]);
    }

    #[test]
    fn each_suite_has_a_report_of_its_own() {
        let file = Path::new("target/r.json");
        assert_eq!(file_of(file, ""), file);
        assert_eq!(file_of(file, "quorum::all"), Path::new("target/quorum-all-r.json"));
    }
}
