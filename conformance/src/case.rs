//! Cases, and what they are given.

mod calls;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::{
    BackendError, BoxError, Claim, HolderId, LockBackend, LockKey, LockManager, ManagerBuilder,
};
use tokio::time::Instant;

use crate::harness::{Clock, Fault};
use crate::history::{History, Recorded};

/// A future as cases and stores return it.
pub(crate) type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A case under way, in the one thread of its runtime.
type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// A case of the suite: one property of a backend, and the law it follows from.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    law: &'static str,
    needs: Needs,
    run: for<'a> fn(&'a Cx) -> Running<'a>,
}

/// What a case needs beyond a store that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// Release signals.
    Signals,
    /// Leases that tell how long the store has forgotten nothing.
    Memory,
    /// A server of its own on which these faults can be inflicted.
    Faults(&'static [Fault]),
    /// Both of these.
    MemoryAndFaults(&'static [Fault]),
    /// TCP endpoints, to put the proxy in front of.
    Wire,
    /// TCP endpoints and release signals.
    WireAndSignals,
    /// A client that writes the frozen records of a format version.
    Fixture,
    /// A line for each key.
    Line,
    /// A line for each key, and release signals.
    LineAndSignals,
    /// A line for each key, and a server of its own on which these faults can be inflicted.
    LineAndFaults(&'static [Fault]),
}

impl Needs {
    pub(crate) fn memory(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryAndFaults(_))
    }

    pub(crate) fn signals(self) -> bool {
        matches!(self, Self::Signals | Self::WireAndSignals | Self::LineAndSignals)
    }

    pub(crate) fn line(self) -> bool {
        matches!(self, Self::Line | Self::LineAndSignals | Self::LineAndFaults(_))
    }

    pub(crate) fn wire(self) -> bool {
        matches!(self, Self::Wire | Self::WireAndSignals)
    }

    pub(crate) fn faults(self) -> Option<&'static [Fault]> {
        match self {
            Self::Faults(faults) | Self::MemoryAndFaults(faults) | Self::LineAndFaults(faults) => {
                Some(faults)
            }
            _ => None,
        }
    }
}

/// How a case ended.
pub type Outcome = Result<(), Failure>;

impl Case {
    pub(crate) const fn new(
        name: &'static str,
        law: &'static str,
        run: for<'a> fn(&'a Cx) -> Running<'a>,
    ) -> Self {
        Self { name, law, needs: Needs::Nothing, run }
    }

    pub(crate) const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// The group and name, as in `ownership::one_holder`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The law, or laws, that the case follows from, as in `L4`.
    #[must_use]
    pub fn law(&self) -> &'static str {
        self.law
    }

    pub(crate) fn requirement(&self) -> Needs {
        self.needs
    }

    pub(crate) fn start<'a>(&self, cx: &'a Cx) -> Running<'a> {
        (self.run)(cx)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.law)
    }
}

/// Why a case failed, with what it had noted until then.
#[derive(Debug)]
pub struct Failure {
    message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut message = format!("unexpected error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            message += &format!("; because: {cause}");
            source = cause.source();
        }
        Self { message }
    }
}

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::case::Failure::new(format!($($message)+)));
        }
    };
}

/// Fails the case unless the value matches.
macro_rules! ensure_matches {
    ($value:expr, $pattern:pat $(if $guard:expr)?, $($message:tt)+) => {
        match $value {
            $pattern $(if $guard)? => {}
            other => return Err($crate::case::Failure::new(format!(
                "{}: got {other:?}", format_args!($($message)+)
            ))),
        }
    };
}

pub(crate) use {ensure, ensure_matches};

/// A store, as cases see it.
pub(crate) trait Store: Send + Sync {
    fn connect<'a>(
        &'a self,
        at: &'a [SocketAddr],
    ) -> Pending<'a, Result<Arc<dyn LockBackend>, BoxError>>;
    fn endpoints(&self) -> Vec<SocketAddr>;
    fn combined(&self) -> bool;
    fn signals(&self) -> bool;
    fn inflict(&self, fault: Fault) -> Pending<'_, bool>;
    fn fixture(&self) -> Pending<'_, Result<Option<Arc<dyn LockBackend>>, BoxError>>;
}

/// What a case has remembered.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) at: Duration,
    pub(crate) text: String,
    /// Also when the case has passed.
    pub(crate) of_interest: bool,
}

/// What a case is given: a store with two independent clients, and a key of its own.
pub struct Cx {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    /// Two independent clients of the same store.
    pub(crate) a: Arc<dyn LockBackend>,
    pub(crate) b: Arc<dyn LockBackend>,
    /// A random key, so that cases can run side by side on one store.
    pub(crate) key: LockKey,
    /// The ttl of plain claims.
    pub(crate) ttl: Duration,
    /// What random choices come from, the same for the same root seed.
    pub(crate) seed: u64,
    /// All calls of clients that this context has connected, checked when the case has passed.
    pub(crate) history: History,
    notes: Mutex<Vec<Note>>,
    began: Instant,
}

