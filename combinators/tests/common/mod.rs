//! Stores that can be broken, and what may be said about the locks they hold together.

pub(crate) mod store;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HolderId, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};
use tokio::sync::watch;

pub(crate) use self::store::{Store, Tokens};

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// It does not answer, and does what it was asked when it wakes up.
    Paused,
    /// It refuses connections. What was under way is lost, or its answer is.
    Down,
    /// It panics.
    Mad,
    /// It answers and refuses.
    Sour,
}

/// One node of a combination: a store behind a network, to which what was sent comes even if the
/// sender has gone.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) store: Store,
    mood: watch::Sender<Mood>,
    wire: Arc<Mutex<Wire>>,
}

#[derive(Debug)]
struct Wire {
    /// Each way takes between these.
    delay: (Duration, Duration),
    random: fastrand::Rng,
    calls: Vec<&'static str>,
    /// The next answer to a call of this name gets lost.
    lose: Option<&'static str>,
    /// Calls of this name get no answer.
    hang: Option<&'static str>,
    /// Calls of this name are refused.
    refuse: Option<&'static str>,
}

impl Node {
    pub(crate) fn new(tokens: Tokens) -> Self {
        let wire = Wire {
            delay: (Duration::ZERO, Duration::ZERO),
            random: fastrand::Rng::with_seed(0),
            calls: Vec::new(),
            lose: None,
            hang: None,
            refuse: None,
        };
        let wire = Arc::new(Mutex::new(wire));
        Self { store: Store::new(tokens), mood: watch::Sender::new(Mood::Well), wire }
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub(crate) fn mood(&self) -> Mood {
        *self.mood.borrow()
    }

    /// Each way takes a time between these, in milliseconds, from now on.
    pub(crate) fn delays(&self, seed: u64, least: u64, most: u64) {
        let mut wire = self.wire();
        wire.delay = (Duration::from_millis(least), Duration::from_millis(most));
        wire.random = fastrand::Rng::with_seed(seed);
    }

    /// The next answer to this call gets lost.
    pub(crate) fn lose(&self, call: &'static str) {
        self.wire().lose = Some(call);
    }

    /// Calls of this name get no answer from now on.
    pub(crate) fn hang(&self, call: &'static str) {
        self.wire().hang = Some(call);
    }

    /// Calls of this name are refused from now on.
    pub(crate) fn refuse(&self, call: &'static str) {
        self.wire().refuse = Some(call);
    }

    /// How many calls of this name have arrived so far.
    pub(crate) fn calls(&self, call: &str) -> usize {
        self.wire().calls.iter().filter(|name| **name == call).count()
    }

    /// Who holds the key here.
    pub(crate) fn holder(&self, key: &str) -> Option<HolderId> {
        self.store.info(&LockKey::new(key).expect("a key")).map(|info| info.holder)
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().expect("no panic while it is locked")
    }

    fn way(&self) -> Duration {
        let mut wire = self.wire();
        let (least, most) = wire.delay;
        least + (most - least).mul_f64(wire.random.f64())
    }

    async fn make<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl FnOnce(&Store) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let node = self.clone();
        assert!(self.mood() != Mood::Mad, "on purpose");
        if self.mood() == Mood::Down {
            return Err(BackendError::unavailable("connection refused"));
        }
        let (there, back) = (self.way(), self.way());
        let lost = self.wire().lose.take_if(|lose| *lose == name).is_some();
        let lost = lost || self.wire().hang == Some(name);
        let sent = tokio::spawn(async move {
            sleep(there).await;
            let mut mood = node.mood.subscribe();
            let _ = mood.wait_for(|mood| *mood != Mood::Paused).await;
            match node.mood() {
                Mood::Down => return Err(BackendError::ambiguous("connection reset")),
                Mood::Sour => return Err(BackendError::rejected("no")),
                Mood::Well | Mood::Paused | Mood::Mad => {}
            }
            node.wire().calls.push(name);
            let refused = node.wire().refuse == Some(name);
            let answer =
                if refused { Err(BackendError::rejected("no")) } else { call(&node.store) };
            sleep(back).await;
            let _ = mood.wait_for(|mood| *mood != Mood::Paused).await;
            if node.mood() == Mood::Down {
                return Err(BackendError::ambiguous("connection reset"));
            }
            if lost {
                std::future::pending::<()>().await;
            }
            answer
        });
        sent.await.unwrap_or_else(|_| Err(BackendError::ambiguous("the runtime has ended")))
    }
}

async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl LockBackend for Node {
    fn limits(&self) -> Limits {
        Limits::new(Duration::from_millis(10), Duration::from_secs(24 * 3600))
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let claim = claim.clone();
        self.make("acquire", move |store| Ok(store.acquire(&claim))).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let claim = claim.clone();
        self.make("renew", move |store| Ok(store.renew(&claim))).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let claim = claim.clone();
        self.make("release", move |store| Ok(store.release(&claim))).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        let claim = claim.clone();
        self.make("watch", move |store| Ok(store.watch(&claim.key))).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let key = key.clone();
        self.make("inspect", move |store| Ok(store.info(&key))).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.make("list", move |store| Ok(store.list(&prefix, after.as_ref(), limit))).await
    }
}
