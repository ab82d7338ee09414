//! How places end, and what survives.

use std::time::{Duration, Instant};

use super::{behind, listens, waiter};
use crate::common::{acquired, claim, eventually, leases, limited, names, server, start, value};
use crate::relay::{Plan, Relay};
use lockcore::{Acquire, Claim, HandOver, LockBackend, LockManager, Release};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::EtcdOptions;

/// Dropped at any point and never released: a place ends with its wait.
#[tokio::test]
async fn dropped_calls_leave_nothing_beyond_their_wait() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let (mut holder, mut places) = (claim("k"), 0);
        acquired(&backend, &holder).await;
        let wait = Some(Duration::from_secs(2));
        for n in 0..24 {
            let mut dropped = claim("k").with_wait(wait);
            dropped.ttl = Duration::from_secs(2);
            let limit = Duration::from_micros(250 * n);
            if n % 3 == 0 {
                // It joins by one request.
                let _armed = backend.watch(&dropped).await.expect("armed");
                let _ = tokio::time::timeout(limit, backend.acquire(&dropped)).await;
            } else if n % 3 == 1 {
                let _ = tokio::time::timeout(limit, backend.acquire(&dropped)).await;
                let _ = tokio::time::timeout(limit, backend.acquire(&dropped)).await;
            } else {
                let to = claim("k").with_wait(wait);
                let over = backend.hand_over(&holder, &to, true);
                let _ = tokio::time::timeout(limit, over).await;
                // W10: the one is released until that is answered, and then the other.
                backend.release(&holder).await.expect("a server");
                backend.release(&to).await.expect("a server");
                holder = claim("k").with_wait(Some(Duration::from_secs(20)));
                let end = Instant::now() + Duration::from_secs(20);
                while !matches!(backend.acquire(&holder).await, Ok(Acquire::Acquired(_))) {
                    assert!(Instant::now() < end, "the key is held up");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            places += usize::from(names(&raw).await.iter().any(|name| name.contains("/line/")));
        }
        assert!(places > 0, "no place was ever left behind");
        eventually(async || !names(&raw).await.iter().any(|name| name.contains("/line/"))).await;
        // A newcomer joins right away.
        behind(&backend, &waiter("k"), 0).await;
    })
    .await;
}

/// S1: the release of a holder revokes the lease of a place in doubt: a late join takes nothing.
#[tokio::test]
async fn a_late_join_after_the_release_takes_no_place() {
    limited(async {
        let server = server().await;
        let (raw, holder) = (server.raw().await, server.backend().await);
        acquired(&holder, &claim("k")).await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let mine = waiter("k");
        let _armed = backend.watch(&mine).await.expect("armed");
        let before = leases(&raw).await;
        relay.plan("Txn", Plan::Hold);
        {
            let attempt = backend.acquire(&mine);
            tokio::pin!(attempt);
            tokio::select! {
                _ = &mut attempt => panic!("it is held"),
                () = relay.held() => {}
            }
        }
        let after = leases(&raw).await;
        let granted: Vec<i64> = after.into_iter().filter(|id| !before.contains(id)).collect();
        // For the place alone: none is granted for losing.
        assert_eq!(granted.len(), 1);
        relay.plan("", Plan::Pass);
        assert_eq!(backend.release(&mine).await.expect("an answer"), Release::NotHeld);
        eventually(async || !leases(&raw).await.contains(&granted[0])).await;
        assert!(!names(&raw).await.iter().any(|name| name.contains("/line/")));
    })
    .await;
}

