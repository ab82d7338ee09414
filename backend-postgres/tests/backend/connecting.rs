//! What connecting says when something is wrong, and what it accepts.

use std::time::{Duration, Instant};

use crate::common::{
    self, Impostor, PATIENT, acquired, all_text, claim, is_rejected, is_unavailable, limited,
    server,
};
use lockcore::{BackendError, LockBackend};
use lockcore_postgres::{PostgresBackend, tokio_postgres};

const SECRET: &str = "s3cr3t-w0rd";

#[tokio::test]
async fn bad_urls_are_invalid_input_and_never_repeated() {
    for (url, hint) in [
        ("", "start with"),
        ("localhost", "start with"),
        ("mysql://me:s3cr3t-w0rd@h/", "scheme"),
        ("postgres://", "host"),
        ("postgres://me:s3cr3t-w0rd@/db", "host"),
        ("postgres://me:s3cr3t-w0rd@h:0/db", "port"),
        ("postgres://me:s3cr3t-w0rd@h:70000/db", "port"),
        ("postgres://me:s3cr3t-w0rd@h:port/db", "port"),
        ("postgres://me:s3cr3t/w0rd@h/db", "percent-escape"),
        ("postgres://me:s3cr3t@w0rd@h/db", "percent-escape"),
        ("postgres://me:s3cr3t-w0rd@h/db#x", "percent-escape"),
        ("postgres://me:s3cr3t-w0rd@h/db?sslmode=s3cr3t-w0rd", "sslmode"),
        ("postgres://me:s3cr3t-w0rd@h/db?sslrootcert=/nowhere/s3cr3t-w0rd", "sslrootcert"),
        ("postgres://me:s3cr3t-w0rd@h/db?table=s3cr3t-w0rd", "table"),
        ("postgres://me:s3cr3t-w0rd@h/db?schema=s3cr3t-w0rd", "schema"),
        ("postgres://me:s3cr3t-w0rd@h/db?pooler=s3cr3t-w0rd", "pooler"),
        ("postgres://me:s3cr3t-w0rd@h/db?target_session_attrs=read-only", "read-only"),
        ("postgres://s3cr3t-w0rd%FF@h/", "utf-8"),
    ] {
        let error = PostgresBackend::connect(url).await.expect_err(url);
        assert!(matches!(error, BackendError::InvalidInput(_)), "{url}: {error:?}");
        let text = all_text(&error);
        assert!(text.contains(hint), "{url}: {text}");
        assert!(!text.contains("s3cr3t") && !text.contains("w0rd"), "{url}: {text}");
    }
}

#[tokio::test]
async fn bad_settings_are_invalid_input() {
    let url = "postgres://me@127.0.0.1:1/db";
    for builder in [
        PostgresBackend::builder(url).table(""),
        PostgresBackend::builder(url).table("x\"; DROP TABLE t; --"),
        PostgresBackend::builder(url).schema("x".repeat(64)),
        PostgresBackend::builder(url).connect_timeout(Duration::ZERO),
        PostgresBackend::builder(url).connect_timeout(Duration::MAX),
        PostgresBackend::builder(url).token_retention(Duration::MAX),
        PostgresBackend::builder(url).token_retention(Duration::ZERO),
        // A minute longer than a statement may take.
        PostgresBackend::builder(url).token_retention(Duration::from_millis(61_999)),
        #[cfg(feature = "tls")]
        PostgresBackend::builder(url).root_certificates("nothing"),
        #[cfg(feature = "tls")]
        PostgresBackend::builder(url).root_certificates("-----BEGIN CERTIFICATE-----"),
        #[cfg(not(feature = "tls"))]
        PostgresBackend::builder("postgres://me@h/db?sslmode=require"),
    ] {
        let error = builder.build().expect_err("refused");
        assert!(matches!(error, BackendError::InvalidInput(_)), "{error:?}");
    }
}

