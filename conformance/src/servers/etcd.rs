//! etcd: one member, or a cluster of several.

mod cluster;
mod options;
mod start;
mod up;

use std::net::SocketAddr;

use lockcore::BoxError;

pub use self::cluster::EtcdCluster;
pub use self::options::EtcdOptions;

use super::address::Address;
use super::host::Host;
use super::source;
use crate::Fault;

/// An etcd server for one test or one run of the suite: a cluster of one member, or one of an
/// [`EtcdCluster`].
///
/// Where it comes from is said in the [module](super). It ends when it is dropped. Its timing is
/// etcd's own: the shortest ttl that it grants is 2 s.
///
/// What it has answered survives a kill. A wipe starts it again with an empty data folder, as the
/// same member of the same cluster: revisions begin at 1 again.
#[derive(Debug)]
pub struct EtcdServer {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    address: Address,
    options: EtcdOptions,
    /// The member's name, its own for each server that is started here.
    member: String,
    host: Host,
    version: String,
    origin: String,
}

impl EtcdServer {
    /// Starts a server, and returns when it answers requests.
    ///
    /// A server from `LOCKCORE_TEST_ETCD_URL` serves the default options only; with others the
    /// next source is used.
    ///
    /// # Errors
    ///
    /// No source can give a server: the error says what to install or set. A server that does
    /// not come up: the error shows the end of what it wrote.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the server that it was starting ends.
    pub async fn start(options: EtcdOptions) -> Result<Self, BoxError> {
        source::start(&options).await
    }

    /// Where the server listens for plain connections. Servers that this process has started
    /// listen on 127.0.0.1, and keep their address over kill and restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the server listens for TLS connections, with [`EtcdOptions::tls`].
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// What a client connects to: `etcd://…`, as root where the server asks for users.
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// [`url`](Self::url) with another address, such as that of a proxy before the server.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        self.address.at(addr)
    }

    /// Names the server, its version and where it came from, such as
    /// `etcd 3.4.23 (etcd on this machine)`.
    pub fn about(&self) -> String {
        format!("{} ({})", self.version, self.origin)
    }

    /// Breaks or mends the server, and returns when it is done: a paused server has stopped, a
    /// killed one is gone, a restarted one answers requests. `false`: nothing was done, because
    /// the server is not ours to break.
    ///
    /// A kill also ends a paused server. A restart kills first where the server still runs. A
    /// wipe leaves the server running, with the users of its options.
    ///
    /// # Panics
    ///
    /// If the fault fails, for example because the server does not come up again.
    pub async fn inflict(&self, fault: Fault) -> bool {
        if !self.host.is_ours() {
            return false;
        }
        let done = match fault {
            Fault::Wipe => self.host.start_afresh(options::DATA).await,
            fault => self.host.inflict(fault).await,
        };
        let done = match (done, fault) {
            (Ok(()), Fault::Restart) => self.up().await.map(drop),
            (Ok(()), Fault::Wipe) => self.up_with_users().await.map(drop),
            (done, _) => done,
        };
        if let Err(error) = done {
            panic!("{fault} of {}: {error}", self.about());
        }
        true
    }
}

#[cfg(test)]
mod tests;
