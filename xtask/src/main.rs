//! The commands of this repository: `cargo xtask help`.

mod bench;
mod debian;
mod demands;
mod engine;
mod failures;
mod image;
mod matrix;
mod packages;
mod processes;
mod programs;
mod report;
mod servers;
mod simulate;
mod sources;
mod stores;
mod summary;
mod test;
mod verify;
mod workspace;

use std::process::ExitCode;

/// What a command ends with when it cannot go on.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const HELP: &str = "\
The commands of this repository.

cargo xtask verify
    Formatting, clippy and documentation with warnings denied, each published crate and each of its
    features alone, and no driver where none belongs. Changes no file.

cargo xtask test [--full] [--no-install] [--source SOURCE] [-- FILTER]
    Sets up the servers that the tests need and runs every test of the workspace, or those whose
    names contain FILTER. What each program says is in target/xtask/logs.
    --full             run the whole conformance suite on every combination of stores. Without it,
                       two of them have their turn, and a few cases run on the others
    --no-install       install nothing: say what is missing and stop
    --source SOURCE    where servers come from:
                       auto       programs of this machine, installed where that is possible, or
                                  else containers if a Docker engine answers (default)
                       container  containers
                       local      programs of this machine
                       url        running servers, at the addresses in
                                  LOCKCORE_TEST_{REDIS,ETCD,POSTGRES}_URL
    LOCKCORE_TEST_SOURCE is the default of --source, LOCKCORE_TEST_{REDIS,ETCD,POSTGRES}_IMAGE
    the images to use.

cargo xtask simulate [--seeds N] [--seconds N] [--seed N | --twice]
    Runs the simulation of lockcore in a release build, on all cores: clients, a network, a store
    and stopped processes in virtual time. The tests run 500 short ones of it.
    --seeds N          so many runs (10000 by default)
    --seconds N        how long clients work in each, in virtual seconds (300)
    --seed N           this run alone, with its trace
    --twice            2000 runs at most, each of them twice: the traces must be equal

cargo xtask matrix [--only NAME]
    Runs the conformance suite on every version of every store that it knows, in containers of
    Debian's packages, and writes what came out to docs/compatibility.md. Needs a Docker engine,
    and a Debian as the place from which to get packages. An image that was made before is used
    again: remove it to have a newer one.
    --only NAME        one version, such as redis-8.0, or all whose names begin so; writes no file

cargo xtask bench [--quick] [--only NAME] [--check]
    Measures what locks cost, beside bare drivers and other libraries, and writes the figures to
    docs/performance.md. Takes most of an hour on an idle machine, installs and starts the servers
    itself, and fails only where something could not be measured.
    --quick            fewer and shorter repeats
    --only NAME        the rows whose names begin so; the page goes to target/bench/report
    --check            measures nothing: clippy, with warnings denied, and the bench's own tests

cargo xtask help
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.split_first() {
        None | Some((&("help" | "--help" | "-h"), _)) => {
            print!("{HELP}");
            Ok(true)
        }
        Some((&"verify", [])) => verify::run(),
        Some((&"test", options)) => test::run(options),
        Some((&"matrix", options)) => matrix::run(options),
        Some((&"simulate", options)) => simulate::run(options),
        Some((&"bench", options)) => bench::run(options),
        Some((command, _)) => {
            Err(format!("no such command: {command}; see cargo xtask help").into())
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