impl Cx {
    pub(crate) async fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        seed: u64,
    ) -> Result<Self, Failure> {
        let endpoints = store.endpoints();
        let history = History::new(seed);
        let client =
            async || Ok::<_, BoxError>(recorded(store.connect(&endpoints).await?, &history));
        let (a, b) = (client().await?, client().await?);
        let limits = a.limits();
        let ttl = limits.min_ttl.max(Duration::from_secs(1).min(limits.max_ttl / 4));
        ensure!(
            limits.max_ttl >= ttl * 3,
            "the suite needs room between the shortest ttl and the longest, which is to be three \
             times {ttl:?} at least: {limits:?}"
        );
        let key = LockKey::new(format!("conformance/{}", HolderId::random()))?;
        let (notes, began) = (Mutex::default(), Instant::now());
        let cx = Self { store, clock, a, b, key, ttl, seed, history, notes, began };
        cx.history.allow(limits.expiry_lag, cx.slack(), cx.store.combined());
        Ok(cx)
    }

    /// Whether times are exact.
    pub(crate) fn exact(&self) -> bool {
        self.clock == Clock::Paused
    }

    /// What an upper bound allows for beyond what was promised: nothing on the paused clock,
    /// plenty on a busy machine.
    pub(crate) fn slack(&self) -> Duration {
        if self.exact() { Duration::from_millis(5) } else { Duration::from_secs(2) }
    }

    /// Remembers a measured figure, or something else that the report shows.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.push(text.into(), true);
    }

    /// Remembers a step, for the report of a failure.
    fn trace(&self, text: impl Into<String>) {
        self.push(text.into(), false);
    }

    fn push(&self, text: String, of_interest: bool) {
        let note = Note { at: self.began.elapsed(), text, of_interest };
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub(crate) fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another client of the store.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn LockBackend>, Failure> {
        Ok(self.connect_at(&self.store.endpoints()).await?)
    }

    /// A client that goes through these addresses.
    pub(crate) async fn connect_at(
        &self,
        at: &[SocketAddr],
    ) -> Result<Arc<dyn LockBackend>, BoxError> {
        Ok(recorded(self.store.connect(at).await?, &self.history))
    }

    /// A client that writes the frozen records.
    pub(crate) async fn fixture(&self) -> Result<Arc<dyn LockBackend>, Failure> {
        let fixture = self.store.fixture().await?;
        let fixture = fixture.ok_or_else(|| Failure::new("the fixture client is gone"))?;
        Ok(recorded(fixture, &self.history))
    }

    pub(crate) async fn inflict(&self, fault: Fault) -> Outcome {
        self.trace(format!("{fault} the server"));
        let noted = self.history.fault(fault.to_string());
        ensure!(self.store.inflict(fault).await, "the harness could not {fault} its server");
        self.history.fault_done(noted);
        Ok(())
    }

    /// Random choices, the same ones for the same seed and `stream`.
    pub(crate) fn random(&self, stream: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_add(stream))
    }

    /// A key near the case's own.
    pub(crate) fn key_with(&self, suffix: &str) -> LockKey {
        LockKey::new(format!("{}{suffix}", self.key)).unwrap_or_else(|_| self.key.clone())
    }

    /// A claim of a new holder on the case's key.
    pub(crate) fn claim(&self) -> Claim {
        self.claim_on(&self.key)
    }

    pub(crate) fn claim_on(&self, key: &LockKey) -> Claim {
        Claim::new(key.clone(), HolderId::random(), self.ttl)
    }

    /// The ttl of a lease that is to outlive whatever a case does: many times [`Cx::ttl`], unless
    /// the store takes none so long.
    pub(crate) fn long(&self) -> Duration {
        (self.ttl * 60).min(self.a.limits().max_ttl)
    }

    /// Settings of a manager for a store that may be busy: short enough for cases to end soon,
    /// long enough not to lose a lock for no reason.
    pub(crate) fn manager(&self, backend: impl LockBackend) -> ManagerBuilder {
        LockManager::builder(backend).ttl(self.hold_ttl())
    }

    /// The ttl of [`Cx::manager`]'s locks.
    pub(crate) fn hold_ttl(&self) -> Duration {
        let limits = self.a.limits();
        Duration::from_secs(3).max(limits.min_ttl).min(limits.max_ttl)
    }
}

fn recorded(client: Arc<dyn LockBackend>, history: &History) -> Arc<dyn LockBackend> {
    Arc::new(Recorded::new(client, history))
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Fails the case unless it was bad input, and nothing else.
pub(crate) fn refused<T: fmt::Debug>(answer: Result<T, BackendError>, what: &str) -> Outcome {
    ensure_matches!(answer, Err(BackendError::InvalidInput(_)), "{what}");
    Ok(())
}
