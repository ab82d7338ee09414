//! A lock in two stores at once, with one token.
//!
//! One store is asked after the other, and the lock is held when both have granted it with equal
//! tokens. Anything else is taken back. Others may hold a key in one of the stores alone: asking first
//! the store that they use costs them least, and gives each its turn.

mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Lease, LeaseInfo, LockBackend, LockKey, Release, ReleaseSignal,
    Renew,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::turns::{Turn, Turns};

/// The longest that one store may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(1);

/// Two stores, both of which must grant a lock.
#[derive(Clone, Debug)]
pub(crate) struct Both(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stores: [Side; 2],
    /// The second store is asked first.
    second_first: Arc<AtomicBool>,
    turns: Turns,
}

#[derive(Debug)]
struct Side {
    name: &'static str,
    store: Arc<dyn LockBackend>,
    /// It left the last call unanswered.
    silent: AtomicBool,
    /// While it is silent one at a time asks it, and the others fail at once.
    probe: Semaphore,
}

impl Both {
    /// Of these stores; while the flag is set the second is asked first.
    pub(crate) fn of(
        stores: [(&'static str, Arc<dyn LockBackend>); 2],
        second_first: Arc<AtomicBool>,
    ) -> Self {
        let stores = stores.map(|(name, store)| {
            let (silent, probe) = (AtomicBool::new(false), Semaphore::new(1));
            Side { name, store, silent, probe }
        });
        Self(Arc::new(Inner { stores, second_first, turns: Turns::default() }))
    }

    pub(crate) async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let (inner, claim, mut turn) = self.begin(claim);
        finished(async move {
            if turn.come().await {
                return inner.acquire(&claim, &turn).await;
            }
            Err(BackendError::unavailable("this holder was released: the next is another"))
        })
        .await
    }

    pub(crate) async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let (inner, claim, mut turn) = self.begin(claim);
        finished(async move {
            if turn.come().await { inner.renew(&claim, &turn).await } else { Ok(Renew::NotHeld) }
        })
        .await
    }

    pub(crate) async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let (inner, claim, mut turn) = self.begin(claim);
        finished(async move {
            turn.come().await;
            turn.spend();
            inner.release(&claim).await
        })
        .await
    }

    /// Nothing is awaited before the place is taken: what the caller begins later comes later.
    fn begin(&self, claim: &Claim) -> (Arc<Inner>, Claim, Turn) {
        (self.0.clone(), of_a_part(claim), self.0.turns.take(claim))
    }

    /// Resolves when the store that is asked first has told of a release. An attempt that finds the
    /// second store held gives the first back, and tells it: from then on that one is asked first.
    pub(crate) async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        let (first, second) = self.0.order();
        let claim = of_a_part(claim);
        match first.within(LOOK, first.store.watch(&claim)).await {
            Err(_) => second.within(LOOK, second.store.watch(&claim)).await,
            armed => armed,
        }
    }

    /// A lease in either store: it keeps others out of both.
    pub(crate) async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.0.inspect(key).await
    }

    pub(crate) async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let page = |side: usize| {
            let side = self.0.side(side);
            side.within(LOOK, side.store.list(prefix, after, limit))
        };
        let (first, second) = tokio::join!(page(0), page(1));
        let mut all: BTreeMap<_, LeaseInfo> = BTreeMap::new();
        for info in first?.into_iter().chain(second?) {
            let both = match all.remove(&info.key) {
                Some(shown) => one(shown, info),
                None => info,
            };
            all.insert(both.key.clone(), both);
        }
        Ok(all.into_values().take(limit).collect())
    }
}

impl Inner {
    fn side(&self, side: usize) -> &Side {
        let [first, second] = &self.stores;
        if side == 0 { first } else { second }
    }

    /// Which store is asked first: one that may not answer costs nobody the other's key then.
    fn order(&self) -> (&Side, &Side) {
        let [first, second] = &self.stores;
        let silent = |side: &Side| side.silent.load(Ordering::Relaxed);
        let turned = match (silent(first), silent(second)) {
            (true, false) => false,
            (false, true) => true,
            _ => self.second_first.load(Ordering::Relaxed),
        };
        if turned { (second, first) } else { (first, second) }
    }

