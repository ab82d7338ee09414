//! Servers that are programs on this machine.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Files;

/// The server's standard output and error, inside its folder.
const LOG: &str = "server.log";

/// How much of the log an error shows, in bytes.
const LOG_TAIL: u64 = 4096;

/// A running, paused or killed program with a data folder of its own. Dropping it kills the
/// program and removes the folder.
#[derive(Debug)]
pub(super) struct LocalServer {
    program: PathBuf,
    args: Vec<String>,
    folder: Folder,
    running: Mutex<Option<Running>>,
}

impl LocalServer {
    /// Starts `program` in a new folder that holds `files`. It has not to be up yet, nor to have
    /// succeeded, when this returns.
    pub(super) fn spawn(program: &Path, args: Vec<String>, files: &Files) -> io::Result<Self> {
        let folder = Folder::new(program)?;
        for (name, contents) in files {
            fs::write(folder.0.join(name), contents)?;
        }
        let server = Self { program: program.to_owned(), args, folder, running: Mutex::new(None) };
        server.respawn()?;
        Ok(server)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.server.id())
    }

    /// How the program ended, if it ended by itself.
    pub(super) fn exited(&self) -> Option<ExitStatus> {
        let mut running = self.running();
        running.as_mut()?.server.try_wait().ok()?
    }

    /// Stops the program where it stands; it has stopped when this returns.
    pub(super) fn pause(&self) -> io::Result<()> {
        self.running().as_ref().ok_or_else(not_running)?.pause()
    }

    /// Lets a paused program go on.
    pub(super) fn resume(&self) -> io::Result<()> {
        self.running().as_ref().ok_or_else(not_running)?.resume()
    }

    /// Ends the program as SIGKILL does, paused or not; it is gone when this returns.
    pub(super) fn kill(&self) {
        // Dropping kills.
        let running = self.running().take();
        drop(running);
    }

    /// Starts the program again in the same folder, with the same arguments.
    pub(super) fn respawn(&self) -> io::Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.0.join(LOG))?;
        let server = Command::new(&self.program)
            .args(&self.args)
            .current_dir(&self.folder.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.program.display()))
            })?;
        // From here on the program is killed if anything fails.
        let mut running = Running { server, warden: None };
        running.warden = Some(warden(running.server.id(), &self.folder.0)?);
        *self.running() = Some(running);
        Ok(())
    }

    /// The end of what the program has written, for error messages.
    pub(super) fn log_tail(&self) -> String {
        let read = || {
            let mut log = File::open(self.folder.0.join(LOG))?;
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
        // Before the folder goes.
        self.kill();
    }
}

#[derive(Debug)]
struct Running {
    server: Child,
    warden: Option<Child>,
}

impl Running {
    #[cfg(unix)]
    fn pause(&self) -> io::Result<()> {
        use std::thread;
        use std::time::Duration;

        use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

        let pid = Pid::from_child(&self.server);
        kill_process(pid, Signal::STOP)?;
        // The signal has taken effect when the last thread has stopped, and a program that has
        // ended never stops.
        for _ in 0..2000 {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            if waitid(WaitId::Pid(pid), options)?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(not_running())
    }

    #[cfg(unix)]
    fn resume(&self) -> io::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};

        Ok(kill_process(Pid::from_child(&self.server), Signal::CONT)?)
    }

    #[cfg(not(unix))]
    fn pause(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(not(unix))]
    fn resume(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn not_running() -> io::Error {
    io::Error::other("the server does not run")
}

impl Drop for Running {
    fn drop(&mut self) {
        // The warden first: it must not outlive the number that it would kill.
        for child in self.warden.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a shell that waits until this process is gone, however it ended, and then kills the
/// server and removes its folder. It learns of it by the end of its standard input, a pipe whose
/// other end only this process holds.
#[cfg(unix)]
fn warden(server: u32, folder: &Path) -> io::Result<Child> {
    const SCRIPT: &str = "trap '' HUP INT TERM; read -r _; kill -KILL \"$1\"; rm -rf \"$2\"";
    Command::new("/bin/sh")
        .args(["-c", SCRIPT, "warden", &server.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(not(unix))]
fn warden(_server: u32, _folder: &Path) -> io::Result<Child> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "servers are started on Unix only"))
}

/// A folder that is removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new(program: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        // Short: a Unix socket in it has about 100 bytes for its whole path.
        let name = format!(
            "{program}-{}-{}-{:08x}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed),
            fastrand::u32(..)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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
