//! Many workers add 1 to one counter that is unsafe by itself, under one lock.
//!
//! The counter is read, then other workers get a turn, then it is written: two workers at once
//! lose an addition. Under the lock none is lost, in one process or in several. The table says
//! how long a worker waited for the lock and how many calls the store got.
//!
//! ```text
//! cargo run --release --example counter
//! cargo run --release --example counter -- --unprotected
//! cargo run --release --example counter --features redis -- --url redis://127.0.0.1:6379
//! cargo run --release --example counter --features redis -- --url redis://127.0.0.1:6379 --processes 4
//! ```
//!
//! It exits with 1 if an addition was lost under the lock or the store failed, and with 2 if it
//! was called wrongly.

mod args;
mod counted;
mod counter;
#[path = "../shared/flags.rs"]
mod flags;
mod processes;
mod report;
mod workers;

use std::error::Error;
use std::process::ExitCode;

use leaselock::ErrorKind;

use crate::args::{Args, Command};
use crate::counter::Counter;
use crate::report::Report;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match args::parse(lexopt::Parser::from_env()) {
        Ok(Command::Run(args)) => args,
        Ok(Command::Child) => return end(processes::child().await),
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("counter: {message}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    end(run(&args).await)
}

fn end(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("counter: {error}");
        let wrong = error.downcast_ref::<leaselock::Error>();
        let wrong = wrong.is_some_and(|error| error.kind() == ErrorKind::InvalidInput);
        if wrong { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let report = if args.processes == 1 {
        let counter = Counter::in_memory();
        let ready = workers::prepare(&args.job, counter.clone()).await?;
        let outcome = ready.run().await?;
        Report::new(args.job.workers, counter.value()?, &outcome)
    } else {
        processes::run(args).await?
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    let kept = args.job.unprotected || report.lost() == 0;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
