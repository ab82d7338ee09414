//! The commands of this repository: `cargo xtask help`.

mod debian;
mod engine;
mod image;
mod json;
mod processes;
mod servers;
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
    Formatting, clippy and documentation with warnings denied, each crate and each of its
    features alone, and no driver where none belongs. Changes no file.

cargo xtask test [--no-install] [--source SOURCE] [-- FILTER]
    Sets up the servers that the tests need and runs every test of the workspace, or those whose
    names contain FILTER.
    --no-install       install nothing: say what is missing and stop
    --source SOURCE    where servers come from:
                       auto       a container if a Docker engine answers, else a program (default)
                       container  a container, or nothing
                       local      a program on this machine, or nothing
                       url        the running server at LOCKCORE_TEST_REDIS_URL
    LOCKCORE_TEST_SOURCE is the default of --source, LOCKCORE_TEST_REDIS_IMAGE the image to use.

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
