//! Servers in containers, through testcontainers.

use std::env;
use std::error::Error;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use lockcore::BoxError;
use testcontainers::bollard::models::{Mount, MountType};
use testcontainers::bollard::query_parameters::{
    RemoveContainerOptions, RemoveContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{ExecCommand, IntoContainerPort};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};

use super::Files;

/// The server's data folder in its container, as in the official images.
const FOLDER: &str = "/data";

/// Marks the containers of one run of tests, see [`super`].
const RUN: &str = "LOCKCORE_TEST_RUN";

/// How long an engine may take to answer that it is there, and to remove a container.
const PING_LIMIT: Duration = Duration::from_secs(2);
const REMOVE_LIMIT: Duration = Duration::from_secs(30);

/// How much of the log an error shows, in bytes.
const LOG_TAIL: usize = 4096;

/// All talk with the engine happens here. A test's own runtime may end while its server, in a
/// static or in another thread, still needs the engine, and dropping a server must work without
/// any runtime.
static ENGINE: LazyLock<Runtime> = LazyLock::new(|| {
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("containers")
        .enable_all()
        .build()
        .expect("a runtime for the container engine")
});

/// A running, paused or killed container. Dropping it removes it, and waits for that.
#[derive(Debug)]
pub(super) struct Container {
    spec: Spec,
    running: Mutex<Option<Arc<Running>>>,
}

type Running = ContainerAsync<GenericImage>;

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
    if !engine_answers().await {
        return Err("no Docker engine answers".into());
    }
    let image = env::var(variable).ok().filter(|image| !image.is_empty());
    Ok(image.unwrap_or_else(|| default.to_owned()))
}

async fn engine_answers() -> bool {
    let ping = async { docker_client_instance().await.ok()?.ping().await.ok() };
    let answer = ENGINE.spawn(async move { timeout(PING_LIMIT, ping).await });
    matches!(answer.await, Ok(Ok(Some(_))))
}

impl Container {
    /// Creates and starts the container, after pulling the image if it is missing. The server in
    /// it has not to be up when this returns.
    pub(super) async fn start(spec: Spec) -> Result<Self, BoxError> {
        let running = ENGINE.spawn(create(spec.clone())).await??;
        Ok(Self { spec, running: Mutex::new(Some(running)) })
    }

    /// Removes the container and starts one like it, at the same ports and without any data.
    pub(super) async fn start_afresh(&self) -> Result<(), BoxError> {
        let old = self.running().take();
        // Also removed when this future is dropped.
        let old = Self { spec: self.spec.clone(), running: Mutex::new(old) };
        old.on_engine(|container| async move {
            kill(&container).await?;
            let engine = docker_client_instance().await?;
            Ok(engine.remove_container(container.id(), Some(with_its_volume())).await?)
        })
        .await?;
        let new = ENGINE.spawn(create(self.spec.clone())).await??;
        *self.running() = Some(new);
        Ok(())
    }

    /// Runs another program beside the server, and returns what it prints. The image has a shell.
    pub(super) async fn exec(&self, program: Vec<String>) -> Result<String, BoxError> {
        // How it ended is the last thing printed: what testcontainers has for that cannot be
        // moved between threads.
        let mut command: Vec<_> =
            ["sh", "-c", "\"$@\" 2>&1; echo \"$?\"", "sh"].map(str::to_owned).into();
        command.extend(program);
        self.on_engine(|container| async move {
            let output = container.exec(ExecCommand::new(command)).await?.stdout_to_vec().await?;
            let output = String::from_utf8_lossy(&output);
            match output.trim_end().rsplit_once('\n').unwrap_or(("", output.trim_end())) {
                (output, "0") => Ok(output.to_owned()),
                (output, _) => Err(output.trim_end().into()),
            }
        })
        .await
    }

    /// Stops the server where it stands.
    pub(super) async fn pause(&self) -> Result<(), BoxError> {
        if self.spec.several {
            return self.signal("STOP").await;
        }
        self.on_engine(|container| async move { Ok(container.pause().await?) }).await
    }

    /// Lets a paused server go on.
    pub(super) async fn resume(&self) -> Result<(), BoxError> {
        if self.spec.several {
            return self.signal("CONT").await;
        }
        self.on_engine(|container| async move { Ok(container.unpause().await?) }).await
    }

    /// Ends the server as SIGKILL does, paused or not; it is gone when this returns.
    pub(super) async fn kill(&self) -> Result<(), BoxError> {
        if self.spec.several {
            // It fails where the server has ended before, and where it ends too soon for an answer.
            let _ = self.signal("KILL").await;
        }
        self.on_engine(|container| async move { kill(&container).await }).await
    }

