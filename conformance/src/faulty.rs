//! A backend that loses requests and answers: faults for stores without a wire.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};
use tokio::sync::watch;

/// One of a backend's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// [`LockBackend::acquire`]
    Acquire,
    /// [`LockBackend::renew`]
    Renew,
    /// [`LockBackend::release`]
    Release,
    /// [`LockBackend::renew_many`]
    RenewMany,
    /// [`LockBackend::hand_over`]
    HandOver,
    /// [`LockBackend::watch`]
    Watch,
    /// [`LockBackend::inspect`]
    Inspect,
    /// [`LockBackend::list`]
    List,
}

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// The request is slow: the store sees it this much later.
    Delay(Duration),
    /// The answer is slow: it comes this much later.
    Late(Duration),
    /// The request is lost, and nobody says so: no answer, ever.
    LoseRequest,
    /// The store does what is asked, but its answer is lost: no answer, ever.
    LoseReply,
    /// The store is not reached, and the caller is told so.
    Refuse,
    /// The store does what is asked, then the connection breaks.
    Reset,
    /// No answer, and the store sees the request this much later, even if the caller has gone:
    /// the straggler that arrives after its successor.
    Straggle(Duration),
    /// All goes well, and this much later the request arrives once more; nobody hears the answer.
    Repeat(Duration),
}

/// How likely each mishap is, out of 1, for calls that have none of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Storm {
    /// [`Mishap::LoseRequest`]
    pub lose_request: f64,
    /// [`Mishap::LoseReply`]
    pub lose_reply: f64,
    /// [`Mishap::Refuse`]
    pub refuse: f64,
    /// [`Mishap::Reset`]
    pub reset: f64,
    /// [`Mishap::Straggle`], by a random time up to `delay`
    pub straggle: f64,
    /// [`Mishap::Repeat`], after a random time up to `delay`
    pub repeat: f64,
    /// Every other call is slow on its way there and back by random times up to this.
    pub delay: Duration,
}

/// A backend that has mishaps: scripted ones for the next calls of a verb, random ones from a
/// seed, or a cut that swallows everything until it is mended. It counts the calls.
///
/// Clones share their script, their storm and their counts.
///
/// ```
/// use lockcore_conformance::{Faulty, Mishap, Verb};
/// use lockcore::{BackendError, Claim, HolderId, LockBackend, LockKey, MemoryBackend};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Faulty::new(MemoryBackend::new());
/// store.next(Verb::Acquire, Mishap::Reset);
/// let ttl = std::time::Duration::from_secs(1);
/// let claim = Claim::new(LockKey::new("k")?, HolderId::random(), ttl);
/// assert!(matches!(store.acquire(&claim).await, Err(BackendError::Ambiguous(_))));
/// assert!(store.inspect(&claim.key).await?.is_some()); // it had worked
/// assert_eq!(store.calls(Verb::Acquire), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Faulty<B> {
    inner: Arc<B>,
    state: Arc<Mutex<State>>,
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    script: HashMap<Verb, VecDeque<Mishap>>,
    storm: Storm,
    random: fastrand::Rng,
    calls: HashMap<Verb, usize>,
    answers: HashMap<Verb, usize>,
    /// Each call gives other tasks a turn before and after.
    pace: bool,
}

impl<B> Clone for Faulty<B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), state: self.state.clone(), cut: self.cut.clone() }
    }
}

impl<B: LockBackend> Faulty<B> {
    /// A backend without mishaps so far.
    pub fn new(inner: B) -> Self {
        let state = State {
            script: HashMap::new(),
            storm: Storm::default(),
            random: fastrand::Rng::with_seed(0),
            calls: HashMap::new(),
            answers: HashMap::new(),
            pace: false,
        };
        let (inner, state) = (Arc::new(inner), Arc::new(Mutex::new(state)));
        Self { inner, state, cut: watch::Sender::new(false) }
    }

    /// The next call of `verb` that has no mishap yet has this one.
    pub fn next(&self, verb: Verb, mishap: Mishap) {
        self.state().script.entry(verb).or_default().push_back(mishap);
    }

    /// Random mishaps from now on, the same ones for the same seed.
    pub fn storm(&self, seed: u64, storm: Storm) {
        let mut state = self.state();
        state.random = fastrand::Rng::with_seed(seed);
        state.storm = storm;
    }

    /// No more random or scripted mishaps.
    pub fn calm(&self) {
        let mut state = self.state();
        state.storm = Storm::default();
        state.script.clear();
    }

    /// Swallows everything, requests and answers, until it is mended: a black hole. Calls under
    /// way when it is cut lose their answer too.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Gives other tasks a turn before and after every call, as a real store does: every call
    /// then has points at which it can be dropped.
    pub fn pace(&self) {
        self.state().pace = true;
    }

