//! One statement, sent and answered.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use lockcore::{Claim, HolderId};
use tokio_postgres::{Client, Error, Row};

use crate::error::{self, Failed};
use crate::limit::{self, Limit};
use crate::params::Param;
use crate::statements::{Prepared, Query};

/// What a statement is about.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject {
    /// The shortest ttl of the leases.
    ttl: Option<Duration>,
    /// Holders whose statements must not overtake each other.
    pub(crate) holders: [Option<HolderId>; 2],
}

impl Subject {
    /// A lease of a holder's.
    pub(crate) fn lease(claim: &Claim) -> Self {
        Self { ttl: Some(claim.ttl), holders: [Some(claim.holder), None] }
    }

    /// A lease that passes from one holder to another.
    pub(crate) fn hand_over(from: &Claim, to: &Claim) -> Self {
        Self { ttl: Some(to.ttl), holders: [Some(from.holder), Some(to.holder)] }
    }

    /// Renewals. A late one changes nothing, so they may come in any order.
    pub(crate) fn renewals(claims: &[&Claim]) -> Self {
        Self { ttl: claims.iter().map(|claim| claim.ttl).min(), holders: [None; 2] }
    }

    /// The advisory locks by which the statements of a holder wait for each other where sessions
    /// are shared: as much of its id as a lock has for a name.
    #[cfg(feature = "pool")]
    pub(crate) fn marks(&self) -> Vec<i64> {
        self.holders.iter().flatten().map(|holder| holder.as_u128() as i64).collect()
    }
}

/// The settings that every statement of ours runs with, whatever the defaults of the role, the
/// database and the server are.
///
/// On a session of our own they are startup options. Where sessions are shared, behind a pooler
/// or on a connection of the caller's, they are set for one transaction, in the same round trip.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// For a call that names no ttl, and the most for any.
    most: Limit,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(limit::STATEMENT_TIMEOUT)
    }
}

impl Settings {
    pub(crate) fn new(statement_timeout: Duration) -> Self {
        Self { most: Limit::of(statement_timeout) }
    }

    /// What the server may take for a statement.
    pub(crate) fn limit_for(&self, subject: &Subject) -> Limit {
        subject.ttl.map_or(self.most, |ttl| self.most.for_ttl(ttl))
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

    /// The first part of a transaction. It holds the advisory locks `marks` to its end, for others
    /// to wait for.
    fn begin(&self, limit: Limit, marks: &[i64]) -> String {
        // At READ COMMITTED, what waited for a row sees it as it is then, in place of failing.
        let mut begin = String::from("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE");
        for (name, value) in limit.values().into_iter().chain(self.values()) {
            let _ = write!(begin, "; SET LOCAL {name} = {value}");
        }
        for number in marks {
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
    subject: &Subject,
    marks: &[i64],
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failed> {
    let begin = settings.begin(settings.limit_for(subject), marks);
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

/// Sends a statement on a session of our own and does not wait for its answer.
pub(crate) fn send_only(client: &Client, query: &Query, params: &[Param<'_>]) {
    let mut sent = pin!(client.query_typed(&query.sql, params));
    // The first poll hands it to the driver, which reads the answer and drops it.
    let _ = sent.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
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
    let begin = settings.begin(settings.most, &[number]);
    client.batch_execute(&format!("{begin}; COMMIT")).await
}
