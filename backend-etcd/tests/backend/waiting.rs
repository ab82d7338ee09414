//! Release signals: what they cost, and that none is lost.

use std::time::{Duration, Instant};

use crate::common::{acquired, claim, eventually, is_unavailable, limited, server};
use lockcore::{LockBackend, LockManager};
use lockcore_conformance::Fault;
use lockcore_conformance::proxy::Proxy;
use lockcore_etcd::EtcdBackend;
use tokio::time::timeout;

#[tokio::test]
async fn many_waiters_share_one_stream() {
    limited(async {
        let server = server().await;
        let (holder, backend) = (server.backend().await, server.backend().await);
        let mut waiting = Vec::new();
        for n in 0..600 {
            let mine = claim(&format!("k{}", n % 300));
            if n < 300 {
                acquired(&holder, &mine).await;
            }
            waiting.push((backend.watch(&mine).await.expect("armed"), mine));
        }
        assert_eq!(server.begun(&["Watch"]).await, 1);
        // Calls do not queue behind them.
        acquired(&backend, &claim("other")).await;
        for (_, mine) in &waiting[..300] {
            assert!(holder.release(mine).await.expect("held").is_released());
        }
        for (signal, _) in waiting {
            signal.await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_released_key_wakes_and_renewals_do_not() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let (mine, other) = (claim("a"), claim("a/b"));
        let lease = acquired(&backend, &mine).await;
        acquired(&backend, &other).await;
        let mut signal = backend.watch(&mine).await.expect("armed");
        backend.renew(&mine.clone().with_min_token(lease.token + 9)).await.expect("held");
        backend.release(&other).await.expect("held");
        let early = timeout(Duration::from_millis(400), &mut signal).await;
        assert!(early.is_err(), "woken by what is not a release of the key");
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn an_expiry_wakes() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        let mut mine = claim("k");
        mine.ttl = Duration::from_secs(2);
        acquired(&backend, &mine).await;
        let begun = Instant::now();
        backend.watch(&mine).await.expect("armed").await;
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(backend.inspect(&mine.key).await.expect("a server").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_lost_stream_wakes_its_waiters_and_the_next_one_serves_them() {
    limited(async {
        let server = server().await;
        let proxy = Proxy::start(server.addr()).await.expect("a port");
        let url = format!("etcd://{}", proxy.addr());
        let backend = EtcdBackend::connect(url).await.expect("a server");
        let holder = server.backend().await;
        let mine = claim("k");
        acquired(&holder, &mine).await;
        for _ in 0..5 {
            let signal = backend.watch(&mine).await.expect("armed");
            proxy.cut();
            signal.await;
            // It may take a call to find out.
            eventually(async || backend.inspect(&mine.key).await.is_ok()).await;
        }
        let signal = backend.watch(&mine).await.expect("armed");
        holder.release(&mine).await.expect("held");
        signal.await;
        server.inflict(Fault::Kill).await;
        // A watch that stood when the server ended may be shared until the end is noticed, and
        // wakes then.
        let error = loop {
            match backend.watch(&mine).await {
                Ok(signal) => signal.await,
                Err(error) => break error,
            }
        };
        assert!(is_unavailable(&error), "{error:?}");
    })
    .await;
}

/// What is released between two watches of one waiter is not missed: it looks in between.
#[tokio::test]
async fn hand_overs_need_no_poll() {
    limited(async {
        let server = server().await;
        let mut tasks = Vec::new();
        for _ in 0..3 {
            // A poll would be seen as a wait of half a minute.
            let locks = LockManager::builder(server.backend().await)
                .ttl(Duration::from_secs(60))
                .poll_every(Duration::from_secs(30));
            let lock = locks.build().expect("settings").lock("k").expect("a key");
            tasks.push(tokio::spawn(async move {
                for _ in 0..30 {
                    let guard = lock.acquire().await.expect("a lock");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    guard.release().await.expect("held");
                }
            }));
        }
        let begun = Instant::now();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test]
async fn dropped_watches_leave_nothing_on_the_server() {
    limited(async {
        let server = server().await;
        let backend = server.backend().await;
        for n in 0..200 {
            let mine = claim(&format!("k{n}"));
            let limit = Duration::from_micros(20 * n);
            let _ = timeout(limit, backend.watch(&mine)).await;
        }
        let mine = claim("k");
        acquired(&backend, &mine).await;
        let signal = backend.watch(&mine).await.expect("armed");
        eventually(async || server.watchers().await == 1).await;
        backend.release(&mine).await.expect("held");
        signal.await;
        eventually(async || server.watchers().await == 0).await;
        assert_eq!(server.begun(&["Watch"]).await, 1);
    })
    .await;
}

/// U8: tasks with a key each do not drown the store, nor use up the time of their requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_tasks_with_a_key_each_all_get_theirs() {
    limited(async {
        let server = server().await;
        let locks = LockManager::new(server.backend().await);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6_000 {
            let lock = locks.lock(format!("k/{n}")).expect("a key");
            tasks.spawn(async move {
                let guard = lock.try_acquire().await?.expect("a free key");
                guard.release().await
            });
        }
        for done in tasks.join_all().await {
            done.expect("neither ambiguous nor failed");
        }
    })
    .await;
}
