//! A holder that is paused past its lease writes late, and the register refuses it.
//!
//! No lock can stop such a writer: it looked at its guard, was paused, and wakes up in the middle
//! of the next statement. What it writes to can stop it, by its fencing token.
//!
//! ```text
//! cargo run --example fencing
//! ```

use std::error::Error;
use std::time::Duration;

use leaselock::{FenceRegister, LockManager, MemoryBackend};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let balance = FenceRegister::new(100);

    // A paused process does not renew.
    let locks = LockManager::builder(MemoryBackend::new())
        .ttl(Duration::from_millis(200))
        .no_renewal()
        .build()?;
    let lock = locks.lock("accounts/7")?;

    let slow = lock.acquire().await?;
    let old = slow.fencing_token();
    let seen = balance.read(old)?;
    println!("the slow holder (token {old}) reads {seen}, and is paused before it writes");

    // The pause: time passes, and the slow holder does not look.
    slow.lost().await;

    let quick = lock.acquire().await?;
    let new = quick.fencing_token();
    // Register first, then read: from here on no older holder can write.
    let seen = balance.read(new)?;
    balance.write(new, seen - 30)?;
    println!("the quick holder (token {new}) takes 30");
    quick.release().await?;

    // The slow holder wakes up with what it read before.
    match balance.write(old, 100 - 50) {
        Ok(()) => return Err("the late write was taken: 30 were lost".into()),
        Err(stale) => println!("the slow holder's late write is refused: {stale}"),
    }
    println!("the balance is {}", balance.read(new)?);
    drop(slow);
    locks.drain().await;
    Ok(())
}
