//! Ends servers that nobody else will end.

use std::io;
use std::path::Path;
use std::process::Child;

/// Starts a shell that waits until this process is gone, however it ended, and then ends the
/// server, if there is one, and removes its folder. It learns of it by the end of its standard
/// input, a pipe whose other end only this process holds.
#[cfg(unix)]
pub(super) fn warden(folder: &Path, server: &str, quits: bool) -> io::Result<Child> {
    use std::process::{Command, Stdio};

    Command::new("/bin/sh")
        .args(["-c", include_str!("warden.sh"), "warden"])
        .arg(folder)
        .args([server, if quits { "quits" } else { "" }])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

#[cfg(not(unix))]
pub(super) fn warden(_: &Path, _: &str, _: bool) -> io::Result<Child> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "servers are started on Unix only"))
}
