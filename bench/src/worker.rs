//! The child's side: does one job, in a runtime of its own.

use std::time::Duration;

use crate::job::{Job, Outcome, Work};
use crate::start::Start;
use crate::{Result, work};

/// Reads a job from the standard input and does it.
pub(crate) fn run() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let job: Job = serde_json::from_str(&line)?;
    let mut builder = match job.workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(job.workers.max(1)).enable_all().build()?;
    let done = runtime.block_on(async {
        // On a worker thread, as in a program that spawns its tasks.
        tokio::spawn(perform(job)).await?
    });
    println!("{}", serde_json::to_string(&done?)?);
    // Do not wait for tasks that still wait for a key.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

async fn perform(job: Job) -> Result<Outcome> {
    let start = Start::new();
    match job.work.clone() {
        Work::Pair { seconds } => work::cycles::pair(&job, seconds, start).await,
        Work::Tasks { tasks, seconds } => work::cycles::tasks(&job, tasks, seconds, start).await,
        Work::Memory { tasks, seconds } => work::cycles::memory(tasks, seconds, start).await,
        Work::OneKey { tasks } => work::turns::one_key(&job, tasks, start).await,
        Work::Turns(turns) => work::turns::turns(&job, &turns, start).await,
        Work::Wait { waiters, seconds } => work::turns::wait(&job, waiters, seconds, start).await,
        Work::Hold { locks, ttl, seconds } => {
            let (ttl, time) = (Duration::from_secs_f64(ttl), Duration::from_secs_f64(seconds));
            work::hold::hold(&job, locks, ttl, time, start).await
        }
        Work::Free { tasks } => work::hold::free(&job, tasks, start).await,
    }
}
