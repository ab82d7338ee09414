//! `leaselock::connect` and `leaselock::backend`: what a URL opens, and what is said when it does
//! not.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as Listener};
use std::time::{Duration, Instant};

use integration::{SLACK, all_text, limited, store};
use leaselock::ErrorKind::{self, InvalidInput, Rejected, Unavailable};
use lockcore_conformance::servers::RedisOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Of three parts, none of which is in any text by chance.
const PASSWORD: &str = "hush-zebra-1873";
const PARTS: [&str; 3] = ["hush", "zebra", "1873"];

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Connecting fails in time, both ways, with an error that says this and no part of a password.
async fn fails(url: &str, kinds: &[ErrorKind], says: &[&str]) {
    let (start, connected) = (Instant::now(), leaselock::connect(url).await);
    let connect_took = start.elapsed();
    let error = connected.expect_err(url);
    let (start, opened) = (Instant::now(), leaselock::backend(url).await);
    let backend_took = start.elapsed();
    let also = opened.expect_err(url);
    println!("{url}: {:?} after {connect_took:?}: {error}", error.kind());
    for (error, took) in [(&error, connect_took), (&also, backend_took)] {
        let text = all_text(error);
        assert!(kinds.contains(&error.kind()), "{url}: {:?}: {text}", error.kind());
        assert!(took < CONNECT + SLACK, "{url}: {took:?}");
        // On the first line: not everybody prints the sources.
        let line = error.to_string();
        for words in says {
            assert!(line.contains(words), "{url}: `{words}` is not said: {line}");
        }
        assert!(!line.contains('\n'), "{line}");
        for part in PARTS {
            assert!(!text.contains(part), "{url}: the password shows: {text}");
        }
    }
}

fn with_password(at: SocketAddr) -> String {
    format!("redis://:{PASSWORD}@{at}/")
}

