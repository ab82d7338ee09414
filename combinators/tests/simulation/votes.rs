//! Split votes: three clients who want the same key of three nodes at the same moment.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey};
use lockcore_combinators::Quorum;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::common::{Node, Tokens};
use crate::simulate;

const MAX_TTL: Duration = Duration::from_secs(60);

/// Somebody has won after five rounds of attempts, in 99 of 100 runs at least.
#[test]
fn split_votes_end_soon() {
    let rounds = Arc::new(Mutex::new(Vec::new()));
    simulate(1000, |seed| {
        let rounds = rounds.clone();
        async move {
            let nodes: Vec<_> = (0..3).map(|_| Node::new(Tokens::Clock(0))).collect();
            for (n, node) in (0..).zip(&nodes) {
                node.delays(3 * seed + n, 1, 20);
            }
            sleep(MAX_TTL).await;
            let mut attempts = JoinSet::new();
            for _ in 0..3 {
                let builder = Quorum::builder().node("a", nodes[0].clone());
                let builder = builder.node("b", nodes[1].clone()).node("c", nodes[2].clone());
                attempts.spawn(won(builder.build().expect("three")));
            }
            let first = attempts.join_next().await.expect("three").expect("no panic");
            rounds.lock().expect("no panic").push(first);
            Ok(())
        }
    });
    let mut rounds = rounds.lock().expect("no panic").clone();
    rounds.sort_unstable();
    let at = |part: usize| rounds[rounds.len() * part / 100];
    let most = rounds.last().copied().unwrap_or_default();
    println!("rounds: p50 {}, p90 {}, p99 {}, most {most}", at(50), at(90), at(99));
    assert!(at(99) <= 5, "p99 is {} rounds", at(99));
    assert!(most > 1, "no vote was ever split");
}

/// How many times it asked until it had the lock.
async fn won(quorum: Quorum) -> u32 {
    let key = LockKey::new("k").expect("a key");
    for round in 1.. {
        let claim = Claim::new(key.clone(), HolderId::random(), Duration::from_secs(30));
        match quorum.acquire(&claim).await {
            Ok(Acquire::Acquired(_)) => return round,
            Ok(Acquire::Contended(contention)) => {
                sleep(contention.retry_after.unwrap_or(Duration::from_secs(1))).await;
            }
            Err(error) => panic!("all are well: {error}"),
        }
    }
    unreachable!("it asks for ever")
}
