//! A store that loses its data takes the lock with it: the holder is told, and its work stops.
//!
//! ```text
//! cargo run --example lost
//! ```

use std::time::Duration;

use leaselock::{ErrorKind, LockManager, MemoryBackend};

#[tokio::main]
async fn main() -> Result<(), leaselock::Error> {
    let store = MemoryBackend::new();
    let locks = LockManager::builder(store.clone()).ttl(Duration::from_millis(300)).build()?;
    let guard = locks.lock("reports/daily")?.acquire().await?;
    println!("acquired, good for {:?} unless renewed", guard.remaining());

    // Anyone may wait for the loss: the future does not borrow the guard.
    let lost = tokio::spawn(guard.lost());

    let outcome = guard
        .run(async {
            let mut page = 0;
            loop {
                page += 1;
                println!("writing page {page}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                if page == 3 {
                    println!("-- the store loses its data --");
                    store.wipe();
                }
            }
        })
        .await;
    match outcome {
        Ok(()) => println!("the work ended"),
        Err(error) => println!("the work was stopped: {error}"),
    }
    if let Ok(reason) = lost.await {
        println!("who waited for the loss was told: {reason}");
    }
    println!("is the guard valid? {}", guard.is_valid());

    // Releasing what was lost says so, too.
    match guard.release().await {
        Err(error) if error.kind() == ErrorKind::Lost => println!("nothing left to release"),
        other => other?,
    }
    Ok(())
}
