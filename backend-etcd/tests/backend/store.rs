//! What calls cost the store, what they leave in it, and how bases move.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{acquired, claim, eventually, leases, limited, names, server, start};
use lockcore::{Acquire, BackendError, LockBackend, MAX_TOKEN, Release, Renew};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::EtcdOptions;
use lockcore_etcd::EtcdBackend;

#[tokio::test]
async fn nothing_is_left_behind() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k");
        acquired(&backend, &mine).await;
        let before = leases(&raw).await.len();
        for _ in 0..20 {
            let other = claim("k");
            assert!(matches!(backend.acquire(&other).await, Ok(Acquire::Contended(_))));
        }
        // Given up at any point, and released as the core does.
        for n in 0..40 {
            let other = claim("dropped");
            let limit = Duration::from_micros(200 * n);
            let _ = tokio::time::timeout(limit, backend.acquire(&other)).await;
            backend.release(&other).await.expect("a server");
        }
        // One lease is ready for the next key, and all that were in doubt are revoked.
        eventually(async || leases(&raw).await.len() <= before + 1).await;
        assert_eq!(names(&raw).await, ["leaselock/lease/k", "leaselock/memory"]);
        backend.release(&mine).await.expect("held");
        assert!(leases(&raw).await.len() <= before + 1);
        assert_eq!(names(&raw).await, ["leaselock/memory"]);
    })
    .await;
}

/// A process keeps at most as many leases ready as it makes requests at once.
#[tokio::test]
async fn many_releases_at_once_leave_few_leases() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        acquired(&backend, &claim("first")).await;
        let before = leases(&raw).await.len();
        let mut claims = Vec::new();
        for n in 0..400 {
            let mut mine = claim(&format!("k{n}"));
            mine.ttl = Duration::from_secs(3600);
            acquired(&backend, &mine).await;
            claims.push(mine);
        }
        let mut releases = tokio::task::JoinSet::new();
        for mine in claims {
            let backend = backend.clone();
            releases.spawn(async move { backend.release(&mine).await });
        }
        for released in releases.join_all().await {
            assert!(released.expect("a server").is_released());
        }
        eventually(async || leases(&raw).await.len() == before + 128).await;
    })
    .await;
}

