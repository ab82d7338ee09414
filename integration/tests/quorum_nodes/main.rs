//! Quorums of real Redis nodes, of which some fail.

mod blows;
mod crowd;
mod down;
mod errors;
mod hung;
mod rounds;
mod storm;
mod votes;

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use integration::nodes::Nodes;
use leaselock::{Claim, HolderId, LockKey, NoAgreement};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The longest ttl of these quorums, and so how long a node does not count that began lately.
const MAX_TTL: Duration = Duration::from_secs(3);

/// However many threads there are: what is measured here is how fast a machine of two cores is with
/// one other test beside it.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("it is never closed")
}

/// Runs a test within its limit when it is its turn.
async fn limited(test: impl Future<Output = ()>) {
    let _turn = turn().await;
    integration::limited(test).await;
}

fn claim(key: &str, ttl: Duration) -> Claim {
    Claim::new(LockKey::new(key).expect("a key"), HolderId::random(), ttl)
}

/// What each node said.
fn said<'a>(error: &'a (dyn Error + 'static)) -> &'a NoAgreement {
    error.source().and_then(|source| source.downcast_ref()).expect("each node's word")
}

/// The middle, and the one that 99 of 100 are not above.
fn middle_and_p99(took: &[Duration]) -> (Duration, Duration) {
    let mut took = took.to_vec();
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}
