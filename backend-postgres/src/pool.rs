//! Connections of a pool of the caller's.

use deadpool_postgres::{Object, Pool, PoolError};
use lockcore::BackendError;
use tokio_postgres::Row;

use crate::error::{Failed, Failure};
use crate::exchange::{self, Settings, Subject, Turn};
use crate::params::Param;
use crate::statements::Query;
use crate::unconnected::Unconnected;

/// Sends a statement on a connection of the pool, which is waited for as long as the pool does.
///
/// A command of a holder's waits for those of the same holder that have begun, on whichever
/// connection: the server carries out what was given up, and an acquire that was overtaken by its
/// release takes the key for nobody.
pub(crate) async fn exchange(
    pool: &Pool,
    settings: &Settings,
    subject: &Subject,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Result<Vec<Row>, Failed>, BackendError> {
    let object = pool.get().await.map_err(no_connection)?;
    let mut lent = Lent { object: None, answered: false };
    let client = lent.object.insert(object);
    // Lent to nobody else meanwhile: it is always our turn.
    let (turn, marks) = (Turn::default(), subject.marks());
    let done = exchange::on_shared(client, &turn, settings, subject, &marks, query, params).await;
    lent.answered = !matches!(done, Err(Failed::Unanswered(_)));
    Ok(done)
}

fn no_connection(error: PoolError) -> BackendError {
    match error {
        PoolError::Backend(error) => Unconnected::of_pool(error).into(),
        PoolError::Timeout(_) => BackendError::unavailable(Failure::new(
            "the pool gave no connection within its timeout",
        )),
        error => {
            BackendError::rejected(Failure::new(format!("the pool gives no connection: {error}")))
        }
    }
}

/// A connection on loan. It goes back into the pool, unless a call went unanswered on it: whoever
/// got it next would wait behind that call.
struct Lent {
    object: Option<Object>,
    answered: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.answered
            && let Some(object) = self.object.take()
        {
            // Closed, and replaced by the pool when it needs one.
            drop(Object::take(object));
        }
    }
}