    /// How many calls of `verb` were made so far.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> usize {
        self.state().calls.get(&verb).copied().unwrap_or(0)
    }

    /// How many calls of `verb` were answered so far, by success or by an error.
    #[must_use]
    pub fn answers(&self, verb: Verb) -> usize {
        self.state().answers.get(&verb).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mishap(&self, verb: Verb) -> (Option<Mishap>, Duration, Duration, bool) {
        let state = &mut *self.state();
        *state.calls.entry(verb).or_default() += 1;
        if let Some(mishap) = state.script.get_mut(&verb).and_then(VecDeque::pop_front) {
            return (Some(mishap), Duration::ZERO, Duration::ZERO, state.pace);
        }
        let (storm, random) = (state.storm, &mut state.random);
        let there = storm.delay.mul_f64(random.f64());
        let back = storm.delay.mul_f64(random.f64());
        let mut dice = random.f64();
        for (chance, mishap) in [
            (storm.lose_request, Mishap::LoseRequest),
            (storm.lose_reply, Mishap::LoseReply),
            (storm.refuse, Mishap::Refuse),
            (storm.reset, Mishap::Reset),
            (storm.straggle, Mishap::Straggle(there)),
            (storm.repeat, Mishap::Repeat(back)),
        ] {
            if dice < chance {
                return (Some(mishap), there, back, state.pace);
            }
            dice -= chance;
        }
        (None, there, back, state.pace)
    }

    /// Makes a call, with whatever happens to it. `call` is given its own handle on the store,
    /// so that it can outlive its caller.
    async fn make<T, F>(&self, verb: Verb, call: impl Fn(Arc<B>) -> F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let (mishap, there, back, pace) = self.mishap(verb);
        if pace {
            tokio::task::yield_now().await;
        }
        sleep(there).await;
        if *self.cut.borrow() {
            return std::future::pending().await;
        }
        let make = || call(self.inner.clone());
        let call = make();
        let answer = match mishap {
            None => call.await,
            Some(Mishap::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                call.await
            }
            Some(Mishap::Late(delay)) => {
                let answer = call.await;
                tokio::time::sleep(delay).await;
                answer
            }
            Some(Mishap::LoseRequest) => std::future::pending().await,
            Some(Mishap::LoseReply) => {
                let _ = call.await;
                std::future::pending().await
            }
            Some(Mishap::Refuse) => Err(BackendError::unavailable("connection refused")),
            Some(Mishap::Reset) => {
                let _ = call.await;
                Err(BackendError::ambiguous("connection reset"))
            }
            Some(Mishap::Straggle(delay)) => {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    let _ = call.await;
                });
                std::future::pending().await
            }
            Some(Mishap::Repeat(delay)) => {
                let again = make();
                let answer = call.await;
                tokio::spawn(async move {
                    sleep(delay).await;
                    let _ = again.await;
                });
                answer
            }
        };
        sleep(back).await;
        if pace {
            tokio::task::yield_now().await;
        }
        if *self.cut.borrow() {
            return std::future::pending().await;
        }
        *self.state().answers.entry(verb).or_default() += 1;
        answer
    }
}

/// Sleeps, and does not even yield for nothing.
async fn sleep(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl<B: LockBackend> LockBackend for Faulty<B> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let call = |inner: Arc<B>| {
            let claim = claim.clone();
            async move { inner.acquire(&claim).await }
        };
        self.make(Verb::Acquire, call).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let call = |inner: Arc<B>| {
            let claim = claim.clone();
            async move { inner.renew(&claim).await }
        };
        self.make(Verb::Renew, call).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let call = |inner: Arc<B>| {
            let claim = claim.clone();
            async move { inner.release(&claim).await }
        };
        self.make(Verb::Release, call).await
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let call = |inner: Arc<B>| {
            let claims = claims.to_vec();
            async move { Ok(inner.renew_many(&claims).await) }
        };
        match self.make(Verb::RenewMany, call).await {
            Ok(answers) => answers,
            // One request, and so one mishap for all of them.
            Err(error) => {
                let again = || match &error {
                    BackendError::Unavailable(source) => {
                        BackendError::unavailable(source.to_string())
                    }
                    other => BackendError::ambiguous(other.to_string()),
                };
                claims.iter().map(|_| Err(again())).collect()
            }
        }
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        let call = |inner: Arc<B>| {
            let (from, to) = (from.clone(), to.clone());
            async move { inner.hand_over(&from, &to, over).await }
        };
        self.make(Verb::HandOver, call).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        let call = |inner: Arc<B>| {
            let claim = claim.clone();
            async move { inner.watch(&claim).await }
        };
        let signal = self.make(Verb::Watch, call).await?;
        if signal.is_never() {
            return Ok(signal);
        }
        // A signal is a message too.
        let cut = self.cut.clone();
        Ok(ReleaseSignal::new(async move {
            signal.await;
            if *cut.borrow() {
                std::future::pending::<()>().await;
            }
        }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let call = |inner: Arc<B>| {
            let key = key.clone();
            async move { inner.inspect(&key).await }
        };
        self.make(Verb::Inspect, call).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let call = |inner: Arc<B>| {
            let (prefix, after) = (prefix.to_owned(), after.cloned());
            async move { inner.list(&prefix, after.as_ref(), limit).await }
        };
        self.make(Verb::List, call).await
    }
}
