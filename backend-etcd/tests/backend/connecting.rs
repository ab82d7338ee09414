//! Connecting: what is told when it fails, and to which server it leads.

use std::time::{Duration, Instant};

use crate::common::{
    Impostor, acquired, all_text, claim, free_port, is_rejected, is_unavailable, limited, server,
    start,
};
use lockcore::{Acquire, BackendError, LockBackend};
use lockcore_conformance::Fault;
use lockcore_conformance::proxy::{Direction, Mode, Proxy};
use lockcore_conformance::servers::EtcdOptions;
use lockcore_etcd::{EtcdBackend, etcd_client};

const LIMIT: Duration = Duration::from_millis(700);

async fn refused(url: &str) -> BackendError {
    let begun = Instant::now();
    let error = EtcdBackend::builder(url).connect_timeout(LIMIT).connect().await;
    let error = error.expect_err("nothing of use is there");
    let after = begun.elapsed();
    assert!(after < LIMIT + Duration::from_secs(5), "{error} after {after:?}");
    error
}

#[tokio::test]
async fn where_nobody_listens_it_is_said() {
    limited(async {
        let port = free_port();
        let error = refused(&format!("etcd://127.0.0.1:{port}")).await;
        assert!(is_unavailable(&error), "{error:?}");
        assert!(error.to_string().contains(&format!("nothing listens at 127.0.0.1:{port}")));
        // The driver's error can be had.
        let failure = std::error::Error::source(&error).and_then(std::error::Error::source);
        assert!(failure.is_some_and(|error| error.is::<etcd_client::Error>()), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_etcd_is_told_within_the_limit() {
    limited(async {
        for words in [
            b"".as_slice(),
            b"-ERR unknown command 'PRI', with args beginning with: \r\n",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x16",
            b"EFATAL\0",
        ] {
            let other = Impostor::saying(words).await;
            let error = refused(&format!("etcd://127.0.0.1:{}", other.port)).await;
            assert!(is_unavailable(&error) || is_rejected(&error), "{words:?}: {error:?}");
            assert!(error.to_string().contains("etcds://"), "{words:?}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn passwords_are_checked_and_never_shown() {
    limited(async {
        let server = start(EtcdOptions::new().root("s/e@cret%")).await;
        let port = server.addr().port();
        let url = format!("etcd://root:s%2Fe%40cret%25@127.0.0.1:{port}");
        let backend = EtcdBackend::connect(&url).await.expect("the right password");
        assert!(!format!("{backend:?} {:?}", EtcdBackend::builder(&url)).contains("cret"));
        acquired(&backend, &claim("k")).await;
        for wrong in [
            format!("etcd://root:hunter2@127.0.0.1:{port}"),
            format!("etcd://nobody:hunter2@127.0.0.1:{port}"),
            format!("etcd://127.0.0.1:{port}"),
        ] {
            let error = EtcdBackend::connect(&wrong).await.expect_err("refused");
            assert!(is_rejected(&error), "{error:?}");
            let text = all_text(&error);
            assert!(!text.contains("hunter2"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_at_once() {
    limited(async {
        let builder = || EtcdBackend::builder("etcd://127.0.0.1:1");
        for wrong in [
            EtcdBackend::builder("etcd://127.0.0.1:1/a/b"),
            EtcdBackend::builder("http://127.0.0.1:1"),
            builder().prefix(""),
            builder().prefix("a/b"),
            builder().connect_timeout(Duration::ZERO),
            builder().connect_timeout(Duration::MAX),
            #[cfg(feature = "tls")]
            builder().root_certificates("-----BEGIN CERTIFICATE-----"),
            #[cfg(feature = "tls")]
            EtcdBackend::builder("etcds://127.0.0.1:1").root_certificates("nothing"),
            #[cfg(feature = "tls")]
            EtcdBackend::builder("etcds://127.0.0.1:1").client_certificate("", ""),
        ] {
            let shown = format!("{wrong:?}");
            let error = wrong.build().err();
            assert!(matches!(error, Some(BackendError::InvalidInput(_))), "{shown}: {error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_path_is_the_prefix_unless_it_is_set() {
    limited(async {
        let server = server().await;
        let url = format!("etcd://{}", server.addr());
        let mine = claim("k");
        let first = EtcdBackend::connect(format!("{url}/one")).await.expect("a server");
        acquired(&first, &mine).await;
        let second = EtcdBackend::builder(format!("{url}/two")).prefix("one");
        let second = second.connect().await.expect("a server");
        assert!(second.inspect(&mine.key).await.expect("a server").is_some());
        let third = server.backend().await;
        assert!(third.inspect(&mine.key).await.expect("a server").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_client_of_the_callers_is_enough() {
    limited(async {
        let server = server().await;
        let backend = EtcdBackend::from_client(server.raw().await);
        let mine = claim("k").with_incarnation();
        let lease = acquired(&backend, &mine).await;
        assert!(lease.incarnation.is_some());
        let signal = backend.watch(&mine).await.expect("armed");
        assert!(backend.release(&mine).await.expect("held").is_released());
        signal.await;
    })
    .await;
}

fn url(proxies: &[&Proxy]) -> String {
    let all: Vec<_> = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
    format!("etcd://{}", all.join(","))
}

#[tokio::test]
async fn dead_servers_cost_no_call() {
    limited(async {
        let server = server().await;
        let live = Proxy::start(server.addr()).await.expect("a port");
        let (dead, silent) = (free_port(), Impostor::saying(b"").await);
        for n in 0..12 {
            // Where a client begins is drawn.
            let url = format!("{},127.0.0.1:{dead},127.0.0.1:{}", url(&[&live]), silent.port);
            let backend = EtcdBackend::connect(url).await.expect("one of three answers");
            let mine = claim(&format!("k{n}"));
            acquired(&backend, &mine).await;
            backend.renew(&mine).await.expect("held");
            backend.release(&mine).await.expect("held");
        }
    })
    .await;
}

/// What was told to go away between two calls costs none of them, wherever the client was.
#[tokio::test]
async fn a_server_that_goes_away_costs_no_acquire() {
    limited(async {
        let server = server().await;
        let (one, two) = (Proxy::start(server.addr()).await, Proxy::start(server.addr()).await);
        let (one, two) = (one.expect("a port"), two.expect("a port"));
        let backend = EtcdBackend::connect(url(&[&one, &two])).await.expect("a server");
        for n in 0..10 {
            let (down, up) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
            up.heal();
            down.refuse();
            // The client hears of it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mine = claim(&format!("k{n}"));
            acquired(&backend, &mine).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left_for_another() {
    limited(async {
        let server = server().await;
        let (one, two) = (Proxy::start(server.addr()).await, Proxy::start(server.addr()).await);
        let (one, two) = (one.expect("a port"), two.expect("a port"));
        let backend = EtcdBackend::connect(url(&[&one, &two])).await.expect("a server");
        for n in 0..6 {
            let (down, up) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
            up.heal();
            down.set_both(Mode::Swallow);
            let mine = claim(&format!("k{n}"));
            let given_up =
                tokio::time::timeout(Duration::from_millis(300), backend.acquire(&mine)).await;
            if given_up.is_err() {
                let asked = Instant::now();
                acquired(&backend, &mine).await;
                assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
            }
        }
    })
    .await;
}

/// There, what a new connection takes is more than what an answer takes.
#[tokio::test]
async fn on_a_slow_wire_a_call_given_up_does_not_cost_the_connection() {
    limited(async {
        let server = server().await;
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let backend = EtcdBackend::connect(url(&[&proxy])).await.expect("a server");
        let key = claim("k").key;
        proxy.set_both(Mode::Delay(Duration::from_millis(250)));
        backend.inspect(&key).await.expect("seen");
        for _ in 0..3 {
            let given_up =
                tokio::time::timeout(Duration::from_millis(400), backend.inspect(&key)).await;
            assert!(given_up.is_err(), "a round trip takes half a second");
            backend.inspect(&key).await.expect("seen");
        }
        assert_eq!(proxy.connections(), 1);
    })
    .await;
}

/// A failed call of a holder that may hold must not undo what an earlier one was granted: the same
/// holder asks again.
#[tokio::test]
async fn what_was_granted_survives_a_broken_question() {
    limited(async {
        let server = server().await;
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let (backend, other) =
            (EtcdBackend::connect(url(&[&proxy])).await.expect("a server"), server.backend().await);
        for direction in [Direction::ToServer, Direction::ToClient] {
            for after in (0..600).step_by(11) {
                let mine = claim(&format!("k/{direction:?}/{after}"));
                let lease = acquired(&backend, &mine).await;
                proxy.cut_after(direction, after);
                let _ = backend.acquire(&mine).await;
                proxy.heal();
                let again = loop {
                    match backend.acquire(&mine).await {
                        Ok(Acquire::Acquired(again)) => break again,
                        Ok(other) => panic!("cut at {after}: {other:?}"),
                        Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                    }
                };
                assert_eq!(again.token, lease.token);
                // Whatever was sent behind has had its time.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let seen = other.inspect(&mine.key).await.expect("a server");
                assert!(seen.is_some_and(|info| info.holder == mine.holder), "cut at {after}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_backend_outlives_the_runtime_it_was_made_on() {
    let server = tokio::task::spawn_blocking(|| {
        let first = tokio::runtime::Runtime::new().expect("a runtime");
        let server = first.block_on(server());
        let backend = first.block_on(server.backend());
        first.shutdown_background();
        let second = tokio::runtime::Runtime::new().expect("a runtime");
        second.block_on(limited(async {
            let mine = claim("k");
            // The first call may be what finds out. Sent while the runtime ends, it may never be
            // answered: then it is given up, as the core does.
            let first = tokio::time::timeout(LIMIT, backend.acquire(&mine)).await;
            if !matches!(first, Ok(Ok(_))) {
                acquired(&backend, &mine).await;
            }
            let signal = backend.watch(&mine).await.expect("armed");
            backend.release(&mine).await.expect("held");
            signal.await;
        }));
        server
    });
    drop(server.await.expect("no panic"));
}

#[tokio::test]
async fn a_paused_server_queues_nobody_for_ever() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        server.inflict(Fault::Pause).await;
        let given_up = tokio::time::timeout(LIMIT, backend.acquire(&claim("k"))).await;
        assert!(given_up.is_err(), "a paused server answered: {given_up:?}");
        let (mine, asked) = (claim("other"), Instant::now());
        let error = backend.acquire(&mine).await.expect_err("still paused");
        assert!(is_unavailable(&error), "{error:?}");
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
        server.inflict(Fault::Resume).await;
        acquired(&backend, &mine).await;
    })
    .await;
}
