//! Locks that are held for long, and many keys at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use lockcore::{ErrorKind, LockGuard, LockManager};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::contender::TTL;
use crate::job::{Job, Outcome};
use crate::start::Start;
use crate::stores::{self, OURS};

/// How many are acquired at once.
const AT_ONCE: usize = 128;

pub(crate) async fn hold(
    job: &Job,
    locks: usize,
    ttl: Duration,
    time: Duration,
    start: Start,
) -> Result<Outcome> {
    let manager = stores::manager(job.store, &job.urls, ttl).await?;
    manager.lock(&job.key)?.acquire().await?.release().await?;
    let before = (resident()?, tasks());
    let keys = stream::iter((0..locks).map(|n| acquire(&manager, format!("{}/{n}", job.key))));
    let mut keys = keys.buffer_unordered(AT_ONCE);
    let (mut guards, mut refused) = (Vec::with_capacity(locks), None);
    while let Some(acquired) = keys.next().await {
        match acquired {
            Ok(guard) => guards.push(guard),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused
        && guards.is_empty()
    {
        return Err(error);
    }
    let after = (resident()?, tasks());
    start.wait().await?;
    let busy = cpu();
    sleep(time).await;
    let mut outcome = Outcome::default();
    outcome.add(OURS, "cpu", cpu() - busy);
    let held = guards.iter().filter(|guard| guard.is_valid()).count();
    outcome.add(OURS, "lost", (locks - held) as f64);
    outcome.add(OURS, "tasks", tasks_each(before.1, after.1, locks));
    let grown = after.0.saturating_sub(before.0);
    outcome.add(OURS, "bytes", grown as f64 / locks as f64);
    // The locks end with the process: releasing them one by one would take long.
    std::mem::forget(guards);
    Ok(outcome)
}

async fn acquire(manager: &LockManager, key: String) -> Result<LockGuard> {
    Ok(manager.lock(key)?.acquire().await?)
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

fn tasks_each(before: usize, after: usize, locks: usize) -> f64 {
    after.saturating_sub(before) as f64 / locks as f64
}

/// The memory that this process has, in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?;
    Ok(kib.parse::<usize>()? * 1024)
}

/// The time that this process has computed for, in seconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

pub(crate) async fn free(job: &Job, tasks: usize, start: Start) -> Result<Outcome> {
    let manager = stores::manager(job.store, &job.urls, TTL).await?;
    manager.lock(&job.key)?.acquire().await?.release().await?;
    start.wait().await?;
    let _busy = Busy::start();
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (manager, key) = (manager.clone(), format!("{}/{n}", job.key));
        running.spawn(async move {
            let lock = manager.lock(key)?;
            let acquired = lock.acquire().await;
            Ok::<_, lockcore::Error>((acquired?, begin.elapsed()))
        });
    }
    let (mut ambiguous, mut failed, mut longest) = (0_u32, 0_u32, Duration::ZERO);
    let mut guards = Vec::new();
    while let Some(done) = running.join_next().await {
        match done? {
            Ok((guard, time)) => {
                longest = longest.max(time);
                guards.push(guard);
            }
            Err(error) if error.kind() == ErrorKind::Ambiguous => ambiguous += 1,
            Err(_) => failed += 1,
        }
    }
    let mut outcome = Outcome::default();
    outcome.add(OURS, "ambiguous", f64::from(ambiguous));
    outcome.add(OURS, "failed", f64::from(failed));
    outcome.add(OURS, "longest", longest.as_secs_f64() * 1e3);
    std::mem::forget(guards);
    Ok(outcome)
}

/// Keeps all cores busy until it is dropped, and for a minute at the most.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let busy = Arc::new(AtomicBool::new(true));
        let end = Instant::now() + Duration::from_secs(60);
        for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || {
                while busy.load(Ordering::Relaxed) && Instant::now() < end {
                    std::hint::spin_loop();
                }
            });
        }
        Self(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
