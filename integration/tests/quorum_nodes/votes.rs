//! Several want the same key of three nodes at the same moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use leaselock::{Acquire, BackendError, LockBackend, LockManager, Quorum};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

const TTL: Duration = Duration::from_secs(3);
const VOTES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_votes_end_soon() {
    limited(async {
        let nodes = Nodes::open(3, MAX_TTL).await;
        let quorums: Vec<_> = (0..3).map(|_| nodes.quorum(MAX_TTL)).collect();
        let mut rounds = Vec::new();
        for vote in 0..VOTES {
            let (together, mut attempts) = (Arc::new(Barrier::new(3)), JoinSet::new());
            for quorum in &quorums {
                attempts.spawn(won(quorum.clone(), format!("vote {vote}"), together.clone()));
            }
            rounds.push(attempts.join_next().await.expect("three").expect("no panic"));
            // The others would wait for the end of the winner's lease.
            attempts.shutdown().await;
        }
        rounds.sort_unstable();
        let at = |part: usize| rounds[VOTES * part / 100];
        let most = rounds.last().copied().unwrap_or_default();
        println!(
            "votes of three: p50 {}, p90 {}, p99 {}, most {most} rounds",
            at(50),
            at(90),
            at(99)
        );
        assert!(at(90) <= 5, "p90 is {} rounds", at(90));
        assert!(at(99) <= 10, "p99 is {} rounds", at(99));
    })
    .await;
}

/// How many times it asked until it had the lock.
async fn won(quorum: Quorum, key: String, together: Arc<Barrier>) -> u32 {
    together.wait().await;
    let mut round = 1;
    loop {
        let claim = claim(&key, TTL);
        match quorum.acquire(&claim).await {
            Ok(Acquire::Acquired(_)) => return round,
            Ok(Acquire::Contended(contention)) => {
                sleep(contention.retry_after.unwrap_or(Duration::from_secs(1))).await;
                round += 1;
            }
            // A machine that stood still for as long as a node may take: no vote was held.
            Err(BackendError::Unavailable(error)) => println!("nobody was heard: {error}"),
            Err(error) => panic!("all are well: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_are_not_lost() {
    const MANAGERS: usize = 5;
    const WORKERS: usize = 50;
    const EACH: usize = 10;

    limited(async {
        let nodes = Nodes::open(3, MAX_TTL).await;
        let (sum, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut workers = JoinSet::new();
        let mut newest = Vec::new();
        for _ in 0..MANAGERS {
            let quorum = nodes.quorum(MAX_TTL);
            let locks = LockManager::builder(quorum).ttl(TTL).build().expect("settings");
            for _ in 0..WORKERS / MANAGERS {
                let (locks, sum) = (locks.clone(), sum.clone());
                workers.spawn(async move {
                    let mut tokens = Vec::new();
                    for _ in 0..EACH {
                        let lock = locks.lock("sum").expect("a key");
                        let guard = lock.acquire().await.expect("all are well");
                        let seen = sum.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        sum.store(seen + 1, Ordering::SeqCst);
                        tokens.push((seen, guard.fencing_token()));
                        guard.release().await.expect("held");
                    }
                    tokens
                });
            }
        }
        while let Some(tokens) = workers.join_next().await {
            newest.extend(tokens.expect("no panic"));
        }
        println!("{} additions by {WORKERS} workers in {:?}", newest.len(), began.elapsed());
        assert_eq!(sum.load(Ordering::SeqCst), (WORKERS * EACH) as u64);
        newest.sort_unstable();
        assert!(newest.windows(2).all(|pair| pair[0].1 < pair[1].1), "tokens fell");
    })
    .await;
}
