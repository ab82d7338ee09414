//! The backend: each method is one statement.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HolderId, Lease, LeaseInfo, Limits, LockBackend,
    LockKey, Release, ReleaseSignal, Renew, StoreMemory, async_trait,
};
use tokio_postgres::types::{FromSqlOwned, Type};
use tokio_postgres::{Client, Row};

use crate::builder::{PostgresBackendBuilder, RETENTION};
use crate::error;
use crate::exchange::Settings;
use crate::route::{Given, Route};
use crate::statements::Statements;
use crate::table::Table;

const MIN_TTL: Duration = Duration::from_millis(10);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Whether a lease stands is asked of the clock in the moment of looking; the rest is for rounding.
const EXPIRY_LAG: Duration = Duration::from_millis(10);

/// The format of the records that this version writes.
const FORMAT: i16 = 1;

/// How many leases a list asks for at once: the limit on a statement is not for long lists.
const PAGE: usize = 1_000;

/// One in so many releases sweeps a page of the table, so that rows of keys that are used once go
/// faster than they come.
const SWEEP_ONE_IN: u128 = 16;

/// Locks in PostgreSQL.
///
/// Clones share one connection, which carries all calls and the release signals too. It is opened
/// again at the next call after it broke or fell silent. See the [crate documentation](crate) for
/// URLs, guarantees, the table, and the rights a user needs.
///
/// # Errors
///
/// Every method answers as the laws of [`LockBackend`] say. The driver's
/// [`Error`](tokio_postgres::Error) is among the sources of a [`BackendError`], and is found by
/// walking [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct PostgresBackend {
    pub(crate) route: Route,
    pub(crate) table: Table,
    pub(crate) statements: Arc<Statements>,
    retention: i64,
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
        Self::new(Route::Pool(pool, Settings::default()), Table::default(), RETENTION)
    }

    /// Asks over a connection of the caller's, with the defaults of the builder: see
    /// [`PostgresBackendBuilder::from_client`].
    pub fn from_client(client: Client) -> Self {
        let given = Given::new(client, Settings::default());
        Self::new(Route::Given(given), Table::default(), RETENTION)
    }

    pub(crate) fn new(route: Route, table: Table, retention: Duration) -> Self {
        let statements = Statements::of(&table);
        Self { route, statements, table, retention: micros(retention) }
    }

    /// Creates the table unless it is there. Any number of clients may call this at once.
    ///
    /// Cancel safe: dropped, it has created the table or not.
    ///
    /// # Errors
    ///
    /// [`BackendError::Rejected`] where the user may not create it, or where something else has
    /// its name; [`BackendError::Unavailable`] where no answer came.
    pub async fn ensure_schema(&self) -> Result<(), BackendError> {
        self.table.ensure(&self.route, &self.statements).await
    }

    /// The one row of an answer; an error if what is under the key is not ours.
    fn answer<'a>(&self, rows: &'a [Row], what: &'static str) -> Result<Answer<'a>, BackendError> {
        let [row] = rows else { return Err(error::unexpected(what)) };
        let answer = Answer { row, what };
        match answer.get::<Option<i16>>("format")? {
            Some(format) if format != FORMAT => Err(error::foreign(&self.table.shown(), format)),
            _ => Ok(answer),
        }
    }

    async fn page(
        &self,
        least: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        after: &[u8],
    ) -> Result<Vec<Row>, BackendError> {
        let limit = i64::try_from(limit.min(PAGE)).unwrap_or(i64::MAX);
        let params = [
            (&least as _, Type::BYTEA),
            (&end as _, Type::BYTEA),
            (&limit as _, Type::INT8),
            (&after as _, Type::BYTEA),
        ];
        self.route.ask(&self.statements.list, &params).await
    }
}

/// A row, and what it is the answer to.
struct Answer<'a> {
    row: &'a Row,
    what: &'static str,
}

impl Answer<'_> {
    fn get<T: FromSqlOwned>(&self, column: &str) -> Result<T, BackendError> {
        self.row.try_get(column).map_err(|_| error::unexpected(self.what))
    }

    fn token(&self) -> Result<Option<u64>, BackendError> {
        let token = self.get::<Option<i64>>("token")?;
        token
            .map(|token| u64::try_from(token).map_err(|_| error::unexpected(self.what)))
            .transpose()
    }

    /// How long the store has surely forgotten nothing.
    fn memory(&self) -> Result<Option<StoreMemory>, BackendError> {
        let born = self.get::<Option<String>>("born")?;
        let age = self.get::<Option<i64>>("age_us")?;
        let born = born.and_then(|born| holder(&born));
        // The clock may have been set back since: then nothing is known for sure.
        let age = age.map(|age| Duration::from_micros(u64::try_from(age).unwrap_or(0)));
        Ok(born.zip(age).map(|(born, age)| StoreMemory::new(born.as_u128(), age)))
    }

    /// The lease, if one was granted.
    fn granted(&self, claim: &Claim) -> Result<Option<Lease>, BackendError> {
        let Some(token) = self.token()? else { return Ok(None) };
        let ttl = Duration::from_micros(micros(claim.ttl).unsigned_abs());
        Ok(Some(Lease::new(token, ttl).with_memory(self.memory()?)))
    }

    fn info(&self, key: LockKey) -> Result<LeaseInfo, BackendError> {
        let holder = holder(&self.get::<String>("holder")?);
        let holder = holder.ok_or_else(|| error::unexpected(self.what))?;
        let token = self.token()?.ok_or_else(|| error::unexpected(self.what))?;
        // It stood when it was found, and may have ended since.
        let left = u64::try_from(self.get::<i64>("left_us")?).unwrap_or(0);
        let label = self.get::<Vec<u8>>("label")?;
        // A label is text when we write it; whoever else wrote it, the lease is still shown.
        let label = String::from_utf8_lossy(&label);
        Ok(LeaseInfo::new(key, holder, token, Duration::from_micros(left), label))
    }
}

