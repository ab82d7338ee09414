//! What a hand-over between processes costs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{listens, waiter};
use crate::common::{Server, acquired, claim, limited, server};
use lockcore::{Acquire, LockBackend, LockManager};
use tokio::task::JoinSet;

const CALLS: [&str; 6] = ["Txn", "Range", "Put", "LeaseGrant", "LeaseRevoke", "LeaseTimeToLive"];
const PATIENT: Duration = Duration::from_secs(60);
const STREAMS: [&str; 2] = ["Watch", "LeaseKeepAlive"];

async fn costs(server: &Server) -> (u64, u64) {
    let streamed = server.received(&STREAMS).await + server.sent(&STREAMS).await;
    (server.begun(&CALLS).await, streamed)
}

/// Hands a lock round between so many processes: requests, messages on streams, and times between
/// a release and the next grant.
async fn hand_round(server: &Server, processes: usize, turns: usize) -> (f64, f64, Duration) {
    let freed = Arc::new(Mutex::new(None::<Instant>));
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut managers = Vec::new();
    for _ in 0..processes {
        let manager = LockManager::builder(server.backend().await);
        // Polls and keep-alives come with time, and not with hand-overs.
        let manager = manager.ttl(PATIENT).poll_every(PATIENT / 12);
        managers.push(manager.build().expect("settings"));
    }
    let go = async |turns: usize| {
        let mut tasks = JoinSet::new();
        for manager in &managers {
            let lock = manager.lock(format!("k/{processes}")).expect("a key");
            let (freed, times) = (Arc::clone(&freed), Arc::clone(&times));
            tasks.spawn(async move {
                for _ in 0..turns {
                    let guard = lock.acquire().await.expect("a lock");
                    if let Some(at) = freed.lock().expect("no panic").take() {
                        times.lock().expect("no panic").push(at.elapsed());
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    *freed.lock().expect("no panic") = Some(Instant::now());
                    guard.release().await.expect("held");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
    };
    // Streams are opened and leases granted once.
    go(2).await;
    let before = costs(server).await;
    times.lock().expect("no panic").clear();
    go(turns).await;
    let after = costs(server).await;
    let mut times = std::mem::take(&mut *times.lock().expect("no panic"));
    times.sort_unstable();
    let all = (processes * turns) as f64;
    let [calls, streamed] = [after.0 - before.0, after.1 - before.1].map(|it| it as f64 / all);
    println!(
        "{processes} processes: {calls:.2} requests and {streamed:.2} messages a hand-over, p50 \
         {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    (calls, streamed, times[times.len() / 2])
}

/// However many wait.
async fn costs_the_same(processes: usize, turns: usize) {
    limited(async {
        let (calls, streamed, _) = hand_round(&server().await, processes, turns).await;
        assert!(calls <= 4.3, "{processes}: {calls} requests");
        assert!(calls + streamed <= 7.5, "{processes}: {calls} and {streamed}");
    })
    .await;
}

#[tokio::test]
async fn a_hand_over_between_two_processes() {
    costs_the_same(2, 100).await;
}

#[tokio::test]
async fn a_hand_over_between_sixteen_processes_costs_the_same() {
    costs_the_same(16, 20).await;
}

#[tokio::test]
async fn a_hand_over_between_sixty_four_processes_costs_the_same() {
    costs_the_same(64, 8).await;
}

/// Whoever waits and is not told costs a read now and then, and no lease.
#[tokio::test]
async fn a_poll_of_who_waits_is_a_read() {
    limited(async {
        let server = server().await;
        let [holder, backend] = [server.backend().await, server.backend().await];
        let mut long = claim("k");
        long.ttl = Duration::from_secs(60);
        acquired(&holder, &long).await;
        let mut short = claim("k").with_wait(Some(Duration::from_secs(2)));
        let [first, second] = [waiter("k"), waiter("k")];
        for (ahead, claim) in [&first, &second, &short].into_iter().enumerate() {
            let ahead = u32::try_from(ahead).expect("small");
            drop(listens(&backend, claim, ahead).await);
            // The first also asks once how long the lease stands.
            assert!(matches!(backend.acquire(claim).await, Ok(Acquire::Contended(_))));
        }
        let (before, written) = (server.begun(&CALLS).await, server.proposals().await);
        for _ in 0..5 {
            for claim in [&first, &second, &short] {
                assert!(matches!(backend.acquire(claim).await, Ok(Acquire::Contended(_))));
            }
        }
        assert_eq!(server.begun(&CALLS).await - before, 15);
        assert_eq!(server.proposals().await, written);
        // Who does not wait any more leaves by one write.
        short.wait = None;
        assert!(matches!(backend.acquire(&short).await, Ok(Acquire::Contended(_))));
        assert_eq!(server.proposals().await, written + 1);
    })
    .await;
}
