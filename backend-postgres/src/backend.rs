//! The backend: each method is one statement, where nobody waits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HandOver, HolderId, LeaseInfo, Limits, LockBackend,
    LockKey, Release, ReleaseSignal, Renew, async_trait,
};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::answer::Answer;
use crate::contended::Contended;
use crate::error::{self, Failure};
use crate::exchange::Subject;
use crate::line::{self, Next, Unheard};
use crate::params::{Uuid, micros};
use crate::release_signals::Topic;
use crate::renewals;
use crate::route::Route;
use crate::schema;
use crate::statements::Statements;
use crate::sweep::Sweeps;
use crate::table::Table;

const MIN_TTL: Duration = Duration::from_millis(10);
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Whether a lease stands is asked of the clock in the moment of looking; the rest is for rounding.
const EXPIRY_LAG: Duration = Duration::from_millis(10);
/// The longest place in a line.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// More requests than this would only wait in the sessions, while their time passes.
const MAX_IN_FLIGHT: usize = 256;

/// How many leases a list asks for at once: the limit on a statement is not for long lists.
const PAGE: usize = 1_000;

/// How often an acquire starts anew because the key's row came or went.
const TRIES: usize = 4;

/// Locks in PostgreSQL.
///
/// Clones share their connections: one, and more of them while many calls are under way. One that
/// broke or fell silent is opened again at the next call. See the [crate documentation](crate) for
/// URLs, guarantees, the table, and the rights a user needs.
///
/// # Errors
///
/// Every method answers as the laws of [`LockBackend`] say. The driver's
/// [`Error`](tokio_postgres::Error) is among the sources of a [`BackendError`], and is found by
/// walking [`source`](std::error::Error::source).
#[derive(Clone)]
pub struct PostgresBackend {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) route: Route,
    table: Table,
    statements: Arc<Statements>,
    retention: i64,
    contended: Contended,
    sweeps: Sweeps,
    unheard: Unheard,
}

impl PostgresBackend {
    pub(crate) fn new(route: Route, table: Table, retention: Duration, unheard: Unheard) -> Self {
        let statements = Statements::new(&table);
        Self {
            inner: Arc::new(Inner {
                route,
                statements,
                table,
                retention: micros(retention),
                contended: Contended::default(),
                sweeps: Sweeps::default(),
                unheard,
            }),
        }
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
        schema::ensure(&self.inner.table, &self.inner.route, &self.inner.statements).await
    }
}

impl PostgresBackend {
    /// Refuses what cannot hold leases; a table that is missing may come later.
    pub(crate) async fn check_schema(&self) -> Result<(), BackendError> {
        schema::is_there(&self.inner.table, &self.inner.route).await.map(drop)
    }
}

impl Inner {
    /// Asks by the statement of the common path. `None`: the other one has to find out.
    async fn try_acquire(&self, claim: &Claim) -> Result<Option<Acquire>, BackendError> {
        let (key, label) = (claim.key.as_str().as_bytes(), claim.label.as_bytes());
        let (holder, new_id) = (Uuid::from(claim.holder), new_id(claim));
        let (ttl, floor) = (micros(claim.ttl), claim.min_token.cast_signed());
        let params = [
            (&key as _, Type::BYTEA),
            (&holder as _, Type::UUID),
            (&ttl as _, Type::INT8),
            (&floor as _, Type::INT8),
            (&label as _, Type::BYTEA),
            (&new_id as _, Type::UUID),
        ];
        let (query, params) = self.statements.acquire.pick(claim.incarnation, &params);
        let rows = self.route.command(Subject::lease(claim), query, params).await?;
        let answer = Answer::one(&rows, "an acquire")?;
        answer.is_ours(&self.table.shown())?;
        if let Some(lease) = answer.granted(claim)? {
            return Ok(Some(Acquire::Acquired(lease)));
        }
        let left = answer.left()?.filter(|_| claim.wait.is_none());
        Ok(left.map(|left| Acquire::Contended(Contention::new(Some(left)))))
    }

    /// Asks by the statement that knows the line. `None`: there is no row.
    async fn ask(&self, claim: &Claim) -> Result<Option<Acquire>, BackendError> {
        let (key, label) = (claim.key.as_str().as_bytes(), claim.label.as_bytes());
        let (holder, new_id) = (Uuid::from(claim.holder), new_id(claim));
        let (ttl, floor) = (micros(claim.ttl), claim.min_token.cast_signed());
        let wait = claim.wait.map(micros);
        let listener = wait.map_or(0, |_| self.route.listener_for(claim.holder));
        let params = [
            (&key as _, Type::BYTEA),
            (&holder as _, Type::UUID),
            (&ttl as _, Type::INT8),
            (&floor as _, Type::INT8),
            (&label as _, Type::BYTEA),
            (&wait as _, Type::INT8),
            (&listener as _, Type::INT8),
            (&new_id as _, Type::UUID),
        ];
        let (query, params) = self.statements.ask.pick(claim.incarnation, &params);
        let rows = self.route.command(Subject::lease(claim), query, params).await?;
        let answer = Answer::one(&rows, "an acquire")?;
        let is_there = answer.is_ours(&self.table.shown())?;
        if let Some(lease) = answer.granted(claim)? {
            return Ok(Some(Acquire::Acquired(lease)));
        }
        Ok(if is_there { Some(Acquire::Contended(answer.contention()?)) } else { None })
    }

