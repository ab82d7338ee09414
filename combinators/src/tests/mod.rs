//! What the combinations promise, one thing at a time, on the paused clock.

mod ceiling;
#[path = "../../tests/common/mod.rs"]
mod common;
mod entering;
mod liveness;
mod losing;
mod mutants;
mod order;
mod quorum;
mod registration;
mod status;
mod switchover;
mod waiting;

use std::future::Future;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, LockKey};
use tokio::time::{sleep, timeout};

use self::common::{Mood, Node, Tokens};
pub(crate) use self::mutants::{flawed, step};
use crate::Quorum;

const MS: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_secs(6);
/// How long a store may take by default.
const LIMIT: Duration = Duration::from_millis(500);
const MAX_TTL: Duration = Duration::from_secs(60);
const KEY: &str = "k";

fn claim() -> Claim {
    claim_on(KEY)
}

fn claim_on(key: &str) -> Claim {
    Claim::new(LockKey::new(key).expect("a key"), HolderId::random(), TTL)
}

/// Nodes that differ by 3 ms in their clocks and take 5 ms each way.
fn nodes(count: i64) -> Vec<Node> {
    let node = |n| {
        let node = Node::new(Tokens::Clock(3 * n));
        node.delays(u64::try_from(n).expect("few"), 5, 5);
        node
    };
    (0..count).map(node).collect()
}

fn over(nodes: &[Node]) -> Quorum {
    let named = nodes.iter().enumerate();
    let add = |builder: crate::QuorumBuilder, (n, node): (usize, &Node)| {
        builder.node(format!("n{n}"), node.clone())
    };
    named.fold(Quorum::builder().max_ttl(MAX_TTL), add).build().expect("three or more")
}

/// A quorum whose nodes have run for long enough.
async fn quorum(count: i64) -> (Quorum, Vec<Node>) {
    let nodes = nodes(count);
    sleep(MAX_TTL).await;
    (over(&nodes), nodes)
}

async fn acquired(backend: &impl LockBackend, claim: &Claim) -> Lease {
    match backend.acquire(claim).await {
        Ok(Acquire::Acquired(lease)) => lease,
        other => panic!("expected a lease: {other:?}"),
    }
}

fn holding(nodes: &[Node], claim: &Claim) -> usize {
    nodes.iter().filter(|node| node.holder(KEY) == Some(claim.holder)).count()
}

/// The reason of an error, with what each store said.
fn said(error: &BackendError) -> String {
    let reason = std::error::Error::source(error).expect("a source");
    reason.downcast_ref::<crate::NoAgreement>().expect("no agreement").to_string()
}

async fn elapsed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let began = tokio::time::Instant::now();
    let result = work.await;
    (began.elapsed(), result)
}
