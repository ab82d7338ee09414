//! A private server per test, from whatever source there is.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use etcd_client::Client;
use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, LockKey};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{EtcdOptions, EtcdServer};
use lockcore_etcd::{EtcdBackend, etcd_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// No test takes longer, whatever breaks, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server; it ends when dropped.
pub(crate) struct Server(EtcdServer);

pub(crate) async fn server() -> Server {
    start(EtcdOptions::new()).await
}

pub(crate) async fn start(options: EtcdOptions) -> Server {
    Server(EtcdServer::start(options.private()).await.expect("a server"))
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

    pub(crate) fn tls_port(&self) -> u16 {
        self.0.tls_addr().expect("started with a certificate").port()
    }

    /// As root where the server asks for users.
    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    pub(crate) async fn backend(&self) -> EtcdBackend {
        EtcdBackend::connect(self.url()).await.expect("a server")
    }

    /// A plain client, to look at what the backend does.
    pub(crate) async fn raw(&self) -> Client {
        Client::connect([self.addr().to_string()], None).await.expect("a client")
    }

    pub(crate) async fn inflict(&self, fault: Fault) {
        let name = self.0.about();
        assert!(self.0.inflict(fault).await, "{fault}: not a server of our own: {name}");
    }

    /// How many calls of these methods the server has begun, as it counts itself.
    pub(crate) async fn begun(&self, methods: &[&str]) -> u64 {
        self.count("grpc_server_started_total{", methods).await
    }

    async fn count(&self, name: &str, methods: &[&str]) -> u64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| line.starts_with(name));
        let wanted = lines.filter(|line| {
            methods.iter().any(|method| line.contains(&format!("grpc_method=\"{method}\"")))
        });
        wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// How many messages of these methods' streams the server has received.
    pub(crate) async fn received(&self, methods: &[&str]) -> u64 {
        self.count("grpc_server_msg_received_total{", methods).await
    }

    /// How many messages of these methods' streams the server has sent.
    pub(crate) async fn sent(&self, methods: &[&str]) -> u64 {
        self.count("grpc_server_msg_sent_total{", methods).await
    }

    /// How many changes went through the log.
    pub(crate) async fn proposals(&self) -> u64 {
        let text = self.metrics().await;
        let name = "etcd_server_proposals_committed_total ";
        let count = text.lines().find_map(|line| line.strip_prefix(name)).expect("a count");
        let count: f64 = count.parse().expect("a number");
        count as u64
    }

    /// How many keys are watched.
    pub(crate) async fn watchers(&self) -> u64 {
        let text = self.metrics().await;
        let name = "etcd_debugging_mvcc_watcher_total ";
        let count = text.lines().find_map(|line| line.strip_prefix(name));
        count.expect("a count").parse().expect("a number")
    }

    async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.addr()).await.expect("a server");
        let ask = b"GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(ask).await.expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("metrics");
        text
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

/// A claim that asks for the store's incarnation.
pub(crate) fn curious(name: &str) -> Claim {
    claim(name).with_incarnation()
}

pub(crate) async fn acquired(backend: &impl LockBackend, claim: &Claim) -> Lease {
    match backend.acquire(claim).await {
        Ok(Acquire::Acquired(lease)) => lease,
        other => panic!("not acquired: {other:?}"),
    }
}

/// The value under a name.
pub(crate) async fn value(raw: &Client, name: &str) -> Option<String> {
    let found = raw.kv_client().get(name, None).await.expect("a server");
    let value = found.kvs().first()?.value().to_vec();
    Some(String::from_utf8(value).expect("text"))
}

/// The names of everything in the store.
pub(crate) async fn names(raw: &Client) -> Vec<String> {
    let all = etcd_client::GetOptions::new().with_all_keys();
    let found = raw.kv_client().get("", Some(all)).await.expect("a server");
    found.kvs().iter().map(|one| one.key_str().expect("text").to_owned()).collect()
}

/// The ids of all leases of etcd's.
pub(crate) async fn leases(raw: &Client) -> Vec<i64> {
    let found = raw.lease_client().leases().await.expect("a server");
    found.leases().iter().map(etcd_client::LeaseStatus::id).collect()
}

pub(crate) fn is_unavailable(error: &BackendError) -> bool {
    matches!(error, BackendError::Unavailable(_))
}

pub(crate) fn is_ambiguous(error: &BackendError) -> bool {
    matches!(error, BackendError::Ambiguous(_))
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

/// Listens and does with each connection as told, until dropped.
pub(crate) struct Impostor {
    pub(crate) port: u16,
    task: JoinHandle<()>,
}

impl Impostor {
    /// Answers each connection with these bytes once something came, and then waits; accepts and
    /// never answers if there are none.
    pub(crate) async fn saying(words: &'static [u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if !words.is_empty() {
                    let _ = stream.read(&mut [0; 512]).await;
                    let _ = stream.write_all(words).await;
                }
                open.push(stream);
            }
        });
        Self { port, task }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.task.abort();
    }
}
