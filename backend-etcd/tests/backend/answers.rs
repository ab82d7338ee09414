//! Answers that come in the wrong moment.

use std::time::{Duration, Instant};

use crate::common::{acquired, claim, eventually, is_ambiguous, limited, server, start};
use crate::relay::{Plan, Relay};
use lockcore::{LockBackend, Release, Renew};
use lockcore_conformance::servers::EtcdOptions;

/// etcd carries out a write that meets the limit on its space, and answers it as those after it,
/// which it does not.
#[tokio::test]
async fn what_a_full_store_may_have_done_is_a_doubt() {
    limited(async {
        let server = server().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        acquired(&backend, &claim("first")).await;
        let mine = claim("k");
        relay.plan("Txn", Plan::Full);
        let error = backend.acquire(&mine).await.expect_err("full");
        assert!(is_ambiguous(&error), "{error:?}");
        assert!(error.to_string().contains("the store is full"), "{error}");
        assert!(backend.inspect(&mine.key).await.expect("seen").is_some(), "it was carried out");
        relay.plan("", Plan::Pass);
        let lease = acquired(&backend, &mine).await;

        relay.plan("Txn", Plan::Full);
        let raised = mine.clone().with_min_token(lease.token + 9);
        let error = backend.renew(&raised).await.expect_err("full");
        assert!(is_ambiguous(&error), "{error:?}");
        relay.plan("", Plan::Pass);
        let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
        assert_eq!(lease.token, raised.min_token);

        // The key has gone with the first transaction: that this holder had none is not sure.
        relay.plan("Txn", Plan::Full);
        let error = backend.release(&mine).await.expect_err("full");
        assert!(is_ambiguous(&error), "{error:?}");
        assert!(backend.inspect(&mine.key).await.expect("seen").is_none());
        // Now its lease has gone, too.
        assert_eq!(backend.release(&mine).await.expect("an answer"), Release::NotHeld);
    })
    .await;
}

/// A lease of etcd's that was kept alive proves nothing: the key is looked for after it.
#[tokio::test]
async fn a_key_that_goes_while_its_lease_is_renewed_is_not_held() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        backend.renew(&mine).await.expect("held");
        for floor in [0, 1 << 51] {
            acquired(&backend, &mine).await;
            relay.plan("Txn", Plan::Hold);
            let claim = mine.clone().with_min_token(floor);
            let renewal = backend.renew(&claim);
            let gone = async {
                relay.held().await;
                raw.kv_client().delete("leaselock/lease/k", None).await.expect("deleted");
                relay.plan("", Plan::Pass);
            };
            let (answer, ()) = tokio::join!(renewal, gone);
            assert_eq!(answer.expect("an answer"), Renew::NotHeld);
        }
    })
    .await;
}

/// A watch stream that ends without an error tells no less than one that breaks.
#[tokio::test]
async fn a_watch_stream_that_ends_is_opened_again() {
    limited(async {
        let server = server().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let mine = claim("k");
        acquired(&backend, &mine).await;
        for n in 1..4 {
            let signal = backend.watch(&mine).await.expect("armed");
            assert_eq!(relay.watches(), n);
            relay.end_watches();
            signal.await;
        }
        let signal = backend.watch(&mine).await.expect("armed");
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

/// A server that is slow to elect grants more than it was asked for, and that is what counts.
#[tokio::test]
async fn what_was_granted_counts_and_not_what_was_asked() {
    limited(async {
        let slow = ["--election-timeout=5000", "--heartbeat-interval=500"];
        let server = start(EtcdOptions::new().args(slow)).await;
        let backend = server.backend().await;
        let mut mine = claim("k");
        mine.ttl = Duration::from_secs(2);
        let lease = acquired(&backend, &mine).await;
        assert!(lease.ttl > Duration::from_secs(4), "{lease:?}");
        let begun = Instant::now();
        let again = acquired(&backend, &mine).await;
        let Ok(Renew::Renewed(renewed)) = backend.renew(&mine).await else { panic!("held") };
        assert!(renewed.ttl == lease.ttl && again.ttl <= lease.ttl, "{again:?} {renewed:?}");
        tokio::time::sleep(lease.ttl - Duration::from_millis(500)).await;
        let seen = backend.inspect(&mine.key).await.expect("a server");
        assert!(seen.is_some() || begun.elapsed() >= lease.ttl, "it ended early");
        eventually(async || backend.inspect(&mine.key).await.expect("a server").is_none()).await;
    })
    .await;
}
