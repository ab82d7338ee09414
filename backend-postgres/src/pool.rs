//! Connections of a pool of the caller's.

use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool, PoolError};
use lockcore::BackendError;
use tokio_postgres::Row;

use crate::error::Failure;
use crate::exchange::{self, Failed, Settings, Turn};
use crate::statements::{Param, Query};
use crate::unconnected::Unconnected;

/// A call given up after this long leaves a connection that is not worth keeping.
const PATIENCE: Duration = Duration::from_millis(100);

/// Sends a statement on a connection of the pool, which is waited for as long as the pool does.
pub(crate) async fn exchange(
    pool: &Pool,
    settings: &Settings,
    query: &Query,
    params: &[Param<'_>],
) -> Result<Result<Vec<Row>, Failed>, BackendError> {
    let object = pool.get().await.map_err(no_connection)?;
    let mut lent = Lent { object: None, since: Instant::now(), answered: false };
    let client = lent.object.insert(object);
    // Lent to nobody else meanwhile: it is always our turn.
    let done = exchange::on_shared(client, &Turn::default(), settings, query, params).await;
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

/// A connection on loan. It goes back into the pool, unless a call went unanswered on it.
struct Lent {
    object: Option<Object>,
    since: Instant,
    answered: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.answered
            && self.since.elapsed() >= PATIENCE
            && let Some(object) = self.object.take()
        {
            // Closed, and replaced by the pool when it needs one.
            drop(Object::take(object));
        }
    }
}
