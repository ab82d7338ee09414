//! What connecting says when something is wrong, and what it accepts.

use std::time::{Duration, Instant};

use crate::common::{
    self, Impostor, acquired, all_text, claim, is_rejected, is_unavailable, limited, server,
};
use lockcore::{BackendError, LockBackend};
use lockcore_conformance::servers::RedisOptions;
use lockcore_redis::{RedisBackend, redis};

const SECRET: &str = "s3cr3t-w0rd";

#[tokio::test]
async fn bad_urls_are_invalid_input_and_never_repeated() {
    for (url, hint) in [
        ("", "start with"),
        ("localhost", "start with"),
        ("http://s3cr3t-w0rd@h/", "scheme"),
        ("postgres://me:s3cr3t-w0rd@h/", "scheme"),
        ("redis://", "host"),
        ("redis://:s3cr3t-w0rd@/", "host"),
        ("redis://:s3cr3t-w0rd@:6379/", "host"),
        ("redis://:s3cr3t-w0rd@h:70000/", "port"),
        ("redis://:s3cr3t-w0rd@h:0/", "port"),
        ("redis://:s3cr3t-w0rd@h:port/", "port"),
        ("redis://:s3cr3t/w0rd@h/", "percent-escape"),
        // Cut off there, the rest would do for an address.
        ("redis://s3cr3t/w0rd@h/", "percent-escape"),
        ("redis://s3cr3t?w0rd@h/", "percent-escape"),
        ("redis://s3cr3t#w0rd@h/", "percent-escape"),
        ("redis://:s3cr3t-w0rd@h/s3cr3t-w0rd", "database"),
        ("redis://:s3cr3t-w0rd@h/-1", "database"),
        ("redis://:s3cr3t-w0rd@h/?protocol=s3cr3t-w0rd", "protocol"),
        ("redis://:s3cr3t-w0rd@h/#insecure", "#"),
        ("redis://:s3cr3t-w0rd@h h/", "host"),
        ("redis://:s3cr3t-w0rd@0.0.0.0/", "wildcard"),
        ("redis://s3cr3t-w0rd%FF@h/", "UTF-8"),
        ("unix://", "path"),
        ("unix:///", "path"),
        ("redis://[::1", "host"),
    ] {
        let error = RedisBackend::connect(url).await.expect_err(url);
        assert!(matches!(error, BackendError::InvalidInput(_)), "{url}: {error:?}");
        let text = all_text(&error);
        assert!(text.contains(hint), "{url}: {text}");
        assert!(!text.contains("s3cr3t") && !text.contains("w0rd"), "{url}: {text}");
    }
}

#[tokio::test]
async fn bad_settings_are_invalid_input() {
    let url = "redis://127.0.0.1:1/";
    for builder in [
        RedisBackend::builder(url).prefix(""),
        RedisBackend::builder(url).prefix("a{b}"),
        RedisBackend::builder(url).connect_timeout(Duration::ZERO),
        RedisBackend::builder(url).token_retention(Duration::MAX),
        #[cfg(feature = "tls")]
        RedisBackend::builder(url).root_certificates("-----BEGIN CERTIFICATE-----"),
        #[cfg(feature = "tls")]
        RedisBackend::builder("rediss://h").root_certificates("nothing"),
        #[cfg(not(feature = "tls"))]
        RedisBackend::builder("rediss://h"),
    ] {
        let error = builder.build().expect_err("refused");
        assert!(matches!(error, BackendError::InvalidInput(_)), "{error:?}");
    }
}

#[tokio::test]
async fn no_server_is_unavailable() {
    let port = common::free_port();
    let url = format!("redis://:{SECRET}@127.0.0.1:{port}/");
    let error = limited(RedisBackend::connect(url)).await.expect_err("nothing listens");
    assert!(is_unavailable(&error), "{error:?}");
    let text = all_text(&error);
    assert!(text.contains(&port.to_string()) && !text.contains(SECRET), "{text}");
    let error = limited(RedisBackend::connect("unix:///nowhere/r.sock")).await;
    assert!(is_unavailable(&error.expect_err("nothing listens")));
}

