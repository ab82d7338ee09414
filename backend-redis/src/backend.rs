//! The backend: each method is one script.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HolderId, Lease, LeaseInfo, Limits, LockBackend,
    LockKey, Release, ReleaseSignal, Renew, StoreMemory, async_trait,
};
use redis::aio::ConnectionLike;
use redis::{RedisError, Value};

use crate::builder::{RETENTION, RedisBackendBuilder};
use crate::connected::Connected;
use crate::error;
use crate::keys::Names;
use crate::route::{Lender, Ready, Reply, Route};
use crate::scripts::{ACQUIRE, INSPECT, RELEASE, RENEW, Script};
use crate::server::text;

const MIN_TTL: Duration = Duration::from_millis(10);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Redis shows nothing that has expired, to the millisecond of the clock it read when it took up
/// the command; the rest is for that reading and for rounding.
const EXPIRY_LAG: Duration = Duration::from_millis(10);

/// Locks in Redis or Valkey.
///
/// Clones share one connection, which carries all calls and, with RESP3, the release signals too.
/// It is opened again at the next call after it broke or fell silent. See the [crate
/// documentation](crate) for URLs, guarantees, and the rights a user needs.
///
/// # Errors
///
/// Every method answers as the laws of [`LockBackend`] say. The driver's
/// [`RedisError`] is among the sources of a [`BackendError`], and is found by walking
/// [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct RedisBackend {
    route: Route,
    pub(crate) names: Names,
    retention: String,
    /// The server spreads keys over slots: the born record is left out.
    clustered: Arc<AtomicBool>,
}

