//! Runtimes of processes, each of which may stand still.

use std::time::Duration;

use lockcore::simulation::Process;
use tokio::time::Instant;

/// One runtime of a process.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) process: Process,
    /// It stands still since then.
    since: Option<Instant>,
    /// For how long it stood still before.
    stood: Duration,
    /// When it last went on.
    pub(crate) resumed: Instant,
}

impl Runtime {
    pub(crate) fn new(process: Process) -> Self {
        Self { process, since: None, stood: Duration::ZERO, resumed: Instant::now() }
    }

    pub(crate) fn runs(&self) -> bool {
        self.since.is_none()
    }

    pub(crate) fn stop(&mut self) {
        self.since.get_or_insert_with(Instant::now);
        self.process.stop();
    }

    /// Its tasks are to go on, once nobody looks at the state.
    #[must_use = "the process has to be resumed"]
    pub(crate) fn resume(&mut self) -> Option<Process> {
        let now = Instant::now();
        self.stood += now - self.since.take()?;
        self.resumed = now;
        Some(self.process.clone())
    }

    /// For how long it has stood still until now.
    pub(crate) fn stood_for(&self, now: Instant) -> Duration {
        self.stood + self.since.map_or(Duration::ZERO, |since| now - since)
    }
}