#[tokio::test]
async fn passwords_users_and_databases() {
    limited(async {
        let word = format!(">{SECRET}");
        let user = ["--user", "me", "on", &word, "~*", "&*", "+@all"];
        let server = server(&[&["--requirepass", SECRET][..], &user].concat()).await;
        let at = format!("127.0.0.1:{}", server.port());
        for (url, hint) in [
            (format!("redis://{at}/"), "password"),
            (format!("redis://{at}/?protocol=resp2"), "password"),
            (format!("redis://:wrong-{SECRET}@{at}/"), "password"),
            (format!("redis://:wrong-{SECRET}@{at}/?protocol=resp2"), "password"),
            (format!("redis://you:{SECRET}@{at}/"), "password"),
            (format!("redis://me:{SECRET}@{at}/99"), "DB index"),
        ] {
            let error = RedisBackend::connect(&url).await.expect_err(&url);
            assert!(is_rejected(&error), "{url}: {error:?}");
            let text = all_text(&error);
            assert!(text.contains(hint) && !text.contains(SECRET), "{url}: {text}");
            let driver = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            let mut driver = driver.filter_map(|error| error.downcast_ref::<redis::RedisError>());
            assert!(driver.next().is_some(), "the driver's error is a source");
        }
        for path in ["", "/", "/3", "/?protocol=resp2", "/3?protocol=resp3"] {
            for user in ["me", ""] {
                let url = format!("redis://{user}:{SECRET}@{at}{path}");
                let backend = RedisBackend::connect(&url).await.expect("let in");
                assert!(!format!("{backend:?}").contains(SECRET));
                assert!(format!("{backend:?}").contains(&at));
                let builder = RedisBackend::builder(&url);
                assert!(!format!("{builder:?}").contains(SECRET));
            }
        }
        // Databases are apart from each other.
        let one = RedisBackend::connect(format!("redis://:{SECRET}@{at}/1")).await;
        let two = RedisBackend::connect(format!("redis://:{SECRET}@{at}/2")).await;
        acquired(&one.expect("let in"), &claim("k")).await;
        acquired(&two.expect("let in"), &claim("k")).await;
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_with_a_database() {
    limited(async {
        let server = common::start(RedisOptions::new().unix_socket()).await;
        let socket = server.socket().await;
        let path = socket.path().to_str().expect("text");
        for scheme in ["unix", "redis+unix", "valkey+unix"] {
            let url = format!("{scheme}://{path}?db=2");
            let backend = RedisBackend::connect(url).await.expect("a socket");
            let mine = claim("k");
            acquired(&backend, &mine).await;
            backend.release(&mine).await.expect("held");
        }
    })
    .await;
}

#[tokio::test]
async fn something_else_at_the_port() {
    limited(async {
        for (words, hint) in [
            (&b""[..], "no answer"),
            (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "does not speak"),
            (&b"-ERR max number of clients reached\r\n"[..], "maxclients"),
            (
                &b"-ERR unknown command 'HELLO', with args: '3' 'AUTH' 'default' 's3cr3t-w0rd'\r\n"
                    [..],
                "not accepted",
            ),
            (&b"-ERR what is this: s3cr3t-w0rd\r\n-ERR\r\n-ERR\r\n"[..], "refused"),
        ] {
            let other = Impostor::saying(words).await;
            let url = format!("redis://:{SECRET}@127.0.0.1:{}/", other.port);
            let builder = RedisBackend::builder(url).connect_timeout(Duration::from_millis(300));
            let before = Instant::now();
            let error = builder.connect().await.expect_err("not Redis");
            assert!(before.elapsed() < Duration::from_secs(2));
            assert!(is_rejected(&error) || is_unavailable(&error), "{error:?}");
            let text = all_text(&error);
            assert!(text.contains(hint) && !text.contains(SECRET), "{hint}: {text}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn building_and_clients_connect_at_the_first_call() {
    limited(async {
        let server = server(&[]).await;
        let lazy = RedisBackend::builder(server.url()).build().expect("settings");
        acquired(&lazy, &claim("lazy")).await;
        let client = redis::Client::open(server.url()).expect("a URL");
        let backend = RedisBackend::from_client(client).expect("settings");
        let mine = claim("client").with_incarnation().with_announcement();
        assert!(acquired(&backend, &mine).await.incarnation.is_some());
        let signal = backend.watch(&mine).await.expect("armed");
        backend.release(&mine).await.expect("held");
        signal.await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_of_the_callers_is_used_as_it_is() {
    limited(async {
        let server = server(&[]).await;
        let backend = RedisBackend::from_connection(server.raw().await);
        let mine = claim("k").with_incarnation().with_announcement();
        assert_eq!(acquired(&backend, &mine).await.incarnation, None);
        let Ok(lockcore::Renew::Renewed(lease)) = backend.renew(&mine).await else {
            panic!("held")
        };
        assert_eq!(lease.incarnation, None);
        assert_eq!(backend.list("", None, 5).await.expect("redis").len(), 1);
        let signal = backend.watch(&mine).await.expect("a signal");
        backend.release(&mine).await.expect("held");
        let nothing = tokio::time::timeout(Duration::from_millis(50), signal).await;
        assert!(nothing.is_err(), "waiting polls");
        // Both kinds exclude each other.
        let own = server.backend().await;
        acquired(&own, &mine).await;
        assert!(matches!(backend.acquire(&claim("k")).await, Ok(lockcore::Acquire::Contended(_))));
    })
    .await;
}
