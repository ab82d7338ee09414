//! One key that many want.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

use crate::Result;
use crate::contender::Contender;
use crate::job::{Job, Outcome, Turns};
use crate::start::Start;
use crate::stores;

/// How long those that still wait at the end are waited for. An etcd whose lock service is left with
/// waiters that have gone wakes nobody afterwards.
const GRACE: Duration = Duration::from_secs(2);
/// The longest pause before the next turn, in microseconds: processes must not march in step.
const PAUSE: u64 = 1_000;
/// How long a waiter may take to have settled down.
const SETTLE: Duration = Duration::from_millis(1_500);

pub(crate) async fn one_key(job: &Job, tasks: usize, start: Start) -> Result<Outcome> {
    let name = &job.contenders[0];
    let contender = stores::connect(job.store, name, &job.urls).await?;
    // Scripts and statements are made ready on another key.
    contender.acquire(&format!("{}/ready", job.key)).await?.release().await?;
    start.wait().await?;
    let barrier = Arc::new(Barrier::new(tasks + 1));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (contender, key) = (Arc::clone(&contender), format!("{}/one", job.key));
        let barrier = Arc::clone(&barrier);
        running.spawn(async move {
            barrier.wait().await;
            contender.acquire(&key).await?.release().await
        });
    }
    barrier.wait().await;
    let begin = Instant::now();
    while let Some(done) = running.join_next().await {
        done??;
    }
    let mut outcome = Outcome::default();
    outcome.add(name, "wall", begin.elapsed().as_secs_f64() * 1e3);
    Ok(outcome)
}

pub(crate) async fn turns(job: &Job, turns: &Turns, start: Start) -> Result<Outcome> {
    let contender = stores::connect(job.store, &job.contenders[0], &job.urls).await?;
    let key = format!("{}/turns", job.key);
    if turns.first {
        contender.prepare(&key).await?;
    }
    start.wait().await?;
    let until = tokio::time::Instant::now() + Duration::from_secs_f64(turns.seconds);
    let mut running = JoinSet::new();
    for _ in 0..turns.tasks {
        let (contender, key) = (Arc::clone(&contender), key.clone());
        running.spawn(take_turns(contender, key, Duration::from_secs_f64(turns.hold), until));
    }
    let mut outcome = Outcome::default();
    while let Some(taken) = running.join_next().await {
        outcome.turns.extend(taken??);
    }
    Ok(outcome)
}

async fn take_turns(
    contender: Arc<dyn Contender>,
    key: String,
    hold: Duration,
    until: tokio::time::Instant,
) -> Result<Vec<[u64; 3]>> {
    let mut turns = Vec::new();
    while tokio::time::Instant::now() < until {
        sleep(Duration::from_micros(fastrand::u64(0..PAUSE))).await;
        let wanted = now();
        let Ok(held) = timeout_at(until + GRACE, contender.acquire(&key)).await else {
            turns.push([wanted, 0, 0]);
            break;
        };
        let (held, granted) = (held?, now());
        sleep(hold).await;
        turns.push([wanted, granted, now()]);
        held.release().await?;
    }
    Ok(turns)
}

/// The machine's monotonic clock, which all processes read alike.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Waits for a key that another process holds, and does nothing else.
pub(crate) async fn wait(job: &Job, waiters: usize, seconds: f64, start: Start) -> Result<Outcome> {
    let contender = stores::connect(job.store, &job.contenders[0], &job.urls).await?;
    let mut running = JoinSet::new();
    for _ in 0..waiters {
        let (contender, key) = (Arc::clone(&contender), format!("{}/turns", job.key));
        running.spawn(async move { contender.acquire(&key).await.map(drop) });
    }
    sleep(SETTLE).await;
    start.wait().await?;
    sleep(Duration::from_secs_f64(seconds)).await;
    match running.try_join_next() {
        None => Ok(Outcome::default()),
        Some(_) => Err("a waiter has ended".into()),
    }
}
