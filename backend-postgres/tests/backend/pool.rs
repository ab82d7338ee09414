//! Connections of a pool.
#![cfg(feature = "pool")]

use std::time::{Duration, Instant};

use crate::common::{
    Server, acquired, claim, eventually, is_rejected, is_unavailable, limited, query, server,
};
use lockcore::{LockBackend, LockManager};
use lockcore_postgres::deadpool_postgres::{Manager, Pool, Runtime};
use lockcore_postgres::{PostgresBackend, tokio_postgres::NoTls};
use tokio::time::timeout;

fn pool(server: &Server, size: usize) -> Pool {
    let manager = Manager::new(server.url().parse().expect("a URL"), NoTls);
    let pool = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1);
    pool.wait_timeout(Some(Duration::from_secs(5))).build().expect("a pool")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_serves_locks_and_others() {
    limited(async {
        let server = server().await;
        let pool = pool(&server, 3);
        let backend = PostgresBackend::from_pool(pool.clone());
        backend.ensure_schema().await.expect("made");
        let locks = LockManager::new(backend);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (lock, pool) = (locks.lock("k").expect("a key"), pool.clone());
            tasks.spawn(async move {
                for _ in 0..5 {
                    let guard = lock.acquire().await.expect("acquired");
                    let client = pool.get().await.expect("a connection");
                    // Whoever had it before has left no settings and no transaction.
                    let state =
                        "SELECT current_setting('lock_timeout'), txid_current_if_assigned()";
                    assert_eq!(query(&client, state).await.expect("a row"), ["0|"]);
                    drop(client);
                    guard.release().await.expect("held");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("no panic");
        }
    })
    .await;
}

/// A call that was given up does not give a busy connection back to the pool, nor one in a
/// transaction.
#[tokio::test]
async fn a_dropped_call_leaves_the_pool_usable() {
    limited(async {
        let server = server().await;
        let backend = PostgresBackend::from_pool(pool(&server, 1));
        backend.ensure_schema().await.expect("made");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        for n in 0..50 {
            let _ = timeout(Duration::from_micros(n * 40), backend.renew(&mine)).await;
        }
        let other = server.raw().await;
        query(&other, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
            .await
            .expect("row");
        let gone = timeout(Duration::from_millis(200), backend.renew(&mine)).await;
        assert!(gone.is_err(), "{gone:?}");
        // The only connection of the pool is not the one that waits.
        assert!(backend.inspect(&mine.key).await.expect("seen").is_some());
        query(&other, "COMMIT").await.expect("COMMIT");
        assert!(backend.release(&mine).await.expect("held").is_released());
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        eventually(async || server.sql(open).await == ["0"]).await;
    })
    .await;
}

/// Whoever is lent a connection next does not wait for the row that the call waits for.
#[tokio::test]
async fn a_call_given_up_at_once_is_in_nobodys_way() {
    limited(async {
        let server = server().await;
        let pool = pool(&server, 1);
        let backend = PostgresBackend::from_pool(pool.clone());
        backend.ensure_schema().await.expect("made");
        let mine = claim("k");
        acquired(&backend, &mine).await;
        let stranger = server.raw().await;
        let lock = "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE";
        query(&stranger, lock).await.expect("a row");
        let process = "SELECT pg_backend_pid()";
        for millis in [20, 50, 90] {
            let client = pool.get().await.expect("a connection");
            let before = query(&client, process).await.expect("a process");
            drop(client);
            let gone = timeout(Duration::from_millis(millis), backend.renew(&mine)).await;
            assert!(gone.is_err(), "{gone:?}");
            let client = pool.get().await.expect("a connection");
            let after = query(&client, process).await.expect("a process");
            assert_ne!(before, after, "it waits for the row");
        }
        query(&stranger, "COMMIT").await.expect("begun");
    })
    .await;
}

/// On another connection a release would overtake the acquire that it is to undo.
#[tokio::test]
async fn a_release_waits_for_the_acquire_that_was_given_up() {
    limited(async {
        let server = server().await;
        let backend = PostgresBackend::from_pool(pool(&server, 3));
        backend.ensure_schema().await.expect("made");
        let first = claim("k");
        acquired(&backend, &first).await;
        backend.release(&first).await.expect("held");
        let stranger = server.raw().await;
        loop {
            query(&stranger, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
                .await
                .expect("a row");
            let (began, late) = (Instant::now(), claim("k"));
            let gone = timeout(Duration::from_millis(150), backend.acquire(&late)).await;
            assert!(gone.is_err(), "behind the stranger: {gone:?}");
            let release = tokio::spawn({
                let (backend, late) = (backend.clone(), late.clone());
                async move { backend.release(&late).await }
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
            // Others are in nobody's way.
            backend.release(&claim("other")).await.expect("an answer");
            query(&stranger, "COMMIT").await.expect("begun");
            let waited = began.elapsed() < Duration::from_millis(700);
            let answer = release.await.expect("no panic");
            assert!(backend.inspect(&late.key).await.expect("seen").is_none());
            // Else the server may have given up the wait for the row before.
            if waited {
                assert!(answer.expect("an answer").is_released());
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_pool_without_connections_says_so() {
    limited(async {
        let server = server().await;
        let small = pool(&server, 1);
        let backend = PostgresBackend::from_pool(small.clone());
        let taken = small.get().await.expect("a connection");
        let short = Pool::builder(Manager::new(server.url().parse().expect("a URL"), NoTls))
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_millis(50)))
            .build()
            .expect("a pool");
        let held = short.get().await.expect("a connection");
        let starved = PostgresBackend::from_pool(short);
        let error = starved.acquire(&claim("k")).await.expect_err("none left");
        assert!(is_unavailable(&error), "{error:?}");
        drop((taken, held));
        server.kill().await;
        let error = backend.acquire(&claim("k")).await.expect_err("killed");
        assert!(!is_rejected(&error), "{error:?}");
        eventually(async || {
            backend.acquire(&claim("k")).await.is_err_and(|error| is_unavailable(&error))
        })
        .await;
        small.close();
        let error = backend.acquire(&claim("k")).await.expect_err("closed");
        assert!(is_rejected(&error), "{error:?}");
    })
    .await;
}