#[tokio::test]
async fn the_right_url_opens_the_store() {
    limited(async {
        let server = store::start(RedisOptions::new().args(["--requirepass", PASSWORD])).await;
        for url in [server.url(), server.url().replace("redis:", "VALKEY:")] {
            let locks = leaselock::connect(&url).await.expect("a server");
            let guard = locks.lock("k").expect("a key").acquire().await.expect("free");
            let shown = format!("{locks:?} {guard:?} {:?}", locks.inspect("k").await);
            let backend = leaselock::backend(&url).await.expect("a server");
            let others = leaselock::LockManager::new(backend);
            let held = others.lock("k").expect("a key").try_acquire().await.expect("a server");
            assert!(held.is_none());
            guard.release().await.expect("held");
            let shown = format!("{shown} {others:?}");
            assert!(PARTS.iter().all(|part| !shown.contains(part)), "{shown}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_or_none_is_refused() {
    limited(async {
        let server = store::start(RedisOptions::new().args(["--requirepass", "another"])).await;
        let at = server.addr();
        for query in ["", "?protocol=resp2"] {
            let wrong = format!("{}{query}", with_password(at));
            fails(&wrong, &[Rejected], &["password was not accepted", &at.to_string()]).await;
            let no_user = format!("redis://nobody:{PASSWORD}@{at}/{query}");
            fails(&no_user, &[Rejected], &["user or password was not accepted"]).await;
            fails(&format!("redis://{at}/{query}"), &[Rejected], &["wants a password", "URL"])
                .await;
        }
    })
    .await;
}

/// Something that is no Redis: what it does with each connection.
#[derive(Clone, Copy)]
enum Other {
    Silent,
    Closes,
    Says(&'static str),
}

struct Listening(SocketAddr, AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.1.abort();
    }
}

async fn listen(other: Other) -> Listening {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            match other {
                Other::Silent => open.push(stream),
                Other::Closes => drop(stream),
                Other::Says(words) => {
                    let _ = stream.read(&mut [0; 512]).await;
                    let _ = stream.write_all(words.as_bytes()).await;
                }
            }
        }
    });
    Listening(addr, task.abort_handle())
}

#[tokio::test]
async fn another_server_at_the_port_is_told() {
    const HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    limited(async {
        for (other, kinds, says) in [
            (Other::Silent, &[Unavailable][..], "check that a Redis server listens"),
            (Other::Closes, &[Unavailable], "check that it is a Redis server"),
            (Other::Says(HTTP), &[Rejected], "does not speak as Redis does: check the port"),
            (Other::Says("SSH-2.0-OpenSSH_9.2\r\n"), &[Rejected], "check the port"),
        ] {
            let listening = listen(other).await;
            let at = listening.0.to_string();
            fails(&with_password(listening.0), kinds, &[says, &at]).await;
            let tls = with_password(listening.0).replace("redis:", "rediss:");
            // Whatever it was, it was not TLS.
            fails(&tls, &[Unavailable, Rejected], &["speaks TLS", "redis://", &at]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn tls_on_one_side_only_is_told() {
    limited(async {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let keys = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let (certificate, key) = (keys.cert.pem(), keys.signing_key.serialize_pem());
        let server = store::start(RedisOptions::new().tls(certificate, key)).await;
        let (plain, tls) = (server.addr(), server.tls_addr().expect("started with TLS"));
        for query in ["", "?protocol=resp2"] {
            let url = format!("{}{query}", with_password(tls));
            fails(&url, &[Unavailable, Rejected], &["wants TLS", "rediss://"]).await;
            let url = format!("rediss://:{PASSWORD}@{plain}/{query}");
            fails(&url, &[Unavailable, Rejected], &["speaks TLS", "redis://"]).await;
        }
        // And on both, with a certificate that nobody vouches for.
        let url = format!("rediss://:{PASSWORD}@{tls}/");
        fails(&url, &[Rejected], &["is not trusted", "root_certificates"]).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_told() {
    limited(async {
        // Bound and dropped: nobody listens.
        let free = Listener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr();
        let free = free.expect("an address");
        fails(&with_password(free), &[Unavailable], &["nothing listens", &free.to_string()]).await;
        let tls = with_password(free).replace("redis:", "rediss:");
        fails(&tls, &[Unavailable], &["nothing listens"]).await;

        let url = format!("redis://:{PASSWORD}@leaselock.invalid:6379/");
        fails(&url, &[Unavailable], &["leaselock.invalid:6379", "check"]).await;
        let url = format!("unix:///nowhere/redis.sock?user=me&pass={PASSWORD}");
        fails(&url, &[Unavailable], &["nothing listens at /nowhere/redis.sock"]).await;
    })
    .await;
}

#[tokio::test]
async fn malformed_urls_are_invalid_input() {
    limited(async {
        for (url, says) in [
            ("", "a store is named by a URL"),
            (" ", "a store is named by a URL"),
            ("   \t", "a store is named by a URL"),
            (" redis://h", "a store is named by a URL"),
            ("redis", "a store is named by a URL"),
            ("localhost:6379", "a store is named by a URL"),
            ("hush-zebra-1873", "a store is named by a URL"),
            ("me:hush-zebra-1873@h:6379", "a store is named by a URL"),
            ("://:hush-zebra-1873@h", "a store is named by a URL"),
            ("re dis://:hush-zebra-1873@h", "a store is named by a URL"),
            ("mysql://me:hush-zebra-1873@h/db", "no store has the scheme `mysql`"),
            ("http://me:hush-zebra-1873@h/", "no store has the scheme `http`"),
            ("redis:", "redis://"),
            ("redis:hush-zebra-1873", "redis://"),
            ("redis:/h", "redis://"),
            ("redis://", "host"),
            ("redis:// ", "host"),
            ("redis://:hush-zebra-1873@", "host"),
            ("redis://:hush-zebra-1873@/0", "host"),
            ("redis://:hush-zebra-1873@:6379/", "host"),
            ("redis://:hush-zebra-1873@h h/", "host"),
            ("redis://:hush-zebra-1873@[::1/", "host"),
            ("redis://:hush-zebra-1873@h:70000/", "port"),
            ("redis://:hush-zebra-1873@h:0/", "port"),
            ("redis://:hush-zebra-1873@h:-1/", "port"),
            ("redis://:hush-zebra-1873@h:port/", "port"),
            ("redis://:hush-zebra-1873@h/hush", "database"),
            ("redis://:hush-zebra-1873@h/?protocol=hush", "protocol"),
            ("redis://:hush-zebra-1873@h/#hush", "`#`"),
            // Unescaped, the password ends too early, and its beginning would be taken for a
            // host or a port.
            ("redis://:hush/zebra@h/", "percent-escape"),
            ("redis://:hush?zebra@h/", "percent-escape"),
            ("redis://:hush#zebra@h/", "percent-escape"),
            ("redis://me:1873/zebra@h/", "percent-escape"),
            ("redis://me:1873?zebra@h/", "percent-escape"),
            ("redis://me:1873#zebra@h/", "percent-escape"),
            ("redis://hush/zebra@h/", "percent-escape"),
            ("redis://:hush%FFzebra@h/", "UTF-8"),
            ("unix://", "path"),
            ("unix:///", "path"),
            ("unix:?pass=hush-zebra-1873", "start with"),
            ("memory:hush-zebra-1873", "memory://NAME"),
            ("memory://me:hush-zebra-1873@h", "memory://NAME"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}
