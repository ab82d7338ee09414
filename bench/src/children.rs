//! The parent's side of child processes.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::Result;
use crate::job::{Job, Outcome};
use crate::start::{GO, READY};

/// The argument that makes a process a child.
pub(crate) const WORKER: &str = "worker";

/// How long a child may take to be ready, and for its work.
const READY_LIMIT: Duration = Duration::from_secs(120);
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// A child process. Dropping it ends it.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts a child. It is not ready yet.
    pub(crate) async fn start(job: &Job) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = process.stdout.take().ok_or("no standard output")?;
        let mut child = Self { process, input, output: BufReader::new(output).lines() };
        child.tell(&serde_json::to_string(job)?).await?;
        Ok(child)
    }

    pub(crate) async fn ready(&mut self) -> Result<()> {
        match self.hear(READY_LIMIT).await?.as_str() {
            READY => Ok(()),
            other => Err(format!("a child said {other:?}").into()),
        }
    }

    pub(crate) async fn go(&mut self) -> Result<()> {
        self.tell(GO).await
    }

    pub(crate) async fn outcome(&mut self) -> Result<Outcome> {
        let line = self.hear(WORK_LIMIT).await?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until it has ended; it is ended where it does not.
    pub(crate) async fn end(mut self) -> Result<()> {
        if timeout(Duration::from_secs(2), self.process.wait()).await.is_err() {
            self.process.kill().await?;
        }
        Ok(())
    }

    async fn tell(&mut self, line: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn hear(&mut self, limit: Duration) -> Result<String> {
        match timeout(limit, self.output.next_line()).await {
            Ok(line) => Ok(line?.ok_or("a child has ended, and said why")?),
            Err(_) => Err(format!("a child was silent for {limit:?}").into()),
        }
    }
}

/// Has children do one job each at the same time. `between` runs when all are ready, and again
/// when all have done their work: for counters.
pub(crate) async fn together(jobs: &[Job]) -> Result<Running> {
    let mut children = Vec::new();
    for job in jobs {
        children.push(Child::start(job).await?);
    }
    for child in &mut children {
        child.ready().await?;
    }
    Ok(Running(children))
}

/// Children that are ready.
pub(crate) struct Running(Vec<Child>);

impl Running {
    /// Lets all of them work, and answers what each has found.
    pub(crate) async fn work(mut self) -> Result<Vec<Outcome>> {
        for child in &mut self.0 {
            child.go().await?;
        }
        let mut outcomes = Vec::new();
        for child in &mut self.0 {
            outcomes.push(child.outcome().await?);
        }
        for child in self.0 {
            child.end().await?;
        }
        Ok(outcomes)
    }
}

/// Has one child do a job.
pub(crate) async fn alone(job: &Job) -> Result<Outcome> {
    let outcomes = together(std::slice::from_ref(job)).await?.work().await?;
    outcomes.into_iter().next().ok_or_else(|| "no child".into())
}
