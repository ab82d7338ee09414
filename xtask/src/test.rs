//! `cargo xtask test`: every test, on real servers.

use std::env;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::demands::{missing, spared};
use crate::failures::Failures;
use crate::processes::{cargo, shown};
use crate::programs::{Ended, Program, build, niced, run as run_command};
use crate::report::Records;
use crate::servers::{Plan, Source, need_compilers, prepare};
use crate::summary::{Table, Tests};
use crate::workspace::{Package, packages};

/// The packages that do other things without their features.
const BARE: [&str; 2] = ["feature-flag", "leaselock"];

/// Programs that compute, or wait on the paused clock only: by package, and by test where a
/// package has others. They run beside those that talk to servers in real time, and leave the
/// processors to them.
const COMPUTING: [(&str, Option<&str>); 13] = [
    ("feature-flag", None),
    ("leaselock", Some("leaselock")),
    ("lockcore", Some("line_model")),
    ("lockcore", Some("lockcore")),
    ("lockcore", Some("outage")),
    ("lockcore", Some("simulation")),
    ("lockcore", Some("waiting")),
    ("lockcore-combinators", None),
    ("lockcore-conformance", Some("docs")),
    ("lockcore-conformance", Some("memory")),
    ("lockcore-etcd", Some("lockcore_etcd")),
    ("lockcore-redis", Some("lockcore_redis")),
    ("xtask", None),
];

/// Programs that talk to servers. Those of a lane run one after the other, beside one of the other
/// lane: with more at a time, servers have to wait for the processors, and tests for the servers.
/// Storms run beside what leaves the processors to them.
const LANES: [&[(&str, &str)]; 2] = [
    &[
        ("integration", "quorum_nodes"),
        ("integration", "stores"),
        ("lockcore-conformance", "mutants"),
        ("lockcore-postgres", "backend"),
        ("lockcore-etcd", "backend"),
        ("integration", "fleet"),
    ],
    &[
        ("lockcore-postgres", "conformance"),
        ("lockcore-postgres", "pgbouncer"),
        ("lockcore-redis", "conformance"),
        ("stranger-backend", "conformance"),
        ("integration", "combinations"),
        ("integration", "moving"),
        ("lockcore-redis", "backend"),
        ("lockcore-etcd", "conformance"),
        ("integration", "facade"),
        ("lockcore", "runtimes"),
    ],
];

/// Programs that keep the machine busy in real time: they run before all others that wait.
const FIRST: [(&str, &str); 2] = [("lockcore-conformance", "guide"), ("leaselock", "examples")];

/// Most tests wait for servers, and each of their threads is idle most of the time.
const THREADS: &str = "RUST_TEST_THREADS";

/// Has the suites of combinations all be whole.
const FULL: &str = "LOCKCORE_TEST_FULL";

/// What the caller asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    install: bool,
    /// Every suite of the combinations, whole.
    full: bool,
    source: Source,
    filter: Vec<String>,
}

impl Options {
    fn parse(args: &[&str], default_source: Option<&str>) -> Result<Self> {
        let mut options = Self {
            install: true,
            full: false,
            source: match default_source {
                Some(name) if !name.is_empty() => Source::from_name(name)?,
                _ => Source::Auto,
            },
            filter: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            match arg {
                "--no-install" => options.install = false,
                "--full" => options.full = true,
                "--source" => {
                    let name = args.next().ok_or("--source: which?")?;
                    options.source = Source::from_name(name)?;
                }
                "--" => options.filter.extend(args.by_ref().map(|&arg| arg.to_owned())),
                other => match other.strip_prefix("--source=") {
                    Some(name) => options.source = Source::from_name(name)?,
                    None => return Err(format!("{other}: see cargo xtask help").into()),
                },
            }
        }
        Ok(options)
    }
}

