//! The bench: what locks cost, beside bare drivers, plain locks and other libraries.
//!
//! `cargo xtask bench` starts it. Every measurement is the work of child processes of this same
//! program, which are told a job and answer with figures; this process starts servers, reads their
//! counters, and writes the report.

mod bench;
mod children;
mod contender;
mod counters;
mod job;
mod marks;
mod plot;
mod progress;
mod proxy;
mod report;
mod results;
mod rows;
mod site;
mod start;
mod stores;
mod work;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::bench::Bench;
use crate::rows::ROWS;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

const HELP: &str = "\
leaselock-bench [--quick] [--only NAME] --docs FOLDER --figures FILE
    --quick         three repeats in place of five, and shorter ones
    --only NAME     the rows whose names begin so
    --docs FOLDER   where performance.md and its plots are written
    --figures FILE  where all figures are written, as JSON";

/// The options of one run.
#[derive(Default)]
struct Options {
    quick: bool,
    only: Option<String>,
    docs: PathBuf,
    figures: PathBuf,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut options, mut args) = (Self::default(), args);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg}: which?"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--only" => options.only = Some(value()?),
                "--docs" => options.docs = value()?.into(),
                "--figures" => options.figures = value()?.into(),
                _ => return Err(format!("{arg}: no such option\n{HELP}").into()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let done = if args.peek().is_some_and(|arg| arg == children::WORKER) {
        worker::run()
    } else {
        Options::parse(args).and_then(|options| run(&options))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fails where something could not be measured. What misses its mark is no failure.
fn run(options: &Options) -> Result<()> {
    let only = options.only.as_deref().unwrap_or_default();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.name.starts_with(only)).collect();
    if rows.is_empty() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("--only {only}: expected one of {}", names.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (report, failed) = runtime.block_on(async {
        let mut bench = Bench::new(options.quick);
        for row in &rows {
            bench.progress.line(row.title);
            if let Err(error) = (row.run)(&mut bench).await {
                bench.gave_up(row.name, error);
            }
        }
        bench.progress.line("done");
        let report = report::Report::new(&bench, &rows)?.write(&options.docs, &options.figures)?;
        Ok::<_, Failure>((report, bench.results.failures()))
    })?;
    println!("{report}");
    if failed > 0 {
        return Err(format!("{failed} measurements failed").into());
    }
    Ok(())
}
