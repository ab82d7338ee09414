//! Progress, on the standard error.

use std::io::{IsTerminal, Write, stderr};
use std::time::Instant;

pub(crate) struct Progress {
    terminal: bool,
    begin: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: stderr().is_terminal(), begin: Instant::now() }
    }
}

impl Progress {
    /// A step that takes a moment: the next one takes its place on a terminal.
    pub(crate) fn step(&self, text: &str) {
        let time = self.time();
        if self.terminal {
            eprint!("\r\x1b[2K{time} {text}");
            let _ = stderr().flush();
        } else {
            eprintln!("{time} {text}");
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        let begin = if self.terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{begin}{} {text}", self.time());
    }

    fn time(&self) -> String {
        let seconds = self.begin.elapsed().as_secs();
        format!("{:02}:{:02}", seconds / 60, seconds % 60)
    }
}
