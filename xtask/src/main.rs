//! The commands of this repository: `cargo xtask help`.

mod debian;
mod demands;
mod engine;
mod failures;
mod image;
mod json;
mod matrix;
mod packages;
mod processes;
mod report;
mod servers;
mod sources;
mod stores;
mod summary;
mod test;
mod verify;
mod workspace;

use std::process::ExitCode;

/// What a command ends with when it cannot go on.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const HELP: &str = "\
The commands of this repository.

cargo xtask verify
    Formatting, clippy and documentation with warnings denied, each published crate and each of its
    features alone, and no driver where none belongs. Changes no file.

cargo xtask test [--no-install] [--source SOURCE] [-- FILTER]
    Sets up the servers that the tests need and runs every test of the workspace, or those whose
    names contain FILTER.
    --no-install       install nothing: say what is missing and stop
    --source SOURCE    where servers come from:
                       auto       a container if a Docker engine answers, else a program (default).
                                  Tests other than the backends' suites take a program in any case
                                  where there is one: containers are slow to start
                       container  a container, or nothing
                       local      a program on this machine, or nothing
                       url        running servers, at the addresses in
                                  LOCKCORE_TEST_{REDIS,ETCD,POSTGRES}_URL
    LOCKCORE_TEST_SOURCE is the default of --source, LOCKCORE_TEST_{REDIS,ETCD,POSTGRES}_IMAGE
    the images to use.

cargo xtask matrix [--only NAME]
    Runs the conformance suite on every version of every store that it knows, in containers of
    Debian's packages, and writes what came out to docs/compatibility.md. Needs a Docker engine,
    and a Debian as the place from which to get packages. An image that was made before is used
    again: remove it to have a newer one.
    --only NAME        one version, such as redis-8.0, or all whose names begin so; writes no file

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
