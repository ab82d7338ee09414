//! A look at etcd past the locks.

use std::net::SocketAddr;

use leaselock::etcd::etcd_client::{Client, GetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where the lease records are, as `docs/format.md` says.
const LEASES: &str = "leaselock/lease/";

/// A client of the driver's.
///
/// # Panics
///
/// If the URL is not one of a test server.
pub async fn client(url: &str) -> Client {
    let at = url.strip_prefix("etcd://").expect("a URL").trim_end_matches('/');
    Client::connect([at], None).await.expect("a server")
}

/// The keys of the leases that stand, as the records say.
///
/// # Panics
///
/// If the server does not say.
pub async fn leases(url: &str) -> Vec<String> {
    let all = Some(GetOptions::new().with_prefix().with_keys_only());
    let found = client(url).await.get(LEASES, all).await.expect("a range");
    let keys = found.kvs().iter().map(|kv| kv.key_str().expect("text"));
    keys.map(|key| key.strip_prefix(LEASES).expect("a prefix").to_owned()).collect()
}

pub(super) async fn is_watched(addr: SocketAddr) -> bool {
    metric(addr, |name| name == "etcd_debugging_mvcc_watcher_total").await > 0
}

pub(super) async fn requests(addr: SocketAddr) -> u64 {
    const COUNTED: [&str; 4] =
        ["\"LeaseGrant\"", "\"LeaseRevoke\"", "\"LeaseKeepAlive\"", "\"Txn\""];
    let started = |name: &str| {
        name.starts_with("grpc_server_started_total{")
            && COUNTED.iter().any(|method| name.contains(method))
    };
    metric(addr, started).await
}

/// The sum of the metrics of these names.
async fn metric(addr: SocketAddr, of: impl Fn(&str) -> bool) -> u64 {
    let mut stream = TcpStream::connect(addr).await.expect("a server");
    let question = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(question.as_bytes()).await.expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.contains("etcd_server_id"), "metrics: {answer}");
    let lines = answer.lines().filter_map(|line| line.rsplit_once(' '));
    let values = lines.filter(|(name, _)| of(name)).map(|(_, value)| value.parse::<f64>());
    // Counts, written as floating point numbers.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
    values.map(|value| value.expect("a number") as u64).sum()
}
