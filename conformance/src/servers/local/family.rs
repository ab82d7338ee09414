//! Signals to a program together with its children.
//!
//! A server like Postgres is many processes, and each of them leads a session of its own: no
//! process group has them all. What they have in common is their parent. While it is stopped it
//! starts no more of them and forgets none that has ended, so the list is complete.

#[cfg(not(unix))]
pub(super) use self::other::{go_on, kill, quit, stop};
#[cfg(unix)]
pub(super) use self::unix::{go_on, kill, quit, stop};

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::io;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

    /// How long a signal may take to have its effect, and a server to end by itself.
    const LIMIT: Duration = Duration::from_secs(2);
    const LOOK_AGAIN: Duration = Duration::from_millis(1);

    /// Stops the program, then its children; all have stopped when this returns.
    pub(in super::super) fn stop(parent: &Child) -> io::Result<()> {
        let pid = Pid::from_child(parent);
        kill_process(pid, Signal::STOP)?;
        // The signal has taken effect when the last thread has stopped.
        let has_stopped = || {
            let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED;
            let options = options | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match waitid(WaitId::Pid(pid), options)? {
                Some(status) if status.stopped() => Ok(true),
                Some(_) => Err(super::super::not_running()),
                None => Ok(false),
            }
        };
        until(has_stopped)?;
        signal_children(pid, Signal::STOP, |state| "TtZX".contains(state))
    }

    /// Lets the program and its children go on.
    pub(in super::super) fn go_on(parent: &Child) -> io::Result<()> {
        let pid = Pid::from_child(parent);
        // First the children: a program that goes on may lose some.
        signal_children(pid, Signal::CONT, |state| !"Tt".contains(state))?;
        Ok(kill_process(pid, Signal::CONT)?)
    }

    /// Kills the children, then the program; all are gone when this returns.
    pub(in super::super) fn kill(parent: &mut Child) {
        // One that has ended by itself takes care of its children, or had none.
        if stop(parent).is_ok() {
            let pid = Pid::from_child(parent);
            let _ = signal_children(pid, Signal::KILL, |state| "ZX".contains(state));
        }
        let _ = parent.kill();
        let _ = parent.wait();
    }

    /// Has the program, paused or not, end by itself, and waits for that, within limits.
    pub(in super::super) fn quit(parent: &mut Child) {
        if go_on(parent).is_ok() && kill_process(Pid::from_child(parent), Signal::QUIT).is_ok() {
            let _ = until(|| Ok(parent.try_wait()?.is_some()));
        }
    }

    /// Sends a signal to all children of a stopped program, and waits until each of those that
    /// can be seen is in a state that `done` accepts.
    fn signal_children(parent: Pid, signal: Signal, done: impl Fn(char) -> bool) -> io::Result<()> {
        let children = children(parent);
        for &child in &children {
            // It may have ended.
            let _ = kill_process(child, signal);
        }
        until(|| Ok(children.iter().all(|&child| state(child).is_none_or(&done))))
    }

    fn children(parent: Pid) -> Vec<Pid> {
        let parent = parent.as_raw_nonzero();
        let file = format!("/proc/{parent}/task/{parent}/children");
        let pids = fs::read_to_string(file).or_else(|_| {
            let mut pgrep = Command::new("pgrep");
            let output = pgrep.arg("-P").arg(parent.to_string()).stderr(Stdio::null()).output()?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&output.stdout).into_owned())
        });
        let pids = pids.unwrap_or_default();
        pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// The letter for the state of a process: `T` stopped, `Z` ended. None where it is gone, or
    /// where systems do not say.
    fn state(pid: Pid) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        // After the program's name, which may hold anything.
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn until(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
        let start = Instant::now();
        while !done()? {
            if start.elapsed() > LIMIT {
                return Err(super::super::not_running());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

#[cfg(not(unix))]
mod other {
    use std::io;
    use std::process::Child;

    pub(in super::super) fn stop(_: &Child) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn go_on(_: &Child) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn kill(parent: &mut Child) {
        let _ = parent.kill();
        let _ = parent.wait();
    }

    pub(in super::super) fn quit(_: &mut Child) {}
}
