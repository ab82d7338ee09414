//! Settings, and connecting.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use lockcore::{BackendError, InvalidInput};

use crate::address::Address;
use crate::backend::EtcdBackend;
use crate::book::Book;
use crate::connected::Terms;
use crate::connection::{Cluster, Link};
use crate::keys::Names;
use crate::route::Route;
#[cfg(feature = "tls")]
use crate::trust::Trust;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Settings of an [`EtcdBackend`].
///
/// ```no_run
/// use std::time::Duration;
/// use lockcore_etcd::EtcdBackend;
///
/// # async fn connect() -> Result<(), lockcore::BackendError> {
/// let store = EtcdBackend::builder("etcd://10.0.0.1,10.0.0.2,10.0.0.3")
///     .prefix("billing")
///     .connect_timeout(Duration::from_secs(1))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "settings do nothing until `connect` or `build`"]
pub struct EtcdBackendBuilder {
    servers: Servers,
    prefix: Option<String>,
    connect_timeout: Duration,
    #[cfg(feature = "tls")]
    trust: Trust,
}

enum Servers {
    /// The text may hold a password: it is shown nowhere.
    Url(String),
    Client(Box<Client>),
}

impl EtcdBackend {
    /// Connects to the cluster at a URL, with the defaults of the [builder](Self::builder).
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for a URL that cannot be used, [`BackendError::Unavailable`]
    /// where no server answers, [`BackendError::Rejected`] where one refuses: a wrong password, a
    /// certificate that is not trusted.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, BackendError> {
        Self::builder(url).connect().await
    }

    /// Settings for a connection to the cluster at a URL.
    pub fn builder(url: impl AsRef<str>) -> EtcdBackendBuilder {
        EtcdBackendBuilder::new(url)
    }

    /// Asks over a client of the caller's: see [`EtcdBackendBuilder::from_client`].
    #[must_use]
    pub fn from_client(client: Client) -> Self {
        Self::new(Route::lent(client), Names::default(), Arc::default())
    }
}

impl EtcdBackendBuilder {
    /// Settings for a connection to the cluster at a URL, which is checked when connecting.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::of(Servers::Url(url.as_ref().to_owned()))
    }

    /// Settings for asking over a client of the caller's.
    ///
    /// Its servers, timeouts and reconnects are its own. A driver's client with several servers
    /// keeps asking those that are down, and one that waits on a dead connection waits until the
    /// kernel finds out, unless its keep-alive is set; a request timeout in it must be shorter
    /// than the locks' ttl.
    pub fn from_client(client: Client) -> Self {
        Self::of(Servers::Client(Box::new(client)))
    }

    fn of(servers: Servers) -> Self {
        Self {
            servers,
            prefix: None,
            connect_timeout: CONNECT_TIMEOUT,
            #[cfg(feature = "tls")]
            trust: Trust::default(),
        }
    }

    /// How long connecting may take as a whole: looking up names, TCP, TLS, logging in, and a
    /// first answer, from whichever of the servers gives it. 2 seconds unless set, an hour at most.
    /// It also bounds every later reconnect; calls on a connection have no limit here, the core
    /// bounds them.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// What the names of all records start with: 1 to 64 bytes of `A-Z a-z 0-9 _ . : -`. Unless
    /// set it is the URL's path, and where that is empty `leaselock`. Only those with the same
    /// prefix exclude each other.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Trusts the certificate authorities in this PEM text in place of the system's, for
    /// `etcds://`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust.roots = Some(pem.into());
        self
    }

    /// Shows the servers this certificate, in PEM, with its private key, for `etcds://`.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.trust.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Checks the settings without I/O: the backend connects at its first call.
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`], whose text never repeats the URL.
    pub fn build(self) -> Result<EtcdBackend, BackendError> {
        if self.connect_timeout.is_zero() || self.connect_timeout > MAX_CONNECT_TIMEOUT {
            return Err(InvalidInput::new("to connect may take up to 1 hour, and not zero").into());
        }
        let book = Arc::new(Book::default());
        let address = match self.servers {
            Servers::Url(url) => Address::parse(&url)?,
            Servers::Client(client) => {
                #[cfg(feature = "tls")]
                self.trust.unused()?;
                let names = names(self.prefix.as_deref())?;
                return Ok(EtcdBackend::new(Route::lent(*client), names, book));
            }
        };
        let names = names(self.prefix.as_deref().or(address.prefix.as_deref()))?;
        let terms = Terms {
            user: address.user.clone(),
            #[cfg(feature = "tls")]
            tls: self.trust.options(address.tls)?,
            #[cfg(not(feature = "tls"))]
            tls: None,
            connect_timeout: self.connect_timeout,
        };
        let link = Link::new(Cluster::new(address, terms, names.clone(), Arc::clone(&book)));
        Ok(EtcdBackend::new(Route::own(link), names, book))
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
    pub async fn connect(self) -> Result<EtcdBackend, BackendError> {
        let backend = self.build()?;
        backend.route.reach().await?;
        Ok(backend)
    }
}

fn names(prefix: Option<&str>) -> Result<Names, InvalidInput> {
    prefix.map_or_else(|| Ok(Names::default()), Names::new)
}

impl fmt::Debug for EtcdBackendBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackendBuilder")
            .field("prefix", &self.prefix)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
