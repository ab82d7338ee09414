//! Three of five nodes are down: nobody gets a lock, everybody is told, nothing is left.

use std::time::Instant;

use integration::SLACK;
use leaselock::{BackendError, ErrorKind, LockBackend, LockManager, NodeState};
use lockcore_conformance::Fault;
use tokio::time::sleep;

use super::*;

const DOWN: [usize; 3] = [0, 2, 4];
const UP: [usize; 2] = [1, 3];

async fn three_of_five(fault: Fault) {
    let nodes = Nodes::open(5, MAX_TTL).await;
    let quorum = nodes.quorum(MAX_TTL);
    let locks = LockManager::builder(quorum.clone()).ttl(MAX_TTL);
    let locks = locks.retry_for(MAX_TTL / 6).build().expect("settings");
    let lock = locks.lock("k").expect("a key");
    lock.acquire().await.expect("all are well").release().await.expect("held");
    for n in DOWN {
        nodes.inflict(n, fault).await;
    }

    // As a backend answers it, at once.
    let (began, asked) = (Instant::now(), claim("k", MAX_TTL));
    let error = quorum.acquire(&asked).await.expect_err("two of five");
    let took = began.elapsed();
    println!("{fault} of three: after {took:?}: {error}");
    assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
    // A node may take a twelfth of the ttl, and is asked once; the release is not waited for.
    assert!(took < MAX_TTL / 6 + SLACK, "{took:?}");
    tells(&nodes, said(&error));
    // What had been granted was taken back before the answer.
    for n in UP {
        let left = nodes.leases(n).await;
        assert!(left.iter().all(|(_, record)| !record.contains(&asked.holder.to_string())));
    }

    // As users see it.
    let began = Instant::now();
    let error = lock.acquire().await.expect_err("two of five");
    let took = began.elapsed();
    println!("{fault} of three: a user after {took:?}: {error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(took < MAX_TTL / 2 + SLACK, "{took:?}");
    tells(&nodes, said(&error));
    let began = Instant::now();
    let error = lock.acquire_timeout(MAX_TTL / 3).await.expect_err("two of five");
    assert!(began.elapsed() < MAX_TTL / 2 + SLACK, "{:?}", began.elapsed());
    // Cut off in the middle of the last attempt, it may be in doubt about that.
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Ambiguous), "{error:?}");
    assert!(lock.try_acquire().await.is_err());
    locks.drain().await;

    // Nothing is left after one ttl, neither where they were up nor where they come back.
    sleep(MAX_TTL).await;
    for n in DOWN {
        nodes.inflict(n, if fault == Fault::Kill { Fault::Restart } else { Fault::Resume }).await;
    }
    for n in UP {
        assert_eq!(nodes.leases(n).await, [], "left behind on node {n}");
    }
    sleep(MAX_TTL).await;
    for n in DOWN {
        // What a paused node was asked it does when it wakes up; the release came behind it.
        assert_eq!(nodes.leases(n).await, [], "left behind on node {n}");
    }
    nodes.opened(MAX_TTL).await;
    lock.acquire().await.expect("all are well").release().await.expect("held");
}

/// Each node by name, with what it said.
fn tells(nodes: &Nodes, said: &NoAgreement) {
    let line = said.to_string();
    assert!(line.starts_with("3 of 5 stores must agree: "), "{line}");
    for (n, (name, state)) in said.nodes().enumerate() {
        assert_eq!(name, nodes.host(n));
        assert!(line.contains(name), "{line}");
        let failed = matches!(state, NodeState::Failed(_));
        // One may not have been waited for any more.
        let other = matches!(state, NodeState::Agreed | NodeState::Unanswered);
        assert!(if DOWN.contains(&n) { failed } else { other }, "{name}: {state}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed() {
    limited(three_of_five(Fault::Kill)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused() {
    limited(three_of_five(Fault::Pause)).await;
}