#[tokio::test]
async fn no_server_is_unavailable() {
    let port = common::free_port();
    let url = format!("postgres://me:{SECRET}@127.0.0.1:{port}/db");
    let error = limited(PostgresBackend::connect(url)).await.expect_err("nothing listens");
    assert!(is_unavailable(&error), "{error:?}");
    let text = all_text(&error);
    assert!(text.contains(&port.to_string()) && !text.contains(SECRET), "{text}");
    let error = limited(PostgresBackend::connect("postgres://me@%2Fnowhere/db")).await;
    assert!(is_unavailable(&error.expect_err("nothing listens")));
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    limited(async {
        let server = server().await;
        let sql = format!("CREATE ROLE me LOGIN PASSWORD '{SECRET}'");
        server.sql(&sql).await;
        server.sql("CREATE DATABASE closed").await;
        server.sql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").await;
        server.sql("GRANT CREATE ON SCHEMA public TO me").await;
        let at = server.addr();
        for (url, hint) in [
            (format!("postgres://me@{at}/postgres"), "credentials"),
            (format!("postgres://me:wrong-{SECRET}@{at}/postgres"), "password"),
            (format!("postgres://you:{SECRET}@{at}/postgres"), "password"),
            (format!("postgres://me:{SECRET}@{at}/nowhere"), "no such database"),
            (format!("postgres://me:{SECRET}@{at}/closed"), "right"),
        ] {
            let builder = PostgresBackend::builder(&url).connect_timeout(PATIENT);
            let error = builder.connect().await.expect_err(&url);
            assert!(is_rejected(&error), "{url}: {error:?}");
            let text = all_text(&error);
            assert!(text.contains(hint) && !text.contains(SECRET), "{url}: {text}");
            let mut sources =
                std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                    error.source()
                });
            let driver = sources.any(|error| error.is::<tokio_postgres::Error>());
            assert!(driver, "the driver's error is a source");
        }
        let url = format!("postgres://me:{SECRET}@{at}/postgres");
        let builder = PostgresBackend::builder(&url).connect_timeout(PATIENT);
        assert!(!format!("{builder:?}").contains(SECRET));
        let backend = builder.connect().await.expect("let in");
        let shown = format!("{backend:?}");
        assert!(!shown.contains(SECRET) && shown.contains(&at.to_string()), "{shown}");
        // By a configuration of the driver's, and by the socket.
        let config = url.parse().expect("a URL");
        let builder = lockcore_postgres::PostgresBackendBuilder::from_config(config);
        let backend = builder.connect_timeout(PATIENT).connect().await.expect("let in");
        acquired(&backend, &claim("k")).await;
        if let Some(folder) = server.0.unix_socket() {
            let (folder, port) = (folder.display(), server.port());
            let url =
                format!("postgres:///postgres?host={folder}&port={port}&user=me&password={SECRET}");
            let builder = PostgresBackend::builder(url).connect_timeout(PATIENT);
            let backend = builder.connect().await.expect("let in");
            backend.inspect(&common::key("k")).await.expect("seen").expect("stands");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_postgres_is_told_within_the_limit() {
    limited(async {
        for (words, refused) in [
            (&b""[..], false),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", true),
            (b"-ERR unknown command\r\n", true),
            (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00", true),
            (b"N", false),
        ] {
            for query in ["?sslmode=disable", ""] {
                let impostor = Impostor::saying(words).await;
                let url = format!("postgres://me:{SECRET}@127.0.0.1:{}/db{query}", impostor.port);
                let before = Instant::now();
                let builder =
                    PostgresBackend::builder(&url).connect_timeout(Duration::from_millis(500));
                let error = builder.connect().await.expect_err("an impostor");
                assert!(before.elapsed() < Duration::from_secs(3), "{words:?}");
                assert!(is_rejected(&error) || is_unavailable(&error), "{error:?}");
                if refused && query.contains("disable") {
                    assert!(all_text(&error).contains("PostgreSQL"), "{words:?}: {error}");
                }
                assert!(!all_text(&error).contains(SECRET));
            }
        }
    })
    .await;
}

/// The first server that can grant leases is asked, whatever is wrong with those before it.
#[tokio::test]
async fn several_servers_are_tried_in_their_order() {
    limited(async {
        let server = server().await;
        let hole = Impostor::saying(b"").await;
        let url = server.url();
        let (login, _) = url.rsplit_once('@').expect("a login");
        let nobody = common::free_port();
        let (hole, at) = (hole.port, server.addr());
        let url = format!("{login}@127.0.0.1:{nobody},127.0.0.1:{hole},{at}/postgres");
        let builder = PostgresBackend::builder(url).connect_timeout(PATIENT / 3);
        let backend = builder.connect().await.expect("the third");
        acquired(&backend, &claim("k")).await;
        let url = format!("{login}@127.0.0.1:{nobody},127.0.0.1:{nobody}/postgres");
        let error = PostgresBackend::connect(url).await.expect_err("none");
        assert!(is_unavailable(&error), "{error:?}");
    })
    .await;
}
