//! Users: the rights that are enough, what a lack of them looks like, and tokens that expire.

use std::time::Duration;

use crate::common::{acquired, all_text, claim, is_rejected, limited, start};
use lockcore::{LockBackend, Renew};
use lockcore_conformance::servers::EtcdOptions;
use lockcore_etcd::EtcdBackend;

fn options() -> EtcdOptions {
    EtcdOptions::new().root("toor").user("locker", "hush", "leaselock/")
}

#[tokio::test]
async fn a_user_with_the_documented_rights_is_enough() {
    limited(async {
        let server = start(options()).await;
        let url = format!("etcd://locker:hush@{}", server.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        let mine = claim("k").with_min_token(4_000_000_000_000_000).with_incarnation();
        let lease = acquired(&backend, &mine).await;
        assert!(lease.incarnation.is_some());
        let raised = backend.renew(&mine.clone().with_min_token(lease.token + 1)).await;
        assert!(matches!(raised, Ok(Renew::Renewed(lease)) if lease.incarnation.is_some()));
        let signal = backend.watch(&mine).await.expect("armed");
        assert!(backend.inspect(&mine.key).await.expect("a server").is_some());
        assert_eq!(backend.list("", None, 10).await.expect("a server").len(), 1);
        assert!(backend.release(&mine).await.expect("held").is_released());
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_right_is_told() {
    limited(async {
        let server = start(options()).await;
        let url = format!("etcd://locker:hush@{}/elsewhere", server.addr());
        let error = EtcdBackend::connect(&url).await.expect_err("no rights there");
        assert!(is_rejected(&error), "{error:?}");
        assert!(error.to_string().contains("lacks a right"), "{error}");
        assert!(!all_text(&error).contains("hush"), "{error:?}");
        let backend = EtcdBackend::builder(&url).build().expect("no I/O");
        let mine = claim("k");
        for error in [
            backend.acquire(&mine).await.err(),
            backend.renew(&mine).await.err(),
            backend.release(&mine).await.err(),
            backend.watch(&mine).await.err(),
            backend.inspect(&mine.key).await.err(),
            backend.list("", None, 1).await.err(),
        ] {
            let error = error.expect("no rights there");
            assert!(is_rejected(&error), "{error:?}");
        }
    })
    .await;
}

/// Over a client of the caller's nothing was asked when connecting: each call finds out.
#[tokio::test]
async fn a_missing_right_is_told_by_each_call() {
    limited(async {
        let server = start(options()).await;
        let user = etcd_client::ConnectOptions::new().with_user("locker", "hush");
        let client = etcd_client::Client::connect([server.addr().to_string()], Some(user)).await;
        let builder = lockcore_etcd::EtcdBackendBuilder::from_client(client.expect("a client"));
        let backend = builder.prefix("elsewhere").build().expect("no I/O");
        let mine = claim("k");
        for error in [
            backend.acquire(&mine).await.err(),
            backend.renew(&mine).await.err(),
            backend.release(&mine).await.err(),
            backend.watch(&mine).await.err(),
            backend.inspect(&mine.key).await.err(),
            backend.list("", None, 1).await.err(),
        ] {
            let error = error.expect("no rights there");
            assert!(is_rejected(&error), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_without_a_failed_call() {
    limited(async {
        let server = start(options().auth_token_ttl(Duration::from_secs(1))).await;
        let url = format!("etcd://locker:hush@{}", server.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        // The server looks for what has expired every second.
        tokio::time::sleep(Duration::from_secs(4)).await;
        backend.renew(&mine).await.expect("held");
        tokio::time::sleep(Duration::from_secs(4)).await;
        let signal = loop {
            match backend.watch(&mine).await {
                Ok(signal) => break signal,
                // The stream was opened before, and is given up.
                Err(error) => assert!(is_rejected(&error), "{error:?}"),
            }
            backend.renew(&mine).await.expect("held");
        };
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(backend.release(&mine).await.expect("held").is_released());
        signal.await;
    })
    .await;
}
