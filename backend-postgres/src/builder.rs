//! Settings, and connecting.

use std::fmt;
use std::time::Duration;

use lockcore::{BackendError, InvalidInput};
use tokio_postgres::{Client, Config};

use crate::address::Address;
use crate::backend::PostgresBackend;
use crate::connection::Servers;
use crate::exchange::Settings;
use crate::limit::STATEMENT_TIMEOUT;
use crate::line::Unheard;
use crate::route::{Given, Route};
use crate::sessions::Sessions;
use crate::table::Table;
use crate::url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 4;
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// Far above what passes between two looks of one statement at the clock. An acquire that meets a
/// row while it inserts one waits for it; swept meanwhile, a row takes a later token with it.
const MIN_RETENTION: Duration = Duration::from_secs(60);
/// A hundred years: far beyond use, far below what overflows in the server.
const MAX_RETENTION: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
const MAX_STATEMENT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Settings of a [`PostgresBackend`].
///
/// ```no_run
/// use std::time::Duration;
/// use lockcore_postgres::PostgresBackend;
///
/// # async fn connect() -> Result<(), lockcore::BackendError> {
/// let store = PostgresBackend::builder("postgres://localhost/app")
///     .table("billing_locks")
///     .connect_timeout(Duration::from_secs(1))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "settings do nothing until `connect` or `build`"]
pub struct PostgresBackendBuilder {
    server: Server,
    schema: Option<String>,
    table: Option<String>,
    pooled: Option<bool>,
    create_table: bool,
    connect_timeout: Duration,
    statement_timeout: Duration,
    retention: Duration,
    connections: usize,
    roots: Option<Vec<u8>>,
}

impl PostgresBackend {
    /// Connects to the server at a URL, with the defaults of the [builder](Self::builder), and
    /// creates the table if it is missing.
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for a URL that cannot be used, [`BackendError::Unavailable`]
    /// where no server answers, [`BackendError::Rejected`] where one refuses: a wrong password, a
    /// certificate that is not trusted, a missing table that the user may not create.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, BackendError> {
        Self::builder(url).connect().await
    }

    /// Settings for a connection to the server at a URL.
    pub fn builder(url: impl AsRef<str>) -> PostgresBackendBuilder {
        PostgresBackendBuilder::new(url)
    }

    /// Asks over connections of the caller's pool, with the defaults of the builder: see
    /// [`PostgresBackendBuilder::from_pool`].
    #[cfg(feature = "pool")]
    #[cfg_attr(docsrs, doc(cfg(feature = "pool")))]
    pub fn from_pool(pool: deadpool_postgres::Pool) -> Self {
        let route = Route::Pool(pool, Settings::default());
        Self::new(route, Table::default(), RETENTION, Unheard::new().1)
    }

    /// Asks over a connection of the caller's, with the defaults of the builder: see
    /// [`PostgresBackendBuilder::from_client`].
    pub fn from_client(client: Client) -> Self {
        let given = Given::new(client, Settings::default());
        Self::new(Route::Given(given), Table::default(), RETENTION, Unheard::new().1)
    }
}

enum Server {
    /// The text may hold a password: it is shown nowhere.
    Url(String),
    Config(Box<Config>),
    Given(Box<Client>),
    #[cfg(feature = "pool")]
    Pool(deadpool_postgres::Pool),
}

