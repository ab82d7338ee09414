//! Servers in containers, through the program `docker`.

use std::env;
use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockcore::BoxError;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::Files;
use super::local::{Folder, Place};

/// The server's data folder in its container, as in the official images.
const FOLDER: &str = "/data";

/// Marks the containers of one run of tests, see [`super`].
const RUN: &str = "LOCKCORE_TEST_RUN";

/// How long an engine may take to answer that it is there, and to do what it is asked for.
const PING_LIMIT: Duration = Duration::from_secs(5);
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// How much of the log an error shows, in lines.
const LOG_TAIL: &str = "40";

/// A running, paused or killed container. Dropping it removes it, and waits for that.
#[derive(Debug)]
pub(super) struct Container {
    spec: Spec,
    name: String,
}

/// What to run.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    /// `name:tag`.
    pub(super) image: String,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Put into the data folder, where the program starts.
    pub(super) files: Files,
    /// Ports of 127.0.0.1, each with the port that the program listens on.
    pub(super) ports: Vec<(u16, u16)>,
    /// The server is several processes below a shell. An engine lets a paused container go on
    /// before it kills it, and kills the first process first: the others would answer meanwhile.
    pub(super) several: bool,
}

/// The image to run, where there is an engine that can run it: the one that `variable` names, or
/// `default`.
pub(super) async fn image(variable: &str, default: &str) -> Result<String, BoxError> {
    let ping = docker(["version", "--format", "{{.Server.Version}}"]);
    match timeout(PING_LIMIT, ping).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(format!("no Docker engine answers: {error}").into()),
        Err(_) => return Err(format!("no Docker engine answers within {PING_LIMIT:?}").into()),
    }
    let image = env::var(variable).ok().filter(|image| !image.is_empty());
    Ok(image.unwrap_or_else(|| default.to_owned()))
}

impl Container {
    /// Creates and starts the container, after pulling the image if it is missing. The server in
    /// it has not to be up when this returns.
    pub(super) async fn start(spec: Spec) -> Result<Self, BoxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "lockcore-test-{}-{}-{:08x}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed),
            fastrand::u32(..)
        );
        // From here on dropping it removes what there is of it.
        let container = Self { spec, name };
        container.create().await?;
        Ok(container)
    }

    async fn create(&self) -> Result<(), BoxError> {
        let Spec { image, command, env, files, ports, .. } = &self.spec;
        let label = format!("lockcore.test.run={}", env::var(RUN).unwrap_or_default());
        // A volume without a name, which goes with the container: files that change are slow in
        // the layers of some engines.
        let volume = format!("type=volume,target={FOLDER}");
        let mut args: Vec<String> =
            ["create", "--name", &self.name, "--label", &label].map(str::to_owned).into();
        args.extend(["--workdir", FOLDER, "--mount", &volume].map(str::to_owned));
        for (outside, inside) in ports {
            // Published to this machine only, not to its network.
            args.extend(["--publish".to_owned(), format!("127.0.0.1:{outside}:{inside}")]);
        }
        for (name, value) in env {
            args.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        args.push(image.clone());
        args.extend(command.iter().cloned());
        docker(args).await?;
        if !files.is_empty() {
            let folder = Folder::new("files", Place::Disk, None)?;
            for (name, contents) in files {
                // The server's user in the container is to read it.
                std::fs::write(folder.path().join(name), contents)?;
            }
            let contents = format!("{}/.", folder.path().display());
            docker(["cp", &contents, &format!("{}:{FOLDER}", self.name)]).await?;
        }
        docker(["start", &self.name]).await.map(drop)
    }

    /// Removes the container and starts one like it, at the same ports and without any data.
    pub(super) async fn start_afresh(&self) -> Result<(), BoxError> {
        docker(["rm", "--force", "--volumes", &self.name]).await?;
        self.create().await
    }

    /// Runs another program beside the server, and returns what it prints.
    pub(super) async fn exec(&self, program: Vec<String>) -> Result<String, BoxError> {
        let mut args = vec!["exec".to_owned(), self.name.clone()];
        args.extend(program);
        docker(args).await
    }

    /// Stops the server where it stands.
    pub(super) async fn pause(&self) -> Result<(), BoxError> {
        if self.spec.several {
            return self.signal("STOP").await;
        }
        docker(["pause", &self.name]).await.map(drop)
    }

    /// Lets a paused server go on.
    pub(super) async fn resume(&self) -> Result<(), BoxError> {
        if self.spec.several {
            return self.signal("CONT").await;
        }
        docker(["unpause", &self.name]).await.map(drop)
    }

    /// Ends the server as SIGKILL does, paused or not; it is gone when this returns.
    pub(super) async fn kill(&self) -> Result<(), BoxError> {
        if self.spec.several {
            // It fails where the server has ended before, and where it ends too soon for an answer.
            let _ = self.signal("KILL").await;
        }
        // Refused where the server has ended by itself: what counts is that it no longer runs.
        let killed = docker(["kill", &self.name]).await;
        while !self.exited().await {
            if let Err(error) = killed {
                return Err(error);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Sends a signal to all processes but the first, at once.
    async fn signal(&self, name: &str) -> Result<(), BoxError> {
        // By the shell that runs it: any other process would be one of them.
        let command = ["sh".to_owned(), "-c".to_owned(), format!("kill -{name} -1")];
        self.exec(command.into()).await.map(drop)
    }

    /// Starts the server again, at the same ports and with the data it had.
    pub(super) async fn restart(&self) -> Result<(), BoxError> {
        self.kill().await?;
        docker(["start", &self.name]).await.map(drop)
    }

    /// Whether the server has ended.
    pub(super) async fn exited(&self) -> bool {
        let running = docker(["inspect", "--format", "{{.State.Running}}", &self.name]).await;
        running.is_ok_and(|running| running.trim() == "false")
    }

    /// The end of what the server has written, for error messages.
    pub(super) async fn log(&self) -> String {
        let log = docker(["logs", "--tail", LOG_TAIL, &self.name]).await;
        log.unwrap_or_else(|error| format!("(no log: {error})"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Without a runtime, since there may be none any more.
        let mut remove = std::process::Command::new("docker");
        remove.args(["rm", "--force", "--volumes", &self.name]);
        let _ = remove.stdin(Stdio::null()).output();
    }
}

/// Runs `docker` to its success, and returns what it prints.
async fn docker<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<String, BoxError> {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(WORK_LIMIT, command.output()).await {
        Ok(output) => output.map_err(|error| format!("docker: {error}"))?,
        Err(_) => return Err(format!("docker: no answer within {WORK_LIMIT:?}").into()),
    };
    let Output { status, stdout, stderr } = output;
    let text = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if status.success() {
        return Ok(text.concat());
    }
    Err(format!("docker: {status}: {}", text.concat().trim()).into())
}
