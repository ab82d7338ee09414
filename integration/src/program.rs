//! Processes that are told what to do, line by line.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A process that reads commands and answers each by a line. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts a program.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(program: impl AsRef<Path>) -> Self {
        let mut command = Command::new(program.as_ref());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("a process");
        let input = child.stdin.take().expect("a standard input");
        let output = child.stdout.take().expect("a standard output");
        Self { child, input, output: BufReader::new(output).lines() }
    }

    /// Sends a command. It may be sent to a stopped process, which reads it when it goes on.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub async fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it listens");
    }

    /// Waits for the next answer.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub async fn hear(&mut self) -> String {
        let line = self.output.next_line().await.expect("it answers");
        line.expect("it has ended, see its standard error")
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Panics
    ///
    /// If the process has ended.
    pub async fn ask(&mut self, line: &str) -> String {
        self.tell(line).await;
        self.hear().await
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    ///
    /// If the system does not say.
    pub async fn end(mut self) -> ExitStatus {
        drop(self.input);
        self.child.wait().await.expect("an end")
    }

    /// Ends the process by SIGKILL; it is gone when this returns.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Ends the process by SIGKILL, and hears what it had said before.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub async fn kill_and_hear(mut self) -> Vec<String> {
        self.child.kill().await.expect("killed");
        let mut heard = Vec::new();
        // A line that it had only begun is its last.
        while let Ok(Some(line)) = self.output.next_line().await {
            heard.push(line);
        }
        heard
    }

    /// Stops the process where it stands; it has stopped when this returns.
    ///
    /// # Errors
    ///
    /// The system refuses, or has no such signal.
    #[cfg(unix)]
    pub async fn stop(&self) -> io::Result<()> {
        use rustix::process::{Signal, WaitId, WaitIdOptions, kill_process, waitid};

        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), options)?.is_none() {
            tokio::time::sleep(crate::LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// The system refuses, or has no such signal.
    #[cfg(unix)]
    pub fn go_on(&self) -> io::Result<()> {
        use rustix::process::{Signal, kill_process};

        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    #[cfg(unix)]
    fn pid(&self) -> io::Result<rustix::process::Pid> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(rustix::process::Pid::from_raw).ok_or_else(|| io::Error::other("it has ended"))
    }

    /// Stops the process where it stands; it has stopped when this returns.
    ///
    /// # Errors
    ///
    /// The system refuses, or has no such signal.
    #[cfg(not(unix))]
    pub async fn stop(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// The system refuses, or has no such signal.
    #[cfg(not(unix))]
    pub fn go_on(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
