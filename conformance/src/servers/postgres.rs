//! Postgres.

mod options;
mod psql;
mod start;
mod template;
pub(super) mod up;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lockcore::BoxError;

pub use self::options::PostgresOptions;

use self::psql::Psql;
use super::address::Address;
use super::host::Host;
use super::source;
use crate::Fault;

/// A Postgres server for one test or one run of the suite.
///
/// Where it comes from is said in the [module](super). It ends when the last of its clones is
/// dropped. Its clients are superusers, log in by password, and find a database of their own.
///
/// What it has committed survives a kill, though not the end of the machine: it never waits for
/// the disk. A wipe empties all tables and leaves them there.
#[derive(Clone, Debug)]
pub struct PostgresServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    addr: SocketAddr,
    unix_socket: Option<PathBuf>,
    address: Address,
    host: Host,
    version: String,
    origin: String,
}

impl PostgresServer {
    /// Starts a server, and returns when it answers queries.
    ///
    /// A server from `LOCKCORE_TEST_POSTGRES_URL` serves the default options only; with others
    /// the next source is used.
    ///
    /// # Errors
    ///
    /// No source can give a server: the error says what to install or set. A server that does
    /// not come up: the error shows the end of what it wrote.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the server that it was starting ends.
    pub async fn start(options: PostgresOptions) -> Result<Self, BoxError> {
        source::start(&options).await
    }

    /// Where the server listens, plainly and, with [`PostgresOptions::tls`], for TLS. Servers
    /// that this process has started listen on 127.0.0.1, and keep their address over kill and
    /// restart.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// The folder of the server's Unix socket, unless it runs in a container.
    pub fn unix_socket(&self) -> Option<&Path> {
        self.0.unix_socket.as_deref()
    }

    /// What a client connects to: `postgres://USER:PASSWORD@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self) -> String {
        self.url_at(self.addr())
    }

    /// [`url`](Self::url) with another address, such as that of a proxy before the server.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        self.0.address.at(addr)
    }

    /// Names the server, its version and where it came from, such as
    /// `Postgres 15.20 (postgres on this machine)`.
    pub fn about(&self) -> String {
        format!("{} ({})", self.0.version, self.0.origin)
    }

    pub(super) fn version(&self) -> &str {
        &self.0.version
    }

    pub(super) fn origin(&self) -> &str {
        &self.0.origin
    }

    pub(super) fn address(&self) -> &Address {
        &self.0.address
    }

    pub(super) fn is_ours(&self) -> bool {
        self.0.host.is_ours()
    }

    /// Runs SQL in the clients' database, as they would, and returns the rows: a line each, with
    /// `|` between columns. Several statements are one transaction.
    ///
    /// # Errors
    ///
    /// There is no `psql`, neither on this machine nor beside the server. Else what `psql` says,
    /// such as the server's error.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what has been sent may have been done.
    pub async fn psql(&self, sql: &str) -> Result<String, BoxError> {
        self.psql_at(self.addr(), sql).await
    }

    /// The same through another address, such as that of a proxy before the server.
    ///
    /// # Errors
    ///
    /// As [`psql`](Self::psql), of which there must be one on this machine.
    ///
    /// # Cancel safety
    ///
    /// As [`psql`](Self::psql).
    pub async fn psql_at(&self, addr: SocketAddr, sql: &str) -> Result<String, BoxError> {
        self.0.psql_at(addr, sql).await
    }

    /// Breaks or mends the server, and returns when it is done: a paused server has stopped with
    /// all its processes, a killed one is gone, a restarted one answers queries. `false`: nothing
    /// was done, because the server is not ours to break.
    ///
    /// A kill also ends a paused server. A restart kills first where the server still runs.
    ///
    /// # Panics
    ///
    /// If the fault fails, for example because the server does not come up again, or because a
    /// transaction has kept a table from being emptied for 20 s.
    pub async fn inflict(&self, fault: Fault) -> bool {
        let server = &*self.0;
        if !server.host.is_ours() {
            return false;
        }
        let done = match fault {
            Fault::Wipe => server.wipe().await,
            Fault::Restart => server.restart().await,
            fault => server.host.inflict(fault).await,
        };
        if let Err(error) = done {
            panic!("{fault} of {}: {error}", self.about());
        }
        true
    }
}

impl Inner {
    async fn psql(&self, sql: &str) -> Result<String, BoxError> {
        self.psql_at(self.addr, sql).await
    }

    async fn psql_at(&self, addr: SocketAddr, sql: &str) -> Result<String, BoxError> {
        if let Host::Container(container) = &self.host
            && addr == self.addr
        {
            return Psql::new(start::INSIDE, &self.address).container(container, sql).await;
        }
        let program = template::psql().ok_or(
            "no psql on this machine (on Debian and Ubuntu: apt-get install postgresql-client)",
        )?;
        Psql::new(addr, &self.address).local(program, sql).await
    }

    async fn restart(&self) -> Result<(), BoxError> {
        self.host.inflict(Fault::Kill).await?;
        if let Host::Local(process) = &self.host {
            start::forget_process(process.folder());
        }
        self.host.inflict(Fault::Restart).await?;
        self.up().await
    }

    async fn wipe(&self) -> Result<(), BoxError> {
        self.psql(include_str!("postgres/wipe.sql")).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
