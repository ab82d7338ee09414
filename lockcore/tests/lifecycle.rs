//! Guards and runtimes: whichever ends first.

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, ErrorKind, LeaseInfo, Limits, LockBackend, LockKey, LockManager,
    LostReason, MemoryBackend, Release, ReleaseSignal, Renew, async_trait,
};
use tokio::runtime::{Builder, Runtime};

type Outcome = Result<(), Box<dyn Error>>;

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A lock needs tasks and timers: without a runtime it says so, and does not panic.
#[test]
fn acquiring_outside_a_runtime_is_an_error() -> Outcome {
    let lock = LockManager::new(MemoryBackend::new()).lock("k")?;
    let acquire = pin!(lock.acquire());
    let Poll::Ready(outcome) = acquire.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for a runtime")
    };
    assert_eq!(outcome.err().map(|error| error.kind()), Some(ErrorKind::InvalidInput));
    Ok(())
}

#[test]
fn a_guard_outlives_its_runtime_without_a_panic() -> Outcome {
    let store = MemoryBackend::new();
    let locks = LockManager::new(store);
    let first = runtime()?;
    let guard = first.block_on(async { locks.lock("k")?.acquire().await })?;
    let lost = guard.lost();
    drop(first);
    assert!(guard.is_valid(), "the lease stands all the same");
    drop(guard);
    // Whoever listens is told, and what could not be released is not waited for.
    let second = runtime()?;
    second.block_on(async {
        assert_eq!(lost.await, LostReason::Released);
        locks.drain().await;
    });
    Ok(())
}

#[test]
fn releasing_after_the_runtime_works() -> Outcome {
    let locks = LockManager::new(MemoryBackend::new());
    let first = runtime()?;
    let guard = first.block_on(async { locks.lock("k")?.acquire().await })?;
    drop(first);
    let second = runtime()?;
    second.block_on(guard.release())?;
    assert!(second.block_on(async { locks.lock("k")?.try_acquire().await })?.is_some());
    Ok(())
}

/// Wakes the thread that waits.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// From a thread that knows no tokio, while the runtime of the guard goes on.
#[test]
fn releasing_outside_a_runtime_works() -> Outcome {
    let locks = LockManager::new(MemoryBackend::new());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let guard = runtime.block_on(async { locks.lock("k")?.acquire().await })?;
    let mut release = pin!(guard.release());
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let outcome = loop {
        match release.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => break outcome,
            Poll::Pending => std::thread::park(),
        }
    };
    outcome?;
    assert_eq!(runtime.block_on(locks.inspect("k"))?, None);
    Ok(())
}

/// A panic in the work unwinds through the guard, which releases.
#[tokio::test]
async fn a_panic_releases() -> Outcome {
    let locks = LockManager::new(MemoryBackend::new());
    let lock = locks.lock("k")?;
    let panicked = tokio::spawn(async move {
        let _guard = lock.acquire().await;
        std::panic::resume_unwind(Box::new("the work failed"));
    });
    assert!(panicked.await.is_err());
    locks.drain().await;
    assert!(locks.lock("k")?.try_acquire().await?.is_some());
    Ok(())
}

/// No worker of the runtime runs for longer than the lease lives: the guard knows by the clock
/// alone, before any task has run.
#[test]
fn a_blocked_runtime_does_not_hide_the_loss() -> Outcome {
    runtime()?.block_on(async {
        let locks =
            LockManager::builder(MemoryBackend::new()).ttl(Duration::from_millis(60)).build()?;
        let guard = locks.lock("k")?.acquire().await?;
        assert!(guard.is_valid());
        std::thread::sleep(Duration::from_millis(80));
        assert!(!guard.is_valid(), "valid past its lease");
        assert_eq!(guard.lost().await, LostReason::Expired);
        Ok(())
    })
}

/// Futures of the API can be sent to other threads, and types can be shared.
#[test]
fn what_is_given_out_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let locks = LockManager::new(MemoryBackend::new());
    is_sync(&locks);
    is_send(&locks.drain());
    if let Ok(lock) = locks.lock("k") {
        is_sync(&lock);
        is_send(&lock.acquire());
        is_send(&lock.try_acquire());
        is_send(&lock.acquire_timeout(Duration::ZERO));
        is_send(&async move {
            if let Ok(guard) = lock.acquire().await {
                is_sync(&guard);
                let _ = guard.run(async {}).await;
                let _ = guard.release().await;
            }
        });
    }
}

/// A lost lock keeps nobody from the key, whatever became of the task that would have told.
#[test]
fn a_guard_that_outlives_its_runtime_frees_the_queue() -> Outcome {
    let locks =
        LockManager::builder(MemoryBackend::new()).ttl(Duration::from_millis(60)).build()?;
    let first = runtime()?;
    let kept = first.block_on(async { locks.lock("k")?.acquire().await })?;
    drop(first);
    runtime()?.block_on(async {
        let next = locks.lock("k")?.acquire_timeout(Duration::from_secs(5)).await?;
        assert!(!kept.is_valid() && next.is_valid());
        Ok(())
    })
}

/// The loss came before the drop, even if nobody had looked.
#[test]
fn an_unseen_loss_is_not_a_release() -> Outcome {
    runtime()?.block_on(async {
        let locks =
            LockManager::builder(MemoryBackend::new()).ttl(Duration::from_millis(60)).build()?;
        let guard = locks.lock("k")?.acquire().await?;
        let lost = guard.lost();
        std::thread::sleep(Duration::from_millis(80));
        drop(guard);
        assert_eq!(lost.await, LostReason::Expired);
        Ok(())
    })
}

/// A backend that panics when it answers: the first time to acquire, and to every renewal.
#[derive(Debug, Default)]
struct Panics {
    store: MemoryBackend,
    panicked: AtomicBool,
}

#[async_trait]
impl LockBackend for Panics {
    fn limits(&self) -> Limits {
        self.store.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let answer = self.store.acquire(claim).await;
        if !self.panicked.swap(true, Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new("a bug"));
        }
        answer
    }

    async fn renew(&self, _: &Claim) -> Result<Renew, BackendError> {
        std::panic::resume_unwind(Box::new("a bug"))
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.store.release(claim).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.store.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.store.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.store.list(prefix, after, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_granted_and_panicked_over_is_undone() -> Outcome {
    let locks = LockManager::new(Panics::default());
    let lock = locks.lock("k")?;
    let panicked = tokio::spawn(async move { lock.acquire().await.map(drop) });
    assert!(panicked.await.is_err());
    locks.drain().await;
    assert_eq!(locks.inspect("k").await?, None);
    Ok(())
}

/// Nobody renews after the panic: the loss comes by the deadline, and the next in line with it.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_panics_frees_the_queue() -> Outcome {
    let store = Panics { panicked: AtomicBool::new(true), ..Panics::default() };
    let lock = LockManager::new(store).lock("k")?;
    let kept = lock.acquire().await?;
    assert_eq!(kept.lost().await, LostReason::Expired);
    let next = lock.acquire_timeout(Duration::from_secs(5)).await?;
    assert!(!kept.is_valid() && next.is_valid());
    Ok(())
}
