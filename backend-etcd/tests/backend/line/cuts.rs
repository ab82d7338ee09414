//! Connections that break in the middle of a call.

use std::time::Duration;

use super::{behind, waiter};
use crate::common::{acquired, claim, eventually, is_ambiguous, limited, names, server};
use lockcore::{LockBackend, Release};
use lockcore_conformance::proxy::{Direction, Proxy};
use lockcore_etcd::EtcdBackend;

/// The connection breaks anywhere in a call that joins: whoever asks again has one place.
#[tokio::test]
async fn a_join_that_is_cut_anywhere_is_one_place() {
    limited(async {
        let server = server().await;
        let (raw, other) = (server.raw().await, server.backend().await);
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let url = format!("etcd://{}", proxy.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        acquired(&other, &claim("k")).await;
        for n in 0..60 {
            let (mine, direction) =
                (waiter("k"), if n % 2 == 0 { Direction::ToServer } else { Direction::ToClient });
            let armed = if n % 4 < 2 { backend.watch(&mine).await.ok() } else { None };
            proxy.cut_after(direction, n * 17);
            let limit = Duration::from_millis(500);
            let first = tokio::time::timeout(limit, backend.acquire(&mine)).await;
            proxy.heal();
            if let Ok(Err(error)) = &first {
                let seen = names(&raw).await.iter().any(|name| name.contains("/line/"));
                assert!(!seen || is_ambiguous(error), "{n}: a place, and {error:?}");
            }
            eventually(async || backend.inspect(&mine.key).await.is_ok()).await;
            behind(&backend, &mine, 0).await;
            behind(&other, &mine, 0).await;
            let places = names(&raw).await.into_iter().filter(|name| name.contains("/line/"));
            assert_eq!(places.count(), 1, "{n}");
            assert_eq!(backend.release(&mine).await.expect("in line"), Release::NotHeld);
            assert!(!names(&raw).await.iter().any(|name| name.contains("/line/")), "{n}");
            drop(armed);
        }
        assert!(proxy.cuts() > 20, "{} cuts", proxy.cuts());
    })
    .await;
}

/// W10: a hand-over without an answer is settled by the release of the one, and then the other.
#[tokio::test]
async fn a_hand_over_that_is_cut_anywhere_is_settled() {
    limited(async {
        let server = server().await;
        let (raw, other) = (server.raw().await, server.backend().await);
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let url = format!("etcd://{}", proxy.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        let mut last = 0;
        for n in 0..60 {
            let (from, to) = (claim("k"), waiter("k"));
            // Somebody else is first in line in every third round.
            let first = (n % 3 == 0).then(|| waiter("k"));
            acquired(&backend, &from).await;
            if let Some(first) = &first {
                behind(&other, first, 0).await;
            }
            let direction = if n % 2 == 0 { Direction::ToServer } else { Direction::ToClient };
            proxy.cut_after(direction, n * 13);
            let limit = Duration::from_millis(500);
            let _ = tokio::time::timeout(limit, backend.hand_over(&from, &to, true)).await;
            proxy.heal();
            eventually(async || backend.release(&from).await.is_ok()).await;
            if let Some(first) = &first {
                acquired(&other, first).await;
                assert!(other.release(first).await.expect("held").is_released());
            }
            let lease = acquired(&backend, &to).await;
            assert!(lease.token > last, "{n}: {} after {last}", lease.token);
            last = lease.token;
            assert!(backend.release(&to).await.expect("held").is_released());
            let left = names(&raw).await;
            let records = ["/lease/", "/line/"];
            assert!(
                !left.iter().any(|name| records.iter().any(|it| name.contains(it))),
                "{left:?}"
            );
        }
        assert!(proxy.cuts() > 20, "{} cuts", proxy.cuts());
    })
    .await;
}

/// A runtime may end before the task ran that reads the mailbox: others open the watch anew.
#[test]
fn a_mailbox_outlives_the_runtime_it_was_opened_on() {
    let lasting = tokio::runtime::Runtime::new().expect("a runtime");
    let server = lasting.block_on(server());
    let backend = lasting.block_on(server.backend());
    let asked = waiter("k");
    let brief = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let brief = brief.expect("a runtime");
    brief.block_on(async {
        tokio::select! {
            biased;
            _ = backend.watch(&asked) => panic!("armed at once"),
            () = std::future::ready(()) => {}
        }
    });
    drop(brief);
    lasting.block_on(limited(async {
        if backend.watch(&asked).await.is_err() {
            drop(backend.watch(&asked).await.expect("armed"));
        }
    }));
}
