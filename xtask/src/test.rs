//! `cargo xtask test`: every test, on real servers.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use crate::Result;
use crate::processes::{cargo, shown};
use crate::report::{NO_SIGNALS, Records, Report};
use crate::servers::{Plan, Source, prepare};
use crate::stores::{PGBOUNCER, STORES};
use crate::summary::{Run, Table, Tests};
use crate::workspace::{Package, packages};

/// The packages that do other things without their features.
const BARE: [&str; 2] = ["feature-flag", "leaselock"];

/// The feature that is compiled only where there is an engine, whichever crates have or forward
/// it: it takes minutes.
const CONTAINERS: &str = "/containers";

/// What the caller asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    install: bool,
    source: Source,
    filter: Vec<String>,
}

impl Options {
    fn parse(args: &[&str], default_source: Option<&str>) -> Result<Self> {
        let mut options = Self {
            install: true,
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
    let mut plan = prepare(options.source, options.install)?;

    let records = Records::new(&mut plan)?;
    let mut tests = Tests::default();
    let mut whole = vec!["test".to_owned(), "--workspace".to_owned()];
    let features = features(&packages, plan.engine.is_some());
    if !features.is_empty() {
        whole.extend(["--features".to_owned(), features]);
    }
    // Beside others every feature is on: what is so without them is seen alone.
    let bare = BARE.iter().flat_map(|package| ["-p", package]).map(str::to_owned);
    let bare = std::iter::once("test".to_owned()).chain(bare).collect();
    let mut succeeded = true;
    for arguments in [whole, bare] {
        succeeded &= cargo_test(&arguments, &options, &plan, &mut tests)?;
    }
    // A program that crashed has counted nothing.
    if !succeeded && tests.failed == 0 {
        tests.failed = 1;
    }

    let (runs, reports) = records.take(&plan)?;
    if !runs.is_empty() {
        println!("\nConformance\n\n{}", Table(&runs));
    }
    let missing = if options.filter.is_empty() {
        missing(&runs)
    } else {
        println!("only tests named {}", options.filter.join(" "));
        Vec::new()
    };
    for store in &missing {
        println!("{store}: the conformance suite has not run on it");
    }
    let spared = spared(&runs, &reports);
    for store in &spared {
        println!("{store}: cases of the conformance suite were not applicable to it");
    }
    let failed_runs = runs.iter().any(|run| run.failed > 0);
    let green = succeeded && tests.failed == 0 && !failed_runs;
    let green = green && missing.is_empty() && spared.is_empty();
    let verdict = if green { "passed" } else { "FAILED" };
    println!("tests {verdict} in {:.0} s", start.elapsed().as_secs_f64());
    println!("{} passed, {} failed", tests.passed, tests.failed);
    Ok(green)
}

/// Runs cargo, shows what it says and counts the tests; whether it succeeded.
fn cargo_test(
    arguments: &[String],
    options: &Options,
    plan: &Plan,
    tests: &mut Tests,
) -> Result<bool> {
    let mut command = cargo()?;
    command.args(arguments).arg("--no-fail-fast");
    if !options.filter.is_empty() {
        command.arg("--").args(&options.filter);
    }
    println!("{}", shown(&command));
    command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
    let mut cargo = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(cargo.stdout.take().ok_or("no output")?);
    let mut out = std::io::stdout();
    let mut line = Vec::new();
    // Bytes: tests may print anything.
    while lines.read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        tests.read(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(cargo.wait()?.success())
}

/// All features of all crates, containers only where there is an engine.
fn features(packages: &[Package], engine: bool) -> String {
    let all = packages.iter().flat_map(|package| {
        let name = &package.name;
        package.features.iter().map(move |feature| format!("{name}/{feature}"))
    });
    let all: Vec<_> = all.filter(|feature| engine || !feature.ends_with(CONTAINERS)).collect();
    all.join(",")
}

/// The stores that the suite should have run on and has not.
fn missing(runs: &[Run]) -> Vec<&'static str> {
    let has_run = |names: &[&str]| runs.iter().any(|run| names.contains(&run.name.as_str()));
    ours().filter(|names| !has_run(names)).map(|names| names[0]).collect()
}

/// The names of each store of ours.
fn ours() -> impl Iterator<Item = &'static [&'static str]> {
    STORES.iter().map(|store| store.names).chain([&[PGBOUNCER][..]])
}

/// The stores of ours on which a case could not be run: something that the suite needs is broken.
/// But a server that was named by the environment is lent, and not to be broken for a test.
fn spared<'a>(runs: &'a [Run], reports: &[Report]) -> Vec<&'a str> {
    let ours = |run: &&Run| ours().any(|names| names.contains(&run.name.as_str()));
    let lent = |run: &Run| run.origin.contains("LOCKCORE_TEST_");
    let spared = runs.iter().filter(ours).filter(|run| run.not_applicable > 0 && !lent(run));
    let spared = spared.filter(|run| !is_all_about_signals(run, reports));
    spared.map(|run| run.name.as_str()).collect()
}

