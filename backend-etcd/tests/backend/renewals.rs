//! Renewals of many leases at once: each as if by itself.

use std::time::Duration;

use crate::common::{acquired, claim, eventually, is_rejected, limited, server};
use crate::relay::{Plan, Relay};
use etcd_client::PutOptions;
use lockcore::{BackendError, Claim, LockBackend, Renew};
use lockcore_conformance::Fault;
use lockcore_etcd::{EtcdBackend, etcd_client};

async fn held(backend: &EtcdBackend, count: usize) -> Vec<Claim> {
    let mut claims = Vec::new();
    for n in 0..count {
        let claim = claim(&format!("k{n:03}"));
        acquired(backend, &claim).await;
        claims.push(claim);
    }
    claims
}

#[tokio::test]
async fn each_lease_has_its_own_answer() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mut claims = held(&backend, 12).await;
        let other = server.backend().await;
        // Gone by hand, released by another process, never held, out of the limits, foreign.
        raw.kv_client().delete("leaselock/lease/k001", None).await.expect("deleted");
        other.release(&claims[2]).await.expect("held");
        claims[3] = claim("never");
        claims[4].ttl = Duration::from_millis(1);
        let granted = raw.lease_client().grant(600, None).await.expect("granted").id();
        let on = PutOptions::new().with_lease(granted);
        raw.kv_client().put("leaselock/lease/k005", "2|what", Some(on)).await.expect("written");
        // Raised here, raised by another process, for a longer ttl, seen by another process.
        let token = 1 << 51;
        claims[6] = claims[6].clone().with_min_token(token);
        other.renew(&claims[7].clone().with_min_token(token)).await.expect("held");
        claims[8].ttl = Duration::from_secs(300);
        other.renew(&claims[9]).await.expect("held");
        for round in 0..3 {
            let answers = backend.renew_many(&claims).await;
            assert_eq!(answers.len(), claims.len());
            for (n, answer) in answers.iter().enumerate() {
                let fits = match (n, answer) {
                    (1..=3, Ok(Renew::NotHeld)) => true,
                    (4, Err(BackendError::InvalidInput(_))) => true,
                    (5, Err(error)) => is_rejected(error),
                    (6 | 7, Ok(Renew::Renewed(lease))) => lease.token == token,
                    (8, Ok(Renew::Renewed(lease))) => lease.ttl >= claims[8].ttl,
                    (0 | 9..=11, Ok(Renew::Renewed(lease))) => lease.ttl >= claims[n].ttl,
                    _ => false,
                };
                assert!(fits, "{round}: {n}: {answer:?}");
            }
        }
        let none = backend.renew_many(&[]).await;
        assert!(none.is_empty());
    })
    .await;
}

/// The keys are looked for after their leases were kept alive.
#[tokio::test]
async fn a_key_that_goes_while_the_batch_is_renewed_is_not_held() {
    limited(async {
        let server = server().await;
        let raw = server.raw().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let claims = held(&backend, 5).await;
        relay.plan("Txn", Plan::Hold);
        let renewal = backend.renew_many(&claims);
        let gone = async {
            relay.held().await;
            raw.kv_client().delete("leaselock/lease/k003", None).await.expect("deleted");
            relay.plan("", Plan::Pass);
        };
        let (answers, ()) = tokio::join!(renewal, gone);
        for (n, answer) in answers.into_iter().enumerate() {
            let answer = answer.expect("an answer");
            assert_eq!(answer == Renew::NotHeld, n == 3, "{n}: {answer:?}");
        }
    })
    .await;
}

/// More than one batch, given up at any point, and again.
#[tokio::test]
async fn a_batch_that_is_given_up_harms_nothing() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let claims = held(&backend, 250).await;
        for n in 0..40 {
            let limit = Duration::from_micros(150 * n);
            let _ = tokio::time::timeout(limit, backend.renew_many(&claims)).await;
        }
        for answer in backend.renew_many(&claims).await {
            assert!(matches!(answer, Ok(Renew::Renewed(_))), "{answer:?}");
        }
    })
    .await;
}

/// S11: a leader that was stopped answers keep-alives that count for nothing.
#[tokio::test]
async fn a_keep_alive_of_an_earlier_term_counts_for_nothing() {
    limited(async {
        let server = server().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let claims = held(&backend, 3).await;
        let free = claim("free");
        acquired(&backend, &free).await;
        backend.renew_many(&claims).await;
        for round in 0..2 {
            relay.plan("LeaseKeepAlive", Plan::OldTerm);
            let answer = backend.renew(&claims[0]).await;
            assert!(answer.is_err(), "{round}: {answer:?}");
            let answer = backend.acquire(&claims[1]).await;
            assert!(answer.is_err(), "{round}: {answer:?}");
            for answer in backend.renew_many(&claims).await {
                assert!(answer.is_err(), "{round}: {answer:?}");
            }
            // A lease that is ready is kept alive before it is used again after some time.
            assert!(backend.release(&free).await.expect("an answer").is_released() || round > 0);
            tokio::time::sleep(Duration::from_millis(1300)).await;
            let mine = claim("free");
            let answer = backend.acquire(&mine).await;
            assert!(answer.is_err(), "{round}: {answer:?}");
            relay.plan("", Plan::Pass);
            acquired(&backend, &mine).await;
            backend.release(&mine).await.expect("held");
            for answer in backend.renew_many(&claims).await {
                assert!(matches!(answer, Ok(Renew::Renewed(_))), "{round}: {answer:?}");
            }
        }
    })
    .await;
}

/// A full store takes no transactions, and still renews.
#[tokio::test]
async fn a_full_store_renews_a_batch() {
    limited(async {
        let server = server().await;
        let relay = Relay::start(server.addr()).await;
        let backend = relay.backend().await;
        let claims = held(&backend, 20).await;
        relay.plan("Txn", Plan::Full);
        for answer in backend.renew_many(&claims).await {
            assert!(matches!(answer, Ok(Renew::Renewed(_))), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_restart_breaks_the_streams_and_the_next_renewal_opens_others() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let claims = held(&backend, 20).await;
        backend.renew_many(&claims).await;
        for fault in [Fault::Restart, Fault::Restart] {
            server.inflict(fault).await;
            eventually(async || {
                let answers = backend.renew_many(&claims).await;
                // Nothing was lost, so nothing may be told lost.
                assert!(
                    answers.iter().all(|one| !matches!(one, Ok(Renew::NotHeld))),
                    "{answers:?}"
                );
                answers.iter().all(Result::is_ok)
            })
            .await;
        }
    })
    .await;
}
