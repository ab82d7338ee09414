//! How far the tokens of a store are.
//!
//! Agreement makes tokens rise for the keys that are taken while a lock is in both stores. A key
//! that nobody took meanwhile has its last token in the store being left, and the other store may
//! be far behind it. So every lease of an exclusive phase carries a *floor*, above all tokens of the
//! store being left.
//!
//! Those cannot be known from a probe: a store may have a counter for each key. So each store
//! remembers a *ceiling*, the token of a key of the switch's own, and no process in that store alone
//! answers a lease whose token is above it. It raises the ceiling first, by far enough that this is
//! seldom. There are a few such keys, so that nobody has to wait for a process
//! that raises one as well, or died doing so; the greatest counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, LockBackend, LockKey};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::reserved;
use crate::flaw::{Flaw, flawed};

/// How many keys there are for it.
const KEYS: usize = 16;

/// By how much a ceiling is raised above the token that was about to exceed it: five seconds, in
/// stores whose tokens are microseconds.
const LEAD: u64 = 5_000_000;

/// What a token that was granted before there was a ceiling may be ahead of the store's others: a
/// second, where they are microseconds and its clock was set back.
const MARGIN: u64 = 1_000_000;

/// How long one of these keys is taken for: a quorum gives each of its stores a twelfth.
const TTL: Duration = Duration::from_secs(6);

/// How long one call may take, and how long the keys are tried.
const CALL: Duration = Duration::from_secs(2);
const TRY: Duration = Duration::from_secs(10);

/// The ceiling of a store, as far as this process has raised it.
#[derive(Clone)]
pub(super) struct Ceiling(Arc<Inner>);

struct Inner {
    store: Arc<dyn LockBackend>,
    known: AtomicU64,
    /// One at a time: the others find it raised, or that it could not be.
    raising: Mutex<Option<(Instant, String)>>,
}

impl Ceiling {
    pub(super) fn of(store: Arc<dyn LockBackend>) -> Self {
        let (known, raising) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Inner { store, known, raising }))
    }

    /// The store may not remember it any more.
    pub(super) fn forget(&self) {
        self.0.known.store(0, Ordering::Release);
    }

    fn is_above(&self, token: u64) -> bool {
        self.0.known.load(Ordering::Acquire) > token
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
        let most = self.0.store.limits().max_token;
        let first = fastrand::usize(..KEYS);
        let raised = take(&*self.0.store, first.., token.saturating_add(LEAD).min(most)).await;
        let ceiling = raised.inspect_err(|error| {
            *failed = Some((Instant::now(), format!("its ceiling was not raised: {error}")));
        })?;
        // A token beyond the largest floor has no ceiling; who leaves the store is told.
        let ceiling = if token >= most { u64::MAX } else { ceiling };
        self.0.known.fetch_max(ceiling, Ordering::Release);
        Ok(())
    }
}

/// Sees to it that each store remembers a ceiling above this token.
///
/// Cancel safe: what was begun is finished by a task.
pub(super) async fn cover(ceilings: &[Ceiling], token: u64) -> Result<(), BackendError> {
    if flawed(Flaw::CeilingForgotten) {
        return Ok(());
    }
    let low = ceilings.iter().filter(|ceiling| !ceiling.is_above(token)).cloned();
    let raising: Vec<_> =
        low.map(|ceiling| tokio::spawn(async move { ceiling.raise_above(token).await })).collect();
    if flawed(Flaw::CeilingLate) {
        return Ok(());
    }
    for raised in raising {
        raised.await.unwrap_or_else(|error| Err(BackendError::ambiguous(error)))?;
    }
    Ok(())
}

/// Greater than every token that was answered in `left`, where no process that answers more is in
/// that store alone.
pub(super) async fn floor_above(left: &Arc<dyn LockBackend>) -> Result<u64, BackendError> {
    let mut taking = JoinSet::new();
    for key in 0..KEYS {
        let left = left.clone();
        taking.spawn(async move { take(&*left, std::iter::repeat(key), 0).await });
    }
    let mut greatest = 0;
    while let Some(token) = taking.join_next().await {
        greatest = greatest.max(token.map_err(BackendError::unavailable)??);
    }
    Ok(greatest.saturating_add(MARGIN))
}

/// Takes one of these keys for a moment, the next where another has it; its token, this one at
/// least.
async fn take(
    store: &dyn LockBackend,
    keys: impl Iterator<Item = usize>,
    least: u64,
) -> Result<u64, BackendError> {
    let (limits, began) = (store.limits(), Instant::now());
    let ttl = limits.min_ttl.max(TTL).min(limits.max_ttl);
    let mut failure = BackendError::unavailable("it has no ceiling");
    for (tried, key) in keys.enumerate() {
        if tried > 0 && tried.is_multiple_of(KEYS) {
            sleep(Duration::from_millis(10 + fastrand::u64(..20))).await;
        }
        if began.elapsed() > TRY {
            break;
        }
        let key = LockKey::new(reserved::ceiling(key % KEYS))?;
        let claim = Claim::new(key, HolderId::random(), ttl).with_min_token(least);
        let answer = timeout(CALL, store.acquire(&claim)).await;
        let answer = answer.unwrap_or_else(|_| Err(BackendError::ambiguous("no answer")));
        failure = match answer {
            Ok(Acquire::Acquired(lease)) => {
                // Else it ends with its ttl.
                let _ = timeout(CALL, store.release(&claim)).await;
                return Ok(lease.token);
            }
            Ok(Acquire::Contended(_)) => BackendError::unavailable("its ceiling is contended"),
            Err(error @ (BackendError::Rejected(_) | BackendError::InvalidInput(_))) => {
                return Err(error);
            }
            Err(error) => {
                let _ = timeout(CALL, store.release(&claim)).await;
                sleep(Duration::from_millis(10 + fastrand::u64(..20))).await;
                BackendError::unavailable(error)
            }
        };
    }
    Err(failure)
}