    /// Signals the first in line, if there is one.
    async fn signal(&self, key: &LockKey, next: Option<Next>) {
        if let Some(next) = next {
            line::signal(&self.route, &self.statements, key.as_str().as_bytes(), &next).await;
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

/// An id for a new incarnation of the store, if the claim asks for it.
fn new_id(claim: &Claim) -> Uuid {
    Uuid(if claim.incarnation { HolderId::random().as_u128() } else { 0 })
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
            .field("server", &self.inner.route)
            .field("table", &self.inner.table.shown())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl LockBackend for PostgresBackend {
    fn limits(&self) -> Limits {
        Limits::new(MIN_TTL, MAX_TTL)
            .with_expiry_lag(EXPIRY_LAG)
            .with_line(MAX_WAIT)
            .with_max_in_flight(MAX_IN_FLIGHT)
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits().check(claim)?;
        let Inner { contended, .. } = &*self.inner;
        let mut knows_line = contended.is_expected(&claim.key);
        for _ in 0..TRIES {
            let answer = if knows_line {
                self.inner.ask(claim).await?
            } else {
                self.inner.try_acquire(claim).await?
            };
            if let Some(answer) = answer {
                contended.note(&claim.key, matches!(answer, Acquire::Contended(_)));
                return Ok(answer);
            }
            knows_line = !knows_line;
        }
        // Nothing was granted by any of them.
        Err(BackendError::unavailable(Failure::new(format!(
            "the key's row in {} came and went during each of {TRIES} attempts",
            self.inner.table.shown()
        ))))
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let mut answers = self.renew_many(std::slice::from_ref(claim)).await;
        answers.pop().unwrap_or_else(|| Err(error::unexpected("a renewal")))
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let Inner { route, statements, table, .. } = &*self.inner;
        renewals::renew(route, statements, &table.shown(), self.limits(), claims).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits().check(claim)?;
        let Inner { route, statements, table, retention, sweeps, .. } = &*self.inner;
        let (key, holder) = (claim.key.as_str().as_bytes(), Uuid::from(claim.holder));
        let listener = route.listener();
        let params =
            [(&key as _, Type::BYTEA), (&holder as _, Type::UUID), (&listener as _, Type::INT8)];
        let subject = Subject::lease(claim);
        let mut rows = route.command(subject, &statements.release, &params).await?;
        if rows.is_empty() {
            rows = route.command(subject, &statements.leave, &params).await?;
            Answer::one(&rows, "a release")?.is_ours(&table.shown())?;
        }
        let answer = Answer::one(&rows, "a release")?;
        let token = answer.token()?;
        self.inner.signal(&claim.key, answer.next()?).await;
        if token.is_some() && claim.announce {
            let (channel, payload) = (table.channel(), table.payload(&claim.key));
            let params = [(&channel as _, Type::TEXT), (&payload as _, Type::TEXT)];
            route.tell(&statements.notify, &params).await;
        }
        sweeps.after_release(claim.holder, route, statements, *retention);
        Ok(token.map_or(Release::NotHeld, |token| Release::Released { token }))
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        self.limits().check(from)?;
        self.limits().check(to)?;
        let Inner { route, statements, table, .. } = &*self.inner;
        let (key, label) = (from.key.as_str().as_bytes(), to.label.as_bytes());
        let (from_holder, to_holder) = (Uuid::from(from.holder), Uuid::from(to.holder));
        let (ttl, floor) = (micros(to.ttl), to.min_token.cast_signed());
        let (wait, new_id) = (to.wait.map(micros), new_id(to));
        let listener = wait.map_or(0, |_| route.listener_for(to.holder));
        let own = route.listener();
        let params = [
            (&key as _, Type::BYTEA),
            (&from_holder as _, Type::UUID),
            (&to_holder as _, Type::UUID),
            (&ttl as _, Type::INT8),
            (&floor as _, Type::INT8),
            (&label as _, Type::BYTEA),
            (&wait as _, Type::INT8),
            (&listener as _, Type::INT8),
            (&own as _, Type::INT8),
            (&over as _, Type::BOOL),
            (&new_id as _, Type::UUID),
        ];
        let (query, params) = statements.hand_over.pick(to.incarnation, &params);
        let rows = route.command(Subject::hand_over(from, to), query, params).await?;
        let answer = Answer::one(&rows, "a hand-over")?;
        answer.is_ours(&table.shown())?;
        if let Some(lease) = answer.granted(to)? {
            return Ok(HandOver::Granted(lease));
        }
        if !answer.get::<bool>("yielded")? {
            return Ok(HandOver::NotHeld);
        }
        let contention = answer.contention()?;
        self.inner.signal(&from.key, answer.next()?).await;
        Ok(HandOver::Yielded(contention))
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.limits().check(claim)?;
        let Inner { route, statements, table, unheard, .. } = &*self.inner;
        unheard.serve(route, statements);
        route
            .watch(match claim.wait {
                Some(_) => Topic::Holder(claim.holder.to_string()),
                None => Topic::Key(table.payload(&claim.key)),
            })
            .await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let bytes = key.as_str().as_bytes();
        let params = [(&bytes as _, Type::BYTEA)];
        let rows = self.inner.route.ask(&self.inner.statements.inspect, &params).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let answer = Answer::one(&rows, "an inspection")?;
        answer.is_ours(&self.inner.table.shown())?;
        answer.info(key.clone()).map(Some)
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
            let rows = self.inner.page(prefix.as_bytes(), end.as_deref(), wanted, &after).await?;
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