    /// Sends a signal to all processes but the first, at once.
    async fn signal(&self, name: &str) -> Result<(), BoxError> {
        // By the shell that runs it: any other process would be one of them.
        let command = ["kill", &format!("-{name}"), "-1"].map(str::to_owned);
        self.exec(command.into()).await.map(drop)
    }

    /// Starts the server again, at the same ports and with the data it had.
    pub(super) async fn restart(&self) -> Result<(), BoxError> {
        self.kill().await?;
        self.on_engine(|container| async move { Ok(container.start().await?) }).await
    }

    /// Whether the server has ended.
    pub(super) async fn exited(&self) -> bool {
        let running = self.on_engine(|container| async move { Ok(container.is_running().await?) });
        !running.await.unwrap_or(true)
    }

    /// The end of what the server has written, for error messages.
    pub(super) async fn log(&self) -> String {
        let log = self.on_engine(|container| async move {
            let mut log = container.stdout_to_vec().await?;
            log.extend(container.stderr_to_vec().await?);
            let tail = &log[log.len().saturating_sub(LOG_TAIL)..];
            Ok(String::from_utf8_lossy(tail).into_owned())
        });
        log.await.unwrap_or_else(|error| format!("(no log: {error})"))
    }

    async fn on_engine<T, F>(&self, work: impl FnOnce(Arc<Running>) -> F) -> Result<T, BoxError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BoxError>> + Send + 'static,
    {
        let container = self.running().clone().ok_or("the container is gone")?;
        ENGINE.spawn(work(container)).await?
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        // A test that panicked elsewhere must not keep the container from being removed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(container) = self.running().take() else {
            return;
        };
        let (done, wait) = mpsc::channel::<()>();
        ENGINE.spawn(async move {
            // Where a task still works on the container, its end removes it.
            if let Some(container) = Arc::into_inner(container) {
                let _ = container.rm().await;
            }
            drop(done);
        });
        let _ = wait.recv_timeout(REMOVE_LIMIT);
    }
}

fn with_its_volume() -> RemoveContainerOptions {
    RemoveContainerOptionsBuilder::new().v(true).build()
}

async fn create(spec: Spec) -> Result<Arc<Running>, BoxError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "lockcore-test-{}-{}-{:08x}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed),
        fastrand::u32(..)
    );
    let (image, tag) = match spec.image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((image, tag)) if !tag.contains('/') => (image, tag),
        _ => (spec.image.as_str(), "latest"),
    };
    let mut request = GenericImage::new(image, tag)
        .with_cmd(spec.command)
        .with_container_name(&name)
        .with_working_dir(FOLDER)
        .with_label("lockcore.test.run", env::var(RUN).unwrap_or_default())
        .with_host_config_modifier(|host| {
            // A volume without a name, which goes with the container: files that change are slow in
            // the layers of some engines.
            host.mounts.get_or_insert_default().push(Mount {
                target: Some(FOLDER.to_owned()),
                typ: Some(MountType::VOLUME),
                ..Mount::default()
            });
            // Published to this machine only, not to its network.
            for binding in host
                .port_bindings
                .iter_mut()
                .flat_map(|bindings| bindings.values_mut())
                .flatten()
                .flatten()
            {
                binding.host_ip = Some(Ipv4Addr::LOCALHOST.to_string());
            }
        });
    for (outside, inside) in spec.ports {
        request = request.with_mapped_port(outside, inside.tcp());
    }
    for (name, value) in spec.env {
        request = request.with_env_var(name, value);
    }
    for (name, contents) in spec.files {
        request = request.with_copy_to(format!("{FOLDER}/{name}"), contents);
    }
    match request.start().await {
        Ok(container) => Ok(Arc::new(container)),
        Err(error) => {
            // Created, but not started: nothing else knows of it.
            if let Ok(engine) = docker_client_instance().await {
                let _ = engine.remove_container(&name, Some(with_its_volume())).await;
            }
            Err(with_causes(&error))
        }
    }
}

/// One line that also says what the error's sources say: testcontainers keeps the engine's own
/// words there.
fn with_causes(error: &dyn Error) -> BoxError {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_line = cause.to_string();
        if !line.contains(&cause_line) {
            line = format!("{line}: {cause_line}");
        }
        source = cause.source();
    }
    line.into()
}

async fn kill(container: &Running) -> Result<(), BoxError> {
    let engine = docker_client_instance().await?;
    // Refused where the server has ended by itself: what counts is that it no longer runs.
    let killed = engine.kill_container(container.id(), None).await;
    while container.is_running().await? {
        if let Err(error) = killed {
            return Err(error.into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
