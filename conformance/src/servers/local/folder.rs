//! The data folders of servers.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Files;
use super::{User, warden};

/// Where a folder is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// Among the system's temporary files.
    Disk,
    /// In memory where there is room, for servers that wait for the disk on every write.
    Memory,
}

/// What a server keeps in memory at the most, and several of them.
#[cfg(target_os = "linux")]
const ROOM: u64 = 2 << 30;

/// A folder that is removed when dropped, and where this process ends without dropping it.
#[derive(Debug)]
pub(in super::super) struct Folder {
    path: PathBuf,
    owner: Option<User>,
    warden: Option<Child>,
}

impl Folder {
    /// Makes a folder, which belongs to `owner` if there is one and to this process's user if
    /// not.
    pub(in super::super) fn new(name: &str, place: Place, owner: Option<User>) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Short: a Unix socket in it has about 100 bytes for its whole path.
        let name = format!(
            "{name}-{}-{}-{:08x}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed),
            fastrand::u32(..)
        );
        let memory = memory().filter(|_| place == Place::Memory);
        let path = memory.unwrap_or_else(std::env::temp_dir).join(name);
        fs::create_dir(&path)?;
        // From here on it is removed if anything fails.
        let mut folder = Self { path, owner, warden: None };
        folder.warden = Some(warden(&folder.path, "", false)?);
        if let Some(owner) = owner {
            owner.owns(&folder.path)?;
        }
        Ok(folder)
    }

    pub(in super::super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes files that only the owner may read.
    pub(in super::super) fn with(self, files: &Files) -> io::Result<Self> {
        for (name, contents) in files {
            let path = self.path.join(name);
            let mut options = fs::File::options();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path)?.write_all(contents)?;
            if let Some(owner) = self.owner {
                owner.owns(&path)?;
            }
        }
        Ok(self)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(warden) = &mut self.warden {
            let _ = warden.kill();
            let _ = warden.wait();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A folder whose files are in memory, with room.
#[cfg(target_os = "linux")]
fn memory() -> Option<PathBuf> {
    let path = PathBuf::from("/dev/shm");
    let space = rustix::fs::statvfs(&path).ok()?;
    let room = space.f_bavail.saturating_mul(space.f_frsize) >= ROOM;
    let writable = rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok();
    (room && writable).then_some(path)
}

#[cfg(not(target_os = "linux"))]
fn memory() -> Option<PathBuf> {
    None
}
