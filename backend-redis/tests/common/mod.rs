//! A private redis-server per test.

// Every test file takes what it needs.
#![expect(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, LockKey};
use lockcore_redis::RedisBackend;
use lockcore_redis::redis;
use redis::aio::MultiplexedConnection;

/// No test takes longer, whatever breaks.
const LIMIT: Duration = Duration::from_secs(30);

/// A running server; stopped when dropped.
pub(crate) struct Server {
    pub(crate) pid: u32,
    port: u16,
    args: Vec<String>,
    child: Child,
    folder: PathBuf,
}

/// Starts a server that keeps nothing on disk.
pub(crate) fn server(args: &[&str]) -> Server {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("lockcore-redis-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    // Another process may take the port first: then the server ends, and the next one is tried.
    let (port, child) = std::iter::repeat_with(free_port)
        .take(20)
        .find_map(|port| Some((port, spawn(port, &args, &folder)?)))
        .expect("redis-server starts");
    Server { pid: child.id(), port, args, child, folder }
}

/// A port nobody listens on, from outside the range that outgoing connections are given.
pub(crate) fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| fastrand::u16(12_000..32_000));
    let mut free = ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    free.next().expect("a port")
}

/// The server, once it says in its log that it is ready; `None` if it ended.
fn spawn(port: u16, args: &[String], folder: &Path) -> Option<Child> {
    // With TLS the plain port is closed, and the TLS port takes the number.
    let tls = args.iter().any(|arg| arg == "--tls-cert-file");
    let (plain, secure) = if tls { (0, port) } else { (port, 0) };
    let log = folder.join("log");
    let _ = fs::remove_file(&log);
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--port", &plain.to_string()]);
    if tls {
        command.args(["--tls-port", &secure.to_string()]);
    }
    command.arg("--dir").arg(folder).arg("--logfile").arg(&log);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().expect("redis-server is installed");
    let until = Instant::now() + Duration::from_secs(10);
    let ready = || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains("eady to accept connections") || log.contains("accept connections at")
    };
    while !ready() {
        assert!(Instant::now() < until, "redis-server does not start");
        if child.try_wait().expect("a child").is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(child)
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn folder(&self) -> &PathBuf {
        &self.folder
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

    pub(crate) fn kill(&mut self) {
        // A server that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// At the same port, with nothing remembered.
    pub(crate) fn start_again(&mut self) {
        let child = spawn(self.port, &self.args, &self.folder);
        self.child = child.expect("the port is still free");
        self.pid = self.child.id();
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let status = Command::new("kill").args([name, &pid]).status();
        assert!(status.expect("kill").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
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
    pub(crate) taken: std::sync::Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Impostor {
    /// Answers each connection with these bytes once something came, and then waits; accepts and
    /// never answers if there are none.
    pub(crate) async fn saying(words: &'static [u8]) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let taken = std::sync::Arc::new(AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&taken);
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
