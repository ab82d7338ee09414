//! `cargo xtask test`: every test, on real servers.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use crate::Result;
use crate::demands::{missing, spared};
use crate::failures::Failures;
use crate::processes::{cargo, shown};
use crate::report::Records;
use crate::servers::{Plan, Source, prepare};
use crate::summary::{Table, Tests};
use crate::workspace::{Package, packages};

/// The packages that do other things without their features.
const BARE: [&str; 2] = ["feature-flag", "leaselock"];

/// The feature that is compiled only where there is an engine, whichever crates have or forward
/// it: it takes minutes.
const CONTAINERS: &str = "/containers";

/// Most tests wait for servers, and each of their threads is idle most of the time.
const THREADS: &str = "RUST_TEST_THREADS";

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
    let (mut tests, mut failures) = (Tests::default(), Failures::default());
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
        succeeded &= cargo_test(&arguments, &options, &plan, &mut tests, &mut failures)?;
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
    print!("{failures}");
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
    failures: &mut Failures,
) -> Result<bool> {
    let mut command = cargo()?;
    command.args(arguments).arg("--no-fail-fast");
    if !options.filter.is_empty() {
        command.arg("--").args(&options.filter);
    }
    println!("{}", shown(&command));
    command.envs(plan.variables.iter().map(|(name, value)| (name, value)));
    if env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, (2 * cores).to_string());
    }
    let mut cargo = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(cargo.stdout.take().ok_or("no output")?);
    let mut out = std::io::stdout();
    let mut line = Vec::new();
    // Bytes: tests may print anything.
    while lines.read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        tests.read(&text);
        failures.read(&text);
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

#[cfg(test)]
mod tests {
    use super::*;

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
            published: true,
        }];
        assert_eq!(features(&packages, false), "lockcore-conformance/x");
        assert!(features(&packages, true).contains(CONTAINERS));
    }
}
