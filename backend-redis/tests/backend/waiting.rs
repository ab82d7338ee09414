//! Announced releases: signals armed on return, shared, ended, and resumed. The line has tests of
//! its own.

use std::time::Duration;

use crate::common::{self, Server, acquired, calls, eventually, limited, raw, server};
use lockcore::{Acquire, Claim, LockBackend, Release};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(30);

/// A claim whose release is told to those that watch without a place.
fn claim(name: &str) -> Claim {
    common::claim(name).with_announcement()
}

async fn subscribers(server: &Server, key: &str) -> u64 {
    let channel = format!("leaselock:{{{key}}}:released");
    let mut redis = server.raw().await;
    let reply = raw::<(String, u64)>(&mut redis, &["PUBSUB", "NUMSUB", &channel]).await;
    reply.expect("NUMSUB").1
}

#[tokio::test]
async fn armed_on_return_and_woken_by_the_release() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let other = server.backend().await;
        let mine = claim("k");
        for _ in 0..20 {
            acquired(&other, &mine).await;
            let signal = backend.watch(&claim("k")).await.expect("armed");
            assert_eq!(subscribers(&server, "k").await, 1);
            // Released before the signal is polled for the first time.
            assert!(other.release(&mine).await.expect("redis").is_released());
            signal.await;
        }
        // Other keys and other ends do not wake.
        let signal = backend.watch(&claim("k")).await.expect("armed");
        acquired(&other, &claim("k2")).await;
        assert_eq!(other.release(&claim("k")).await.expect("redis"), Release::NotHeld);
        assert!(timeout(SHORT, signal).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn watchers_share_a_subscription_that_ends_with_the_last() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mut redis = server.raw().await;
        let key = claim("k");
        let (one, two) = tokio::join!(backend.watch(&key), backend.watch(&key));
        let (one, two) = (one.expect("armed"), two.expect("armed"));
        let three = backend.watch(&key).await.expect("armed");
        assert_eq!(calls(&mut redis, "subscribe").await, 1);
        drop(one);
        let mine = claim("k");
        acquired(&backend, &mine).await;
        backend.release(&mine).await.expect("held");
        two.await;
        three.await;
        eventually(async || subscribers(&server, "k").await == 0).await;
        assert_eq!(calls(&mut redis, "unsubscribe").await, 1);
    })
    .await;
}

#[tokio::test]
async fn watching_again_at_once_finds_the_subscription() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mut redis = server.raw().await;
        for _ in 0..50 {
            drop(backend.watch(&claim("k")).await.expect("armed"));
        }
        assert_eq!(calls(&mut redis, "subscribe").await, 1);
    })
    .await;
}

/// Watchers come, leave early, and wait, all on a few keys, while others lock and release: who
/// watches after a release began is woken, or the next release was not there yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_and_goes_misses_nothing() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mut tasks = tokio::task::JoinSet::new();
        for seed in 0..24 {
            let backend = backend.clone();
            tasks.spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..30 {
                    let key = format!("k{}", random.u8(..2));
                    if random.bool() {
                        // Gone at any point of arming or waiting; after the pause, at the
                        // point where the subscription is about to end.
                        let pause = random.choice([0, 1, 2, 199, 201]).unwrap_or(0);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        let micros = random.u64(..2_000);
                        let watch = async {
                            backend.watch(&claim(&key)).await?.await;
                            Ok::<_, lockcore::BackendError>(())
                        };
                        let _ = timeout(Duration::from_micros(micros), watch).await;
                        continue;
                    }
                    let mine = claim(&key);
                    loop {
                        if let Ok(Acquire::Acquired(_)) = backend.acquire(&mine).await {
                            break;
                        }
                        let signal = backend.watch(&mine).await.expect("armed");
                        if let Ok(Acquire::Acquired(_)) = backend.acquire(&mine).await {
                            break;
                        }
                        // No poll helps: a signal that was missed fails the test.
                        timeout(Duration::from_secs(10), signal).await.expect("woken");
                    }
                    backend.release(&mine).await.expect("held");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
        for key in ["k0", "k1"] {
            eventually(async || subscribers(&server, key).await == 0).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_wakes_and_the_next_watch_is_armed_again() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mut redis = server.raw().await;
        let mine = claim("k");
        for _ in 0..3 {
            acquired(&backend, &mine).await;
            let signal = backend.watch(&claim("k")).await.expect("armed");
            let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
            let killed: u64 = raw(&mut redis, &kill).await.expect("KILL");
            assert_eq!(killed, 1);
            signal.await;
            let signal = backend.watch(&claim("k")).await.expect("armed");
            assert_eq!(subscribers(&server, "k").await, 1);
            backend.release(&mine).await.expect("held");
            signal.await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_replaced_connection_wakes_its_watchers() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let mine = claim("k");
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

#[tokio::test]
async fn a_lost_server_wakes_and_refuses_honestly() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let signal = backend.watch(&claim("k")).await.expect("armed");
        server.kill().await;
        signal.await;
        let error = backend.watch(&claim("k")).await.expect_err("down");
        assert!(common::is_unavailable(&error), "{error:?}");
        server.start_again().await;
        eventually(async || backend.watch(&claim("k")).await.is_ok()).await;
    })
    .await;
}

#[tokio::test]
async fn watching_a_paused_server_can_be_given_up() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        server.pause().await;
        let lost = timeout(Duration::from_millis(150), backend.watch(&claim("k"))).await;
        assert!(lost.is_err(), "paused");
        server.resume().await;
        let signal = backend.watch(&claim("k")).await.expect("armed");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn signals_end_with_the_backend() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        let signal = backend.watch(&claim("k")).await.expect("armed");
        drop(backend);
        signal.await;
        eventually(async || subscribers(&server, "k").await == 0).await;
    })
    .await;
}
