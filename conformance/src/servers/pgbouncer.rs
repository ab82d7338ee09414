//! PgBouncer, in front of a Postgres.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use lockcore::BoxError;
use tokio::process::Command;

use super::Files;
use super::host::{Host, on_a_free_port};
use super::local::{self, Folder, Launch, LocalServer, Place, User};
use super::postgres::PostgresServer;
use super::postgres::up::takes_connections;
use crate::{Fault, port};

/// A PgBouncer that pools by transactions, in front of a [`PostgresServer`]: the statements of a
/// client hop between a few connections to the server. All other settings are PgBouncer's own.
///
/// It is always a program on this machine, `pgbouncer`, wherever its Postgres runs. It ends when
/// it is dropped.
#[derive(Debug)]
pub struct PgBouncer {
    addr: SocketAddr,
    postgres: PostgresServer,
    host: Host,
    version: String,
}

const INSTALL: &str = "no pgbouncer on the PATH, nor in /usr/sbin: install it (on Debian and \
                       Ubuntu: apt-get install pgbouncer)";

impl PgBouncer {
    /// Starts it, and returns when it takes connections. The Postgres runs at least as long.
    ///
    /// # Errors
    ///
    /// There is no `pgbouncer` on this machine: the error says what to install. It does not come
    /// up: the error shows the end of what it wrote.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, what it was starting ends.
    pub async fn start(postgres: &PostgresServer) -> Result<Self, BoxError> {
        let program = local::find(&["pgbouncer"]);
        let usual = Path::new("/usr/sbin/pgbouncer");
        let program = program.or_else(|| usual.is_file().then(|| usual.to_owned()));
        let program = program.ok_or(INSTALL)?;
        let version = version(&program).await?;
        let user = User::unless_ordinary(&["postgres", "nobody"])?;
        let secret = secret(postgres).await;
        on_a_free_port(|| async {
            let port = port::free()?;
            let folder = Folder::new("pgbouncer", Place::Disk, user)?;
            let folder = folder.with(&files(postgres, port, secret.as_deref()))?;
            let args = vec!["pgbouncer.ini".to_owned()];
            let launch = Launch { program: program.clone(), args, user, ..Launch::default() };
            let bouncer = Self {
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                postgres: postgres.clone(),
                host: Host::Local(Box::new(LocalServer::spawn(launch, folder)?)),
                version: version.clone(),
            };
            bouncer.up().await?;
            Ok(bouncer)
        })
        .await
    }

    /// Where it listens: on 127.0.0.1. It keeps its address over kill and restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What a client connects to: as [`PostgresServer::url`], at this address.
    pub fn url(&self) -> String {
        self.url_at(self.addr)
    }

    /// [`url`](Self::url) with another address, such as that of a proxy before it.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        self.postgres.url_at(addr)
    }

    /// The Postgres behind it.
    pub fn postgres(&self) -> &PostgresServer {
        &self.postgres
    }

    /// Names both, and where the Postgres came from, such as
    /// `PgBouncer 1.18.0 before Postgres 15.20 (postgres on this machine)`.
    pub fn about(&self) -> String {
        let (version, postgres) = (&self.version, &self.postgres);
        format!("PgBouncer {version} before {} ({})", postgres.version(), postgres.origin())
    }

    /// Breaks or mends both as one, as [`PostgresServer::inflict`] does.
    ///
    /// # Panics
    ///
    /// If the fault fails.
    pub async fn inflict(&self, fault: Fault) -> bool {
        if !self.postgres.is_ours() {
            return false;
        }
        // In front first, so that it never sees the server behind gone; but it goes on last.
        if matches!(fault, Fault::Pause | Fault::Kill) {
            self.break_or_mend(fault).await;
        }
        self.postgres.inflict(fault).await;
        if matches!(fault, Fault::Resume | Fault::Restart) {
            self.break_or_mend(fault).await;
        }
        true
    }

    async fn break_or_mend(&self, fault: Fault) {
        let done = match (self.host.inflict(fault).await, fault) {
            (Ok(()), Fault::Restart) => self.up().await,
            (done, _) => done,
        };
        if let Err(error) = done {
            panic!("{fault} of {}: {error}", self.about());
        }
    }

    async fn up(&self) -> Result<(), BoxError> {
        self.host.up("pgbouncer on this machine", || takes_connections(self.addr)).await
    }
}

/// What the server keeps of the user's password. From the password itself PgBouncer would compute
/// it at every login, for some milliseconds, in which its one thread serves nobody else.
async fn secret(postgres: &PostgresServer) -> Option<String> {
    // Of a server that somebody else has started it may be secret for us, too.
    let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = current_user";
    let secret = postgres.psql(sql).await.ok()?;
    secret.starts_with("SCRAM-SHA-256$").then_some(secret)
}

/// The configuration, as far as it is not the default, and the one user's password: as it is
/// towards the server, and its `secret`, if that is known, towards clients.
fn files(postgres: &PostgresServer, port: u16, secret: Option<&str>) -> Files {
    let server = postgres.addr();
    let login = postgres.address().login.as_ref();
    let as_user = login.map(|login| {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let user = login.user.as_deref().unwrap_or_default();
        format!(" user={} password={}", quoted(user), quoted(&login.password))
    });
    let ini = format!(
        "[databases]\n\
         * = host={host} port={server_port}{as_user}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = users.txt\n\
         pool_mode = transaction\n\
         default_pool_size = 20\n\
         max_client_conn = 500\n",
        host = server.ip(),
        server_port = server.port(),
        as_user = as_user.unwrap_or_default(),
    );
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let users = login.map(|login| {
        let user = login.user.as_deref().unwrap_or_default();
        format!("{} {}\n", quoted(user), quoted(secret.unwrap_or(&login.password)))
    });
    vec![
        ("pgbouncer.ini".to_owned(), ini.into_bytes()),
        ("users.txt".to_owned(), users.unwrap_or_default().into_bytes()),
    ]
}

/// `PgBouncer 1.18.0`, in the first line of what it says.
async fn version(program: &Path) -> Result<String, BoxError> {
    let mut command = Command::new(program);
    let output = command.arg("--version").stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = output.lines().next().and_then(|line| line.strip_prefix("PgBouncer "));
    Ok(version.ok_or_else(|| format!("not a version of PgBouncer: {output}"))?.to_owned())
}

#[cfg(test)]
mod tests;