/// Sets up the servers and runs the tests; whether all passed on every store.
pub(crate) fn run(args: &[&str]) -> Result<bool> {
    let start = Instant::now();
    let source = env::var("LOCKCORE_TEST_SOURCE").ok();
    let options = Options::parse(args, source.as_deref())?;
    let packages = packages()?;
    need_compilers(options.install)?;
    // Servers are installed while the tests are built.
    let (plan, programs) = thread::scope(|scope| {
        let plan = scope
            .spawn(|| prepare(options.source, options.install).map_err(|error| error.to_string()));
        let workspace = workspace(&packages);
        let programs = build(&workspace);
        let plan = plan.join().unwrap_or_else(|_| Err("the servers were not set up".to_owned()));
        (plan, programs)
    });
    let (mut plan, programs) = (plan?, programs?);
    if options.full {
        plan.set(FULL, "1");
    }
    if env::var_os(THREADS).is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        plan.set(THREADS, &(2 * cores).to_string());
    }

    println!("{} test programs built in {:.0} s", programs.len(), start.elapsed().as_secs_f64());
    let records = Records::new(&mut plan)?;
    let seen = Seen { plan: &plan, options: &options, results: Mutex::default() };
    let (computing, mut talking): (Vec<_>, Vec<_>) = programs.iter().partition(|it| computes(it));
    let first = take(&mut talking, &FIRST);
    let lanes = LANES.map(|lane| take(&mut talking, lane));
    thread::scope(|scope| -> Result<()> {
        let beside = scope.spawn(|| -> Result<()> {
            seen.programs(&computing, true)?;
            // Beside others every feature is on: what holds without them is seen alone.
            let bare: Vec<_> = BARE.iter().flat_map(|package| ["-p", package]).collect();
            seen.cargo_test("bare", &bare)?;
            let workspace = workspace(&packages);
            let documentation = workspace.iter().map(String::as_str).chain(["--doc"]);
            seen.cargo_test("documentation", &documentation.collect::<Vec<_>>())
        });
        seen.programs(&first, false)?;
        let [lane, other] = &lanes;
        let other = scope.spawn(|| seen.programs(other, false));
        seen.programs(lane, false)?;
        other.join().map_err(|_| "the programs of a lane were not run to their end")??;
        seen.programs(&talking, false)?;
        beside.join().map_err(|_| "the programs that compute were not run to their end")?
    })?;
    let results = seen.results.into_inner().map_err(|_| "a result was lost")?;
    let Results { tests, failures, green: succeeded } = results;

    let (runs, reports) = records.take(&plan)?;
    if !runs.is_empty() {
        println!("\nConformance\n\n{}", Table(&runs));
    }
    let missing = if options.filter.is_empty() {
        missing(&runs, options.full)
    } else {
        println!("only tests named {}", options.filter.join(" "));
        Vec::new()
    };
    for missing in &missing {
        println!("{missing}");
    }
    let spared = spared(&runs, &reports);
    for store in &spared {
        println!("{store}: cases of the conformance suite were not applicable to it");
    }
    let failed_runs = runs.iter().any(|run| run.failed > 0);
    let green = succeeded && tests.failed == 0 && !failed_runs;
    let green = green && missing.is_empty() && spared.is_empty();
    let verdict = if green { "passed" } else { "FAILED" };
    print!("{failures}");
    println!("tests {verdict} in {:.0} s", start.elapsed().as_secs_f64());
    println!("{} passed, {} failed", tests.passed, tests.failed);
    Ok(green)
}

/// What has been run so far.
struct Seen<'a> {
    plan: &'a Plan,
    options: &'a Options,
    results: Mutex<Results>,
}

#[derive(Debug)]
struct Results {
    tests: Tests,
    failures: Failures,
    green: bool,
}

impl Default for Results {
    fn default() -> Self {
        Self { tests: Tests::default(), failures: Failures::default(), green: true }
    }
}

