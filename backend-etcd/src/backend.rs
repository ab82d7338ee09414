//! The backend: each method is one transaction and what belongs to it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::KeyValue;
use lockcore::{
    Acquire, BackendError, Claim, HandOver, HolderId, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};

use crate::book::Book;
use crate::error;
use crate::keys::Names;
use crate::leases::Leases;
use crate::places::Places;
use crate::record::Held;
use crate::route::Route;

/// No etcd grants less, whatever is asked for.
const MIN_TTL: Duration = Duration::from_secs(2);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// etcd looks for what has expired every half second, and ends it by way of its log. A lease of
/// etcd's also lives for up to a second longer than the lease that is told: see `leases.rs`.
const EXPIRY_LAG: Duration = Duration::from_secs(2);
/// The longest place in a line.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// More requests at once make etcd refuse some, and slow all of them (U8).
const IN_FLIGHT: usize = 128;

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
    pub(crate) leases: Arc<Leases>,
    pub(crate) places: Arc<Places>,
    /// Whose mailbox the turns of this backend's holders are told to.
    pub(crate) channel: Arc<str>,
}

/// How often what was known may have changed during one call. Each time another's acquire or raise
/// worked, so a store that is alive lets everyone through long before.
pub(crate) const ROUNDS: usize = 100;

impl EtcdBackend {
    pub(crate) fn new(route: Route, names: Names, book: Arc<Book>) -> Self {
        let channel = HolderId::random().to_string().into();
        Self { route, names, book, leases: Arc::default(), places: Arc::default(), channel }
    }

    /// What was found, if it is a lease of the claim's holder.
    pub(crate) fn mine(
        &self,
        claim: &Claim,
        found: Option<KeyValue>,
    ) -> Result<Option<Held>, BackendError> {
        let Some(found) = found else { return Ok(None) };
        let held = Held::read(&found);
        let held = held.ok_or_else(|| error::foreign(&self.names.lease(&claim.key)))?;
        Ok(Some(held).filter(|held| held.record.holder == claim.holder))
    }

    /// Revokes a lease that nobody needs any more, while the caller goes on.
    pub(crate) fn revoke_behind(&self, id: i64) {
        self.leases.revoking(id);
        let leases = Arc::clone(&self.leases);
        self.route.revoke_behind(id, move || leases.revoked(id));
    }
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
        Limits::new(MIN_TTL, MAX_TTL)
            .with_expiry_lag(EXPIRY_LAG)
            .with_line(MAX_WAIT)
            .with_max_in_flight(IN_FLIGHT)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        self.take(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        self.extend(claim).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        self.extend_many(claims).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        self.give_back(claim).await
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.limits().check(from)?;
        self.limits().check(to)?;
        self.pass_on(from, to, over).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        if claim.wait.is_some() {
            return self.route.watch_turn(self.names.mail(&self.channel), claim.holder).await;
        }
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
