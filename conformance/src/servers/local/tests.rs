//! With a shell as the server.

use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

use super::*;

fn alive(pid: u32) -> bool {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    test_kill_process(pid).is_ok()
}

fn sleeper() -> LocalServer {
    let files = vec![("file".to_owned(), b"contents".to_vec())];
    let sh = find(&["sh"]).unwrap();
    let script = "cat file; exec sleep 600";
    LocalServer::spawn(&sh, vec!["-c".into(), script.into()], &files).unwrap()
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
    let sh = find(&["sh"]).unwrap();
    let args = vec!["-c".into(), "echo why; exit 3".into()];
    let server = LocalServer::spawn(&sh, args, &Files::new()).unwrap();
    let start = Instant::now();
    while server.exited().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
    assert_eq!(server.exited().unwrap().code(), Some(3));
    assert_eq!(server.log_tail(), "why\n");
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