impl PostgresBackendBuilder {
    /// Settings for a connection to the server at a URL, which is checked when connecting.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(Server::Url(url.as_ref().to_owned()))
    }

    /// Settings for a connection with the hosts, user, TLS and TCP settings of the driver's
    /// configuration.
    pub fn from_config(config: Config) -> Self {
        Self::of(Server::Config(Box::new(config)))
    }

    /// Settings for asking over connections of the caller's pool. Waiting polls.
    #[cfg(feature = "pool")]
    #[cfg_attr(docsrs, doc(cfg(feature = "pool")))]
    pub fn from_pool(pool: deadpool_postgres::Pool) -> Self {
        Self::of(Server::Pool(pool))
    }

    /// Settings for asking over a connection of the caller's. Waiting polls, and nobody connects
    /// again when it breaks.
    ///
    /// The caller drives the connection, and begins no transaction on it.
    pub fn from_client(client: Client) -> Self {
        Self::of(Server::Given(Box::new(client)))
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            schema: None,
            table: None,
            pooled: None,
            create_table: true,
            connect_timeout: CONNECT_TIMEOUT,
            statement_timeout: STATEMENT_TIMEOUT,
            retention: RETENTION,
            connections: CONNECTIONS,
            roots: None,
        }
    }

    /// How long connecting may take as a whole: looking up the name, TCP, TLS, and the handshake,
    /// over all servers of the URL. 2 seconds unless set, an hour at most. It also bounds every
    /// later reconnect; calls on a connection have no limit here, the core bounds them.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long the server may work on one statement before it gives up and undoes it: 2 seconds
    /// unless set, from a millisecond to an hour.
    ///
    /// A call about a lease is given no more than a sixth of its ttl, for which the core waits
    /// unless [`request_timeout`](lockcore::ManagerBuilder::request_timeout) is set, but 1 s in
    /// any case: an acquire that was given up and is carried out later keeps its key taken for a
    /// ttl. So where a request is waited for less long, which is with a ttl below 6 s, or with a
    /// shorter `request_timeout`, set this no longer than that.
    ///
    /// Locks of rows and tables (`lock_timeout`) are waited for at most 3/8 as long, and never for
    /// more than 750 ms.
    pub fn statement_timeout(mut self, limit: Duration) -> Self {
        self.statement_timeout = limit;
        self
    }

    /// How many connections are opened at most: 4 unless set, from 1 to 64. There is one while few
    /// calls are under way; on several, commits share what it takes to reach the disk.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// The schema of the table: `public` unless set here or in the URL. It must exist.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// The table of leases: `leaselock` unless set here or in the URL. Only those with the same
    /// table, in the same schema and database, exclude each other.
    ///
    /// Like the schema, its name has 1 to 63 of `A-Z a-z 0-9 _`, does not start with a digit, and
    /// is taken as it is written: `Locks` and `locks` are two.
    pub fn table(mut self, table: impl Into<String>) -> Self {
        self.table = Some(table.into());
        self
    }

    /// Whether [`connect`](Self::connect) creates the table where it is missing: yes unless set.
    /// What is there is checked in any case.
    pub fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// Says that a pooler is between here and the server, such as PgBouncer in transaction mode:
    /// nothing is kept in a session, and waiting polls. A pooler that refuses startup options or
    /// leaves them out is noticed without.
    pub fn pooler(mut self, pooler: bool) -> Self {
        self.pooled = Some(pooler);
        self
    }

    /// How long the last token of a key is kept after the clock has passed it: 24 hours unless
    /// set. Once it is forgotten, tokens rise by the server's clock alone: choose it longer than
    /// that clock could ever be set back, and at least a minute longer than the
    /// [limit on a statement](Self::statement_timeout).
    pub fn token_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Trusts the certificate authorities in this PEM text in place of the system's.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Checks the settings without I/O: the backend connects at its first call.
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`], whose text never repeats the URL.
    pub fn build(self) -> Result<PostgresBackend, BackendError> {
        if self.connect_timeout.is_zero() || self.connect_timeout > MAX_CONNECT_TIMEOUT {
            return Err(InvalidInput::new("to connect may take up to 1 hour, and not zero").into());
        }
        if self.statement_timeout < Duration::from_millis(1)
            || self.statement_timeout > MAX_STATEMENT_TIMEOUT
        {
            return Err(InvalidInput::new("a statement may take 1 ms to 1 hour").into());
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(InvalidInput::new("there are 1 to 64 connections").into());
        }
        let least = MIN_RETENTION + self.statement_timeout;
        if !(least..=MAX_RETENTION).contains(&self.retention) {
            return Err(InvalidInput::new(format!(
                "a token is kept for {least:?} (a minute, and the limit on a statement) to 100 years"
            ))
            .into());
        }
        let url = match &self.server {
            Server::Url(url) => Url::parse(url)?,
            _ => Url::default(),
        };
        let schema = self.schema.or(url.schema.clone());
        let table = self.table.or(url.table.clone());
        let table = Table::new(
            schema.as_deref().unwrap_or(Table::SCHEMA),
            table.as_deref().unwrap_or(Table::NAME),
        )?;
        let settings = Settings::new(self.statement_timeout);
        let roots = self.roots.as_deref();
        let pooled = self.pooled.or(url.pooled).unwrap_or(false);
        let (sender, unheard) = Unheard::new();
        let route = match self.server {
            Server::Given(client) => Route::Given(Given::new(*client, settings)),
            #[cfg(feature = "pool")]
            Server::Pool(pool) => Route::Pool(pool, settings),
            Server::Url(_) | Server::Config(_) => {
                let address = match &self.server {
                    Server::Config(config) => Address::of_config(config, roots)?,
                    _ => Address::of_url(&url, roots)?,
                };
                let limit = self.connect_timeout;
                let servers = |_| {
                    let (address, settings) = (address.clone(), settings.clone());
                    Servers::new(address, table.channel(), sender.clone(), settings, limit, pooled)
                };
                Route::Own(Sessions::new((0..self.connections).map(servers)))
            }
        };
        Ok(PostgresBackend::new(route, table, self.retention, unheard))
    }

    /// Connects, so that a wrong address or password shows here, and sees to it that the table is
    /// there.
    ///
    /// Cancel safe: dropped, it leaves nothing behind but perhaps the table.
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for settings that cannot be used,
    /// [`BackendError::Unavailable`] where no server answers within the connect timeout,
    /// [`BackendError::Rejected`] where one refuses, or where the table is missing and the user
    /// may not create it.
    pub async fn connect(self) -> Result<PostgresBackend, BackendError> {
        let create = self.create_table;
        let backend = self.build()?;
        backend.inner.route.ready().await?;
        if create {
            backend.ensure_schema().await?;
        } else {
            backend.check_schema().await?;
        }
        Ok(backend)
    }
}

impl fmt::Debug for PostgresBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackendBuilder")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("token_retention", &self.retention)
            .finish_non_exhaustive()
    }
}
