//! Many tasks that want the same locks: what they cost a store, also while it is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, ErrorKind, HandOver, LeaseInfo, Limits, LockBackend, LockKey,
    LockManager, LostReason, MemoryBackend, Release, ReleaseSignal, Renew, async_trait,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A memory store that can be down, and counts the requests that it gets.
#[derive(Debug, Default)]
struct Store {
    memory: MemoryBackend,
    is_down: AtomicBool,
    requests: AtomicUsize,
}

impl Store {
    fn set_down(&self, down: bool) {
        self.is_down.store(down, Ordering::Relaxed);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    async fn reach(&self) -> Result<&MemoryBackend, BackendError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
        if self.is_down.load(Ordering::Relaxed) {
            return Err(BackendError::unavailable("connection refused"));
        }
        Ok(&self.memory)
    }
}

#[async_trait]
impl LockBackend for Store {
    fn limits(&self) -> Limits {
        self.memory.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.reach().await?.acquire(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.reach().await?.renew(claim).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        match self.reach().await {
            Ok(memory) => memory.renew_many(claims).await,
            Err(_) => claims.iter().map(|_| Err(BackendError::unavailable("refused"))).collect(),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.reach().await?.release(claim).await
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.reach().await?.hand_over(from, to, over).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.memory.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.memory.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.memory.list(prefix, after, limit).await
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// One outage is one outage: ten tasks that wait for one key are told together.
#[tokio::test(start_paused = true)]
async fn all_in_the_queue_are_told_of_the_outage() -> Outcome {
    let store = Arc::new(Store::default());
    store.set_down(true);
    let lock = LockManager::new(store.clone()).lock("k")?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..10 {
        let lock = lock.clone();
        tasks.spawn(async move { lock.acquire().await });
    }
    while let Some(outcome) = tasks.join_next().await {
        let error = outcome?.err().ok_or("the store is down")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(13), "{waited:?}");
    }
    Ok(())
}

/// Behind a task that is being refused, a limit and a quick try tell the outage, and no holder.
#[tokio::test(start_paused = true)]
async fn who_is_behind_in_the_queue_is_told_the_truth() -> Outcome {
    let store = Arc::new(Store::default());
    store.set_down(true);
    let lock = LockManager::new(store).lock("k")?;
    let first = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let tried = lock.try_acquire().await.err().ok_or("the store is down")?;
    assert_eq!(tried.kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    let limited = lock.acquire_timeout(Duration::from_secs(5)).await.err().ok_or("down")?;
    assert_eq!(limited.kind(), ErrorKind::Unavailable, "{limited}");
    first.abort();
    Ok(())
}

/// However many locks are held: a store that is down gets at most ten requests a second, and all
/// locks are renewed when it is there again.
#[tokio::test(start_paused = true)]
async fn a_thousand_locks_try_a_store_that_is_down_rarely() -> Outcome {
    let store = Arc::new(Store::default());
    let locks = LockManager::builder(store.clone()).ttl(Duration::from_secs(60)).build()?;
    let mut guards = Vec::new();
    for n in 0..1000 {
        guards.push(locks.lock(format!("k{n}"))?.acquire().await?);
    }
    store.set_down(true);
    let before = store.requests();
    sleep(Duration::from_secs(40)).await;
    let during = store.requests() - before;
    assert!(during < 100, "{during} requests in 40 s to a store that is down");
    assert!(guards.iter().all(|guard| guard.is_valid()));
    store.set_down(false);
    sleep(Duration::from_secs(60)).await;
    assert!(guards.iter().all(|guard| guard.is_valid()), "renewed after the outage");
    let back = store.requests() - before - during;
    assert!(back < 100, "{back} requests for 1000 locks in a minute");
    store.set_down(true);
    let lost = guards.first().ok_or("a guard")?.lost();
    assert_eq!(lost.await, LostReason::Expired);
    Ok(())
}

/// Where nothing was sent there is nothing to undo.
#[tokio::test(start_paused = true)]
async fn nothing_is_undone_that_was_not_sent() -> Outcome {
    let store = Arc::new(Store::default());
    store.set_down(true);
    let locks = LockManager::new(store.clone());
    for n in 0..20 {
        let lock = locks.lock(format!("k{n}"))?;
        let _ = lock.acquire_timeout(Duration::from_millis(200)).await;
    }
    let before = store.requests();
    let began = Instant::now();
    locks.drain().await;
    sleep(Duration::from_secs(5)).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(store.requests() - before <= 2, "{} releases", store.requests() - before);
    Ok(())
}

/// One answer that was lost is settled by asking again, even for a caller that does not wait.
#[tokio::test(start_paused = true)]
async fn try_acquire_answers_at_once_on_a_store_that_is_down() -> Outcome {
    let store = Arc::new(Store::default());
    store.set_down(true);
    let lock = LockManager::new(store).lock("k")?;
    let began = Instant::now();
    let error = lock.try_acquire().await.err().ok_or("the store is down")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    Ok(())
}

/// Leases with a short ttl are renewed at a fast pace, which is not for those who hold nothing.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_short_lease_tries_a_store_that_is_down_rarely() -> Outcome {
    let store = Arc::new(Store::default());
    let builder = || LockManager::builder(store.clone()).ttl(Duration::from_millis(150));
    let other = builder().build()?;
    let held = other.lock("k")?.acquire().await?;
    let locks = builder().build()?;
    let waiting = locks.lock("k")?;
    let waits = tokio::spawn(async move { waiting.acquire().await.map(drop) });
    sleep(Duration::from_millis(20)).await;
    // What is counted from now on is of those who wait alone.
    std::mem::forget(held);
    drop(other);
    store.set_down(true);
    sleep(Duration::from_millis(400)).await;
    let mut before = store.requests();
    for _ in 0..8 {
        sleep(Duration::from_secs(1)).await;
        let tries = store.requests() - before;
        assert!(tries <= 10, "{tries} tries in a second");
        before = store.requests();
    }
    assert!(waits.await?.is_err());
    Ok(())
}

/// One acquire, a hand-over from each task to the next, and one release.
#[tokio::test(start_paused = true)]
async fn a_crowd_costs_a_request_each() -> Outcome {
    let store = Arc::new(Store::default());
    let lock = LockManager::new(store.clone()).lock("k")?;
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let lock = lock.clone();
        tasks.spawn(async move { lock.acquire().await?.release().await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    assert_eq!(store.requests(), 501);
    Ok(())
}

/// The task of renewals stays for a while where nothing is held, and has to be there in time for the
/// next lock, however short its lease is.
#[tokio::test(start_paused = true)]
async fn a_short_lease_taken_right_after_another_is_renewed() -> Outcome {
    let ttl = Duration::from_millis(60);
    let manager = LockManager::builder(Arc::new(Store::default())).ttl(ttl).build()?;
    let lock = manager.lock("k")?;
    for pause in 0..120 {
        lock.acquire().await?.release().await?;
        sleep(Duration::from_millis(pause)).await;
        let guard = lock.acquire().await?;
        sleep(3 * ttl).await;
        assert!(guard.is_valid(), "taken {pause} ms after another");
        guard.release().await?;
        // The task has ended.
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
