//! Child processes of the same executable, one for each that moves.
//!
//! A child is told its job by a line of JSON on its standard input (where no other user of the
//! machine can read the URLs), says `registered`, or `refused` and why, and asks by lines on its
//! standard output from then on: see [`Desk`].

use std::io;
use std::process::{ExitCode, Stdio};

use leaselock::ErrorKind;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::Failure;
use crate::args::{CHILD, Stores};
use crate::fleet::Seat;
use crate::worker::{Desk, Job, Worker};

/// A child process, as its parent sees it. Dropping it ends it.
pub(crate) struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    pub(crate) async fn start(job: &Job) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(format!("--{CHILD}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a process has no standard input and output".into());
        };
        let pid = process.id().unwrap_or_default();
        let mut child = Self { process, input, output: BufReader::new(output).lines() };
        let job = json!({
            "old": job.stores.old,
            "new": job.stores.new,
            "phase": job.phase.to_string(),
            "label": format!("{}, pid {pid}", job.label),
        });
        child.tell(&job.to_string()).await?;
        let Some(line) = child.output.next_line().await? else {
            // It has said why, on the standard error that all share.
            return Err(format!("a process ended with {}", child.process.wait().await?).into());
        };
        match line.split_once(' ') {
            None if line == "registered" => Ok(child),
            Some(("refused", why)) => Err(leaselock::Error::new(ErrorKind::Rejected, why).into()),
            _ => Err("a process said something else".into()),
        }
    }

    /// Answers it until it ends.
    pub(crate) async fn serve(mut self, seat: Seat) -> Result<(), Failure> {
        while let Some(line) = self.output.next_line().await? {
            self.tell(&seat.answer(&line)?).await?;
        }
        let status = self.process.wait().await?;
        if !status.success() {
            return Err(format!("a process ended with {status}").into());
        }
        Ok(())
    }

    async fn tell(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await
    }
}

/// The child's part.
pub(crate) async fn child() -> Result<ExitCode, Failure> {
    let job: Value = serde_json::from_str(&line().await?)?;
    let text = |name: &str| job[name].as_str().map(str::to_owned).ok_or("no job");
    let job = Job {
        stores: Stores { old: text("old")?, new: text("new")? },
        phase: text("phase")?.parse()?,
        label: text("label")?,
    };
    let worker = match Worker::start(&job).await {
        Ok(worker) => worker,
        Err(error) if error.kind() == ErrorKind::Rejected => {
            println!("refused {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    println!("registered");
    worker.work(&Desk::Parent).await?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn line() -> Result<String, Failure> {
    tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        match io::stdin().read_line(&mut line)? {
            0 => Err("the parent process has gone".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    })
    .await?
}