    async fn acquire(&self, claim: &Claim, turn: &Turn) -> Result<Acquire, BackendError> {
        let (first, second) = self.order();
        let one = match first.acquire(claim).await {
            Ok(Acquire::Acquired(lease)) => lease,
            Ok(Acquire::Contended(contention)) => return Ok(Acquire::Contended(contention)),
            Err(error) => {
                let asked = first.may_hold(&error);
                return self.taken_back(claim, turn, asked, first.failed(error)).await;
            }
        };
        let raised = claim.clone().with_min_token(one.token);
        let two = match second.acquire(&raised).await {
            Ok(Acquire::Acquired(lease)) => lease,
            Ok(contended @ Acquire::Contended(_)) => {
                // Others use the second store alone. Back again is decided by a look: two that flip
                // would meet crosswise for ever.
                self.second_first.fetch_or(std::ptr::eq(first, self.side(0)), Ordering::Relaxed);
                return self.taken_back(claim, turn, Some(first), Ok(contended)).await;
            }
            Err(error) => {
                let asked = [Some(first), second.may_hold(&error)].into_iter().flatten();
                return self.taken_back(claim, turn, asked, second.failed(error)).await;
            }
        };
        match self.equal(claim, (first, one), (second, two)).await {
            Ok(Some(lease)) => Ok(Acquire::Acquired(lease)),
            refused => {
                let why = match refused {
                    Err(error) => error,
                    Ok(_) => BackendError::unavailable("the tokens of the two stores differ"),
                };
                self.taken_back(claim, turn, [first, second], first.failed(why)).await
            }
        }
    }

    /// Raises the lower token to the other. "At least as great" would let a holder in between get a
    /// token that is smaller, and later.
    async fn equal(
        &self,
        claim: &Claim,
        one: (&Side, Lease),
        two: (&Side, Lease),
    ) -> Result<Option<Lease>, BackendError> {
        let (low, high) = if one.1.token < two.1.token { (one, two) } else { (two, one) };
        let ttl = claim.ttl.min(low.1.ttl).min(high.1.ttl);
        let equal = Some(Lease::new(high.1.token, ttl));
        if low.1.token == high.1.token {
            return Ok(equal);
        }
        let raise = claim.clone().with_min_token(high.1.token);
        Ok(match low.0.renew(&raise).await? {
            Renew::Renewed(lease) if lease.token == high.1.token => equal,
            _ => None,
        })
    }

    /// Takes back what was granted. What is answered then is definite: the release may come late, so
    /// the next attempt is another holder's.
    async fn taken_back(
        &self,
        claim: &Claim,
        turn: &Turn,
        from: impl IntoIterator<Item = &Side>,
        answer: Result<Acquire, BackendError>,
    ) -> Result<Acquire, BackendError> {
        turn.spend();
        for side in from {
            if side.silent.load(Ordering::Relaxed) {
                // Nobody waits for what does not answer.
                let (store, claim) = (side.store.clone(), claim.clone());
                tokio::spawn(async move { timeout(LIMIT, store.release(&claim)).await.map(drop) });
            } else {
                let _ = side.release(claim).await;
            }
        }
        answer
    }

    async fn renew(&self, claim: &Claim, turn: &Turn) -> Result<Renew, BackendError> {
        let [first, second] = &self.stores;
        match tokio::join!(first.renew(claim), second.renew(claim)) {
            // The rest of it keeps others out until its guard knows, and ends by itself.
            (Ok(Renew::NotHeld), _) | (_, Ok(Renew::NotHeld)) => {
                turn.spend();
                Ok(Renew::NotHeld)
            }
            (Ok(Renew::Renewed(one)), Ok(Renew::Renewed(two))) => {
                match self.equal(claim, (first, one), (second, two)).await {
                    Ok(Some(lease)) => Ok(Renew::Renewed(lease)),
                    Ok(None) => Err(BackendError::ambiguous("the tokens of the two stores differ")),
                    Err(error) => Err(error.into_ambiguous()),
                }
            }
            (one, two) => Err(in_doubt([(first, one.err()), (second, two.err())])),
        }
    }

