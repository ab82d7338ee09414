//! Redis and Valkey.

mod options;
mod start;
mod up;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockcore::BoxError;

pub use self::options::RedisOptions;

use super::address::Address;
use super::host::Host;
use super::resp::{Reply, ask};
use super::source;
use crate::Fault;

/// How long emptying the server may take.
const WIPE_LIMIT: Duration = Duration::from_secs(10);

/// A Redis or Valkey server for one test or one run of the suite.
///
/// Where it comes from is said in the [module](super). It ends when it is dropped; in a
/// container, dropping it takes some 0.3 s.
#[derive(Debug)]
pub struct RedisServer {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    unix_socket: Option<PathBuf>,
    address: Address,
    host: Host,
    version: String,
    origin: String,
}

impl RedisServer {
    /// Starts a server, and returns when it answers commands.
    ///
    /// A server from `LOCKCORE_TEST_REDIS_URL` serves the default options only; with others the
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
    pub async fn start(options: RedisOptions) -> Result<Self, BoxError> {
        source::start(&options).await
    }

    /// Where the server listens for plain connections. Servers that this process has started
    /// listen on 127.0.0.1, and keep their address over kill and restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the server listens for TLS connections, with [`RedisOptions::tls`].
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// The server's Unix socket, with [`RedisOptions::unix_socket`] and unless it runs in a
    /// container.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix_socket.as_deref()
    }

    /// What a client connects to: `redis://…`, with the password if the server asks for one.
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// [`url`](Self::url) with another address, such as that of a proxy before the server.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        self.address.at(addr)
    }

    /// Names the server, its version and where it came from, such as
    /// `Redis 7.0.15 (redis-server on this machine)`.
    pub fn about(&self) -> String {
        format!("{} ({})", self.version, self.origin)
    }

    /// Breaks or mends the server, and returns when it is done: a paused server has stopped, a
    /// killed one is gone, a restarted one answers commands. `false`: nothing was done, because
    /// the server is not ours to break.
    ///
    /// A kill also ends a paused server. A restart kills first where the server still runs.
    ///
    /// # Panics
    ///
    /// If the fault fails, for example because the server does not come up again.
    pub async fn inflict(&self, fault: Fault) -> bool {
        if !self.host.is_ours() {
            return false;
        }
        let done = match fault {
            Fault::Wipe => self.wipe().await,
            fault => self.host.inflict(fault).await,
        };
        let done = match (done, fault) {
            (Ok(()), Fault::Restart) => self.up().await.map(drop),
            (done, _) => done,
        };
        if let Err(error) = done {
            panic!("{fault} of {}: {error}", self.about());
        }
        true
    }

    async fn wipe(&self) -> Result<(), BoxError> {
        match ask(self.addr, self.address.login.as_ref(), &["FLUSHALL"], WIPE_LIMIT).await? {
            Reply::Text(_) => Ok(()),
            Reply::Error(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
