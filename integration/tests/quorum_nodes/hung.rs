//! One of five nodes hangs: nobody waits for it.

use std::time::Instant;

use leaselock::{LockManager, Quorum};
use lockcore_conformance::Fault;

use super::*;

const TTL: Duration = Duration::from_secs(3);
/// A node has this long to answer: so long that nobody takes a busy machine for it.
const NODE_TIMEOUT: Duration = Duration::from_millis(750);
const TIMES: usize = 200;
/// So often the node hangs and goes on again.
const TURNS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_node_is_not_waited_for() {
    limited(async {
        let nodes = Nodes::open(5, MAX_TTL).await;
        let builder = integration::nodes::builder(&nodes.urls(), MAX_TTL);
        let quorum = builder.node_timeout(NODE_TIMEOUT).build().expect("settings");
        // What both are asked for in turns, so that a machine that is slow for a while is so to
        // both.
        let (mut with, mut without) = (Vec::new(), Vec::new());
        acquisitions(&quorum, TIMES / TURNS).await;
        for turn in 0..TURNS {
            let hung = turn % nodes.count();
            without.extend(acquisitions(&quorum, TIMES / TURNS).await);
            nodes.inflict(hung, Fault::Pause).await;
            with.extend(acquisitions(&quorum, TIMES / TURNS).await);
            nodes.inflict(hung, Fault::Resume).await;
            // It does now what it was asked meanwhile.
            nodes.opened(MAX_TTL).await;
        }
        let (middle_without, p99_without) = middle_and_p99(&without);
        let (middle_with, p99_with) = middle_and_p99(&with);
        println!(
            "acquire and release: {middle_without:.1?} with five nodes (p99 {p99_without:.1?}), \
             {middle_with:.1?} with one of them hung (p99 {p99_with:.1?}): {:+.1} %",
            100.0 * (middle_with.as_secs_f64() / middle_without.as_secs_f64() - 1.0)
        );
        // Nobody waits for the hung one: each would take that long at least.
        assert!(middle_with < NODE_TIMEOUT / 4, "{middle_with:?}");
        assert!(p99_with < NODE_TIMEOUT / 2, "{p99_with:?}");
    })
    .await;
}

/// How long each of so many takes, of which nobody else wants the keys.
async fn acquisitions(quorum: &Quorum, times: usize) -> Vec<Duration> {
    let builder = LockManager::builder(quorum.clone()).ttl(TTL).request_timeout(TTL / 2);
    let locks = builder.build().expect("settings");
    let mut took = Vec::new();
    for n in 0..times {
        let lock = locks.lock(format!("k{n}")).expect("a key");
        let began = Instant::now();
        let guard = lock.acquire().await.expect("a majority is well");
        guard.release().await.expect("held");
        took.push(began.elapsed());
    }
    took
}