impl RedisBackend {
    /// Connects to the server at a URL, with the defaults of the [builder](Self::builder).
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] for a URL that cannot be used, [`BackendError::Unavailable`]
    /// where no server answers, [`BackendError::Rejected`] where one refuses: a wrong password, a
    /// certificate that is not trusted, something that is not Redis.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, BackendError> {
        Self::builder(url).connect().await
    }

    /// Settings for a connection to the server at a URL.
    pub fn builder(url: impl AsRef<str>) -> RedisBackendBuilder {
        RedisBackendBuilder::new(url)
    }

    /// Uses the address, user, TLS and TCP settings of a client of the driver's, and connects at
    /// the first call. The connection is this backend's own: see
    /// [`RedisBackendBuilder::from_client`].
    ///
    /// # Errors
    ///
    /// [`BackendError::InvalidInput`] when the client's settings cannot be used.
    pub fn from_client(client: redis::Client) -> Result<Self, BackendError> {
        RedisBackendBuilder::from_client(client).build()
    }

    /// Asks over a connection of the caller's, such as a `ConnectionManager` or a cluster
    /// connection. Waiting then polls, and how long the store has forgotten nothing is not known:
    /// see [`RedisBackendBuilder::from_connection`].
    pub fn from_connection<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        let lender = Arc::new(Lender(connection));
        Self::new(Route::Lent(lender), Names::default(), RETENTION)
    }

    pub(crate) fn new(route: Route, names: Names, retention: Duration) -> Self {
        Self {
            route,
            names,
            retention: retention.as_millis().to_string(),
            clustered: Arc::default(),
        }
    }

    pub(crate) async fn ready(&self) -> Result<Ready, BackendError> {
        self.route.ready().await
    }

    fn memory(&self, connected: &Connected, born: &str, now: &str) -> Option<StoreMemory> {
        let (id, since) = born.split_once('|')?;
        let id: HolderId = id.parse().ok()?;
        let known = now.parse::<u64>().ok()?.saturating_sub(since.parse().ok()?);
        // The record may be older than what the server read back from disk when it started.
        let age = Duration::from_micros(known).min(connected.facts.uptime());
        Some(StoreMemory::new(id.as_u128(), age))
    }

    /// Runs a script that grants, with the born record where that can be carried along.
    async fn grant(
        &self,
        ready: &mut Ready,
        script: &Script,
        claim: &Claim,
        label: &[&str],
    ) -> Result<Value, RedisError> {
        let (lease, counter) = (self.names.lease(&claim.key), self.names.counter(&claim.key));
        let born = self.names.born();
        let keys = [lease.as_str(), &counter, &born];
        let (holder, ttl) = (claim.holder.to_string(), millis(claim.ttl).to_string());
        let (floor, id) = (claim.min_token.to_string(), HolderId::random().to_string());
        let args = [&[&*holder, &*ttl, &*floor, &*self.retention, &*id], label].concat();
        // A connection of the caller's may lead anywhere, and next time to another server.
        if ready.connected.is_some() && !self.clustered.load(Ordering::Relaxed) {
            match ready.run(script, &script.call(&keys, &args)).await {
                // Refused before anything was done. Once: from here on the record is left out.
                Err(refused) if error::is_crossslot(&refused) => {
                    self.clustered.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        ready.run(script, &script.call(&keys[..2], &args)).await
    }

    /// The lease that such a script answers.
    fn granted(
        &self,
        ready: &Ready,
        claim: &Claim,
        fields: &[Value],
        what: &str,
    ) -> Result<Lease, BackendError> {
        let token = fields.first().and_then(text).and_then(|token| token.parse().ok());
        let token = token.ok_or_else(|| error::unexpected(what))?;
        let memory = match (fields, ready.connected.as_deref()) {
            ([_, born, now], Some(connected)) => {
                text(born).zip(text(now)).and_then(|(born, now)| self.memory(connected, born, now))
            }
            _ => None,
        };
        Ok(Lease::new(token, Duration::from_millis(millis(claim.ttl))).with_memory(memory))
    }
}

/// Whole milliseconds, rounded up: a lease never ends before what was claimed.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(crate) fn info(key: &LockKey, fields: &[Value]) -> Result<LeaseInfo, BackendError> {
    let read = || {
        let [holder, token, Value::Int(left), Value::BulkString(label)] = fields else {
            return None;
        };
        let holder = text(holder)?.parse().ok()?;
        let token = text(token)?.parse().ok()?;
        let left = Duration::from_millis(u64::try_from(*left).ok()?);
        // A label is text when we write it; whoever else wrote it, the lease is still shown.
        let label = String::from_utf8_lossy(label);
        Some(LeaseInfo::new(key.clone(), holder, token, left, label))
    };
    read().ok_or_else(|| error::unexpected("an inspection"))
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("server", &self.route)
            .field("prefix", &self.names.prefix())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for RedisBackend {
    fn limits(&self) -> Limits {
        Limits::new(MIN_TTL, MAX_TTL).with_expiry_lag(EXPIRY_LAG)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        let mut ready = self.ready().await?;
        let answer = self.grant(&mut ready, &ACQUIRE, claim, &[&claim.label]).await;
        match Reply::read(answer.map_err(error::of_command)?, "an acquire")? {
            Reply::Done(fields) => {
                Ok(Acquire::Acquired(self.granted(&ready, claim, &fields, "an acquire")?))
            }
            Reply::No(fields) => match fields.first() {
                // A record still stands in the millisecond in which it ends.
                Some(Value::Int(left)) => Ok(Acquire::Contended(Contention::new(
                    u64::try_from(*left).ok().map(|left| Duration::from_millis(left + 1)),
                ))),
                _ => Err(error::unexpected("an acquire")),
            },
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        let mut ready = self.ready().await?;
        let answer = self.grant(&mut ready, &RENEW, claim, &[]).await;
        match Reply::read(answer.map_err(error::of_command)?, "a renewal")? {
            Reply::Done(fields) => {
                Ok(Renew::Renewed(self.granted(&ready, claim, &fields, "a renewal")?))
            }
            Reply::No(_) => Ok(Renew::NotHeld),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        let lease = self.names.lease(&claim.key);
        let args = [&*claim.holder.to_string(), &*self.names.channel(&claim.key)];
        let call = RELEASE.call(&[&lease], &args);
        let answer = self.ready().await?.run(&RELEASE, &call).await;
        match Reply::read(answer.map_err(error::of_command)?, "a release")? {
            Reply::Done(_) => Ok(Release::Released),
            Reply::No(_) => Ok(Release::NotHeld),
        }
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        match self.ready().await?.connected {
            Some(connected) => connected.watch(self.names.channel(&claim.key)).await,
            None => Ok(ReleaseSignal::never()),
        }
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let call = INSPECT.call(&[&self.names.lease(key)], &[]);
        let answer = self.ready().await?.run(&INSPECT, &call).await;
        match Reply::read(answer.map_err(error::of_question)?, "an inspection")? {
            Reply::Done(fields) => Ok(Some(info(key, &fields)?)),
            Reply::No(_) => Ok(None),
        }
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
