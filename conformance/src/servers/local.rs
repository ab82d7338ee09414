//! Servers that are programs on this machine.

mod family;
mod folder;
mod user;
mod warden;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use self::folder::{Folder, Place};
pub(super) use self::user::User;
use self::warden::warden;

/// The server's standard output and error, inside its folder.
const LOG: &str = "server.log";

/// How much of the log an error shows, in bytes.
const LOG_TAIL: u64 = 4096;

/// How a program is started.
#[derive(Clone, Debug, Default)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Whose process it becomes, for programs that refuse to be root's.
    pub(super) user: Option<User>,
    /// Whether SIGQUIT ends it at once, and leaves nothing behind in the system where SIGKILL
    /// would leave something.
    pub(super) quits: bool,
}

/// A running, paused or killed program with a data folder of its own. Dropping it kills the
/// program and its children, and removes the folder.
#[derive(Debug)]
pub(super) struct LocalServer {
    launch: Launch,
    folder: Folder,
    running: Mutex<Option<Running>>,
}

impl LocalServer {
    /// Starts a program in `folder`. It has not to be up yet, nor to have succeeded, when this
    /// returns.
    pub(super) fn spawn(launch: Launch, folder: Folder) -> io::Result<Self> {
        let server = Self { launch, folder, running: Mutex::new(None) };
        server.respawn()?;
        Ok(server)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.server.id())
    }

    /// How the program ended, if it ended by itself.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        let mut running = self.running();
        running.as_mut()?.server.try_wait().ok()?
    }

    /// Stops the program and its children where they stand; they have stopped when this returns.
    pub(super) fn pause(&self) -> io::Result<()> {
        family::stop(&self.running().as_ref().ok_or_else(not_running)?.server)
    }

    /// Lets a paused program go on.
    pub(super) fn resume(&self) -> io::Result<()> {
        family::go_on(&self.running().as_ref().ok_or_else(not_running)?.server)
    }

    /// Ends the program and its children as SIGKILL does, paused or not; they are gone when this
    /// returns.
    pub(super) fn kill(&self) {
        // Dropping kills.
        let running = self.running().take();
        drop(running);
    }

    /// Starts the program again in the same folder, with the same arguments.
    pub(super) fn respawn(&self) -> io::Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder().join(LOG))?;
        let mut command = self.launch.command();
        let server = command
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| {
                let program = self.launch.program.display();
                io::Error::new(error.kind(), format!("{program}: {error}"))
            })?;
        // From here on the program is killed if anything fails.
        let mut running = Running { server, warden: None };
        let pid = running.server.id().to_string();
        running.warden = Some(warden(self.folder(), &pid, self.launch.quits)?);
        *self.running() = Some(running);
        Ok(())
    }

    /// The end of what the program has written, for error messages.
    pub(super) fn log_tail(&self) -> String {
        let read = || {
            let mut log = File::open(self.folder().join(LOG))?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
            let mut tail = Vec::new();
            log.read_to_end(&mut tail)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // A test that panicked elsewhere must not keep the server from being ended.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        if self.launch.quits
            && let Some(running) = self.running().as_mut()
        {
            family::quit(&mut running.server);
        }
        // Before the folder goes.
        self.kill();
    }
}

impl Launch {
    /// The command; the program's own files are those of its user.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            user.runs(&mut command);
        }
        command
    }
}

#[derive(Debug)]
struct Running {
    server: Child,
    warden: Option<Child>,
}

fn not_running() -> io::Error {
    io::Error::other("the server does not run")
}

impl Drop for Running {
    fn drop(&mut self) {
        // The warden first: it must not outlive the number that it would kill.
        if let Some(warden) = &mut self.warden {
            let _ = warden.kill();
            let _ = warden.wait();
        }
        family::kill(&mut self.server);
    }
}

/// Finds the first of these programs on the search path.
pub(super) fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    programs.iter().find_map(|program| {
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
    })
}

#[cfg(all(test, unix))]
mod tests;