impl Seen<'_> {
    fn programs(&self, programs: &[&Program], nice: bool) -> Result<()> {
        for program in programs {
            let ended = program.run(&self.options.filter, &self.plan.variables, nice)?;
            self.note(&format!("{} {}", program.package, program.name), &ended);
        }
        Ok(())
    }

    /// Builds and runs tests with cargo, beside programs that talk to servers.
    fn cargo_test<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> Result<()> {
        let cargo = cargo()?;
        let mut command = niced(cargo.get_program(), true);
        command.current_dir(cargo.get_current_dir().ok_or("cargo runs nowhere")?);
        command.arg("test").args(args).arg("--no-fail-fast").arg("--").args(&self.options.filter);
        command.envs(self.plan.variables.iter().map(|(name, value)| (name, value)));
        let ended = self.shown(command, name)?;
        self.note(name, &ended);
        Ok(())
    }

    fn shown(&self, command: Command, name: &str) -> Result<Ended> {
        println!("{}", shown(&command));
        run_command(command, name)
    }

    /// Adds what a program has said. All of it is shown where it failed.
    fn note(&self, name: &str, Ended { succeeded, output, took }: &Ended) {
        let mut results = self.results.lock().unwrap_or_else(|results| results.into_inner());
        let mut tests = Tests::default();
        for line in output.lines() {
            tests.read(line);
            results.failures.read(line);
        }
        results.failures.end();
        // A program that crashed has counted nothing.
        if !succeeded && tests.failed == 0 {
            tests.failed = 1;
        }
        results.tests.passed += tests.passed;
        results.tests.failed += tests.failed;
        results.green &= succeeded;
        if !succeeded {
            println!("{output}");
        }
        for line in output.lines().filter(|line| line.starts_with(SHOWN)) {
            println!("    {line}");
        }
        let (verdict, took) = (if *succeeded { "ok" } else { "FAILED" }, seconds(*took));
        let Tests { passed, failed } = tests;
        println!("{name}: {passed} passed, {failed} failed ({took}) {verdict}");
    }
}

/// Lines of a program that are shown in any case: which suites were whole, with what seed.
const SHOWN: &str = "suites of combinations";

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn computes(program: &Program) -> bool {
    COMPUTING.iter().any(|(package, test)| {
        program.package == *package && test.is_none_or(|test| program.name == test)
    })
}

/// Takes the programs of a lane out of all of them, in the lane's order.
fn take<'a>(programs: &mut Vec<&'a Program>, lane: &[(&str, &str)]) -> Vec<&'a Program> {
    let named = |(package, name): &(&str, &str), program: &&Program| {
        program.package == *package && program.name == *name
    };
    let of_lane = lane.iter().filter_map(|it| programs.iter().position(|other| named(it, other)));
    let places: Vec<_> = of_lane.collect();
    let taken = places.iter().filter_map(|&place| programs.get(place).copied()).collect();
    let mut place = 0;
    programs.retain(|_| {
        place += 1;
        !places.contains(&(place - 1))
    });
    taken
}

/// Arguments for all tests of the workspace, with all features of all crates.
fn workspace(packages: &[Package]) -> [String; 3] {
    let all = packages.iter().flat_map(|package| {
        let name = &package.name;
        package.features.iter().map(move |feature| format!("{name}/{feature}"))
    });
    let features = all.collect::<Vec<_>>().join(",");
    ["--workspace".to_owned(), "--features".to_owned(), features]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options =
            Options::parse(&["--no-install", "--full", "--source", "local", "--", "a", "b"], None);
        let expected = Options {
            install: false,
            full: true,
            source: Source::Local,
            filter: vec!["a".into(), "b".into()],
        };
        assert_eq!(options.unwrap(), expected);
        let from_env = Options::parse(&[], Some("container")).unwrap();
        assert_eq!((from_env.source, from_env.install), (Source::Container, true));
        for wrong in [&["--source"][..], &["--source=x"], &["--fast"]] {
            assert!(Options::parse(wrong, None).is_err());
        }
    }
}