/// Whether it is through PgBouncer, and nothing was left out but the cases about signals: they
/// belong to connections, and there is none of one's own.
fn is_all_about_signals(run: &Run, reports: &[Report]) -> bool {
    let reports = reports.iter().filter(|report| run.is_of(&report.store));
    let reasons: Vec<_> = reports.flat_map(|report| &report.not_applicable).collect();
    run.name == PGBOUNCER
        && reasons.len() as u64 == run.not_applicable
        && reasons.iter().all(|reason| *reason == NO_SIGNALS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::runs;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["--no-install", "--source", "local", "--", "a", "b"], None);
        let expected =
            Options { install: false, source: Source::Local, filter: vec!["a".into(), "b".into()] };
        assert_eq!(options.unwrap(), expected);
        let from_env = Options::parse(&[], Some("container")).unwrap();
        assert_eq!((from_env.source, from_env.install), (Source::Container, true));
        for wrong in [&["--source"][..], &["--source=x"], &["--fast"]] {
            assert!(Options::parse(wrong, None).is_err());
        }
    }

    #[test]
    fn containers_are_compiled_where_there_is_an_engine() {
        let packages = [Package {
            name: "lockcore-conformance".into(),
            features: vec!["containers".into(), "x".into()],
        }];
        assert_eq!(features(&packages, false), "lockcore-conformance/x");
        assert!(features(&packages, true).contains(CONTAINERS));
    }

    #[test]
    fn a_store_that_was_not_run_is_missed() {
        assert_eq!(missing(&[]), ["Redis", "etcd", "Postgres", "PgBouncer"]);
        let all = "Valkey 8.1 (x)\t1\t0\t0\netcd 3.4 (x)\t1\t0\t0\nPostgres 15 (x)\t1\t0\t0\n";
        assert_eq!(missing(&runs(all).unwrap()), ["PgBouncer"]);
    }

    #[test]
    fn a_case_that_was_not_applicable_to_a_store_of_ours_is_noticed() {
        let own = runs("Redis 8.0 (x)\t1\t0\t1\nmemory 1.0 (y)\t1\t0\t5\n").unwrap();
        assert_eq!(spared(&own, &[]), ["Redis"]);
        let lent = runs("Redis 8.0 (address from LOCKCORE_TEST_REDIS_URL)\t1\t0\t1\n").unwrap();
        assert_eq!(spared(&lent, &[]), [""; 0]);
    }

    #[test]
    fn behind_pgbouncer_signals_may_be_missing_and_nothing_else() {
        let about = "PgBouncer 1.18.0 before Postgres 15.20 (x)";
        let behind = runs(&format!("{about}\t60\t0\t2\n")).unwrap();
        let report = |store: &str, reasons: &[&str]| Report {
            store: store.to_owned(),
            limits: None,
            not_applicable: reasons.iter().map(|&reason| reason.to_owned()).collect(),
        };
        let signals = report(about, &[NO_SIGNALS, NO_SIGNALS]);
        assert_eq!(spared(&behind, &[signals]), [""; 0]);
        assert_eq!(spared(&behind, &[]), ["PgBouncer"]);
        assert_eq!(spared(&behind, &[report(about, &[NO_SIGNALS])]), ["PgBouncer"]);
        assert_eq!(spared(&behind, &[report(about, &[NO_SIGNALS, "no server"])]), ["PgBouncer"]);
        // In front of Postgres alone nothing may be missing.
        let alone = runs("Postgres 15.20 (x)\t60\t0\t2\n").unwrap();
        let signals = report("Postgres 15.20 (x)", &[NO_SIGNALS, NO_SIGNALS]);
        assert_eq!(spared(&alone, &[signals]), ["Postgres"]);
    }
}
