//! Several runtimes, and some that nobody runs.

use std::error::Error;
use std::time::{Duration, Instant};

use lockcore::{LockManager, MemoryBackend};
use tokio::runtime::{Builder, Runtime};

type Outcome = Result<(), Box<dyn Error>>;

const TTL: Duration = Duration::from_secs(1);

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn locks() -> Result<LockManager, lockcore::Error> {
    LockManager::builder(MemoryBackend::new()).ttl(TTL).build()
}

/// A guard that is dropped where nobody runs its runtime keeps the key for its ttl, and no longer.
#[test]
fn a_guard_dropped_outside_keeps_others_out_for_its_ttl_at_most() -> Outcome {
    let locks = locks()?;
    let (first, second) = (runtime()?, runtime()?);
    let guard = first.block_on(async { locks.lock("k")?.acquire().await })?;
    drop(guard);
    let began = Instant::now();
    second.block_on(async {
        let limit = Duration::from_secs(20);
        locks.lock("k")?.acquire_timeout(limit).await?.release().await?;
        locks.drain().await;
        Ok::<_, lockcore::Error>(())
    })?;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

/// A guard may be released on another runtime, while nobody runs its own.
#[test]
fn a_guard_is_released_on_another_runtime() -> Outcome {
    let locks = locks()?;
    let (first, second) = (runtime()?, runtime()?);
    let guard = first.block_on(async { locks.lock("k")?.acquire().await })?;
    second.block_on(guard.release())?;
    assert!(second.block_on(async { locks.lock("k")?.try_acquire().await })?.is_some());
    Ok(())
}

/// Without any runtime that runs.
#[test]
fn a_guard_is_released_outside_any_runtime() -> Outcome {
    let locks = locks()?;
    let first = runtime()?;
    let guard = first.block_on(async { locks.lock("k")?.acquire().await })?;
    // A thread of its own, and a second runtime that only waits for it.
    let (done, outcome) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut release = Box::pin(guard.release());
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let std::task::Poll::Ready(outcome) = release.as_mut().poll(&mut context) {
                let _ = done.send(outcome);
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    outcome.recv_timeout(Duration::from_secs(15))??;
    Ok(())
}

/// A task that waits in the queue is not kept from the key by one on a runtime that stands still.
#[test]
fn a_runtime_that_computes_keeps_others_out_for_a_ttl_at_most() -> Outcome {
    let locks = locks()?;
    let busy = std::thread::spawn({
        let locks = locks.clone();
        move || -> Result<(), lockcore::Error> {
            let runtime = runtime().expect("a runtime");
            runtime.block_on(async {
                let guard = locks.lock("k")?.acquire().await?;
                std::thread::sleep(Duration::from_secs(8));
                drop(guard);
                Ok(())
            })
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    let second = runtime()?;
    let began = Instant::now();
    second.block_on(async {
        locks.lock("k")?.acquire_timeout(Duration::from_secs(10)).await?.release().await
    })?;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    busy.join().map_err(|_| "it panicked")??;
    Ok(())
}

/// The renewal goes on where another runtime takes over.
#[test]
fn a_lock_is_renewed_by_the_next_runtime_that_acquires() -> Outcome {
    let locks = locks()?;
    let (first, second) = (runtime()?, runtime()?);
    let early = first.block_on(async { locks.lock("early")?.acquire().await })?;
    // Nobody runs the first any more: its lock is lost.
    std::thread::sleep(TTL);
    assert!(!early.is_valid());
    second.block_on(async {
        // The task of the first is overdue after a second.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let late = locks.lock("late")?.acquire().await?;
        tokio::time::sleep(3 * TTL).await;
        assert!(late.is_valid(), "renewed by a task of the second runtime");
        late.release().await
    })?;
    drop(early);
    Ok(())
}

/// Dropped, and tried again in the same task: the release on its way is waited for.
#[tokio::test]
async fn a_key_can_be_tried_right_after_a_drop() -> Outcome {
    let locks = LockManager::new(MemoryBackend::new());
    for _ in 0..100 {
        let lock = locks.lock("k")?;
        drop(lock.acquire().await?);
        assert!(lock.try_acquire().await?.is_some());
        locks.drain().await;
    }
    Ok(())
}
