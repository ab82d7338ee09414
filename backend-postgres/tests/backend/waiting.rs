//! Release signals: armed on return, shared, ended, and resumed.

use std::time::Duration;

use crate::common::{self, Server, acquired, announced, claim, eventually, limited, server};
use lockcore::{Acquire, LockBackend, Release};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(50);

/// How often a statement was the last of a session.
async fn last(server: &Server, statement: &str) -> usize {
    let sessions = "SELECT query FROM pg_stat_activity WHERE application_name = 'leaselock'";
    let last = server.sql(sessions).await;
    last.iter().filter(|last| last.starts_with(statement)).count()
}

#[tokio::test]
async fn armed_on_return_and_woken_by_the_release() {
    limited(async {
        let server = server().await;
        let (backend, other) = (server.backend().await, server.backend().await);
        let pooled = server.builder().pooler(true).connect().await.expect("a server");
        let mine = announced("k");
        for releaser in [&other, &pooled, &backend] {
            for _ in 0..20 {
                acquired(releaser, &mine).await;
                let signal = backend.watch(&claim("k")).await.expect("armed");
                // Released before the signal is polled for the first time.
                assert!(releaser.release(&mine).await.expect("held").is_released());
                signal.await;
            }
        }
        // Other keys and other ends do not wake.
        let signal = backend.watch(&claim("k")).await.expect("armed");
        let second = announced("k2");
        acquired(&other, &second).await;
        assert!(other.release(&second).await.expect("held").is_released());
        assert_eq!(other.release(&claim("k")).await.expect("free"), Release::NotHeld);
        assert!(timeout(SHORT, signal).await.is_err());
        // Where sessions are shared, nobody is woken, and nobody listens.
        acquired(&other, &mine).await;
        let signal = pooled.watch(&claim("k")).await.expect("armed");
        assert!(other.release(&mine).await.expect("held").is_released());
        assert!(timeout(SHORT, signal).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn watchers_share_what_is_heard_and_the_last_ends_it() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let (key, other) = (claim("k"), claim("other"));
        let signals = tokio::join!(backend.watch(&key), backend.watch(&key), backend.watch(&other));
        let (one, two, three) = (signals.0, signals.1, signals.2);
        let (one, two, three) = (one.expect("armed"), two.expect("armed"), three.expect("armed"));
        assert_eq!(last(&server, "LISTEN").await, 1);
        drop(one);
        let mine = announced("k");
        acquired(&backend, &mine).await;
        backend.release(&mine).await.expect("held");
        two.await;
        assert!(timeout(SHORT, three).await.is_err(), "another key's");
        // Watching again at once finds it still heard: nothing is sent.
        for _ in 0..50 {
            drop(backend.watch(&key).await.expect("armed"));
        }
        assert_eq!(last(&server, "LISTEN").await, 0, "the last was the release");
        eventually(async || last(&server, "UNLISTEN").await == 1).await;
        // And after that, it is armed anew.
        acquired(&backend, &mine).await;
        let signal = backend.watch(&key).await.expect("armed");
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

/// Watchers come, leave early, and wait, all on a few keys, while others lock and release: who
/// watches after a release began is woken, or the next release was not there yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_and_goes_misses_nothing() {
    limited(async {
        let server = server().await;
        let backends = [server.backend().await, server.backend().await];
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..16 {
            let backend = backends[seed % 2].clone();
            tasks.spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed as u64);
                for _ in 0..20 {
                    let key = format!("k{}", random.u8(..2));
                    if random.bool() {
                        let micros = random.u64(..2_000);
                        let watch = async {
                            backend.watch(&claim(&key)).await?.await;
                            Ok::<_, lockcore::BackendError>(())
                        };
                        let _ = timeout(Duration::from_micros(micros), watch).await;
                        continue;
                    }
                    let mine = announced(&key);
                    loop {
                        if let Ok(Acquire::Acquired(_)) = backend.acquire(&mine).await {
                            break;
                        }
                        let signal = backend.watch(&mine).await.expect("armed");
                        if let Ok(Acquire::Acquired(_)) = backend.acquire(&mine).await {
                            break;
                        }
                        // No poll helps: a signal that was missed fails the test.
                        timeout(Duration::from_secs(15), signal).await.expect("woken");
                    }
                    backend.release(&mine).await.expect("held");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_wakes_and_the_next_watch_is_armed_again() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = announced("k");
        for _ in 0..3 {
            acquired(&backend, &mine).await;
            let signal = backend.watch(&claim("k")).await.expect("armed");
            assert_eq!(server.terminate().await, 1);
            signal.await;
            let signal = backend.watch(&claim("k")).await.expect("armed");
            backend.release(&mine).await.expect("held");
            signal.await;
        }
        let signal = backend.watch(&claim("k")).await.expect("armed");
        server.kill().await;
        signal.await;
        let error = backend.watch(&claim("k")).await.expect_err("down");
        assert!(common::is_unavailable(&error), "{error:?}");
        server.start_again().await;
        eventually(async || backend.watch(&claim("k")).await.is_ok()).await;
        // Signals end with the backend.
        let signal = backend.watch(&claim("k")).await.expect("armed");
        drop(backend);
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn a_replaced_connection_wakes_its_watchers() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = announced("k");
        acquired(&backend, &mine).await;
        let signal = backend.watch(&claim("k")).await.expect("armed");
        server.pause().await;
        let lost = timeout(Duration::from_millis(150), backend.renew(&mine)).await;
        assert!(lost.is_err(), "paused");
        server.resume().await;
        // The next call asks on a new connection; the signal was armed on the old one.
        eventually(async || backend.inspect(&mine.key).await.is_ok()).await;
        signal.await;
    })
    .await;
}