/// A uuid as the server writes it.
fn holder(uuid: &str) -> Option<HolderId> {
    uuid.replace('-', "").parse().ok()
}

/// Whole microseconds, rounded up: a lease never ends before what was claimed.
fn micros(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// The first bytes behind all that start with a prefix.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    // No byte of UTF-8 is 255.
    *end.last_mut()? += 1;
    Some(end)
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend")
            .field("server", &self.route)
            .field("table", &self.table.shown())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for PostgresBackend {
    fn limits(&self) -> Limits {
        Limits::new(MIN_TTL, MAX_TTL).with_expiry_lag(EXPIRY_LAG)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        let (key, label) = (claim.key.as_str().as_bytes(), claim.label.as_bytes());
        let (holder, born) = (claim.holder.to_string(), HolderId::random().to_string());
        let (ttl, floor) = (micros(claim.ttl), claim.min_token.cast_signed());
        let params = [
            (&key as _, Type::BYTEA),
            (&holder as _, Type::TEXT),
            (&ttl as _, Type::INT8),
            (&floor as _, Type::INT8),
            (&born as _, Type::TEXT),
            (&label as _, Type::BYTEA),
        ];
        let rows = self.route.command(claim, &self.statements.acquire, &params).await?;
        let answer = self.answer(&rows, "an acquire")?;
        if let Some(lease) = answer.granted(claim)? {
            return Ok(Acquire::Acquired(lease));
        }
        let left = answer.get::<Option<i64>>("left_us")?;
        let left = left.and_then(|left| u64::try_from(left).ok());
        // Rounded up: before that, asking again is in vain.
        let left = left.map(|left| Duration::from_micros(left + 1));
        Ok(Acquire::Contended(Contention::new(left)))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits().check(claim)?;
        let key = claim.key.as_str().as_bytes();
        let (holder, born) = (claim.holder.to_string(), HolderId::random().to_string());
        let (ttl, floor) = (micros(claim.ttl), claim.min_token.cast_signed());
        let params = [
            (&key as _, Type::BYTEA),
            (&holder as _, Type::TEXT),
            (&ttl as _, Type::INT8),
            (&floor as _, Type::INT8),
            (&born as _, Type::TEXT),
        ];
        let rows = self.route.command(claim, &self.statements.renew, &params).await?;
        let answer = self.answer(&rows, "a renewal")?;
        Ok(match answer.granted(claim)? {
            Some(lease) => Renew::Renewed(lease),
            None => Renew::NotHeld,
        })
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        let (key, holder) = (claim.key.as_str().as_bytes(), claim.holder.to_string());
        let (channel, start) = (self.table.channel(), self.table.payload_start());
        // Holders are drawn at random, so this is as good as a die.
        let sweep = claim.holder.as_u128().is_multiple_of(SWEEP_ONE_IN);
        let params = [
            (&key as _, Type::BYTEA),
            (&holder as _, Type::TEXT),
            (&channel as _, Type::TEXT),
            (&start as _, Type::TEXT),
            (&self.retention as _, Type::INT8),
        ];
        let rows = if sweep {
            self.route.command(claim, &self.statements.release_and_sweep, &params).await?
        } else {
            self.route.command(claim, &self.statements.release, &params[..4]).await?
        };
        let released = self.answer(&rows, "a release")?.get("released")?;
        Ok(if released { Release::Released } else { Release::NotHeld })
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        self.route.watch(self.table.payload(&claim.key)).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let bytes = key.as_str().as_bytes();
        let params = [(&bytes as _, Type::BYTEA)];
        let rows = self.route.ask(&self.statements.inspect, &params).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        self.answer(&rows, "an inspection")?.info(key.clone()).map(Some)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut leases = Vec::new();
        let end = behind(prefix.as_bytes());
        let mut after = after.map_or_else(Vec::new, |after| after.as_str().as_bytes().to_vec());
        while leases.len() < limit {
            let wanted = limit - leases.len();
            let rows = self.page(prefix.as_bytes(), end.as_deref(), wanted, &after).await?;
            for row in &rows {
                let answer = Answer { row, what: "a list" };
                after = answer.get("key")?;
                // What is no key of ours is not shown, and hides nobody's.
                let key = std::str::from_utf8(&after).ok().and_then(|key| LockKey::new(key).ok());
                if let Some(key) = key {
                    leases.push(answer.info(key)?);
                }
            }
            if rows.len() < wanted.min(PAGE) {
                break;
            }
        }
        Ok(leases)
    }
}
