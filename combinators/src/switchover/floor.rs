//! How far the tokens of a store are.
//!
//! Agreement makes tokens rise for the keys that are taken while a lock is in both stores. A key
//! that nobody took meanwhile has its last token in the store being left, and the other store may
//! be far behind it. So every lease of an exclusive phase carries a floor: what the store being
//! left would grant now, and a margin.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, InvalidInput, LockBackend, LockKey};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::reserved;

/// How many keys are probed, enough to meet each of 64 counters that share the keys by a hash,
/// and how many at a time.
const PROBES: usize = 512;
const AT_ONCE: usize = 16;

/// What a counter of a single key may be ahead of its store's other tokens: a second, in stores
/// whose tokens are microseconds.
const MARGIN: u64 = 1_000_000;

/// How long one call may take, and how long a key is tried.
const CALL: Duration = Duration::from_secs(2);
const TRY: Duration = Duration::from_secs(10);

/// Greater than any token that `left` has granted, as long as nobody takes locks in it alone.
pub(super) async fn above(left: &Arc<dyn LockBackend>) -> Result<u64, BackendError> {
    let (mut probing, mut greatest) = (JoinSet::new(), take(left, reserved::FLOOR, 0).await?);
    // From a random one on: those who start together must not all want the same.
    let first = fastrand::usize(..PROBES);
    for number in (0..PROBES).map(|number| (first + number) % PROBES) {
        if probing.len() == AT_ONCE {
            greatest = greatest.max(next(&mut probing).await?);
        }
        let left = left.clone();
        probing.spawn(async move { take(&left, &reserved::probe(number), 0).await });
    }
    while !probing.is_empty() {
        greatest = greatest.max(next(&mut probing).await?);
    }
    Ok(greatest.saturating_add(MARGIN))
}

async fn next(probing: &mut JoinSet<Result<u64, BackendError>>) -> Result<u64, BackendError> {
    match probing.join_next().await {
        Some(Ok(token)) => token,
        Some(Err(error)) => Err(BackendError::unavailable(error)),
        None => Ok(0),
    }
}

/// Remembers a floor in the store that it is in force in, for whoever leaves that one later.
pub(super) async fn record(entered: &Arc<dyn LockBackend>, floor: u64) -> Result<(), BackendError> {
    let most = entered.limits().max_token;
    if floor > most {
        return Err(InvalidInput::new(format!("a floor is at most {most}, not {floor}")).into());
    }
    take(entered, reserved::FLOOR, floor).await.map(drop)
}

/// Takes a key for a moment; its token.
async fn take(store: &Arc<dyn LockBackend>, key: &str, floor: u64) -> Result<u64, BackendError> {
    let (key, ttl, began) = (LockKey::new(key)?, store.limits().min_ttl, Instant::now());
    let ttl = ttl.max(Duration::from_secs(1)).min(store.limits().max_ttl);
    loop {
        let claim = Claim::new(key.clone(), HolderId::random(), ttl).with_min_token(floor);
        let answer = timeout(CALL, store.acquire(&claim)).await;
        let answer = answer.unwrap_or_else(|_| Err(BackendError::ambiguous("no answer")));
        let failure = match answer {
            Ok(Acquire::Acquired(lease)) => {
                // Else it ends with its ttl.
                let _ = timeout(CALL, store.release(&claim)).await;
                return Ok(lease.token);
            }
            Ok(Acquire::Contended(_)) => BackendError::unavailable("its probe is contended"),
            Err(error @ (BackendError::Rejected(_) | BackendError::InvalidInput(_))) => {
                return Err(error);
            }
            Err(error) => {
                let _ = timeout(CALL, store.release(&claim)).await;
                BackendError::unavailable(error)
            }
        };
        if began.elapsed() > TRY {
            return Err(failure);
        }
        sleep(Duration::from_millis(10 + fastrand::u64(..20))).await;
    }
}
