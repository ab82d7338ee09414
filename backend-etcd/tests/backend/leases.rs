//! Leases of etcd's that are used again: what of an earlier holder's may still be under way.

use std::time::Duration;

use crate::common::{acquired, claim, eventually, leases, limited, server};
use crate::relay::{Plan, Relay};
use etcd_client::{Client, Compare, CompareOp, Txn, TxnOp};
use lockcore::{Acquire, LockBackend, Release, Renew};
use lockcore_etcd::etcd_client;

/// The lease that a key is on.
async fn lease_of(raw: &Client, key: &str) -> Option<i64> {
    let found = raw.kv_client().get(format!("leaselock/lease/{key}"), None).await;
    found.expect("a server").kvs().first().map(etcd_client::KeyValue::lease)
}

#[tokio::test]
async fn a_released_lease_is_used_by_the_next_holder() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let first = claim("a");
        acquired(&backend, &first).await;
        let lease = lease_of(&raw, "a").await;
        backend.release(&first).await.expect("held");
        let (second, third) = (claim("b"), claim("c"));
        acquired(&backend, &second).await;
        assert_eq!(lease_of(&raw, "b").await, lease);
        // One holder at a time.
        acquired(&backend, &third).await;
        assert_ne!(lease_of(&raw, "c").await, lease);
        // What the first one still asks for concerns nobody else.
        assert_eq!(backend.release(&first).await.expect("an answer"), Release::NotHeld);
        assert_eq!(backend.renew(&first).await.expect("an answer"), Renew::NotHeld);
        assert!(matches!(backend.renew(&second).await, Ok(Renew::Renewed(_))));
    })
    .await;
}

/// Another process of the same holder meets the lease in the next holder's hands.
#[tokio::test]
async fn a_late_release_does_not_meet_the_next_holder_on_the_same_lease() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let relay = Relay::start(server.addr()).await;
        let late = relay.backend().await;
        let first = claim("k");
        acquired(&backend, &first).await;
        let lease = lease_of(&raw, "k").await;
        // It knows the key, and its deletion waits on the way.
        late.renew(&first).await.expect("held");
        relay.plan("Txn", Plan::Hold);
        let release = late.release(&first);
        let next = async {
            relay.held().await;
            assert!(backend.release(&first).await.expect("held").is_released());
            let next = claim("k");
            acquired(&backend, &next).await;
            assert_eq!(lease_of(&raw, "k").await, lease);
            relay.plan("", Plan::Pass);
            next
        };
        let (answer, next) = tokio::join!(release, next);
        assert_eq!(answer.expect("an answer"), Release::NotHeld);
        assert!(matches!(backend.renew(&next).await, Ok(Renew::Renewed(_))));
    })
    .await;
}

/// S1: what is revoked behind a refused attempt is not what the same holder has from the next.
#[tokio::test]
async fn an_attempt_after_a_refused_one_is_on_a_lease_that_nobody_revokes() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        for _ in 0..20 {
            let (holder, mine) = (claim("k"), claim("k"));
            acquired(&backend, &holder).await;
            assert!(matches!(backend.acquire(&mine).await, Ok(Acquire::Contended(_))));
            assert!(backend.release(&holder).await.expect("held").is_released());
            acquired(&backend, &mine).await;
            assert!(matches!(backend.renew(&mine).await, Ok(Renew::Renewed(_))));
            assert!(lease_of(&raw, "k").await.is_some());
            backend.release(&mine).await.expect("held");
        }
        assert_eq!(server.begun(&["LeaseRevoke"]).await, 0);
    })
    .await;
}

/// A release revokes the lease of an attempt in doubt: when that arrives, it takes nothing.
#[tokio::test]
async fn a_late_attempt_after_the_release_takes_nothing() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        acquired(&backend, &claim("first")).await;
        let before = leases(&raw).await;
        let mine = claim("k");
        relay.plan("Txn", Plan::Hold);
        {
            let attempt = backend.acquire(&mine);
            tokio::pin!(attempt);
            tokio::select! {
                _ = &mut attempt => panic!("it is held"),
                () = relay.held() => {}
            }
        }
        let granted: Vec<i64> =
            leases(&raw).await.into_iter().filter(|id| !before.contains(id)).collect();
        assert_eq!(granted.len(), 1);
        relay.plan("", Plan::Pass);
        backend.release(&mine).await.expect("an answer");
        eventually(async || !leases(&raw).await.contains(&granted[0])).await;
        let on = etcd_client::PutOptions::new().with_lease(granted[0]);
        let late = Txn::new()
            .when([Compare::create_revision("leaselock/lease/k", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("leaselock/lease/k", "late", Some(on))]);
        let error = raw.kv_client().txn(late).await.expect_err("the lease was revoked");
        assert!(error.to_string().contains("lease not found"), "{error}");
        eventually(async || backend.inspect(&mine.key).await.expect("a server").is_none()).await;
    })
    .await;
}

/// The attempt worked and its answer was lost: the same holder has it, on the same lease.
#[tokio::test]
async fn a_lost_answer_is_found_by_asking_again() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        acquired(&backend, &claim("first")).await;
        let mine = claim("k");
        relay.plan("Txn", Plan::Full);
        backend.acquire(&mine).await.expect_err("in doubt");
        relay.plan("", Plan::Pass);
        let lease = lease_of(&raw, "k").await.expect("it was carried out");
        acquired(&backend, &mine).await;
        assert_eq!(lease_of(&raw, "k").await, Some(lease));
        assert!(backend.release(&mine).await.expect("held").is_released());
        // Its late copy may come yet: the lease is not used again.
        eventually(async || !leases(&raw).await.contains(&lease)).await;
    })
    .await;
}

/// A lease that was ready has ended, by hand or with the store's data: another is granted.
#[tokio::test]
async fn a_ready_lease_that_has_ended_costs_no_failed_call() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        for wait in [0, 1300] {
            let first = claim("k");
            acquired(&backend, &first).await;
            let lease = lease_of(&raw, "k").await.expect("held");
            backend.release(&first).await.expect("held");
            raw.lease_client().revoke(lease).await.expect("revoked");
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let next = claim("k");
            acquired(&backend, &next).await;
            assert_ne!(lease_of(&raw, "k").await, Some(lease));
            backend.release(&next).await.expect("held");
        }
    })
    .await;
}

/// A lease that is used again has all of the claimed ttl before it, and not much more.
#[tokio::test]
async fn a_used_lease_lives_as_long_as_a_new_one() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        for rest in [0, 300, 700, 1500, 2500] {
            let mut first = claim("k");
            first.ttl = Duration::from_secs(3);
            acquired(&backend, &first).await;
            backend.release(&first).await.expect("held");
            tokio::time::sleep(Duration::from_millis(rest)).await;
            let mut next = claim("k");
            next.ttl = first.ttl;
            let begun = std::time::Instant::now();
            let lease = acquired(&backend, &next).await;
            let told = (first.ttl..=first.ttl + Duration::from_secs(1)).contains(&lease.ttl);
            assert!(told, "{rest}: {lease:?}");
            tokio::time::sleep(lease.ttl.saturating_sub(Duration::from_millis(300))).await;
            let seen = backend.inspect(&next.key).await.expect("a server");
            assert!(seen.is_some() || begun.elapsed() >= lease.ttl, "{rest}: it ended early");
            eventually(async || backend.inspect(&next.key).await.expect("a server").is_none())
                .await;
        }
    })
    .await;
}