/// Clients who do not know of each other's raises, on one key: each acquire finds the base moved.
#[tokio::test]
async fn a_base_that_moves_all_the_time_lets_everyone_in() {
    limited(async {
        let server = server().await;
        let last = Arc::new(Mutex::new(0_u64));
        let mut tasks = Vec::new();
        for n in 0..8_u64 {
            let (backend, last) = (server.backend().await, Arc::clone(&last));
            tasks.push(tokio::spawn(async move {
                let mut taken = 0;
                while taken < 15 {
                    let mine = claim("k").with_min_token(taken * n);
                    let Ok(Acquire::Acquired(lease)) = backend.acquire(&mine).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    taken += 1;
                    let floor = lease.token + n * 1000;
                    let floored = mine.clone().with_min_token(floor);
                    let Ok(Renew::Renewed(raised)) = backend.renew(&floored).await else {
                        panic!("a held lease was not raised");
                    };
                    assert_eq!(raised.token, floor.max(lease.token));
                    // While it is held, nobody else gets another.
                    let last =
                        std::mem::replace(&mut *last.lock().expect("no panic"), raised.token);
                    assert!(lease.token > last, "{lease:?} after {last}");
                    let answer = backend.release(&mine).await.expect("a server");
                    assert!(answer.is_released());
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
    })
    .await;
}

#[tokio::test]
async fn a_raised_shard_does_not_raise_others() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let before = acquired(&backend, &claim("a")).await;
        acquired(&backend, &claim("b").with_min_token(MAX_TOKEN)).await;
        let after = acquired(&backend, &claim("c")).await;
        assert!(after.token > before.token && after.token < before.token + 100, "{after:?}");
    })
    .await;
}

#[tokio::test]
async fn a_full_store_is_told_and_still_releases() {
    limited(async {
        let options = EtcdOptions::new().args(["--quota-backend-bytes=16777216"]);
        let server = start(options).await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let mine = claim("k").with_incarnation();
        let first = acquired(&backend, &mine).await;
        let big = vec![b'x'; 1 << 20];
        let full = async |n: u32| {
            raw.kv_client().put(format!("junk/{n}"), big.clone(), None).await.is_err()
        };
        let mut n = 0;
        while !full(n).await {
            n += 1;
            assert!(n < 100, "never full");
        }
        let error = backend.acquire(&claim("l")).await.expect_err("full");
        assert!(matches!(error, BackendError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("the store is full"), "{error}");
        // By one who knows the store's memory and by one who does not.
        for backend in [&backend, &server.backend().await] {
            let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
            assert_eq!(lease.incarnation.expect("known").id, first.incarnation.expect("known").id);
        }
        // No other memory can be written, and still there is none that is vouched for.
        raw.kv_client().delete("leaselock/memory", None).await.expect("deleted");
        for backend in [&backend, &server.backend().await] {
            let Ok(Renew::Renewed(lease)) = backend.renew(&mine).await else { panic!("held") };
            assert!(lease.incarnation.expect("known").age.is_zero(), "{lease:?}");
        }
        assert!(backend.release(&mine).await.expect("held").is_released());
        assert_eq!(backend.release(&mine).await.expect("free"), Release::NotHeld);
        assert!(backend.inspect(&mine.key).await.expect("a server").is_none());
    })
    .await;
}

/// A ttl that grows moves the key to another lease of etcd's, and all calls of the holder find it.
#[tokio::test]
async fn a_longer_ttl_is_kept_by_calls_with_the_shorter_one() {
    limited(async {
        let server = server().await;
        let (raw, backend) = (server.raw().await, server.backend().await);
        let short = claim("k");
        let mut long = short.clone();
        long.ttl = Duration::from_secs(300);
        let first = acquired(&backend, &short).await;
        let Ok(Renew::Renewed(longer)) = backend.renew(&long).await else { panic!("held") };
        let longest = long.ttl + Duration::from_secs(1);
        assert_eq!((longer.token, longer.ttl), (first.token, longest));
        for _ in 0..2 {
            let Ok(Renew::Renewed(renewed)) = backend.renew(&short).await else { panic!("held") };
            assert_eq!((renewed.token, renewed.ttl), (first.token, longest));
            let again = acquired(&backend, &short).await;
            assert_eq!((again.token, again.ttl), (first.token, longest));
        }
        let left = backend.inspect(&short.key).await.expect("a server").expect("held").remaining;
        assert!(left > Duration::from_secs(290), "{left:?}");
        assert!(backend.release(&short).await.expect("held").is_released());
        assert_eq!(backend.release(&long).await.expect("free"), Release::NotHeld);
        // The memory's own is left, and the one that is ready for the next key.
        eventually(async || leases(&raw).await.len() <= 2).await;
    })
    .await;
}

/// Tokens rise over wipes, however the calls of several clients fall between them.
#[tokio::test]
async fn tokens_rise_over_wipes_between_any_two_steps() {
    limited(async {
        let server = Arc::new(server().await);
        let top = Arc::new(Mutex::new(0_u64));
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let (server, top) = (Arc::clone(&server), Arc::clone(&top));
            tasks.push(tokio::spawn(async move {
                let backend: EtcdBackend = server.backend().await;
                loop {
                    let mine = claim("k");
                    // All that was granted before this is asked is smaller than what comes.
                    let before = *top.lock().expect("no panic");
                    let asked = backend.acquire(&mine);
                    match tokio::time::timeout(Duration::from_secs(1), asked).await {
                        Ok(Ok(Acquire::Acquired(lease))) => {
                            let mut top = top.lock().expect("no panic");
                            assert!(lease.token > before, "{} after {before}", lease.token);
                            *top = lease.token.max(*top);
                        }
                        Ok(Err(BackendError::Rejected(error))) => panic!("{error}"),
                        _ => {}
                    }
                    let released = backend.release(&mine);
                    let _ = tokio::time::timeout(Duration::from_secs(1), released).await;
                }
            }));
        }
        for n in 0..12 {
            tokio::time::sleep(Duration::from_millis(50 + 37 * n)).await;
            server.inflict(Fault::Wipe).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        for task in tasks {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()), "a task failed");
        }
        assert!(*top.lock().expect("no panic") > 0);
    })
    .await;
}
