//! Round trips, forgotten scripts, restarts, and silence.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{
    self, Impostor, acquired, calls, claim, eventually, is_unavailable, limited, raw, server,
};
use lockcore::{Acquire, BackendError, HandOver, LockBackend, Renew};
use lockcore_conformance::proxy::{Mode, Proxy};
use lockcore_redis::RedisBackend;
use tokio::time::timeout;

#[tokio::test]
async fn one_round_trip_each() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        // The first of each teaches the server the script.
        let first = claim("k");
        acquired(&backend, &first).await;
        backend.renew(&first).await.expect("held");
        backend.release(&first).await.expect("held");
        let _: () = raw(&mut redis, &["CONFIG", "RESETSTAT"]).await.expect("CONFIG");
        for n in 1..=3 {
            let mine = claim("k");
            acquired(&backend, &mine).await;
            assert_eq!(calls(&mut redis, "evalsha").await, 3 * n - 2);
            backend.renew(&mine).await.expect("held");
            assert_eq!(calls(&mut redis, "evalsha").await, 3 * n - 1);
            backend.release(&mine).await.expect("held");
            assert_eq!(calls(&mut redis, "evalsha").await, 3 * n);
        }
        for other in ["eval", "script|load", "script", "ping", "subscribe", "multi"] {
            assert_eq!(calls(&mut redis, other).await, 0, "{other}");
        }
    })
    .await;
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let mut mine = claim("k");
        for _ in 0..2 {
            let flush = async |redis: &mut _| raw::<()>(redis, &["SCRIPT", "FLUSH"]).await;
            flush(&mut redis).await.expect("FLUSH");
            acquired(&backend, &mine).await;
            flush(&mut redis).await.expect("FLUSH");
            backend.renew(&mine).await.expect("held");
            flush(&mut redis).await.expect("FLUSH");
            let both = [mine.clone().with_incarnation(), claim("other")];
            let renewed = backend.renew_many(&both).await;
            assert!(matches!(&renewed[..], [Ok(Renew::Renewed(_)), Ok(Renew::NotHeld)]));
            flush(&mut redis).await.expect("FLUSH");
            let to = claim("k");
            let handed = backend.hand_over(&mine, &to, true).await.expect("redis");
            assert!(matches!(handed, HandOver::Granted(_)), "{handed:?}");
            mine = to;
            flush(&mut redis).await.expect("FLUSH");
            assert!(backend.inspect(&mine.key).await.expect("redis").is_some());
            flush(&mut redis).await.expect("FLUSH");
            assert_eq!(backend.list("", None, 9).await.expect("redis").len(), 1);
            flush(&mut redis).await.expect("FLUSH");
            assert!(backend.release(&mine).await.expect("redis").is_released());
        }
    })
    .await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    for query in ["", "?protocol=resp2"] {
        limited(async {
            let server = server(&[]).await;
            let url = format!("{}{query}", server.url());
            let backend = RedisBackend::connect(url).await.expect("a server");
            let first = acquired(&backend, &claim("k").with_incarnation()).await;
            server.kill().await;
            let mine = claim("k").with_incarnation();
            // The first call may learn of the loss by itself; those after it have sent nothing.
            let lost = backend.acquire(&mine).await.expect_err("killed");
            assert!(!common::is_rejected(&lost), "{lost:?}");
            let down = backend.acquire(&mine).await.expect_err("down");
            assert!(is_unavailable(&down), "{down:?}");
            server.start_again().await;
            let second = acquired(&backend, &mine).await;
            assert!(second.token > first.token);
            let (old, new) =
                (first.incarnation.expect("known"), second.incarnation.expect("known"));
            assert_ne!(old.id, new.id);
        })
        .await;
    }
}

