//! How long the store has forgotten nothing, as acquire and renew tell it.

use std::time::Duration;

use crate::common::{acquired, curious as claim, is_rejected, limited, server, value};
use lockcore::{Claim, Incarnation, LockBackend, Renew};
use lockcore_conformance::Fault;
use lockcore_etcd::EtcdBackend;

async fn renewed(backend: &EtcdBackend, claim: &Claim) -> Incarnation {
    match backend.renew(claim).await {
        Ok(Renew::Renewed(lease)) => lease.incarnation.expect("known"),
        other => panic!("not renewed: {other:?}"),
    }
}

/// As after a restored backup: the data of another cluster.
#[tokio::test]
async fn the_data_of_another_cluster_begins_a_new_life() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        let before = acquired(&backend, &mine).await;
        let text = value(&raw, "leaselock/memory").await.expect("written");
        let mut fields: Vec<_> = text.split('|').collect();
        fields[1] = "00000000deadbeef";
        let other = fields.join("|");
        raw.kv_client().put("leaselock/memory", other, None).await.expect("written");
        backend.release(&mine).await.expect("held");
        let after = acquired(&backend, &claim("k")).await;
        assert!(after.token > before.token, "{after:?} after {before:?}");
        let (was, is) = (before.incarnation.expect("known"), after.incarnation.expect("known"));
        assert_ne!(was.id, is.id);
        assert!(is.age < Duration::from_secs(10), "{is:?}");
        let now = value(&raw, "leaselock/memory").await.expect("written");
        assert!(now.split('|').nth(1) == text.split('|').nth(1), "{now} after {text}");
        // Another client agrees.
        let third = acquired(&server.backend().await, &claim("l")).await;
        assert_eq!(third.incarnation.expect("known").id, is.id);
    })
    .await;
}

#[tokio::test]
async fn a_memory_survives_a_restart_and_grows_by_the_stores_clock() {
    limited(async {
        let server = server().await;
        let first =
            acquired(&server.backend().await, &claim("a")).await.incarnation.expect("known");
        tokio::time::sleep(Duration::from_millis(3500)).await;
        let other =
            acquired(&server.backend().await, &claim("b")).await.incarnation.expect("known");
        assert_eq!(first.id, other.id);
        // Cut to seconds, and never too large.
        assert!(other.age >= Duration::from_secs(2), "{other:?}");
        server.inflict(Fault::Restart).await;
        let after =
            acquired(&server.backend().await, &claim("c")).await.incarnation.expect("known");
        assert_eq!(first.id, after.id);
    })
    .await;
}

/// The holder goes on in a store that was restored around its lease.
#[tokio::test]
async fn a_renewal_does_not_take_a_restored_backup_for_the_store() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        let was = acquired(&backend, &mine).await.incarnation.expect("known");
        let text = value(&raw, "leaselock/memory").await.expect("written");
        let mut fields: Vec<_> = text.split('|').collect();
        fields[1] = "00000000deadbeef";
        let other = fields.join("|");
        let restore = async || {
            let put = raw.kv_client().put("leaselock/memory", other.as_str(), None).await;
            put.expect("written");
        };
        // By the holder, by a client that knows nothing yet, and by one who asks for it again.
        for way in 0..3 {
            restore().await;
            let client = if way == 1 { server.backend().await } else { backend.clone() };
            let is = match way {
                2 => acquired(&client, &mine).await.incarnation.expect("known"),
                _ => renewed(&client, &mine).await,
            };
            assert!(is.id != was.id, "{way}: {is:?} after {was:?}");
            assert!(is.age < Duration::from_secs(1), "{way}: {is:?}");
            let now = value(&raw, "leaselock/memory").await.expect("written");
            assert!(now.contains(&format!("{:032x}", is.id)), "{now}");
            assert_eq!(renewed(&client, &mine).await.id, is.id, "{way}");
        }
        assert!(backend.release(&mine).await.expect("held").is_released());
    })
    .await;
}

/// It was deleted by hand: nobody knows what else was.
#[tokio::test]
async fn a_renewal_that_finds_no_memory_begins_one() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        let mut last = acquired(&backend, &mine).await.incarnation.expect("known");
        for way in 0..3 {
            raw.kv_client().delete("leaselock/memory", None).await.expect("deleted");
            // Nobody's renewal changes nothing.
            assert!(matches!(backend.renew(&claim("k")).await, Ok(Renew::NotHeld)));
            assert_eq!(value(&raw, "leaselock/memory").await, None);
            let client = if way == 1 { server.backend().await } else { backend.clone() };
            let memory = match way {
                2 => acquired(&client, &mine).await.incarnation.expect("known"),
                _ => renewed(&client, &mine).await,
            };
            assert!(memory.id != last.id, "{way}: {memory:?} after {last:?}");
            assert!(memory.age < Duration::from_secs(1), "{way}: {memory:?}");
            assert_eq!(renewed(&server.backend().await, &mine).await.id, memory.id);
            last = memory;
        }
    })
    .await;
}

#[tokio::test]
async fn a_foreign_memory_is_refused_and_left_alone_by_renewals_too() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        acquired(&backend, &mine).await;
        raw.kv_client().put("leaselock/memory", "2|what", None).await.expect("written");
        for backend in [&backend, &server.backend().await] {
            let error = backend.renew(&mine).await.expect_err("foreign");
            assert!(is_rejected(&error), "{error:?}");
            assert!(error.to_string().contains("leaselock/memory"), "{error}");
        }
        assert_eq!(value(&raw, "leaselock/memory").await.as_deref(), Some("2|what"));
        assert!(backend.release(&mine).await.expect("held").is_released());
    })
    .await;
}

#[tokio::test]
async fn a_raise_tells_the_memory_too() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        let lease = acquired(&backend, &mine).await;
        let first = lease.incarnation.expect("known");
        let raising = mine.clone().with_min_token(lease.token + 7);
        assert_eq!(renewed(&backend, &raising).await.id, first.id);
        raw.kv_client().delete("leaselock/memory", None).await.expect("deleted");
        let raising = mine.clone().with_min_token(lease.token + 9);
        let second = renewed(&backend, &raising).await;
        assert!(second.id != first.id && second.age.is_zero(), "{second:?} after {first:?}");
    })
    .await;
}
