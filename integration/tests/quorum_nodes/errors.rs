//! What is said when some nodes are contended and others are not reached.

use leaselock::redis::RedisBackend;
use leaselock::{Acquire, BackendError, ErrorKind, LockBackend, LockManager, NodeState};
use lockcore_conformance::Fault;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_is_named_with_what_it_said() {
    limited(async {
        let nodes = Nodes::open(5, MAX_TTL).await;
        let quorum = nodes.quorum(MAX_TTL);
        // Node 0 is another's, 1 and 2 are down, 3 hangs, 4 is well.
        let other = claim("k", MAX_TTL * 10);
        let alone = RedisBackend::connect(&nodes.url(0)).await.expect("a server");
        let answer = alone.acquire(&other).await;
        assert!(matches!(answer, Ok(Acquire::Acquired(_))), "{answer:?}");
        nodes.inflict(1, Fault::Kill).await;
        nodes.inflict(2, Fault::Kill).await;
        nodes.inflict(3, Fault::Pause).await;

        let error = quorum.acquire(&claim("k", MAX_TTL)).await.expect_err("one of five");
        assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        tells(&nodes, said(&error));

        let locks = LockManager::builder(quorum).ttl(MAX_TTL).retry_for(Duration::ZERO);
        let locks = locks.build().expect("settings");
        let error = locks.lock("k").expect("a key").acquire().await.expect_err("one of five");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        println!("{error}");
        tells(&nodes, said(&error));
        // On one line, for those who print no sources.
        for n in 0..nodes.count() {
            assert!(error.to_string().contains(&nodes.host(n)), "{error}");
        }
    })
    .await;
}

fn tells(nodes: &Nodes, said: &NoAgreement) {
    let states: Vec<_> = said.nodes().collect();
    let names: Vec<_> = states.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, (0..nodes.count()).map(|n| nodes.host(n)).collect::<Vec<_>>());
    let is = |n: usize, of: fn(&NodeState) -> bool| assert!(of(states[n].1), "{said}");
    is(0, |state| matches!(state, NodeState::Contended));
    for n in 1..4 {
        is(n, |state| matches!(state, NodeState::Failed(_)));
    }
    is(4, |state| matches!(state, NodeState::Agreed));
    let line = said.to_string();
    assert!(line.contains(&format!("{}: contended", nodes.host(0))), "{line}");
    assert!(line.contains("nothing listens") || line.contains("refused"), "{line}");
}
