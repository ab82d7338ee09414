//! The workers of one process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leaselock::{Lock, LockManager};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::Failure;
use crate::args::Job;
use crate::counted::Counted;
use crate::counter::Counter;

/// Workers that are connected and only need to be told to begin.
pub(crate) struct Ready {
    workers: usize,
    counter: Counter,
    locked: Option<Locked>,
}

struct Locked {
    store: Counted,
    locks: LockManager,
    lock: Lock,
}

/// What became of the workers of one process, or of several.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) wall: Duration,
    pub(crate) backend_calls: u64,
    /// For each worker, the time from asking for the lock to having it.
    pub(crate) waits: Vec<Duration>,
    pub(crate) tokens: Option<Tokens>,
}

/// The smallest and the largest fencing token: those of the first and the last acquisition.
#[derive(Clone, Copy)]
pub(crate) struct Tokens {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Outcome {
    pub(crate) fn saw(&mut self, tokens: Tokens) {
        let seen = self.tokens.get_or_insert(tokens);
        seen.first = seen.first.min(tokens.first);
        seen.last = seen.last.max(tokens.last);
    }
}

pub(crate) async fn prepare(job: &Job, counter: Counter) -> Result<Ready, Failure> {
    let locked = if job.unprotected {
        None
    } else {
        let store = Counted::new(leaselock::backend(&job.url).await?);
        let locks = LockManager::new(store.clone());
        let lock = locks.lock(&job.key)?;
        Some(Locked { store, locks, lock })
    };
    Ok(Ready { workers: job.workers, counter, locked })
}

impl Ready {
    /// Lets all workers loose at once.
    pub(crate) async fn run(self) -> Result<Outcome, Failure> {
        let start = Arc::new(Barrier::new(self.workers + 1));
        let mut workers = JoinSet::new();
        for _ in 0..self.workers {
            let (start, counter) = (start.clone(), self.counter.clone());
            let lock = self.locked.as_ref().map(|locked| locked.lock.clone());
            workers.spawn(async move {
                start.wait().await;
                work(lock, &counter).await
            });
        }
        start.wait().await;
        let began = Instant::now();
        let mut outcome = Outcome::default();
        let mut failure = None;
        while let Some(result) = workers.join_next().await {
            match result.map_err(Failure::from).flatten() {
                Ok(Some((wait, token))) => {
                    outcome.waits.push(wait);
                    outcome.saw(Tokens { first: token, last: token });
                }
                Ok(None) => {}
                // Those that are aborted fail as well.
                Err(_) if failure.is_some() => {}
                Err(error) => {
                    workers.abort_all();
                    failure = Some(error);
                }
            }
        }
        outcome.wall = began.elapsed();
        if let Some(locked) = &self.locked {
            // Whatever an aborted worker held is released, too, before the process ends.
            locked.locks.drain().await;
            outcome.backend_calls = locked.store.calls();
        }
        failure.map_or(Ok(outcome), Err)
    }
}

/// Adds 1, under the lock if there is one: then how long the worker waited, and its token.
async fn work(lock: Option<Lock>, counter: &Counter) -> Result<Option<(Duration, u64)>, Failure> {
    let Some(lock) = lock else {
        counter.add_one().await?;
        return Ok(None);
    };
    let asked = Instant::now();
    let guard = lock.acquire().await?;
    let wait = asked.elapsed();
    // Stops adding should the lock be lost meanwhile.
    guard.run(counter.add_one()).await??;
    let token = guard.fencing_token();
    guard.release().await?;
    Ok(Some((wait, token)))
}
