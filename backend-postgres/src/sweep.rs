//! Deleting rows that nobody needs any more, beside the calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockcore::{BackendError, HolderId};
use tokio::runtime::Handle;
use tokio_postgres::types::Type;

use crate::route::Route;
use crate::statements::Statements;

/// One in so many releases starts a sweep, so that rows of keys that are used once go faster than
/// they come.
const ONE_IN: u128 = 16;

/// A sweep that finds something goes on, but not for ever.
const MOST: usize = 64;

/// The least time from the end of one sweep to the next.
const PAUSE: Duration = Duration::from_millis(250);

/// At most one sweep at a time.
#[derive(Default)]
pub(crate) struct Sweeps {
    is_under_way: Arc<AtomicBool>,
    has_warned: Arc<AtomicBool>,
}

impl Sweeps {
    /// Starts a sweep now and then. Holders are drawn at random, so they are as good as a die.
    pub(crate) fn after_release(
        &self,
        holder: HolderId,
        route: &Route,
        statements: &Arc<Statements>,
        retention: i64,
    ) {
        if !holder.as_u128().is_multiple_of(ONE_IN) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_under_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let (under_way, route) = (UnderWay(self.is_under_way.clone()), route.clone());
        let (statements, has_warned) = (statements.clone(), self.has_warned.clone());
        runtime.spawn(async move {
            for _ in 0..MOST {
                if sweep(&route, &statements, retention, &has_warned).await == 0 {
                    break;
                }
            }
            // The pause keeps no connection open.
            drop(route);
            tokio::time::sleep(PAUSE).await;
            drop(under_way);
        });
    }
}

/// How many rows were deleted.
async fn sweep(
    route: &Route,
    statements: &Statements,
    retention: i64,
    has_warned: &AtomicBool,
) -> i64 {
    match route.ask(&statements.sweep, &[(&retention as _, Type::INT8)]).await {
        Ok(rows) => rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0),
        Err(error @ BackendError::Rejected(_)) if !has_warned.swap(true, Ordering::Relaxed) => {
            tracing::warn!(%error, "old rows are not deleted");
            0
        }
        Err(_) => 0,
    }
}

/// A sweep is under way, until this is dropped, at the latest with the runtime.
struct UnderWay(Arc<AtomicBool>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
