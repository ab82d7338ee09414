//! Restarts, ended sessions, silence, and connections of the caller's.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{
    self, Impostor, acquired, claim, connect, eventually, is_ambiguous, is_unavailable, key,
    limited, query, server,
};
use lockcore::{Acquire, LockBackend};
use lockcore_conformance::proxy::{Mode, Proxy};
use lockcore_postgres::PostgresBackend;
use tokio::time::timeout;

/// Also where the limits of a shorter lease are set before it.
#[tokio::test]
async fn one_round_trip_each() {
    const TRIP: Duration = Duration::from_millis(400);
    for pooled in [false, true] {
        limited(async {
            let server = server().await;
            let proxy = Proxy::start(server.addr()).await.expect("a port");
            let url = server.url().replace(&server.addr().to_string(), &proxy.addr().to_string());
            let backend = PostgresBackend::builder(url).pooler(pooled).connect().await;
            let backend = backend.expect("a server");
            proxy.set_both(Mode::Delay(TRIP / 2));
            for ttl in [30, 9, 30] {
                let mut mine = claim("k");
                mine.ttl = Duration::from_secs(ttl);
                let began = Instant::now();
                acquired(&backend, &mine).await;
                let acquired = began.elapsed();
                backend.renew(&mine).await.expect("held");
                let renewed = began.elapsed() - acquired;
                assert!(backend.release(&mine).await.expect("held").is_released());
                let released = began.elapsed() - acquired - renewed;
                for took in [acquired, renewed, released] {
                    let trips = took.as_secs_f64() / TRIP.as_secs_f64();
                    assert!((1.0..1.9).contains(&trips), "pooled {pooled}: {trips} round trips");
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    for pooled in [false, true] {
        limited(async {
            let server = server().await;
            let backend = server.builder().pooler(pooled).connect().await.expect("a server");
            let held = common::informed("held");
            let first = acquired(&backend, &held).await;
            server.kill().await;
            let mine = claim("k");
            // The first call may learn of the loss by itself; those after it have sent nothing.
            let lost = backend.acquire(&mine).await.expect_err("killed");
            assert!(!common::is_rejected(&lost), "{lost:?}");
            let down = backend.acquire(&mine).await.expect_err("down");
            assert!(is_unavailable(&down), "{down:?}");
            server.start_again().await;
            let second = acquired(&backend, &held).await;
            assert_eq!(second.token, first.token, "it was committed");
            let (old, new) =
                (first.incarnation.expect("known"), second.incarnation.expect("known"));
            assert_eq!(old.id, new.id, "nothing was forgotten");
            assert!(new.age > old.age);
            server.sql("TRUNCATE leaselock").await;
            let third = acquired(&backend, &common::informed("held")).await;
            assert!(third.token > second.token);
            let newest = third.incarnation.expect("known");
            assert!(newest.id != new.id && newest.age < new.age, "{newest:?} after {new:?}");
        })
        .await;
    }
}

/// The operator ends our session around each verb: idle, it costs no answer; in the middle of a
/// call, nobody knows.
#[tokio::test]
async fn an_ended_session_is_honest() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mine = claim("k");
        for _ in 0..3 {
            for verb in 0..3 {
                let signal = backend.watch(&mine).await.expect("armed");
                assert_eq!(server.terminate().await, 1);
                // The signal tells when the loss is known.
                signal.await;
                match verb {
                    0 => drop(acquired(&backend, &mine).await),
                    1 => drop(backend.renew(&mine).await.expect("held")),
                    _ => assert!(backend.release(&mine).await.expect("held").is_released()),
                }
            }
        }
        // Behind the lock of a stranger, so that it is in the middle for sure.
        let other = server.raw().await;
        query(&other, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
            .await
            .expect("row");
        let again = claim("k");
        let call = backend.acquire(&again);
        let end = async {
            eventually(async || server.sql(WAITING).await == ["1"]).await;
            assert_eq!(server.terminate().await, 1);
        };
        let (answer, ()) = tokio::join!(call, end);
        let error = answer.expect_err("ended");
        assert!(is_ambiguous(&error), "{error:?}");
        query(&other, "COMMIT").await.expect("COMMIT");
        acquired(&backend, &again).await;
    })
    .await;
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND application_name = 'leaselock'";

#[tokio::test]
async fn a_cut_in_the_middle_of_a_call_is_ambiguous() {
    limited(async {
        let server = server().await;
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
        assert!(is_ambiguous(&error), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_connection_is_replaced_and_a_quick_cancel_is_not() {
    limited(async {
        let server = server().await;
        let builder = server.builder().connect_timeout(Duration::from_secs(2));
        let backend = builder.connect().await.expect("a server");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        let process = "SELECT pid FROM pg_stat_activity WHERE application_name = 'leaselock'";
        let before = server.sql(process).await;

        // Callers who change their mind leave the connection alone, and no transaction open.
        for _ in 0..20 {
            let _ = timeout(Duration::ZERO, backend.acquire(&claim("other"))).await;
        }
        backend.inspect(&mine.key).await.expect("seen");
        assert_eq!(server.sql(process).await, before);
        assert_eq!(before.len(), 1, "one connection");

        server.pause().await;
        let lost = timeout(Duration::from_millis(150), backend.renew(&mine)).await;
        assert!(lost.is_err(), "paused");
        // Suspect now: a new connection is tried, and nothing is sent without one.
        let started = Instant::now();
        let error = backend.inspect(&mine.key).await.expect_err("paused");
        assert!(is_unavailable(&error), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        // While a new connection is being opened: a late answer shows that the old one is well.
        let resume = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            server.resume().await;
        };
        let (_, ()) = tokio::join!(backend.inspect(&mine.key), resume);
        eventually(async || backend.inspect(&mine.key).await.is_ok()).await;
        eventually(async || {
            let after = server.sql(process).await;
            !after.is_empty() && after.iter().all(|pid| !before.contains(pid))
        })
        .await;
        assert!(backend.release(&mine).await.expect("held").is_released());
    })
    .await;
}

/// There, what a new connection takes is more than what an answer takes.
#[tokio::test]
async fn on_a_slow_wire_a_call_given_up_does_not_cost_the_connection() {
    for pooled in [false, true] {
        limited(async {
            let server = server().await;
            let proxy = Proxy::start(server.addr()).await.expect("a port");
            let url = server.url().replace(&server.addr().to_string(), &proxy.addr().to_string());
            let builder = PostgresBackend::builder(url).pooler(pooled);
            let backend = builder.connect().await.expect("a server");
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
        let url = format!("postgres://me@127.0.0.1:{}/db", hole.port);
        let builder = PostgresBackend::builder(url).connect_timeout(Duration::from_secs(1));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_connections_serve_all() {
    limited(async {
        let server = server().await;
        server.backend().await;
        let backend = server.builder().build().expect("settings");
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let backend = backend.clone();
            tasks.spawn(async move {
                let answer = backend.acquire(&claim(&format!("k{n}"))).await;
                let _signal = backend.watch(&claim(&format!("k{n}"))).await.expect("armed");
                answer
            });
        }
        while let Some(done) = tasks.join_next().await {
            assert!(matches!(done.expect("no panic"), Ok(Acquire::Acquired(_))));
        }
        let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaselock'";
        let open = server.sql(ours).await[0].parse::<u32>().expect("a number");
        assert!((1..=4).contains(&open), "{open} connections");
        // And they end with the backend.
        drop(backend);
        eventually(async || server.sql(ours).await == ["0"]).await;
    })
    .await;
}

#[test]
fn a_backend_outlives_the_runtime_it_connected_on() {
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    };
    let server = runtime().block_on(server());
    let backend = server.builder().build().expect("settings");
    runtime().block_on(backend.ensure_schema()).expect("made");
    for _ in 0..3 {
        runtime().block_on(limited(async {
            let mine = common::announced("k");
            acquired(&backend, &mine).await;
            let signal = backend.watch(&mine).await.expect("armed");
            backend.release(&mine).await.expect("held");
            signal.await;
        }));
    }
}

#[tokio::test]
async fn a_connection_of_the_callers_is_used_and_told_when_closed() {
    limited(async {
        let server = server().await;
        let backend = PostgresBackend::from_client(connect(&server.url()).await);
        backend.ensure_schema().await.expect("made");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        for _ in 0..20 {
            let _ = timeout(Duration::from_micros(200), backend.renew(&mine)).await;
        }
        assert_eq!(backend.list("", None, 9).await.expect("seen").len(), 1);
        // Nothing is left open, whoever was dropped in the middle.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        assert_eq!(server.sql(open).await, ["0"]);
        assert!(backend.release(&mine).await.expect("held").is_released());
        server.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
             WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .await;
        eventually(async || {
            matches!(&backend.inspect(&key("k")).await, Err(error) if error.to_string().contains("closed"))
        })
        .await;
        let error = backend.acquire(&mine).await.expect_err("closed");
        assert!(is_unavailable(&error), "{error:?}");
    })
    .await;
}

/// A pooler passes on what a client has sent and the server carries it out, though the client is
/// gone by then.
#[tokio::test]
async fn no_call_overtakes_those_of_a_shared_session_that_was_left() {
    limited(async {
        let server = server().await;
        let backend = server.builder().pooler(true).connect().await.expect("a server");
        let late = claim("late");
        acquired(&backend, &late).await;
        backend.release(&late).await.expect("held");
        let stranger = server.raw().await;
        loop {
            query(&stranger, "BEGIN; SELECT 1 FROM leaselock FOR UPDATE").await.expect("a row");
            let (began, late) = (Instant::now(), claim("late"));
            let gone = timeout(Duration::from_millis(150), backend.acquire(&late)).await;
            assert!(gone.is_err(), "behind the stranger: {gone:?}");
            let next = tokio::spawn({
                let backend = backend.clone();
                async move { backend.release(&claim("other")).await }
            });
            tokio::time::sleep(Duration::from_millis(150)).await;
            let overtaken = next.is_finished();
            let waits = began.elapsed() < Duration::from_millis(700);
            assert!(!(overtaken && waits), "the acquire has been overtaken");
            query(&stranger, "COMMIT").await.expect("begun");
            let waited = began.elapsed() < Duration::from_millis(700);
            next.await.expect("no panic").expect("an answer");
            // Else the server may have given up the wait for the row before.
            if waited {
                let seen = backend.inspect(&late.key).await.expect("an answer");
                assert_eq!(seen.expect("carried out").holder, late.holder);
                break;
            }
            backend.release(&late).await.expect("an answer");
        }
    })
    .await;
}

/// The connection breaks while an acquire waits for the row: the release comes after it, on
/// whichever connection (S4).
#[tokio::test]
async fn no_release_overtakes_an_acquire_whose_connection_broke() {
    limited(async {
        let server = server().await;
        server.user("me").await;
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        {
            let before = claim("k");
            let backend = server.backend().await;
            acquired(&backend, &before).await;
            backend.release(&before).await.expect("held");
        }
        server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON leaselock TO me").await;
        // The session cannot be ended, so it has to be waited for.
        server.sql("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC").await;
        let url = server.url_of("me");
        let url = url.replace(&server.addr().to_string(), &proxy.addr().to_string());
        let builder = PostgresBackend::builder(url).connect_timeout(common::PATIENT);
        let backend = builder.connect().await.expect("a server");
        loop {
            let stranger = server.raw().await;
            query(&stranger, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
                .await
                .expect("a row");
            let (began, late) = (Instant::now(), claim("k"));
            let broken = async {
                eventually(async || server.sql(WAITING).await == ["1"]).await;
                proxy.cut();
            };
            let (answer, ()) = tokio::join!(backend.acquire(&late), broken);
            assert!(is_ambiguous(&answer.expect_err("cut")));
            let release = tokio::spawn({
                let (backend, late) = (backend.clone(), late.clone());
                async move { backend.release(&late).await }
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
            query(&stranger, "COMMIT").await.expect("begun");
            let waited = began.elapsed() < Duration::from_millis(700);
            let answer = release.await.expect("no panic");
            assert!(backend.inspect(&late.key).await.expect("seen").is_none());
            // Else the server may have given up the wait for the row before.
            if waited {
                assert!(answer.expect("an answer").is_released(), "it was overtaken");
                break;
            }
        }
    })
    .await;
}