#[tokio::test]
async fn an_idle_connection_that_was_cut_costs_no_answer() {
    limited(async {
        let server = server(&[]).await;
        let (backend, mut redis) = (server.backend().await, server.raw().await);
        let signal = backend.watch(&claim("k")).await.expect("armed");
        let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
        let _: u64 = raw(&mut redis, &kill).await.expect("KILL");
        // The signal tells when the loss is known.
        signal.await;
        acquired(&backend, &claim("k")).await;
    })
    .await;
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_call_is_ambiguous() {
    limited(async {
        let server = server(&[]).await;
        let backend = server.backend().await;
        acquired(&backend, &claim("warm")).await;
        server.pause().await;
        let mine = claim("k");
        let call = tokio::spawn({
            let (backend, mine) = (backend.clone(), mine.clone());
            async move { backend.acquire(&mine).await }
        });
        // Time for the call to be written; were it not, the answer would be Unavailable.
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.kill().await;
        let error = call.await.expect("no panic").expect_err("killed");
        assert!(matches!(error, BackendError::Ambiguous(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_connection_is_replaced_and_a_quick_cancel_is_not() {
    limited(async {
        let server = server(&[]).await;
        let builder = RedisBackend::builder(server.url());
        let builder = builder.connect_timeout(Duration::from_millis(300));
        let backend = builder.connect().await.expect("a server");
        let mut redis = server.raw().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;

        // Callers who change their mind leave the connection alone.
        for _ in 0..20 {
            let _ = timeout(Duration::ZERO, backend.acquire(&claim("other"))).await;
        }
        backend.inspect(&mine.key).await.expect("redis");
        // Theirs and this one; whoever saw that the server is up may still be on the way out.
        eventually(async || {
            let clients = raw::<String>(&mut redis.clone(), &["CLIENT", "LIST"]).await;
            clients.expect("LIST").lines().count() == 2
        })
        .await;
        let before = calls(&mut redis, "hello").await;

        server.pause().await;
        let lost = timeout(Duration::from_millis(150), backend.renew(&mine)).await;
        assert!(lost.is_err(), "paused");
        // Suspect now: a new connection is tried, and nothing is sent without one.
        let started = Instant::now();
        let error = backend.inspect(&mine.key).await.expect_err("paused");
        assert!(is_unavailable(&error), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(3));
        server.resume().await;
        eventually(async || backend.inspect(&mine.key).await.is_ok()).await;
        assert!(calls(&mut redis, "hello").await > before);
        assert!(backend.release(&mine).await.expect("redis").is_released());
    })
    .await;
}

/// There, what a new connection takes is more than what an answer takes.
#[tokio::test]
async fn on_a_slow_wire_a_call_given_up_does_not_cost_the_connection() {
    for query in ["", "?protocol=resp2"] {
        limited(async {
            let server = server(&[]).await;
            let proxy = Proxy::start(server.addr()).await.expect("a port");
            let url = format!("redis://{}/{query}", proxy.addr());
            let backend = RedisBackend::connect(url).await.expect("a server");
            let key = claim("k").key;
            proxy.set_both(Mode::Delay(Duration::from_millis(250)));
            backend.inspect(&key).await.expect("seen");
            for _ in 0..3 {
                let given_up = timeout(Duration::from_millis(400), backend.inspect(&key)).await;
                assert!(given_up.is_err(), "a round trip takes half a second");
                backend.inspect(&key).await.expect("seen");
            }
            assert_eq!(proxy.connections(), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_black_hole_does_not_hold_calls_for_ever() {
    limited(async {
        let hole = Impostor::saying(b"").await;
        let builder = RedisBackend::builder(hole.url());
        let builder = builder.connect_timeout(Duration::from_secs(1));
        let backend = builder.build().expect("settings");
        // All wait for one attempt, and the one who leaves breaks it for nobody.
        let left = timeout(Duration::from_millis(20), backend.acquire(&claim("k"))).await;
        assert!(left.is_err());
        let (first, second) = (claim("a"), claim("b"));
        let both = tokio::join!(backend.acquire(&first), backend.acquire(&second));
        assert_eq!(hole.taken.load(Ordering::Relaxed), 1);
        for error in [both.0.expect_err("a hole"), both.1.expect_err("a hole")] {
            assert!(is_unavailable(&error), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn attempts_are_shared_and_not_repeated() {
    limited(async {
        let server = server(&[]).await;
        let mut redis = server.raw().await;
        let backend = RedisBackend::builder(server.url()).build().expect("settings");
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let backend = backend.clone();
            tasks.spawn(async move { backend.acquire(&claim(&format!("k{n}"))).await });
        }
        while let Some(done) = tasks.join_next().await {
            assert!(matches!(done.expect("no panic"), Ok(Acquire::Acquired(_))));
        }
        assert_eq!(calls(&mut redis, "hello").await, 1);
    })
    .await;
}

#[test]
fn a_backend_outlives_the_runtime_it_connected_on() {
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    };
    let server = runtime().block_on(server(&[]));
    let backend = RedisBackend::builder(server.url()).build().expect("settings");
    for _ in 0..3 {
        runtime().block_on(limited(async {
            let mine = claim("k").with_announcement();
            acquired(&backend, &mine).await;
            let signal = backend.watch(&mine).await.expect("armed");
            backend.release(&mine).await.expect("held");
            signal.await;
        }));
    }
}

/// R2: behind a name that moves, a demoted server answers for ever, and another one serves.
#[tokio::test]
async fn a_demoted_server_is_left() {
    limited(async {
        let (first, second) = (server(&[]).await, server(&[]).await);
        let proxy = Proxy::start(first.addr()).await.expect("a port");
        let url = format!("redis://{}/", proxy.addr());
        let backend = RedisBackend::connect(url).await.expect("a server");
        acquired(&backend, &claim("k")).await;
        let mut redis = first.raw().await;
        let port = second.port().to_string();
        let _: () = raw(&mut redis, &["REPLICAOF", "127.0.0.1", &port]).await.expect("REPLICAOF");
        let error = backend.acquire(&claim("other")).await.expect_err("a replica");
        assert!(is_unavailable(&error), "{error:?}");
        let before = proxy.connections();
        let _ = backend.acquire(&claim("other")).await;
        assert!(proxy.connections() > before, "still on the demoted server");
    })
    .await;
}
