//! Many threads, real time: what the paused clock's single thread cannot show.

use std::time::Duration;

use lockcore::{Acquire, Claim, HolderId, LockBackend, LockKey, MemoryBackend};
use lockcore_combinators::{Phase, Quorum, Switchover};
use lockcore_conformance::Faulty;
use tokio::time::{sleep, timeout};

/// Callers that stop waiting at any moment and release leave nothing behind, whatever the threads
/// do meanwhile.
async fn nothing_is_left(backend: impl LockBackend + Clone, stores: Vec<Faulty<MemoryBackend>>) {
    stores.iter().for_each(Faulty::pace);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let backend = backend.clone();
        clients.spawn(async move {
            for n in 0..200 {
                let key = LockKey::new(format!("k/{client}/{}", n % 3)).expect("a key");
                let claim = Claim::new(key, HolderId::random(), Duration::from_secs(60));
                let limit = Duration::from_micros(fastrand::u64(..400));
                let answer = timeout(limit, backend.acquire(&claim)).await;
                // Contended by its own remains: those go with the releases below.
                if !matches!(answer, Ok(Ok(Acquire::Contended(_)))) {
                    let _ = backend.release(&claim).await;
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("no panic");
    }
    let mut left = 0;
    for _ in 0..100 {
        left = 0;
        for store in &stores {
            left += store.list("k/", None, 100).await.expect("memory").len();
        }
        if left == 0 {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{left} leases are held by nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_quorum() {
    let stores: Vec<_> = (0..3).map(|_| Faulty::new(MemoryBackend::new())).collect();
    let mut builder = Quorum::builder();
    for (n, store) in stores.iter().enumerate() {
        builder = builder.node(format!("n{n}"), store.clone());
    }
    // The stores are young: every attempt fails, and takes back what it was granted.
    nothing_is_left(builder.build().expect("three"), stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_switch() {
    let stores: Vec<_> = (0..2).map(|_| Faulty::new(MemoryBackend::new())).collect();
    let builder = Switchover::builder(stores[0].clone(), stores[1].clone(), Phase::Both);
    nothing_is_left(builder.start().await.expect("nobody in the way"), stores).await;
}
