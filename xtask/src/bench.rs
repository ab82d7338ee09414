//! `cargo xtask bench`: what locks cost.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::processes::{cargo, shown, succeeds};
use crate::servers::prepare_bench;
use crate::stores::STORES;
use crate::workspace;

const MANIFEST: &str = "bench/Cargo.toml";
/// The arguments by which cargo checks the format of the bench.
pub(crate) const FORMAT: &str =
    "fmt --manifest-path bench/Cargo.toml -p leaselock-bench -p instructions --check";
/// A package each: the second has a feature of a dependency that the first must not have.
const PACKAGES: [&str; 2] = ["leaselock-bench", "instructions"];
/// A file system in memory: with data there, waiting for the disk takes no time, and the figures
/// do not depend on the disk.
const MEMORY: &str = "/dev/shm";

/// Builds the bench and runs it; whether everything could be measured.
pub(crate) fn run(args: &[&str]) -> Result<bool> {
    let mut options = Vec::new();
    let (mut check, mut partial) = (false, false);
    let mut args = args.iter();
    while let Some(&arg) = args.next() {
        match arg {
            "--quick" => options.push(arg),
            "--check" => check = true,
            "--only" => {
                options.extend([arg, *args.next().ok_or("--only: which?")?]);
                partial = true;
            }
            _ => return Err(format!("{arg}: see cargo xtask help").into()),
        }
    }
    prepare_bench()?;
    let root = workspace::root()?;
    // Its own, as the bench is built with other features and as a release.
    let target = target(&root)?.join("bench");
    if check {
        let mut clippy = on_bench("clippy", &target)?;
        clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
        let mut test = on_bench("test", &target)?;
        test.arg("--workspace");
        for command in [&mut clippy, &mut test] {
            println!("{}", shown(command));
            if !succeeds(command)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for package in PACKAGES {
        let mut build = on_bench("build", &target)?;
        build.args(["--release", "--package", package]);
        println!("{}", shown(&build));
        if !succeeds(&mut build)? {
            return Ok(false);
        }
    }
    let mut bench = Command::new(target.join("release").join("leaselock-bench"));
    // A page of some rows does not replace the whole one.
    let docs = if partial { target.join("report") } else { root.join("docs") };
    bench.args(options).arg("--docs").arg(docs);
    bench.arg("--figures").arg(target.join("figures.json"));
    bench.env("LOCKCORE_TEST_SOURCE", "local");
    for store in &STORES {
        bench.env_remove(store.url);
    }
    if Path::new(MEMORY).is_dir() {
        bench.env("TMPDIR", MEMORY);
    }
    Ok(bench.stdin(Stdio::null()).status()?.success())
}

/// Not `--locked`: its lock file follows the crates of the repository when they change.
fn on_bench(command: &str, target: &Path) -> Result<Command> {
    let mut cargo = cargo()?;
    cargo.args([command, "--manifest-path", MANIFEST, "--target-dir"]).arg(target);
    Ok(cargo)
}

fn target(root: &Path) -> Result<PathBuf> {
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    };
    fs::create_dir_all(&target)?;
    Ok(target)
}
