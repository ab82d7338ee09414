//! Eight processes move their locks from one store to another while they go on taking them.
//!
//! They roll through the phases `old`, `both` and `new` one by one, as a deploy does it: a process
//! finishes its lock, leaves its phase, ends, and a new one starts in the next phase. What the
//! locks protect watches: every holder shows its fencing token, and no two may hold a key at once
//! and no token may fall, also for a key that nobody takes in phase `both`. Before each step it
//! prints who is in which phase, what is held where, and whether the step is safe.
//!
//! ```text
//! cargo run --example switchover
//! cargo run --example switchover --features redis,postgres -- \
//!     --old redis://127.0.0.1:6379 --new postgres://USER@127.0.0.1/DATABASE --back
//! cargo run --example switchover --features redis,postgres -- \
//!     --old redis://127.0.0.1:6379 --new postgres://USER@127.0.0.1/DATABASE --status
//! ```
//!
//! The first runs on two memory stores, with tasks in place of processes. The last looks at a move
//! that goes on, of this example or of any program, and changes nothing.
//!
//! It exits with 1 if two held a key at once, a token fell, a process got into a phase while the
//! opposite one ran, or a store failed, and with 2 if it was called wrongly.

mod args;
#[path = "../shared/flags.rs"]
mod flags;
mod fleet;
mod processes;
mod register;
mod report;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use leaselock::{ErrorKind, Status};

use crate::args::{Args, Command};
use crate::report::Report;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match args::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(args)) => run(&args).await,
        Ok(Command::Status(look)) => status(&look).await,
        Ok(Command::Child) => processes::child().await,
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            Ok(ExitCode::SUCCESS)
        }
        Err(message) => {
            eprintln!("switchover: {message}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("switchover: {error}");
        let wrong = error.downcast_ref::<leaselock::Error>();
        let wrong = wrong.is_some_and(|error| error.kind() == ErrorKind::InvalidInput);
        if wrong { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let report: Report = fleet::moved(args).await?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("\n{report}");
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A look at the two stores, for which no process needs to be in any phase.
async fn status(look: &args::Look) -> Result<ExitCode, Failure> {
    let (old, new) = look.stores.open().await?;
    let status = Status::of(&*old, &*new).await?;
    if look.json {
        println!("{}", status.to_json());
    } else {
        print!("{status}");
    }
    let Some(phase) = look.before else { return Ok(ExitCode::SUCCESS) };
    let objections = status.objections(phase, &look.expected);
    for objection in &objections {
        eprintln!("switchover: not yet: {objection}");
    }
    Ok(if objections.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
