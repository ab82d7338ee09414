//! With a shell as the server.

use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

use super::*;

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    test_kill_process(pid).is_ok()
}

fn shell(script: &str) -> LocalServer {
    let files = vec![("file".to_owned(), b"contents".to_vec())];
    let folder = Folder::new("sh", Place::Disk, None).unwrap().with(&files).unwrap();
    let args = vec!["-c".into(), script.into()];
    let launch = Launch { program: find(&["sh"]).unwrap(), args, ..Launch::default() };
    LocalServer::spawn(launch, folder).unwrap()
}

fn sleeper() -> LocalServer {
    shell("cat file; exec sleep 600")
}

#[test]
fn a_dropped_server_is_gone_with_its_folder_even_when_paused() {
    let server = sleeper();
    let (pid, folder) = (server.pid().unwrap(), server.folder().to_owned());
    assert!(alive(pid) && folder.is_dir() && server.exited().is_none());
    server.pause().unwrap();
    drop(server);
    assert!(!alive(pid) && !folder.exists());
}

#[test]
fn a_killed_server_starts_again_in_its_folder() {
    let server = sleeper();
    let first = server.pid().unwrap();
    server.kill();
    assert!(!alive(first) && server.pid().is_none() && server.pause().is_err());
    server.respawn().unwrap();
    server.pause().unwrap();
    server.resume().unwrap();
    server.pause().unwrap();
    assert!(alive(server.pid().unwrap()) && server.folder().join("file").is_file());
}

#[test]
fn the_log_is_kept_for_errors() {
    let server = shell("echo why; exit 3");
    let start = Instant::now();
    while server.exited().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(server.exited().unwrap().code(), Some(3));
    assert_eq!(server.log_tail(), "why\n");
}

/// Like a server of many processes: each in a group of its own.
fn with_children() -> (LocalServer, Vec<u32>) {
    let start_one = "setsid sleep 600 & pids=\"$pids $!\"";
    let server = shell(&format!("{start_one}\n{start_one}\n{start_one}\necho $pids > pids; wait"));
    let file = server.folder().join("pids");
    let start = Instant::now();
    loop {
        let pids = std::fs::read_to_string(&file).unwrap_or_default();
        if pids.ends_with('\n') {
            let pids = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
            return (server, pids);
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn children_share_their_servers_fate() {
    let (server, pids) = with_children();
    assert_eq!(pids.len(), 3);
    server.pause().unwrap();
    if cfg!(target_os = "linux") {
        assert!(pids.iter().all(|&pid| state(pid) == Some('T')), "{pids:?}");
    }
    server.resume().unwrap();
    if cfg!(target_os = "linux") {
        assert!(pids.iter().all(|&pid| matches!(state(pid), Some('S' | 'R' | 'D'))), "{pids:?}");
    }
    server.pause().unwrap();
    server.kill();
    // Ended: whoever inherits them has yet to take note.
    assert!(pids.iter().all(|&pid| matches!(state(pid), None | Some('Z' | 'X'))), "{pids:?}");
}

#[test]
fn the_warden_ends_the_children_of_a_paused_server() {
    let (server, pids) = with_children();
    server.pause().unwrap();
    drop(server.running().as_mut().unwrap().warden.as_mut().unwrap().stdin.take());
    let start = Instant::now();
    while pids.iter().any(|&pid| matches!(state(pid), Some(state) if !"ZX".contains(state))) {
        assert!(start.elapsed() < Duration::from_secs(10), "{pids:?} still run");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_warden_ends_a_server_that_was_left_behind() {
    let server = sleeper();
    let pid = server.pid().unwrap();
    // What the end of this process does: the other end of the warden's input closes.
    drop(server.running().as_mut().unwrap().warden.as_mut().unwrap().stdin.take());
    let start = Instant::now();
    while server.exited().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "{pid} still runs");
        std::thread::sleep(Duration::from_millis(1));
    }
}
