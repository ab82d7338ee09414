//! One process in one phase: it takes locks until it is told to leave.

use std::time::Duration;

use leaselock::{ErrorKind, LockGuard, LockManager, Phase, Switchover};
use tokio::time::sleep;

use crate::Failure;
use crate::args::Stores;
use crate::fleet::Seat;
use crate::processes;

/// The longest ttl, which is also that of all locks. A phase stands for three times that after the
/// last process has left it: programs with less patience than a deploy has want it short.
const MAX_TTL: Duration = Duration::from_secs(2);

/// How long a worker waits for a key before it tries another.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) stores: Stores,
    pub(crate) phase: Phase,
    /// For people who look at the status.
    pub(crate) label: String,
}

/// Where a worker asks, by a line that is answered by a line.
///
/// | it says | and is told |
/// |---|---|
/// | `next` | `lock KEY MILLISECONDS`, or `leave` |
/// | `come KEY TOKEN` | `taken` or `refused` |
/// | `go KEY TOKEN` | `taken` or `refused` |
/// | `coming GUARD`, `going GUARD`: refused there, and the guard is `valid` or `lost` | `noted` |
/// | `failed` | `noted` |
pub(crate) enum Desk {
    /// In this process.
    Here(Seat),
    /// In the parent process.
    Parent,
}

impl Desk {
    async fn ask(&self, line: &str) -> Result<String, Failure> {
        match self {
            Self::Here(seat) => seat.answer(line),
            Self::Parent => {
                println!("{line}");
                processes::line().await
            }
        }
    }
}

pub(crate) struct Worker {
    switch: Switchover,
    locks: LockManager,
}

impl Worker {
    /// Registers in the phase; refused while processes are in the opposite one.
    pub(crate) async fn start(job: &Job) -> Result<Self, leaselock::Error> {
        let (old, new) = job.stores.open().await?;
        let switch = Switchover::builder(old, new, job.phase)
            .max_ttl(MAX_TTL)
            .label(&job.label)
            .start()
            .await?;
        let locks = LockManager::builder(switch.clone()).ttl(MAX_TTL).label(&job.label).build()?;
        Ok(Self { switch, locks })
    }

    pub(crate) async fn work(self, desk: &Desk) -> Result<(), Failure> {
        loop {
            let told = desk.ask("next").await?;
            let words: Vec<_> = told.split_whitespace().collect();
            let (key, hold) = match words[..] {
                ["lock", key, hold] => (key, Duration::from_millis(hold.parse()?)),
                ["leave"] => break,
                _ => return Err(format!("told to `{told}`").into()),
            };
            match self.locks.lock(key)?.acquire_timeout(PATIENCE).await {
                Ok(guard) => visit(desk, guard, hold).await?,
                // Others have it.
                Err(error) if error.kind() == ErrorKind::Contended => {}
                Err(error) => failed(desk, &error).await?,
            }
        }
        // Its locks are released. What it gave up is undone; then others may enter the opposite
        // phase.
        self.locks.drain().await;
        self.switch.leave().await;
        Ok(())
    }
}

/// Holds a lock for a time, and shows its token in the beginning and in the end.
async fn visit(desk: &Desk, guard: LockGuard, hold: Duration) -> Result<(), Failure> {
    if shown(desk, &guard, "come", "coming").await? {
        sleep(hold).await;
        // It does not look whether it still has the lock: it is the register that must.
        shown(desk, &guard, "go", "going").await?;
    }
    match guard.release().await {
        Ok(()) => Ok(()),
        Err(error) => failed(desk, &error).await,
    }
}

async fn shown(desk: &Desk, guard: &LockGuard, say: &str, at: &str) -> Result<bool, Failure> {
    let line = format!("{say} {} {}", guard.key(), guard.fencing_token());
    if desk.ask(&line).await? == "taken" {
        return Ok(true);
    }
    // After the answer: valid now is valid then.
    let guard = if guard.is_valid() { "valid" } else { "lost" };
    desk.ask(&format!("{at} {guard}")).await?;
    Ok(false)
}

async fn failed(desk: &Desk, error: &leaselock::Error) -> Result<(), Failure> {
    eprintln!("switchover: {error}");
    desk.ask("failed").await?;
    Ok(())
}
