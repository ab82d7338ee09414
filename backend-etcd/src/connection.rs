//! How the link comes by a connection to one of the servers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::KeyValue;
use lockcore::HolderId;
use lockcore_link::Connector;
use tokio::task::JoinSet;

use crate::address::Address;
use crate::book::Book;
use crate::connected::{Connected, Terms};
use crate::keys::Names;
use crate::unconnected::Unconnected;

pub(crate) type Link = lockcore_link::Link<Cluster>;
type Opened = Result<(Connected, Option<KeyValue>), Unconnected>;

/// How long a server may take before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(200);

/// One cluster, whichever of its servers answers.
pub(crate) struct Cluster {
    servers: Arc<Servers>,
    book: Arc<Book>,
    /// The server to begin with: another than the last.
    next: AtomicUsize,
}

struct Servers {
    address: Address,
    terms: Terms,
    names: Names,
}

impl Cluster {
    pub(crate) fn new(address: Address, terms: Terms, names: Names, book: Arc<Book>) -> Self {
        // Where it begins does not matter, but clients must not all begin with the same.
        let draw = HolderId::random().as_u128() % (address.endpoints.len().max(1) as u128);
        let next = AtomicUsize::new(usize::try_from(draw).unwrap_or(0));
        Self { servers: Arc::new(Servers { address, terms, names }), book, next }
    }

    /// Tries the servers one after another, each as soon as those before it failed or are slow,
    /// and takes the first that answers.
    async fn race(&self) -> Opened {
        let count = self.servers.address.endpoints.len();
        let first = self.next.load(Ordering::Relaxed);
        let mut rest = (0..count).map(|n| (first + n) % count);
        let mut attempts = JoinSet::new();
        let mut told: Option<Unconnected> = None;
        let mut idle = false;
        loop {
            if let Some(n) = rest.next() {
                let servers = Arc::clone(&self.servers);
                attempts.spawn(async move { (n, servers.connect(n).await) });
            } else {
                idle = true;
            }
            let done = tokio::select! {
                done = attempts.join_next() => done,
                () = tokio::time::sleep(STAGGER), if !idle => continue,
            };
            match done {
                Some(Ok((n, Ok(opened)))) => {
                    self.next.store((n + 1) % count, Ordering::Relaxed);
                    return Ok(opened);
                }
                // What passes by itself tells more than what needs an operator.
                Some(Ok((_, Err(error)))) => {
                    if told.as_ref().is_none_or(|told| error.now && !told.now) {
                        told = Some(error);
                    }
                }
                Some(Err(_)) => {}
                None => return Err(told.unwrap_or_else(Unconnected::abandoned)),
            }
        }
    }
}

impl Servers {
    async fn connect(&self, n: usize) -> Opened {
        let Some(endpoint) = self.address.endpoints.get(n) else {
            return Err(Unconnected::abandoned());
        };
        let opened = Connected::open(endpoint, &self.terms, &self.names).await;
        opened.map_err(|error| Unconnected::refused(&endpoint.to_string(), self.address.tls, error))
    }
}

impl Connector for Cluster {
    type Connection = Connected;
    type Error = Unconnected;

    async fn open(&self, _replaced: Option<&Connected>) -> Result<Connected, Unconnected> {
        let (limit, tls) = (self.servers.terms.connect_timeout, self.servers.address.tls);
        let opened = match tokio::time::timeout(limit, self.race()).await {
            Ok(opened) => opened,
            Err(_) => Err(Unconnected::timed_out(&self.servers.address.shown(), tls, limit)),
        };
        match opened {
            Ok((connected, memory)) => {
                tracing::debug!(server = %connected.server, "connected");
                // What is missing or cannot be read is told by the call that needs it.
                if memory.is_some() {
                    let _ = self.book.learn_life(&self.servers.names, memory.as_ref());
                }
                Ok(connected)
            }
            Err(error) => {
                tracing::debug!(servers = %self.servers.address.shown(), %error, "not connected");
                Err(error)
            }
        }
    }

    fn abandoned() -> Unconnected {
        Unconnected::abandoned()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.servers.address.shown())
    }
}
