//! Acquire and release without contention.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey, LockManager, MemoryBackend};
use tokio::task::JoinSet;

use crate::Result;
use crate::contender::{Contender, TTL};
use crate::job::{Job, Outcome};
use crate::results::at;
use crate::start::Start;
use crate::stores::{self, OURS, RAW};

/// How many cycles a contender does before the next one's turn. Short turns, so that other work
/// on the machine slows all of them.
const TURN: usize = 20;
const WARM_UP: usize = 50;
/// With many tasks the time is divided into so many turns, for the same reason.
const SLICES: u32 = 4;

type Connected = Vec<(String, Arc<dyn Contender>)>;

/// Connects the contenders, and notes why one cannot be connected.
async fn connect(job: &Job, outcome: &mut Outcome) -> Connected {
    let mut connected = Vec::new();
    for name in &job.contenders {
        match stores::connect(job.store, name, &job.urls).await {
            Ok(contender) => connected.push((name.clone(), contender)),
            Err(error) => drop(outcome.failed.insert(name.clone(), error.to_string())),
        }
    }
    connected
}

async fn cycle(contender: &dyn Contender, key: &str) -> Result<()> {
    contender.acquire(key).await?.release().await
}

pub(crate) async fn pair(job: &Job, seconds: f64, start: Start) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let contenders = connect(job, &mut outcome).await;
    let key = format!("{}/pair", job.key);
    start.wait().await?;
    for (_, contender) in &contenders {
        for _ in 0..WARM_UP {
            cycle(&**contender, &key).await?;
        }
    }
    let mut times = vec![Vec::new(); contenders.len()];
    let all = seconds * contenders.len() as f64;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < all {
        for ((_, contender), times) in contenders.iter().zip(&mut times) {
            for _ in 0..TURN {
                let begin = Instant::now();
                cycle(&**contender, &key).await?;
                times.push(micros(begin.elapsed()));
            }
        }
    }
    for ((name, _), times) in contenders.iter().zip(&mut times) {
        outcome.add(name, "p50", at(times, 0.5));
        outcome.add(name, "p99", at(times, 0.99));
    }
    Ok(outcome)
}

pub(crate) async fn tasks(job: &Job, tasks: usize, seconds: f64, start: Start) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let contenders = connect(job, &mut outcome).await;
    start.wait().await?;
    let mut measured = vec![(Vec::new(), 0.0); contenders.len()];
    // The first turn is for scripts, statements and pools to be made ready.
    for turn in 0..=SLICES {
        for ((name, contender), (times, wall)) in contenders.iter().zip(&mut measured) {
            if outcome.failed.contains_key(name) {
                continue;
            }
            let begin = Instant::now();
            match many(contender, &job.key, tasks, seconds / f64::from(SLICES)).await {
                Err(error) => drop(outcome.failed.insert(name.clone(), error.to_string())),
                Ok(_) if turn == 0 => {}
                Ok(more) => {
                    times.extend(more);
                    *wall += begin.elapsed().as_secs_f64();
                }
            }
        }
    }
    for ((name, _), (times, wall)) in contenders.iter().zip(&mut measured) {
        if !outcome.failed.contains_key(name) {
            outcome.add(name, "ops/s", times.len() as f64 / *wall);
            outcome.add(name, "p50", at(times, 0.5));
            outcome.add(name, "p99", at(times, 0.99));
        }
    }
    Ok(outcome)
}

async fn many(
    contender: &Arc<dyn Contender>,
    prefix: &str,
    tasks: usize,
    seconds: f64,
) -> Result<Vec<f64>> {
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (contender, key) = (Arc::clone(contender), format!("{prefix}/{n}"));
        running.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let begin = Instant::now();
                cycle(&*contender, &key).await?;
                times.push(micros(begin.elapsed()));
            }
            Ok::<_, crate::Failure>(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = running.join_next().await {
        all.extend(times??);
    }
    Ok(all)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Cycles between two looks at the clock.
const BATCH: u32 = 200;

/// The memory store, with nothing between the loop and the library.
#[derive(Clone)]
enum Memory {
    Backend(MemoryBackend),
    Manager(LockManager),
}

impl Memory {
    async fn batch(&self, key: &str) -> Result<()> {
        match self {
            Self::Backend(backend) => {
                let key = LockKey::new(key)?;
                for _ in 0..BATCH {
                    let claim = Claim::new(key.clone(), HolderId::random(), TTL);
                    let Acquire::Acquired(_) = backend.acquire(&claim).await? else {
                        return Err("held".into());
                    };
                    backend.release(&claim).await?;
                }
            }
            Self::Manager(manager) => {
                let lock = manager.lock(key)?;
                for _ in 0..BATCH {
                    lock.acquire().await?.release().await?;
                }
            }
        }
        Ok(())
    }
}

pub(crate) async fn memory(tasks: usize, seconds: f64, start: Start) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    start.wait().await?;
    let backend = MemoryBackend::new();
    let manager = LockManager::builder(backend.clone()).label("bench").build()?;
    for (name, memory) in [(RAW, Memory::Backend(backend)), (OURS, Memory::Manager(manager))] {
        batches(tasks, seconds / 5.0, &memory).await?;
        outcome.add(name, "ns", batches(tasks, seconds, &memory).await?);
    }
    Ok(outcome)
}

/// Nanoseconds per cycle, of all tasks together.
async fn batches(tasks: usize, seconds: f64, memory: &Memory) -> Result<f64> {
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let memory = memory.clone();
        running.spawn(async move {
            let (key, mut times) = (format!("key {n}"), Vec::new());
            while begin.elapsed().as_secs_f64() < seconds {
                let begin = Instant::now();
                memory.batch(&key).await?;
                times.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
                // Nothing here waits for anything: the others have their turn here.
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::Failure>(times)
        });
    }
    let mut all = Vec::new();
    while let Some(times) = running.join_next().await {
        all.extend(times??);
    }
    let wall = begin.elapsed().as_secs_f64() * 1e9;
    // One task: the median keeps a pause of the machine out.
    Ok(if tasks == 1 { at(&mut all, 0.5) } else { wall / (f64::from(BATCH) * all.len() as f64) })
}
