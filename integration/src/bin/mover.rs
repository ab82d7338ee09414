//! Takes locks in a phase of a switch, as fast as it can, until it is told to leave.
//!
//! | command | answer |
//! |---|---|
//! | `start OLD NEW PHASE MAX_TTL_MS` | `started`, or `refused KIND` |
//! | `work WORKERS BUSY IDLE` | `got KEY TOKEN TIME` and `had KEY TOKEN TIME` for each lock |
//! | `leave`, when all locks are released | `left ERRORS`, and it ends |
//!
//! A URL that begins with `ahead+` is of a store whose clock is two seconds ahead. Each lock is of
//! one of `BUSY` keys, or in a phase with one store of one of `IDLE` others. `TIME` is in
//! nanoseconds of a clock that all processes share: a moment at which the lock was valid.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use integration::ahead::Ahead;
use integration::monotonic;
use leaselock::{LockBackend, LockManager, Phase, Switchover};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

/// As long as the shortest lease of all stores.
const TTL: Duration = Duration::from_secs(2);

/// How long a lock is asked for.
const PATIENCE: Duration = Duration::from_secs(3);

async fn store(url: &str) -> Result<Arc<dyn LockBackend>, leaselock::Error> {
    match url.strip_prefix("ahead+") {
        Some(url) => Ok(Arc::new(Ahead::new(leaselock::backend(url).await?))),
        None => leaselock::backend(url).await,
    }
}

async fn start(words: [&str; 4]) -> Result<Switchover, Box<dyn Error>> {
    let [old, new, phase, max_ttl] = words;
    let (old, new, phase) = (store(old).await?, store(new).await?, phase.parse::<Phase>()?);
    // Those who were killed have left locks in one store alone, for a moment.
    let builder = Switchover::builder(old, new, phase).assume_alone();
    Ok(builder.max_ttl(Duration::from_millis(max_ttl.parse()?)).start().await?)
}

/// Said in one piece: the process may be killed at any moment.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

#[derive(Default)]
struct Work {
    over: AtomicBool,
    errors: AtomicUsize,
}

impl Work {
    async fn go_on(&self, locks: LockManager, phase: Phase, busy: usize, idle: usize) {
        while !self.over.load(Ordering::Relaxed) {
            let key = if phase != Phase::Both && fastrand::usize(..4) == 0 {
                format!("idle/{}", fastrand::usize(..idle))
            } else {
                format!("busy/{}", fastrand::usize(..busy))
            };
            let Ok(lock) = locks.lock(&*key) else { return };
            let Ok(guard) = lock.acquire_timeout(PATIENCE).await else {
                self.errors.fetch_add(1, Ordering::Relaxed);
                // A store that refuses must not be asked without a pause.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (token, time) = (guard.fencing_token(), monotonic());
            if guard.is_valid() {
                say(&format!("got {key} {token} {time}"));
            }
            if fastrand::usize(..50) == 0 {
                let hold = Duration::from_millis(fastrand::u64(..300));
                tokio::time::sleep(hold).await;
            }
            // In this order: what is valid later was valid then.
            let (time, token) = (monotonic(), guard.fencing_token());
            if guard.is_valid() {
                say(&format!("had {key} {token} {time}"));
            }
            if fastrand::bool() {
                let _ = guard.release().await;
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut switch, work, mut workers) = (None, Arc::new(Work::default()), JoinSet::new());
    let mut managers = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["start", old, new, phase, max_ttl] => match start([old, new, phase, max_ttl]).await {
                Ok(started) => {
                    switch = Some(started);
                    say("started");
                }
                Err(error) => {
                    eprintln!("{phase}: {error}");
                    let refused = error.downcast_ref::<leaselock::Error>();
                    say(&format!("refused {:?}", refused.map(leaselock::Error::kind)));
                }
            },
            ["work", count, busy, idle] => {
                let switch = switch.as_ref().ok_or("not started")?;
                let (busy, idle) = (busy.parse()?, idle.parse()?);
                for _ in 0..count.parse()? {
                    // Contenders of their own: within one manager they would queue.
                    let locks = LockManager::builder(switch.clone()).ttl(TTL).build()?;
                    let (work, phase) = (work.clone(), switch.phase());
                    managers.push(locks.clone());
                    workers.spawn(async move { work.go_on(locks, phase, busy, idle).await });
                }
            }
            ["leave"] => {
                work.over.store(true, Ordering::Relaxed);
                while workers.join_next().await.is_some() {}
                for locks in &managers {
                    locks.drain().await;
                }
                switch.as_ref().ok_or("not started")?.leave().await;
                say(&format!("left {}", work.errors.load(Ordering::Relaxed)));
                return Ok(());
            }
            _ => return Err(format!("no command: {line}").into()),
        }
    }
    Ok(())
}
