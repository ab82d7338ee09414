//! `cargo xtask matrix`: the conformance suite on every version of every store.

mod page;

use std::collections::BTreeSet;
use std::fs;

use self::page::{Line, page};
use crate::engine::Engine;
use crate::image::{made, make};
use crate::programs::{Program, build};
use crate::report::{Records, Report};
use crate::servers::{Plan, prepare_matrix};
use crate::stores::{MATRIX, Version};
use crate::summary::{Run, Table};
use crate::{Result, workspace};

const PAGE: &str = "docs/compatibility.md";

/// Runs the suite on all versions, or some; whether all passed.
pub(crate) fn run(args: &[&str]) -> Result<bool> {
    let only = match args {
        [] => None,
        ["--only", name] => Some(*name),
        [word] => word.strip_prefix("--only="),
        _ => None,
    };
    if only.is_none() && !args.is_empty() {
        return Err(format!("{}: see cargo xtask help", args.join(" ")).into());
    }
    let wanted = |version: &&Version| only.is_none_or(|only| version.name.starts_with(only));
    let versions: Vec<_> = MATRIX.iter().filter(wanted).collect();
    if versions.is_empty() {
        let names: Vec<_> = MATRIX.iter().map(|version| version.name).collect();
        return Err(format!("no such version; there are {}", names.join(", ")).into());
    }
    let engine = prepare_matrix()?;
    let suites = suites(&versions)?;

    let mut lines = Vec::new();
    let mut green = true;
    for version in versions {
        println!("== {}, from Debian {}", version.name, version.suite);
        match on(engine, version, &suites) {
            Ok((passed, mut of_version)) => {
                green &= passed;
                lines.append(&mut of_version);
            }
            Err(error) => {
                green = false;
                println!("{}: {error}", version.name);
                lines.push(Line::not_run(version, &error.to_string()));
            }
        }
    }
    let runs: Vec<Run> = lines.iter().filter_map(|line| line.run.clone()).collect();
    println!("\nConformance\n\n{}", Table(&runs));
    if only.is_none() {
        fs::write(workspace::root()?.join(PAGE), page(&lines))?;
        println!("written: {PAGE}");
    }
    println!("matrix {}", if green { "passed" } else { "FAILED" });
    Ok(green)
}

/// Builds the tests, all at once: one after the other, each would have its dependencies with
/// other features, and so built again.
fn suites(versions: &[&Version]) -> Result<Vec<Program>> {
    let mut args = Vec::new();
    let packages: BTreeSet<_> = versions.iter().map(|version| version.package).collect();
    args.extend(packages.iter().flat_map(|package| ["--package", package]));
    let tests: BTreeSet<_> = versions.iter().flat_map(|version| version.tests).collect();
    args.extend(tests.iter().flat_map(|test| ["--test", test]));
    build(&args)
}

/// Whether the tests passed on a version, and the lines for its runs.
fn on(engine: Engine, version: &Version, suites: &[Program]) -> Result<(bool, Vec<Line>)> {
    let image = match made(engine, &version.recipe, version.suite)? {
        Some(image) => image,
        None => make(engine, &version.recipe, version.suite)?,
    };
    println!("{}, of {}", image.image, image.package);

    let mut plan = Plan { engine: Some(engine), ..Plan::default() };
    plan.set("LOCKCORE_TEST_SOURCE", "container");
    plan.set(version.image_variable, &image.image);
    let records = Records::new(&mut plan)?;
    let mut passed = true;
    for test in version.tests {
        let is = |suite: &&Program| suite.package == version.package && suite.name == **test;
        let suite = suites.iter().find(is);
        let suite = suite.ok_or_else(|| format!("{}: no test {test}", version.package))?;
        let ended = suite.run(&[], &plan.variables, false)?;
        print!("{}", ended.output);
        passed &= ended.succeeded;
    }
    let (runs, reports) = records.take(&plan)?;
    let passed = passed && runs.iter().all(|run| run.failed == 0);
    if runs.len() < version.tests.len() {
        return Err("not every suite has run".into());
    }
    let lines = runs.into_iter().map(|run| {
        let report = reports.iter().find(|report| run.is_of(&report.store));
        Line::of(version, &image.package, run, report.cloned())
    });
    Ok((passed, lines.collect()))
}

impl Line {
    fn of(version: &Version, package: &str, run: Run, report: Option<Report>) -> Self {
        let from = format!("Debian {}: {package}", version.suite);
        Self { name: version.name, from, run: Some(run), report, error: None }
    }

    fn not_run(version: &Version, error: &str) -> Self {
        let error = error.lines().next().unwrap_or_default().to_owned();
        let from = format!("Debian {}", version.suite);
        Self { name: version.name, from, run: None, report: None, error: Some(error) }
    }
}
