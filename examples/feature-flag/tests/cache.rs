//! The cache without the feature, and with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use feature_flag::{Cache, Failure, Values};

async fn make(made: Arc<AtomicUsize>) -> Result<String, Failure> {
    made.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok("value".to_owned())
}

/// How often a value was made that ten caches of the same values wanted at once.
async fn made_by(caches: impl Fn(Values) -> Cache) -> Result<usize, Failure> {
    let (values, made) = (Values::default(), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for _ in 0..10 {
        let (cache, made) = (caches(values.clone()), made.clone());
        tasks.push(tokio::spawn(async move { cache.get("a", make(made)).await }));
    }
    for task in tasks {
        assert_eq!(task.await??, "value");
    }
    Ok(made.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_value_is_made_when_it_is_missing() -> Result<(), Failure> {
    let (cache, made) = (Cache::default(), Arc::new(AtomicUsize::new(0)));
    cache.get("a", make(made.clone())).await?;
    cache.get("a", make(made.clone())).await?;
    assert_eq!(made.load(Ordering::Relaxed), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_lock_all_make_it() -> Result<(), Failure> {
    assert_eq!(made_by(Cache::new).await?, 10);
    Ok(())
}

#[cfg(feature = "lock")]
#[tokio::test(start_paused = true)]
async fn with_a_lock_one_makes_it_for_all() -> Result<(), Failure> {
    // Each cache has its own manager, as each process has.
    let store = lockcore::MemoryBackend::new();
    let made = made_by(|values| Cache::new(values).with_lock(store.clone())).await?;
    assert_eq!(made, 1);
    Ok(())
}

#[cfg(feature = "lock")]
#[tokio::test(start_paused = true)]
async fn a_failure_frees_the_lock() -> Result<(), Failure> {
    let cache = Cache::default().with_lock(lockcore::MemoryBackend::new());
    let failed = cache.get("a", async { Err("no".into()) }).await;
    assert!(failed.is_err());
    assert_eq!(cache.get("a", make(Arc::default())).await?, "value");
    Ok(())
}
