//! `cargo xtask verify`: everything about the code but whether it works.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::processes::{cargo, find, output, shown, succeeds};
use crate::servers::need_protoc;
use crate::workspace::{self, Package, packages};
use crate::{Result, bench};

/// What only the backend of a store may depend on.
const DRIVERS: [&str; 11] = [
    "deadpool-postgres",
    "etcd-client",
    "fred",
    "mongodb",
    "postgres",
    "prost",
    "redis",
    "rusqlite",
    "sqlx",
    "tokio-postgres",
    "tonic",
];

/// What needs a C compiler, a system library or protoc.
const NATIVE: [&str; 8] = [
    "aws-lc-sys",
    "cc",
    "cmake",
    "openssl-sys",
    "pkg-config",
    "prost-build",
    "ring",
    "tonic-prost-build",
];

/// Runs all steps, however many fail; whether none did.
pub(crate) fn run() -> Result<bool> {
    let start = Instant::now();
    let packages = packages()?;
    need_protoc(true)?;
    let before = state()?;
    let mut steps = Steps::default();

    steps.cargo("formatting", &["fmt", "--all", "--check"]);
    // All else about the bench is `cargo xtask bench --check`: it builds other libraries.
    steps.cargo("formatting of the bench", &words(bench::FORMAT));
    steps.cargo(
        "clippy",
        &words("clippy --locked --workspace --all-targets --all-features -- -D warnings"),
    );
    steps.run("documentation", || {
        let mut doc = cargo()?;
        doc.args(words("doc --locked --workspace --no-deps --all-features"));
        succeeds(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    for (name, command) in alone(&packages) {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        steps.cargo(&name, &command);
    }
    for (name, args, forbidden) in [
        ("lockcore names no driver", "-p lockcore -e normal --all-features", &DRIVERS[..]),
        ("lockcore-link names no driver", "-p lockcore-link -e normal", &DRIVERS),
        ("leaselock names no driver by default", "-p leaselock -e normal", &DRIVERS),
        (
            "leaselock builds without C and protoc by default",
            "-p leaselock -e normal,build",
            &NATIVE,
        ),
    ] {
        steps.run(name, || {
            let tree = words("tree --locked --prefix none --format {p}");
            let tree = output(cargo()?.args(tree).args(words(args)))?;
            let found = named(&tree, forbidden);
            found.iter().for_each(|name| eprintln!("depends on {name}"));
            Ok(found.is_empty())
        });
    }
    steps.run("no file has changed", || Ok(state()? == before));

    println!();
    for name in &steps.failed {
        println!("failed: {name}");
    }
    println!(
        "verify: {} steps passed, {} failed, in {}",
        steps.passed,
        steps.failed.len(),
        seconds(start.elapsed())
    );
    Ok(steps.failed.is_empty())
}

#[derive(Debug, Default)]
struct Steps {
    passed: usize,
    failed: Vec<String>,
}

impl Steps {
    fn cargo(&mut self, name: &str, args: &[&str]) {
        self.run(name, || {
            let mut command = cargo()?;
            command.args(args);
            println!("    {}", shown(&command));
            succeeds(&mut command)
        });
    }

    fn run(&mut self, name: &str, step: impl FnOnce() -> Result<bool>) {
        println!("== {name}");
        let start = Instant::now();
        let passed = step().unwrap_or_else(|error| {
            eprintln!("error: {error}");
            false
        });
        let took = seconds(start.elapsed());
        if passed {
            println!("   ok ({took})");
            self.passed += 1;
        } else {
            println!("   FAILED ({took})");
            self.failed.push(name.to_owned());
        }
    }
}

/// The commands that check each crate that others may depend on alone: as it is, without any feature, and with each of its
/// features. Alone, because others of the workspace would switch on what it has forgotten.
fn alone(packages: &[Package]) -> Vec<(String, Vec<String>)> {
    let mut commands = Vec::new();
    let mut add = |name: String, package: &str, features: &[&str]| {
        let mut command = words("check --locked -p");
        command.push(package);
        command.extend(features);
        commands.push((name, command.into_iter().map(str::to_owned).collect()));
    };
    // Nobody meets the others alone.
    for package in packages.iter().filter(|package| package.published) {
        let name = package.name.as_str();
        add(format!("{name} alone"), name, &[]);
        if !package.features.is_empty() {
            add(format!("{name} without features"), name, &["--no-default-features"]);
        }
        for feature in &package.features {
            let args = ["--no-default-features", "--features", feature];
            add(format!("{name} with {feature}"), name, &args);
        }
    }
    commands
}

/// Which of the forbidden packages a dependency tree names.
fn named<'a>(tree: &str, forbidden: &[&'a str]) -> Vec<&'a str> {
    let packages: Vec<_> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    forbidden.iter().copied().filter(|name| packages.contains(name)).collect()
}

/// What must be the same afterwards: the files that git sees as changed, and the lock file.
fn state() -> Result<(Option<String>, Vec<u8>)> {
    let root = workspace::root()?;
    let lock = fs::read(root.join("Cargo.lock"))?;
    // A source archive has no repository, a bare machine no git.
    let changed = if root.join(".git").exists() && find(&["git"]).is_some() {
        let mut git = Command::new("git");
        git.args(["status", "--porcelain"]).current_dir(&root);
        Some(output(&mut git)?)
    } else {
        None
    };
    Ok((changed, lock))
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_checked_alone() {
        let package = |name: &str, features: &[&str]| Package {
            name: name.to_owned(),
            published: name != "unpublished",
            features: features.iter().map(|&name| name.to_owned()).collect(),
        };
        let commands =
            alone(&[package("a", &[]), package("unpublished", &["y"]), package("b", &["x"])]);
        let lines: Vec<_> = commands.iter().map(|(_, words)| words.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "check --locked -p a",
                "check --locked -p b",
                "check --locked -p b --no-default-features",
                "check --locked -p b --no-default-features --features x",
            ]
        );
    }

    #[test]
    fn drivers_are_found_by_their_whole_name() {
        let tree = "lockcore v0.1.0 (/x/redis)\nlockcore-redis v0.1.0\nredis-test v1.0.0\n";
        assert_eq!(named(tree, &DRIVERS), [""; 0]);
        assert_eq!(named("a v1\nredis v1.8.1 (*)\n", &DRIVERS), ["redis"]);
    }
}
