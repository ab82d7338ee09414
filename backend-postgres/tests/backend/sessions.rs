//! Sessions that were given up: they are ended before the next one is used, and leave nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{
    PATIENT, Server, acquired, claim, eventually, is_unavailable, limited, query, server,
};
use lockcore::LockBackend;
use lockcore_postgres::PostgresBackend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

async fn as_me(server: &Server) -> PostgresBackend {
    let builder = PostgresBackend::builder(server.url_of("me")).connect_timeout(PATIENT);
    builder.connect().await.expect("a server")
}

async fn processes(server: &Server) -> Vec<String> {
    server.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'me'").await
}

/// A user, and the table, with a row under this key.
async fn prepared(name: &str) -> Server {
    let server = server().await;
    server.user("me").await;
    let (backend, mine) = (server.backend().await, claim(name));
    acquired(&backend, &mine).await;
    assert!(backend.release(&mine).await.expect("held").is_released());
    server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON leaselock TO me").await;
    server
}

/// When a session began is text of the session's time zone and style: `IST` is read as the time
/// of Israel, and `WIB` not at all.
#[tokio::test]
async fn a_session_is_ended_wherever_its_clock_stands() {
    limited(async {
        let server = prepared("k").await;
        for (zone, style) in [
            ("UTC", "ISO, MDY"),
            ("Asia/Jakarta", "SQL, DMY"),
            ("Asia/Kolkata", "SQL, DMY"),
            ("America/New_York", "German, DMY"),
        ] {
            server.sql(&format!("ALTER ROLE me SET timezone = '{zone}'")).await;
            server.sql(&format!("ALTER ROLE me SET datestyle = '{style}'")).await;
            let backend = as_me(&server).await;
            let before = processes(&server).await;
            let stranger = server.raw().await;
            query(&stranger, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
                .await
                .expect("a row");
            let late = claim("k");
            let gone = timeout(Duration::from_millis(300), backend.acquire(&late)).await;
            assert!(gone.is_err(), "{zone}: {gone:?}");
            let other = claim("other");
            acquired(&backend, &other).await;
            eventually(async || {
                let after = processes(&server).await;
                after.len() == 1 && after != before
            })
            .await;
            query(&stranger, "COMMIT").await.expect("begun");
            let late = backend.inspect(&late.key).await.expect("seen");
            assert!(late.is_none(), "{zone}: what was given up came true: {late:?}");
            assert!(backend.release(&other).await.expect("held").is_released());
        }
    })
    .await;
}

/// Where the user may not end its own session, that ends by its limits, and calls go on.
#[tokio::test]
async fn a_session_that_cannot_be_ended_keeps_nobody_out() {
    limited(async {
        let server = prepared("k").await;
        server.sql("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC").await;
        let backend = as_me(&server).await;
        let stranger = server.raw().await;
        query(&stranger, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
            .await
            .expect("a row");
        let gone = timeout(Duration::from_millis(300), backend.acquire(&claim("k"))).await;
        assert!(gone.is_err(), "{gone:?}");
        for n in 0..3 {
            acquired(&backend, &claim(&format!("other{n}"))).await;
        }
        eventually(async || processes(&server).await.len() == 1).await;
    })
    .await;
}

/// A connection of the caller's carries out in order what it was sent, given up or not.
#[tokio::test]
async fn on_a_given_connection_a_release_comes_after_what_was_given_up() {
    limited(async {
        let server = prepared("k").await;
        let backend = PostgresBackend::from_client(server.raw().await);
        let stranger = server.raw().await;
        loop {
            query(&stranger, "BEGIN; SELECT FROM leaselock WHERE key = 'k' FOR UPDATE")
                .await
                .expect("a row");
            let (began, late) = (Instant::now(), claim("k"));
            let gone = timeout(Duration::from_millis(150), backend.acquire(&late)).await;
            assert!(gone.is_err(), "behind the stranger: {gone:?}");
            let release = backend.release(&late);
            let end = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                query(&stranger, "COMMIT").await.expect("begun");
                began.elapsed() < Duration::from_millis(700)
            };
            let (answer, waited) = tokio::join!(release, end);
            assert!(backend.inspect(&late.key).await.expect("seen").is_none());
            // Else the server may have given up the wait for the row before.
            if waited {
                assert!(answer.expect("an answer").is_released());
                break;
            }
        }
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'";
        assert_eq!(server.sql(open).await, ["0"]);
    })
    .await;
}

/// What a server says that lets everyone in.
const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

/// A server that lets us in and then stalls keeps no connection of an attempt that is over.
#[tokio::test]
async fn an_attempt_that_is_over_leaves_no_connection() {
    limited(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (open, taken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let server = tokio::spawn({
            let (open, taken) = (Arc::clone(&open), Arc::clone(&taken));
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let open = Arc::clone(&open);
                    taken.fetch_add(1, Ordering::Relaxed);
                    open.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        let mut bytes = [0; 512];
                        let _ = stream.read(&mut bytes).await;
                        let _ = stream.write_all(LET_IN).await;
                        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        let url = format!("postgres://me@127.0.0.1:{port}/db?sslmode=disable");
        let builder = PostgresBackend::builder(url).connect_timeout(Duration::from_millis(200));
        let backend = builder.build().expect("settings");
        for _ in 0..5 {
            let error = backend.acquire(&claim("k")).await.expect_err("it stalls");
            assert!(is_unavailable(&error), "{error:?}");
        }
        assert_eq!(taken.load(Ordering::Relaxed), 5);
        let closed = eventually(async || open.load(Ordering::Relaxed) == 0);
        let closed = timeout(Duration::from_secs(5), closed).await;
        assert!(closed.is_ok(), "{} are still open", open.load(Ordering::Relaxed));
        server.abort();
    })
    .await;
}
