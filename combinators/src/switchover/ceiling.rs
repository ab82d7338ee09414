//! How far the tokens of a store are.
//!
//! Agreement makes tokens rise for the keys that are taken while a lock is in both stores. A key
//! that nobody took meanwhile has its last token in the store being left, and the other may be far
//! behind it. So every lease of an exclusive phase carries a *floor*, above all tokens of the store
//! being left. Those cannot be known from a probe: a store may have a counter for each key. So each
//! store remembers a *ceiling*, the token of a key of the switch's own, and no process in that store
//! alone answers a lease whose token is above it. It raises the ceiling first, by far enough that
//! this is seldom.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockcore::BackendError;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::keys::{Desk, Key};

/// By how much a ceiling is raised above the token that was about to exceed it: five seconds, in
/// stores whose tokens are microseconds.
const LEAD: u64 = 5_000_000;

/// What a token that was granted before there was a ceiling may be ahead of the store's others: a
/// second, where they are microseconds and its clock was set back.
const MARGIN: u64 = 1_000_000;

/// How long the key is taken for: a quorum gives each of its stores a twelfth.
const TTL: Duration = Duration::from_secs(6);

/// How often it is asked until it is as far as it must be.
const TIMES: u32 = 8;

/// The ceiling of a store, as far as this process has raised it.
#[derive(Clone)]
pub(super) struct Ceiling(Arc<Inner>);

struct Inner {
    desk: Desk,
    known: AtomicU64,
    /// One at a time: the others find it raised, or that it could not be.
    raising: Mutex<Option<(Instant, String)>>,
}

impl Ceiling {
    pub(super) fn of(desk: Desk) -> Self {
        Self(Arc::new(Inner { desk, known: AtomicU64::new(0), raising: Mutex::default() }))
    }

    /// The store may not remember it any more.
    pub(super) fn forget(&self) {
        self.0.known.store(0, Ordering::Release);
    }

    fn is_above(&self, token: u64) -> bool {
        self.0.known.load(Ordering::Acquire) > token
    }

    /// Sees to it that the store remembers a ceiling above this token.
    ///
    /// Cancel safe: what was begun is finished by a task.
    pub(super) async fn cover(&self, token: u64) -> Result<(), BackendError> {
        if self.is_above(token) {
            return Ok(());
        }
        let ceiling = self.clone();
        let raised = tokio::spawn(async move { ceiling.raise_above(token).await }).await;
        raised.unwrap_or_else(|error| Err(BackendError::ambiguous(error)))
    }

    async fn raise_above(&self, token: u64) -> Result<(), BackendError> {
        let asked = Instant::now();
        let mut failed = self.0.raising.lock().await;
        if self.is_above(token) {
            return Ok(());
        }
        // Each would take as long to fail as the one that it has waited for.
        if let Some((_, why)) = failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(BackendError::unavailable(why.clone()));
        }
        let most = self.0.desk.store.limits().max_token;
        let raised = at_least(&self.0.desk, token.saturating_add(LEAD).min(most)).await;
        let ceiling = raised.inspect_err(|error| {
            *failed = Some((Instant::now(), format!("its ceiling was not raised: {error}")));
        })?;
        // A token beyond the largest floor has no ceiling; who leaves the store is told.
        let ceiling = if token >= most { u64::MAX } else { ceiling };
        self.0.known.fetch_max(ceiling, Ordering::Release);
        Ok(())
    }
}

/// Raises the ceiling to this, or finds it there. An acquire alone may be granted again what stands,
/// which others have raised less far.
async fn at_least(desk: &Desk, least: u64) -> Result<u64, BackendError> {
    let key = Key::ceiling();
    for _ in 0..TIMES {
        let token = match desk.renew(&key, TTL, least).await? {
            Some(token) => Some(token),
            None => desk.take(&key, TTL, least, &"".into()).await?,
        };
        if let Some(token) = token.filter(|token| *token >= least) {
            return Ok(token);
        }
    }
    Err(BackendError::unavailable("its ceiling is held by a stranger"))
}

/// Greater than every token that was answered in this store, where nobody who answers more is in
/// that store alone.
pub(super) async fn floor_above(left: &Desk) -> Result<u64, BackendError> {
    let token = left.take(&Key::ceiling(), TTL, 0, &"".into()).await?;
    let token = token.ok_or_else(|| BackendError::rejected("its ceiling is held by a stranger"))?;
    // The next one to begin finds a greater one. Its store may have lost what was granted since, with
    // tokens ahead of all clocks.
    let token = at_least(left, token.saturating_add(MARGIN)).await?;
    Ok(token.saturating_add(MARGIN))
}
