//! Acquires and releases a lock of the memory store as many times as its argument says: valgrind
//! counts the instructions.

// Named for its feature alone.
use rustix as _;

use lockcore::{Error, LockManager, MemoryBackend};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cycles: u64 = std::env::args().nth(1).ok_or("how many cycles?")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let lock = LockManager::new(MemoryBackend::new()).lock("key")?;
        for _ in 0..cycles {
            lock.acquire().await?.release().await?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(())
}