    /// Where a lease in a single store keeps others out, each must have answered. Who is told by the
    /// store that is asked first finds the other free.
    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let (first, second) = self.order();
        let answers = if second.silent.load(Ordering::Relaxed) {
            tokio::join!(first.release(claim), second.release(claim))
        } else {
            let two = second.release(claim).await;
            (first.release(claim).await, two)
        };
        match answers {
            (Ok(Release::Released { token: one }), Ok(Release::Released { token: two })) => {
                Ok(Release::Released { token: one.min(two) })
            }
            (Ok(_), Ok(_)) => Ok(Release::NotHeld),
            (one, two) => Err(in_doubt([(first, one.err()), (second, two.err())])),
        }
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let [first, second] = &self.stores;
        let look = async |side: &Side| side.within(LOOK, side.store.inspect(key)).await;
        Ok(match tokio::join!(look(first), look(second)) {
            (Ok(Some(shown)), Ok(Some(other))) => Some(one(shown, other)),
            (Ok(Some(info)), _) | (_, Ok(Some(info))) => Some(info),
            (one, two) => one.and(two)?,
        })
    }
}

impl Side {
    async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let answer = timeout(limit, call).await;
        self.silent.store(answer.is_err(), Ordering::Relaxed);
        answer.unwrap_or_else(|_| {
            Err(BackendError::ambiguous(format!("{} did not answer within {limit:?}", self.name)))
        })
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let busy = |_| BackendError::unavailable("it does not answer, and is being asked");
        let silent = self.silent.load(Ordering::Relaxed);
        let _probe = silent.then(|| self.probe.try_acquire()).transpose().map_err(busy)?;
        self.within(limit(claim), self.store.acquire(claim)).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.within(limit(claim), self.store.renew(claim)).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.within(limit(claim), self.store.release(claim)).await
    }

    /// This, if it may have granted a lease all the same.
    fn may_hold(&self, error: &BackendError) -> Option<&Self> {
        matches!(error, BackendError::Ambiguous(_)).then_some(self)
    }

    /// What an attempt comes to that has failed here. It is taken back, so nothing stands that counts.
    fn failed(&self, error: BackendError) -> Result<Acquire, BackendError> {
        let why = format!("both stores must grant a lock: {}: {error}", self.name);
        Err(match error {
            BackendError::InvalidInput(_) => error,
            BackendError::Rejected(_) => BackendError::rejected(why),
            _ => BackendError::unavailable(why),
        })
    }
}

/// Two rounds fit into the sixth of the ttl that a manager allows a request by default.
fn limit(claim: &Claim) -> Duration {
    LIMIT.min(claim.ttl / 6)
}

/// The claim as a single store sees it. A switch stays out of the lines of its stores: to be first in
/// one of them would keep others out of both. So it hears of releases by announcements.
pub(crate) fn of_a_part(claim: &Claim) -> Claim {
    claim.clone().with_wait(None).with_announcement()
}

/// What both stores show of a key.
fn one(shown: LeaseInfo, other: LeaseInfo) -> LeaseInfo {
    if shown.holder != other.holder || shown.remaining <= other.remaining { shown } else { other }
}

fn in_doubt(errors: [(&Side, Option<BackendError>); 2]) -> BackendError {
    let unreached =
        |error: &Option<BackendError>| matches!(error, Some(BackendError::Unavailable(_)));
    let nothing_happened = errors.iter().all(|(_, error)| unreached(error));
    let whys = errors
        .iter()
        .filter_map(|(side, error)| error.as_ref().map(|error| format!("{}: {error}", side.name)));
    let why = whys.collect::<Vec<_>>().join("; ");
    if nothing_happened { BackendError::unavailable(why) } else { BackendError::ambiguous(why) }
}

/// Works in a task, so that what is begun is finished when the caller has gone.
async fn finished<T: Send + 'static>(
    work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
) -> Result<T, BackendError> {
    let working = tokio::spawn(work).await;
    working.unwrap_or_else(|error| Err(BackendError::ambiguous(format!("its task ended: {error}"))))
}