/// The join worked and its answer was lost: asking again finds the place.
#[tokio::test]
async fn a_place_in_doubt_is_found_by_asking_again() {
    limited(async {
        let server = server().await;
        let (raw, other) = (server.raw().await, server.backend().await);
        let (holder, second) = (claim("k"), waiter("k"));
        acquired(&other, &holder).await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let mine = waiter("k");
        let signal = backend.watch(&mine).await.expect("armed");
        relay.plan("Txn", Plan::Full);
        backend.acquire(&mine).await.expect_err("in doubt");
        relay.plan("", Plan::Pass);
        behind(&other, &second, 1).await;
        behind(&backend, &mine, 0).await;
        other.release(&holder).await.expect("held");
        signal.await;
        acquired(&backend, &mine).await;
        backend.release(&mine).await.expect("held");
        acquired(&other, &second).await;
        assert_eq!(names(&raw).await.iter().filter(|name| name.contains("/line/")).count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_line_survives_a_restart() {
    limited(async {
        let server = server().await;
        let [a, b] = [server.backend().await, server.backend().await];
        let (holder, first, second) = (claim("k"), waiter("k"), waiter("k"));
        acquired(&a, &holder).await;
        let signal = listens(&b, &first, 0).await;
        behind(&a, &second, 1).await;
        server.inflict(Fault::Kill).await;
        server.inflict(Fault::Restart).await;
        // Who listened is woken.
        signal.await;
        eventually(async || a.inspect(&holder.key).await.is_ok()).await;
        eventually(async || b.inspect(&holder.key).await.is_ok()).await;
        let signal = listens(&b, &first, 0).await;
        behind(&a, &second, 1).await;
        assert!(a.release(&holder).await.expect("held").is_released());
        signal.await;
        behind(&a, &second, 1).await;
        acquired(&b, &first).await;
        b.release(&first).await.expect("held");
        acquired(&a, &second).await;
    })
    .await;
}

/// A release is not refused for its message, nor for the place that it ends.
#[tokio::test]
async fn a_full_store_still_releases_and_lets_leave() {
    limited(async {
        let server = start(EtcdOptions::new().args(["--quota-backend-bytes=16777216"])).await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let (holder, other) = (claim("k"), claim("l"));
        let [first, second] = [waiter("k"), waiter("k")];
        acquired(&backend, &holder).await;
        acquired(&backend, &other).await;
        behind(&backend, &first, 0).await;
        behind(&backend, &second, 1).await;
        behind(&backend, &waiter("l"), 0).await;
        let big = vec![b'x'; 1 << 20];
        let mut n = 0;
        while raw.kv_client().put(format!("junk/{n}"), big.clone(), None).await.is_ok() {
            n += 1;
            assert!(n < 100, "never full");
        }
        behind(&backend, &second, 1).await;
        assert!(backend.release(&holder).await.expect("held").is_released());
        assert_eq!(backend.release(&first).await.expect("in line"), Release::NotHeld);
        assert!(backend.inspect(&holder.key).await.expect("a server").is_none());
        let place = |claim: &Claim| format!("leaselock/line/k\0{}", claim.holder);
        assert!(value(&raw, &place(&first)).await.is_none());
        assert!(value(&raw, &place(&second)).await.is_some());
        // By a process that has not seen the key before.
        let elsewhere = server.backend().await;
        assert!(elsewhere.release(&other).await.expect("held").is_released());
        let answer = backend.hand_over(&other, &claim("l"), true).await;
        assert!(!matches!(answer, Ok(HandOver::Granted(_))), "{answer:?}");
    })
    .await;
}

/// Nobody is told when a lease ends by itself. The first in line asks when it may have ended, and
/// not only at the next poll.
#[tokio::test]
async fn a_dead_holder_is_followed_without_a_poll() {
    limited(async {
        let server = server().await;
        let (backend, mut dead) = (server.backend().await, claim("k"));
        dead.ttl = Duration::from_secs(2);
        acquired(&backend, &dead).await;
        let begun = Instant::now();
        let locks = LockManager::builder(server.backend().await)
            .ttl(Duration::from_secs(60))
            .poll_every(Duration::from_secs(30));
        let lock = locks.build().expect("settings").lock("k").expect("a key");
        let guard = lock.acquire().await.expect("a lock");
        // A second more than claimed, and what etcd is late.
        assert!(begun.elapsed() <= Duration::from_secs(8), "{:?}", begun.elapsed());
        guard.release().await.expect("held");
    })
    .await;
}

/// A wait that grows puts the place on another lease, and keeps its position.
#[tokio::test]
async fn a_longer_wait_keeps_the_position() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        acquired(&backend, &claim("k")).await;
        let (first, second) = (claim("k").with_wait(Some(Duration::from_secs(2))), waiter("k"));
        behind(&backend, &first, 0).await;
        behind(&backend, &second, 1).await;
        let longer = first.clone().with_wait(Some(Duration::from_secs(20)));
        for backend in [&backend, &server.backend().await] {
            behind(backend, &longer, 0).await;
            behind(backend, &first, 0).await;
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
        behind(&backend, &second, 1).await;
        let places = names(&raw).await.into_iter().filter(|name| name.contains("/line/"));
        assert_eq!(places.count(), 2);
    })
    .await;
}
