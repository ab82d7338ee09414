//! The line: what it costs, who is told, and what is left behind.

mod costs;
mod cuts;
mod ends;
mod turns;

use std::time::Duration;

use crate::common::claim;
use lockcore::{Acquire, Claim, LockBackend, ReleaseSignal};

/// A claim of a new holder that waits, for longer than a test takes.
fn waiter(key: &str) -> Claim {
    claim(key).with_wait(Some(Duration::from_secs(20)))
}

/// Asks, and is so many places behind.
async fn behind(backend: &impl LockBackend, claim: &Claim, ahead: u32) {
    match backend.acquire(claim).await {
        Ok(Acquire::Contended(contention)) => assert_eq!(contention.ahead, Some(ahead)),
        other => panic!("it is not its turn: {other:?}"),
    }
}

/// Joins a line and listens, as the core does where it expects to wait.
async fn listens(backend: &impl LockBackend, claim: &Claim, ahead: u32) -> ReleaseSignal {
    let signal = backend.watch(claim).await.expect("armed");
    behind(backend, claim, ahead).await;
    signal
}
