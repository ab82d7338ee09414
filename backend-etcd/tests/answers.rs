//! Answers that come in the wrong moment.

mod common;
mod relay;

use common::{acquired, claim, is_ambiguous, limited, server};
use lockcore::{LockBackend, Release, Renew};
use relay::{Plan, Relay};

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
