//! The workers spread over child processes of the same executable.
//!
//! A child is told its job by a line of JSON on its standard input (where no other user of the
//! machine can read the URL), says `ready` when it is connected, begins at the next line, and
//! reports by a line of JSON on its standard output.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::Failure;
use crate::args::{Args, CHILD, Job};
use crate::counter::Counter;
use crate::report::Report;
use crate::workers::{self, Outcome, Tokens};

pub(crate) async fn run(args: &Args) -> Result<Report, Failure> {
    let folder = PrivateFolder::create()?;
    let path = folder.0.join("counter");
    std::fs::write(&path, "")?;
    let counter = Counter::in_file(path.clone());
    counter.write(0)?;

    // Dropping a process ends it: whatever fails here, none is left behind.
    let mut ready = JoinSet::new();
    for n in 0..args.processes {
        let mut job = args.job.clone();
        job.workers = share(args.job.workers, args.processes, n);
        ready.spawn(Process::start(job, path.clone()));
    }
    let mut running = JoinSet::new();
    let mut processes = Vec::new();
    while let Some(process) = ready.join_next().await {
        processes.push(process??);
    }
    let began = Instant::now();
    for process in processes {
        running.spawn(process.run());
    }
    let mut all = Outcome::default();
    while let Some(outcome) = running.join_next().await {
        let outcome = outcome??;
        all.backend_calls += outcome.backend_calls;
        all.waits.extend(outcome.waits);
        if let Some(tokens) = outcome.tokens {
            all.saw(tokens);
        }
    }
    all.wall = began.elapsed();
    Ok(Report::new(args.job.workers, counter.value()?, &all))
}

/// How many of `workers` the `n`th of `processes` gets.
fn share(workers: usize, processes: usize, n: usize) -> usize {
    workers / processes + usize::from(n < workers % processes)
}

/// A child process, as its parent sees it.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start(job: Job, counter: PathBuf) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("--{CHILD}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process has no standard input and output".into());
        };
        let mut process = Self { child, input, output: BufReader::new(output).lines() };
        let job = json!({
            "workers": job.workers,
            "url": job.url,
            "key": job.key,
            "unprotected": job.unprotected,
            "counter": counter.to_str().ok_or("the path of the temporary folder is not UTF-8")?,
        });
        process.tell(&job.to_string()).await?;
        match process.hear().await?.as_str() {
            "ready" => Ok(process),
            other => Err(format!("a process said `{other}` instead of `ready`").into()),
        }
    }

    async fn run(mut self) -> Result<Outcome, Failure> {
        self.tell("go").await?;
        let report: Value = serde_json::from_str(&self.hear().await?)?;
        let status = self.child.wait().await?;
        if !status.success() {
            return Err(format!("a process ended with {status}").into());
        }
        from_json(&report).ok_or_else(|| "a process reported something else".into())
    }

    async fn tell(&mut self, line: &str) -> io::Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await
    }

    async fn hear(&mut self) -> Result<String, Failure> {
        match self.output.next_line().await? {
            Some(line) => Ok(line),
            // It has said why, on the standard error that all share.
            None => Err(format!("a process ended with {}", self.child.wait().await?).into()),
        }
    }
}

/// The child's part.
pub(crate) async fn child() -> Result<ExitCode, Failure> {
    let job: Value = serde_json::from_str(&line().await?)?;
    let text = |name: &str| job[name].as_str().map(str::to_owned).ok_or("no job");
    let counter = Counter::in_file(text("counter")?.into());
    let job = Job {
        workers: job["workers"].as_u64().ok_or("no job")?.try_into()?,
        url: text("url")?,
        key: text("key")?,
        unprotected: job["unprotected"].as_bool().ok_or("no job")?,
    };
    let ready = workers::prepare(&job, counter).await?;
    println!("ready");
    line().await?;
    let outcome = ready.run().await?;
    println!("{}", to_json(&outcome));
    Ok(ExitCode::SUCCESS)
}

async fn line() -> Result<String, Failure> {
    tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        match io::stdin().read_line(&mut line)? {
            0 => Err("the parent process has gone".into()),
            _ => Ok(line),
        }
    })
    .await?
}

fn to_json(outcome: &Outcome) -> Value {
    let waits = outcome.waits.iter().map(Duration::as_nanos);
    json!({
        "backend_calls": outcome.backend_calls,
        "wait_ns": waits.map(|ns| u64::try_from(ns).unwrap_or(u64::MAX)).collect::<Vec<_>>(),
        "tokens": outcome.tokens.map(|tokens| [tokens.first, tokens.last]),
    })
}

fn from_json(report: &Value) -> Option<Outcome> {
    let waits = report["wait_ns"].as_array()?.iter();
    let tokens = &report["tokens"];
    let tokens = match tokens.as_array() {
        Some(tokens) => {
            Some(Tokens { first: tokens.first()?.as_u64()?, last: tokens.get(1)?.as_u64()? })
        }
        None => None,
    };
    Some(Outcome {
        wall: Duration::ZERO,
        backend_calls: report["backend_calls"].as_u64()?,
        waits: waits.map(|ns| ns.as_u64().map(Duration::from_nanos)).collect::<Option<_>>()?,
        tokens,
    })
}

/// A folder that only this user can enter, removed in the end.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn create() -> io::Result<Self> {
        let name = format!("leaselock-counter-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        let mut builder = DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // Fails if it exists: nobody else has prepared it.
        builder.create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        if let Err(error) = std::fs::remove_dir_all(path) {
            eprintln!("counter: {} was not removed: {error}", path.display());
        }
    }
}
