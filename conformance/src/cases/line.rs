//! The line of a key: who waits has a place, and the first in line comes next.

pub(super) mod places;
pub(super) mod process;
pub(super) mod signals;
pub(super) mod turns;

use std::time::Duration;

use lockcore::{Acquire, Claim, Contention, Lease, LockBackend};
use tokio::time::Instant;

use crate::case::{Cx, Failure, Outcome, ensure};

/// How long a place lasts that is to outlive whatever a case does.
pub(super) fn long(cx: &Cx) -> Duration {
    cx.long().min(cx.a.limits().max_wait)
}

/// How long a place lasts whose end a case waits for.
pub(super) fn short(cx: &Cx) -> Duration {
    cx.ttl.min(cx.a.limits().max_wait)
}

/// A claim of a new holder that waits, for longer than the case takes.
pub(super) fn waiter(cx: &Cx) -> Claim {
    cx.claim().with_wait(Some(long(cx)))
}

/// A long lease on the case's key.
pub(super) async fn held(cx: &Cx) -> Result<Claim, Failure> {
    let mut claim = cx.claim();
    claim.ttl = cx.long();
    cx.acquire(&cx.a, &claim).await?;
    Ok(claim)
}

/// Asks for a key that is not this holder's turn.
pub(super) async fn contention(
    backend: &impl LockBackend,
    claim: &Claim,
    what: &str,
) -> Result<Contention, Failure> {
    match backend.acquire(claim).await? {
        Acquire::Contended(contention) => Ok(contention),
        Acquire::Acquired(lease) => {
            Err(Failure::new(format!("{what}: granted out of turn, {lease:?}")))
        }
    }
}

/// Asks, and fails the case unless so many places are ahead of the holder's own.
pub(super) async fn waits_behind(
    backend: &impl LockBackend,
    claim: &Claim,
    ahead: u32,
    what: &str,
) -> Outcome {
    let contention = contention(backend, claim, what).await?;
    ensure!(
        contention.ahead == Some(ahead),
        "{what}: {:?} places ahead, expected {ahead}",
        contention.ahead
    );
    Ok(())
}

/// Asks, and fails the case unless it is this holder's turn.
pub(super) async fn gets_in(
    backend: &impl LockBackend,
    claim: &Claim,
    what: &str,
) -> Result<Lease, Failure> {
    match backend.acquire(claim).await? {
        Acquire::Acquired(lease) => Ok(lease),
        Acquire::Contended(contention) => {
            Err(Failure::new(format!("{what}: it is its turn, and it got {contention:?}")))
        }
    }
}

/// Asks again and again until it is this holder's turn; fails the case if that takes longer than
/// `limit`.
pub(super) async fn gets_in_within(
    cx: &Cx,
    backend: &impl LockBackend,
    claim: &Claim,
    limit: Duration,
    what: &str,
) -> Result<Lease, Failure> {
    let end = Instant::now() + limit;
    loop {
        match backend.acquire(claim).await? {
            Acquire::Acquired(lease) => return Ok(lease),
            Acquire::Contended(contention) => {
                ensure!(Instant::now() < end, "{what}: not in after {limit:?}, {contention:?}");
            }
        }
        cx.look_again(Duration::from_millis(5)).await;
    }
}
