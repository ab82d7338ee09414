//! One statement, sent and answered.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use lockcore::Claim;
use tokio_postgres::{Client, Error, Row};

use crate::error;
use crate::limit::{self, Limit};
use crate::statements::{Param, Prepared, Query};

/// The settings that every statement of ours runs with, whatever the defaults of the role, the
/// database and the server are.
///
/// On a session of our own they are startup options. Where sessions are shared, behind a pooler
/// or on a connection of the caller's, they are set for one transaction, in the same round trip.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// For a call that names no ttl, and the most for any.
    most: Limit,
    mark: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(limit::STATEMENT_TIMEOUT)
    }
}

impl Settings {
    pub(crate) fn new(statement_timeout: Duration) -> Self {
        Self { most: Limit::of(statement_timeout), mark: None }
    }

    /// With a lock that each transaction holds to its end, for others to wait for.
    pub(crate) fn marked(&self, number: i64) -> Self {
        Self { mark: Some(number), ..*self }
    }

    /// What the server may take for a call that concerns this claim.
    pub(crate) fn limit_for(&self, claim: Option<&Claim>) -> Limit {
        claim.map_or(self.most, |claim| self.most.for_ttl(claim.ttl))
    }

    fn values(&self) -> [(&'static str, String); 3] {
        [
            ("synchronous_commit", "on".to_owned()),
            // A client that vanishes between two parts of a transaction does not keep the row.
            // But a slow wire needs a while for the bytes of the next part.
            ("idle_in_transaction_session_timeout", self.most.idle().to_string()),
            // No function or operator of ours is another's.
            ("search_path", "pg_catalog".to_owned()),
        ]
    }

    /// The first part of a transaction.
    fn begin(&self, limit: Limit) -> String {
        // At READ COMMITTED, what waited for a row sees it as it is then, in place of failing.
        let mut begin = String::from("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE");
        for (name, value) in limit.values().into_iter().chain(self.values()) {
            let _ = write!(begin, "; SET LOCAL {name} = {value}");
        }
        if let Some(number) = self.mark {
            let _ = write!(begin, "; SELECT pg_advisory_xact_lock({number})");
        }
        begin
    }

    /// As options of a session's startup.
    pub(crate) fn startup_options(&self) -> String {
        let mut options = String::from(
            "-c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off",
        );
        for (name, value) in self.most.values().into_iter().chain(self.values()) {
            let _ = write!(options, " -c {name}={value}");
        }
        options
    }
}

/// Why a statement has no result.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The server answered with an error and undid the statement.
    Refused(Error),
    /// No answer came, or one that leaves the outcome open.
    Unanswered(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if error::is_refusal(&error) { Self::Refused(error) } else { Self::Unanswered(error) }
    }
}

/// Whose turn it is to send on a session: what one call sends stays together. It keeps the limits
/// that are in force on a session of our own; `None`: not known.
pub(crate) type Turn = Mutex<Option<Limit>>;

fn turn_of(turn: &Turn) -> MutexGuard<'_, Option<Limit>> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends a statement on a session of our own, which has our settings. Only the limits may be those
/// of another call: then they are set before it, in the same round trip.
///
/// To read and plan a statement takes the server several times as long as to carry it out. So it
/// is prepared behind its first use, in the same round trip.
///
/// Cancel safe, as far as the session goes: what was sent is carried out, and its answer is read
/// and dropped.
pub(crate) async fn on_ours(
    client: &Client,
    turn: &Turn,
    prepared: &Prepared,
    limit: Limit,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failed> {
    let are_others = AtomicBool::new(false);
    let limits = async {
        if are_others.load(Ordering::Relaxed) {
            client.batch_execute(&limit.set()).await
        } else {
            Ok(())
        }
    };
    let mut parts = pin!(async {
        tokio::join!(biased; limits, prepared_or_not(client, prepared, query, params))
    });
    let sent = poll_fn(|context| {
        // A call on another thread must not get in between.
        let mut in_force = turn_of(turn);
        are_others.store(in_force.replace(limit) != Some(limit), Ordering::Relaxed);
        Poll::Ready(parts.as_mut().poll(context))
    });
    let (limits, done) = match sent.await {
        Poll::Ready(ended) => ended,
        Poll::Pending => parts.await,
    };
    if limits.is_err() {
        *turn_of(turn) = None;
    }
    Ok(done?)
}

async fn prepared_or_not(
    client: &Client,
    prepared: &Prepared,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Error> {
    let Some(slot) = prepared.slot(query) else {
        return client.query_typed(&query.sql, params).await;
    };
    if let Some(statement) = slot.get() {
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        return client.query(statement, &values).await;
    }
    let types: Vec<_> = params.iter().map(|(_, of)| of.clone()).collect();
    let (done, statement) = tokio::join!(
        biased;
        client.query_typed(&query.sql, params),
        client.prepare_typed(&query.sql, &types),
    );
    if let Ok(statement) = statement {
        let _ = slot.set(statement);
    }
    done
}

/// Sends a statement in a transaction with our settings, on a session shared with others.
///
/// Cancel safe in the same way: the first poll hands all three parts to the driver, so that a
/// transaction that was begun is ended.
pub(crate) async fn on_shared(
    client: &Client,
    turn: &Turn,
    settings: &Settings,
    limit: Limit,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failed> {
    let begin = settings.begin(limit);
    let mut parts = pin!(async {
        tokio::join!(
            // In this order: the driver sends what it is handed at the first poll of each.
            biased;
            client.batch_execute(&begin),
            client.query_typed(&query.sql, params),
            client.batch_execute("COMMIT"),
        )
    });
    let sent = poll_fn(|context| {
        // A call on another thread must not get in between.
        let _turn = turn_of(turn);
        Poll::Ready(parts.as_mut().poll(context))
    });
    let (begun, done, ended) = match sent.await {
        Poll::Ready(ended) => ended,
        Poll::Pending => parts.await,
    };
    match (begun, done, ended) {
        (Ok(()), Ok(rows), Ok(())) => Ok(rows),
        // Undone at the commit.
        (Ok(()), Ok(_), Err(error)) => Err(error.into()),
        // It ran outside of the transaction, with settings of others.
        (Err(error), Ok(_), _) => Err(Failed::Unanswered(error)),
        // The statement fails after a transaction that could not begin: that is the reason.
        (Err(begun), Err(error), _) if error::is_refusal(&error) => Err(Failed::Refused(begun)),
        (_, Err(error), _) => Err(error.into()),
    }
}

/// Waits until a transaction that was marked so and has begun has ended.
///
/// A pooler passes on all parts of a transaction, and the server carries them out, also when the
/// client is gone by then. Its next calls would overtake them: an acquire that is carried out
/// after its release takes the key for nobody.
pub(crate) async fn until_over(
    client: &Client,
    settings: &Settings,
    number: i64,
) -> Result<(), Error> {
    let begin = settings.begin(settings.most);
    client.batch_execute(&format!("{begin}; SELECT pg_advisory_xact_lock({number}); COMMIT")).await
}
