//! A private server per test, from whatever source there is.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, LockKey};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{RedisOptions, RedisServer};
use lockcore_redis::RedisBackend;
use lockcore_redis::redis;
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

/// No test takes longer, whatever breaks, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server; it ends when dropped.
pub(crate) struct Server(RedisServer);

/// Starts a server that keeps nothing on disk.
pub(crate) async fn server(args: &[&str]) -> Server {
    start(RedisOptions::new().args(args.iter().copied())).await
}

pub(crate) async fn start(options: RedisOptions) -> Server {
    Server(RedisServer::start(options.private()).await.expect("a server"))
}

/// A port nobody listens on, from outside the range that outgoing connections are given.
pub(crate) fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(12_000..32_000));
    let mut free = ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("a port")
}

impl Server {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr().port()
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.0.tls_addr().expect("started with a certificate").port()
    }

    /// Without a password, even if the server wants one.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.0.addr())
    }

    /// A plain connection, to look at what the backend does.
    pub(crate) async fn raw(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a URL");
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.expect("a server")
    }

    pub(crate) async fn backend(&self) -> RedisBackend {
        RedisBackend::connect(self.url()).await.expect("a server")
    }

    /// A Unix socket that leads to the server.
    pub(crate) async fn socket(&self) -> Socket {
        match self.0.unix_socket() {
            Some(path) => Socket { path: path.to_owned(), relay: None },
            None => Socket::before(self.0.addr()),
        }
    }

    pub(crate) async fn kill(&self) {
        self.inflict(Fault::Kill).await;
    }

    /// At the same port, with nothing remembered.
    pub(crate) async fn start_again(&self) {
        self.inflict(Fault::Restart).await;
    }

    pub(crate) async fn pause(&self) {
        self.inflict(Fault::Pause).await;
    }

    pub(crate) async fn resume(&self) {
        self.inflict(Fault::Resume).await;
    }

    async fn inflict(&self, fault: Fault) {
        assert!(
            self.0.inflict(fault).await,
            "{fault}: not a server of our own: {}",
            self.0.about()
        );
    }
}

/// A Unix socket for clients. The server's own where it is a program of this machine; one in a
/// container cannot share its own, and has a relay in front of it.
pub(crate) struct Socket {
    path: PathBuf,
    relay: Option<JoinHandle<()>>,
}

impl Socket {
    fn before(server: SocketAddr) -> Self {
        let name = format!("lockcore-{}-{:08x}.sock", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).expect("a socket");
        let relay = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { path, relay: Some(relay) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(relay) = &self.relay {
            relay.abort();
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Runs a test within its limit.
pub(crate) async fn limited<T>(test: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(LIMIT, test).await;
    done.expect("the test takes too long")
}

/// Asks until the answer is right.
pub(crate) async fn eventually<F: Future<Output = bool>>(mut ask: impl FnMut() -> F) {
    while !ask().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn key(name: &str) -> LockKey {
    LockKey::new(name).expect("a key")
}

pub(crate) fn claim(name: &str) -> Claim {
    Claim::new(key(name), HolderId::random(), Duration::from_secs(20))
}

/// A claim that takes a place in the line.
pub(crate) fn waiting(name: &str) -> Claim {
    claim(name).with_wait(Some(Duration::from_secs(5)))
}

/// How many are ahead of a claim that finds the key taken.
pub(crate) async fn ahead(backend: &impl LockBackend, claim: &Claim) -> Option<u32> {
    match backend.acquire(claim).await {
        Ok(Acquire::Contended(contention)) => contention.ahead,
        other => panic!("not contended: {other:?}"),
    }
}

pub(crate) async fn acquired(backend: &impl LockBackend, claim: &Claim) -> Lease {
    match backend.acquire(claim).await {
        Ok(Acquire::Acquired(lease)) => lease,
        other => panic!("not acquired: {other:?}"),
    }
}

/// A command of words, on a raw connection.
pub(crate) async fn raw<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> redis::RedisResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query_async(connection).await
}

/// What is left of a key's lease, in ms: its record ends by KEEP later.
pub(crate) async fn left(connection: &mut MultiplexedConnection, key: &str) -> i64 {
    let name = format!("leaselock:{{{key}}}");
    let value: String = raw(connection, &["GET", &name]).await.expect("a record");
    let pttl: i64 = raw(connection, &["PTTL", &name]).await.expect("PTTL");
    pttl - value[52..65].parse::<i64>().expect("KEEP")
}

/// How often a command was called, as the server counts.
pub(crate) async fn calls(connection: &mut MultiplexedConnection, command: &str) -> u64 {
    let info: String = raw(connection, &["INFO", "commandstats"]).await.expect("INFO");
    let start = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&*start));
    let count = line.and_then(|line| line.split(',').next());
    count.map_or(0, |count| count.parse().expect("a number"))
}

pub(crate) fn is_unavailable(error: &BackendError) -> bool {
    matches!(error, BackendError::Unavailable(_))
}

pub(crate) fn is_rejected(error: &BackendError) -> bool {
    matches!(error, BackendError::Rejected(_))
}

/// All that an error says, to the last of its sources.
pub(crate) fn all_text(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(" / {error} {error:?}"));
        source = error.source();
    }
    text
}

/// The next item of a stream.
pub(crate) async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *stream).poll_next(cx)).await
}

/// Listens and does with each connection as told, until dropped.
pub(crate) struct Impostor {
    pub(crate) port: u16,
    /// How many connections were taken.
    pub(crate) taken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Impostor {
    /// Answers each connection with these bytes once something came, and then waits; accepts and
    /// never answers if there are none.
    pub(crate) async fn saying(words: &'static [u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                if !words.is_empty() {
                    let _ = stream.read(&mut [0; 512]).await;
                    let _ = stream.write_all(words).await;
                }
                open.push(stream);
            }
        });
        Self { port, taken, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
