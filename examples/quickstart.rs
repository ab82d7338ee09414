//! A lock taken, seen, and released.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use std::time::Duration;

use leaselock::Error;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Another store is another URL: "redis://127.0.0.1:6379" with the feature `redis`.
    let locks = leaselock::connect("memory:").await?;
    let lock = locks.lock("reports/daily")?;

    // Waits until nobody else holds it.
    let guard = lock.acquire().await?;
    println!("acquired with fencing token {}", guard.fencing_token());

    // Somebody else, meanwhile.
    if lock.try_acquire().await?.is_none() {
        println!("someone holds it: a second one does not get it");
    }
    let short = Duration::from_millis(50);
    if let Err(error) = lock.acquire_timeout(short).await {
        println!("waiting for {short:?} ended with `{}`", error.kind());
    }
    if let Some(lease) = locks.inspect("reports/daily").await? {
        println!("the store says: held by {} ({})", lease.holder, lease.label);
    }

    // The work runs while the lock is held, and is stopped should the lock be lost.
    let pages = guard.run(async { 42 }).await?;
    guard.release().await?;
    println!("released after writing {pages} pages");

    // Dropping a guard releases it too, in the background.
    drop(lock.acquire().await?);
    locks.drain().await;
    println!("and again, by dropping the guard");
    Ok(())
}
