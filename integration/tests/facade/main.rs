//! `leaselock::connect` and `leaselock::backend`: what a URL opens, and what is said when it does
//! not.

mod etcd;
mod postgres;
mod quorum;
mod redis;

use std::net::{Ipv4Addr, SocketAddr, TcpListener as Listener};
use std::time::{Duration, Instant};

use integration::{SLACK, all_text, limited};
use leaselock::ErrorKind::{self, InvalidInput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Of three parts, none of which is in the text of an error by chance. The last passes for a port,
/// and is none that tests listen on.
const PASSWORD: &str = "hush-zebra-64738";
const PARTS: [&str; 3] = ["hush", "zebra", "64738"];
/// Those that are in no token and no holder by chance.
const WORDS: [&str; 2] = ["hush", "zebra"];

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

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    // Bound and dropped.
    let free = Listener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr();
    free.expect("an address")
}

/// A URL opens a store, by which no part of its password is shown.
async fn opens(url: &str) {
    let locks = leaselock::connect(url).await.expect("a server");
    let guard = locks.lock("k").expect("a key").acquire().await.expect("free");
    let shown = format!("{locks:?} {guard:?} {:?}", locks.inspect("k").await);
    let backend = leaselock::backend(url).await.expect("a server");
    let others = leaselock::LockManager::new(backend);
    let held = others.lock("k").expect("a key").try_acquire().await.expect("a server");
    assert!(held.is_none());
    guard.release().await.expect("held");
    let shown = format!("{shown} {others:?}");
    assert!(WORDS.iter().all(|word| !shown.contains(word)), "{shown}");
}

/// Something that is not the store: what it does with each connection.
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

/// A certificate that nobody vouches for, and its key.
fn certificate() -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let keys = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (keys.cert.pem(), keys.signing_key.serialize_pem())
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
            ("hush-zebra-64738", "a store is named by a URL"),
            ("me:hush-zebra-64738@h:6379", "a store is named by a URL"),
            ("://:hush-zebra-64738@h", "a store is named by a URL"),
            ("re dis://:hush-zebra-64738@h", "a store is named by a URL"),
            ("mysql://me:hush-zebra-64738@h/db", "no store has the scheme `mysql`"),
            ("http://me:hush-zebra-64738@h/", "no store has the scheme `http`"),
            ("memory:hush-zebra-64738", "memory://NAME"),
            ("memory://me:hush-zebra-64738@h", "memory://NAME"),
        ] {
            fails(url, &[InvalidInput], &[says]).await;
        }
    })
    .await;
}
