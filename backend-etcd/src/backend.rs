//! The backend: each method is one transaction and what belongs to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use lockcore::{
    Acquire, BackendError, Claim, LeaseInfo, Limits, LockBackend, LockKey, Release, ReleaseSignal,
    Renew, async_trait,
};

use crate::book::Book;
use crate::builder::EtcdBackendBuilder;
use crate::keys::Names;
use crate::route::Route;

/// No etcd grants less, whatever is asked for.
const MIN_TTL: Duration = Duration::from_secs(2);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// etcd looks for what has expired every half second, and ends it by way of its log.
const EXPIRY_LAG: Duration = Duration::from_secs(1);

/// Locks in etcd.
///
/// Clones share one connection, to one of the cluster's servers, which carries all calls and the
/// release signals. It is opened again at the next call after it broke or fell silent, to the next
/// server that answers. See the [crate documentation](crate) for URLs, guarantees, and the rights
/// a user needs.
///
/// # Errors
///
/// Every method answers as the laws of [`LockBackend`] say. The driver's [`etcd_client::Error`] is
/// among the sources of a [`BackendError`], and is found by walking
/// [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct EtcdBackend {
    pub(crate) route: Route,
    pub(crate) names: Names,
    pub(crate) book: Arc<Book>,
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

    pub(crate) fn new(route: Route, names: Names, book: Arc<Book>) -> Self {
        Self { route, names, book }
    }
}

/// Whole seconds, rounded up: a lease never ends before what was claimed.
pub(crate) fn seconds(ttl: Duration) -> u32 {
    let seconds = ttl.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

pub(crate) fn ttl(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend")
            .field("servers", &self.route)
            .field("prefix", &self.names.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for EtcdBackend {
    fn limits(&self) -> Limits {
        Limits::new(MIN_TTL, MAX_TTL).with_expiry_lag(EXPIRY_LAG)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        self.take(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        self.extend(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        self.give_back(claim).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        self.route.watch(self.names.lease(&claim.key)).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.look(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.all(prefix, after, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_a_second_are_rounded_up() {
        assert_eq!(seconds(Duration::from_secs(2)), 2);
        assert_eq!(seconds(Duration::from_nanos(2_000_000_001)), 3);
        assert_eq!(seconds(MAX_TTL), 86_400);
    }
}
