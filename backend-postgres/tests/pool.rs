//! Connections of a pool.
#![cfg(feature = "pool")]

mod common;

use std::time::Duration;

use common::{
    Server, acquired, claim, eventually, is_rejected, is_unavailable, limited, query, server,
};
use lockcore::{LockBackend, LockManager, Release};
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
        assert_eq!(backend.release(&mine).await.expect("held"), Release::Released);
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        eventually(async || server.sql(open).await == ["0"]).await;
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
