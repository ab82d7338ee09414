//! One statement, sent and answered.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio_postgres::{Client, Error, Row};

use crate::error;
use crate::statements::{Param, Prepared, Query};

/// How long the server works on one statement, unless set.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement waits for a lock, at most. Locks of ours are held for the time of a
/// commit; longer than this a stranger holds one.
const LOCK_WAIT: Duration = Duration::from_millis(750);

/// How many times the limit on a statement the next part of a transaction may take to arrive. By
/// default that is less than the core bears failures for, so that others get over such a row.
const SLOW_WIRE: u128 = 4;

/// The settings that every statement of ours runs with, whatever the defaults of the role, the
/// database and the server are.
///
/// On a session of our own they are startup options. Where sessions are shared, behind a pooler
/// or on a connection of the caller's, they are set for one transaction, in the same round trip.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    values: Vec<(&'static str, String)>,
    begin: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(STATEMENT_TIMEOUT)
    }
}

impl Settings {
    pub(crate) fn new(statement_timeout: Duration) -> Self {
        let statement = statement_timeout.as_millis().max(1);
        // Short of the limit on the statement, so that the answer says what it waited for.
        let lock = LOCK_WAIT.as_millis().min(statement * 3 / 8).max(1);
        let values = vec![
            ("synchronous_commit", "on".to_owned()),
            ("statement_timeout", statement.to_string()),
            ("lock_timeout", lock.to_string()),
            // A client that vanishes between two parts of a transaction does not keep the row.
            // But a slow wire needs a while for the bytes of the next part.
            ("idle_in_transaction_session_timeout", (statement * SLOW_WIRE).to_string()),
            // No function or operator of ours is another's.
            ("search_path", "pg_catalog".to_owned()),
        ];
        // At READ COMMITTED, what waited for a row sees it as it is then, in place of failing.
        let mut begin = String::from("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE");
        for (name, value) in &values {
            let _ = write!(begin, "; SET LOCAL {name} = {value}");
        }
        Self { values, begin }
    }

    /// With a lock that each transaction holds to its end, for others to wait for.
    pub(crate) fn marked(&self, number: i64) -> Self {
        let mut marked = self.clone();
        let _ = write!(marked.begin, "; SELECT pg_advisory_xact_lock({number})");
        marked
    }

    /// As options of a session's startup.
    pub(crate) fn startup_options(&self) -> String {
        let mut options = String::from(
            "-c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off",
        );
        for (name, value) in &self.values {
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

/// Sends a statement on a session of our own, which has our settings.
///
/// To read and plan a statement takes the server several times as long as to carry it out. So it
/// is prepared behind its first use, in the same round trip.
///
/// Cancel safe, as far as the session goes: what was sent is carried out, and its answer is read
/// and dropped.
pub(crate) async fn on_ours(
    client: &Client,
    prepared: &Prepared,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failed> {
    let Some(slot) = prepared.slot(query) else {
        return Ok(client.query_typed(&query.sql, params).await?);
    };
    if let Some(statement) = slot.get() {
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        return Ok(client.query(statement, &values).await?);
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
    Ok(done?)
}

/// Whose turn it is to send on a session: the parts of one transaction stay together.
pub(crate) type Turn = Mutex<()>;

/// Sends a statement in a transaction with our settings, on a session shared with others.
///
/// Cancel safe in the same way: the first poll hands all three parts to the driver, so that a
/// transaction that was begun is ended.
pub(crate) async fn on_shared(
    client: &Client,
    turn: &Turn,
    settings: &Settings,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Vec<Row>, Failed> {
    let mut parts = pin!(async {
        tokio::join!(
            // In this order: the driver sends what it is handed at the first poll of each.
            biased;
            client.batch_execute(&settings.begin),
            client.query_typed(&query.sql, params),
            client.batch_execute("COMMIT"),
        )
    });
    let sent = poll_fn(|context| {
        // A call on another thread must not get in between.
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
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
    let begin = &settings.begin;
    client.batch_execute(&format!("{begin}; SELECT pg_advisory_xact_lock({number}); COMMIT")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_less_long_than_a_statement_may_take() {
        let lock = |statement| {
            let settings = Settings::new(Duration::from_millis(statement));
            let options = settings.startup_options();
            let at = options.find("lock_timeout=").expect("set");
            let digits: String =
                options[at + 13..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().expect("a number")
        };
        assert_eq!(lock(2_000), 750);
        assert_eq!(lock(800), 300);
        // Zero would be no limit at all.
        assert_eq!(lock(1), 1);
    }
}
