//! The Redis servers of a quorum, one node each.

use std::time::Duration;

use leaselock::redis::RedisBackend;
use leaselock::redis::redis::aio::MultiplexedConnection;
use leaselock::{Acquire, Claim, HolderId, LockBackend, LockKey, Quorum, QuorumBuilder};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{RedisOptions, RedisServer};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::store::redis::{self, standing};

/// A node's uptime is told in whole seconds, from each connection's beginning: another client may
/// see it this much younger.
const ROUNDING: Duration = Duration::from_secs(1);

/// Servers of the test's own.
#[derive(Debug)]
pub struct Nodes(Vec<RedisServer>);

impl Nodes {
    /// Starts servers, each with these options.
    ///
    /// # Panics
    ///
    /// If there are none to be had.
    pub async fn start(options: impl IntoIterator<Item = RedisOptions>) -> Self {
        let mut starting = JoinSet::new();
        for options in options {
            starting.spawn(RedisServer::start(options.private()));
        }
        let servers = starting.join_all().await;
        Self(servers.into_iter().map(|server| server.expect("a server")).collect())
    }

    /// Starts so many servers that keep nothing on disk, and waits until all of them count for a
    /// quorum of this `max_ttl`.
    ///
    /// # Panics
    ///
    /// If there are none to be had.
    pub async fn open(count: usize, max_ttl: Duration) -> Self {
        let nodes = Self::start((0..count).map(|_| RedisOptions::new())).await;
        nodes.opened(max_ttl).await;
        nodes
    }

    /// Waits until every node counts for a quorum of this `max_ttl`, whoever asks.
    ///
    /// # Panics
    ///
    /// If a node does not answer.
    pub async fn opened(&self, max_ttl: Duration) {
        let mut waiting = JoinSet::new();
        for n in 0..self.0.len() {
            let backend = RedisBackend::connect(&self.url(n)).await.expect("a server");
            waiting.spawn(opened(backend, max_ttl));
        }
        waiting.join_all().await;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// A node's server.
    ///
    /// # Panics
    ///
    /// If there is none of this number.
    #[must_use]
    pub fn server(&self, n: usize) -> &RedisServer {
        &self.0[n]
    }

    /// Where a node is: its name in quorums.
    #[must_use]
    pub fn host(&self, n: usize) -> String {
        self.server(n).addr().to_string()
    }

    /// What a client connects to.
    #[must_use]
    pub fn url(&self, n: usize) -> String {
        self.server(n).url()
    }

    /// The same of every node.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        (0..self.count()).map(|n| self.url(n)).collect()
    }

    /// A quorum of all nodes on connections of its own.
    #[must_use]
    pub fn quorum(&self, max_ttl: Duration) -> Quorum {
        quorum(&self.urls(), max_ttl)
    }

    /// Breaks or mends a node.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub async fn inflict(&self, n: usize, fault: Fault) {
        let server = self.server(n);
        assert!(server.inflict(fault).await, "{fault}: {} is not ours", server.about());
    }

    /// Who has leases on a node, as its records say: each key, and the rest of its record.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn leases(&self, n: usize) -> Vec<(String, String)> {
        let url = self.url(n);
        let mut connection = redis::connection(&url).await;
        let mut all = Vec::new();
        for key in redis::leases(&url).await {
            // It may have ended since.
            if let Some(record) = lease(&mut connection, &key).await {
                all.push((key, record.text));
            }
        }
        all
    }

    /// A connection of the driver's to each node.
    ///
    /// # Panics
    ///
    /// If one cannot be reached.
    pub async fn connections(&self) -> Vec<MultiplexedConnection> {
        let mut all = Vec::new();
        for url in self.urls() {
            all.push(redis::connection(&url).await);
        }
        all
    }
}

/// A quorum of these nodes, which need not be up, on connections of its own.
///
/// # Panics
///
/// If it cannot be made.
#[must_use]
pub fn quorum(urls: &[String], max_ttl: Duration) -> Quorum {
    builder(urls, max_ttl).build().expect("a quorum")
}

/// Settings for such a quorum.
///
/// # Panics
///
/// If a URL is none.
pub fn builder(urls: &[String], max_ttl: Duration) -> QuorumBuilder {
    let mut builder = Quorum::builder().max_ttl(max_ttl);
    for url in urls {
        let host = url.trim_start_matches("redis://").trim_end_matches('/');
        builder = builder.node(host, RedisBackend::builder(url).build().expect("a URL"));
    }
    builder
}

/// A lease as its record says.
#[derive(Debug)]
pub struct Record {
    /// The whole record.
    pub text: String,
    /// The holder, as text.
    pub holder: String,
    /// The token.
    pub token: u64,
}

/// The lease that stands under a key, as its record says.
///
/// # Panics
///
/// If the server does not say, or says what is no record of a lease.
pub async fn lease(connection: &mut MultiplexedConnection, key: &str) -> Option<Record> {
    let name = format!("leaselock:{{{key}}}");
    let text = standing(connection, &name).await?;
    let mut fields = text.splitn(4, '|').skip(1);
    let holder = fields.next().expect("a holder").to_owned();
    let token = fields.next().and_then(|token| token.parse().ok()).expect("a token");
    Some(Record { text, holder, token })
}

async fn opened(backend: RedisBackend, max_ttl: Duration) {
    let key = LockKey::new("is it open").expect("a key");
    loop {
        let claim = Claim::new(key.clone(), HolderId::random(), Duration::from_secs(1));
        let claim = claim.with_incarnation();
        let answer = backend.acquire(&claim).await.expect("a server");
        backend.release(&claim).await.expect("a server");
        let Acquire::Acquired(lease) = answer else { panic!("nobody else has it: {answer:?}") };
        let age = lease.incarnation.expect("a server that knows its memory").age;
        let Some(left) = (max_ttl + ROUNDING).checked_sub(age).filter(|left| !left.is_zero())
        else {
            return;
        };
        sleep(left).await;
    }
}
