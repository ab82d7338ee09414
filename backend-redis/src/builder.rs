//! Settings, and connecting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, HolderId, InvalidInput};
use redis::aio::ConnectionLike;

use crate::address::Address;
use crate::backend::RedisBackend;
use crate::connection::{Link, Peer};
use crate::keys::{DEFAULT_PREFIX, Names};
use crate::route::{Lend, Lender, Route};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RETENTION: Duration = Duration::from_secs(60 * 60);
/// Ten years: far beyond use, and a record has room for it beside a token far ahead of the clock.
const MAX_RETENTION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Settings of a [`RedisBackend`].
///
/// ```no_run
/// use std::time::Duration;
/// use lockcore_redis::RedisBackend;
///
/// # async fn connect() -> Result<(), lockcore::BackendError> {
/// let store = RedisBackend::builder("redis://127.0.0.1/")
///     .prefix("billing")
///     .connect_timeout(Duration::from_secs(1))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "settings do nothing until `connect` or `build`"]
pub struct RedisBackendBuilder {
    server: Server,
    prefix: String,
    connect_timeout: Duration,
    retention: Duration,
    roots: Option<Vec<u8>>,
}

enum Server {
    /// The text may hold a password: it is shown nowhere.
    Url(String),
    Client(Box<redis::Client>),
    Lent(Arc<dyn Lend>),
}

impl RedisBackendBuilder {
    /// Settings for a connection to the server at a URL, which is checked when connecting.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(Server::Url(url.as_ref().to_owned()))
    }

    /// Settings for a connection with the address, user, TLS and TCP settings of a client of the
    /// driver's. RESP3 is asked for whatever the client says; a server that does not know it is
    /// spoken to in RESP2.
    pub fn from_client(client: redis::Client) -> Self {
        Self::of(Server::Client(Box::new(client)))
    }

    /// Settings for asking over a connection of the caller's.
    ///
    /// Its timeouts and reconnects are its own. Waiting polls, a lease's incarnation is `None`, and
    /// a connection that sends a command again by itself may turn a release that
    /// worked into `NotHeld`.
    pub fn from_connection<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self::of(Server::Lent(Arc::new(Lender(connection))))
    }

    /// A backend with the defaults.
    pub(crate) fn lent(lender: Arc<dyn Lend>) -> RedisBackend {
        RedisBackend::new(Route::Lent(lender), Names::default(), RETENTION, &process())
    }

    fn of(server: Server) -> Self {
        Self {
            server,
            prefix: DEFAULT_PREFIX.to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            retention: RETENTION,
            roots: None,
        }
    }

    /// How long connecting may take as a whole: looking up the name, TCP, TLS, and the handshake.
    /// 2 seconds unless set. It also bounds every later reconnect; calls on a connection have no
    /// limit here, the core bounds them.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// What the names of all records start with: 1 to 64 bytes of `A-Z a-z 0-9 _ . : -`.
    /// `leaselock` unless set. Only those with the same prefix, in the same database, exclude
    /// each other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long the last token of a key is kept after its lease could have ended: an hour unless
    /// set, and never less than a minute. Once it is forgotten, tokens rise by the server's clock
    /// alone: choose it longer than that clock could ever be set back.
    pub fn token_retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// Trusts the certificate authorities in this PEM text in place of the system's, for
    /// `rediss://` and `valkeys://`.
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
    pub fn build(self) -> Result<RedisBackend, BackendError> {
        let names = Names::new(&self.prefix)?;
        if self.connect_timeout.is_zero() {
            return Err(InvalidInput::new("the connect timeout must not be zero").into());
        }
        if self.retention > MAX_RETENTION {
            return Err(InvalidInput::new("a token is kept for at most 10 years").into());
        }
        let process = process();
        let roots = self.roots.as_deref();
        let address = match self.server {
            Server::Url(url) => Address::parse(&url, roots)?,
            Server::Client(client) => Address::of_client(&client, roots)?,
            Server::Lent(lender) => {
                let route = Route::Lent(lender);
                return Ok(RedisBackend::new(route, names, self.retention, &process));
            }
        };
        let link = Link::new(Peer::new(address, self.connect_timeout, names.channel(&process)));
        Ok(RedisBackend::new(Route::Own(link), names, self.retention, &process))
    }

    /// Connects, so that a wrong address or password shows here.
    ///
    /// Cancel safe: dropped, it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for settings that cannot be used,
    /// [`BackendError::Unavailable`] where no server answers within the connect timeout,
    /// [`BackendError::Rejected`] where one refuses.
    pub async fn connect(self) -> Result<RedisBackend, BackendError> {
        let backend = self.build()?;
        backend.ready().await?;
        Ok(backend)
    }
}

/// Names this process in the lines of keys: 16 hexadecimal digits.
fn process() -> String {
    format!("{:016x}", HolderId::random().as_u128() >> 64)
}

impl fmt::Debug for RedisBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackendBuilder")
            .field("prefix", &self.prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("token_retention", &self.retention)
            .finish_non_exhaustive()
    }
}
