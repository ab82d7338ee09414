//! The link to the cluster: one connection to one of its servers, replaced when it broke or fell
//! silent.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::KeyValue;
use lockcore::HolderId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::address::Address;
use crate::book::Book;
use crate::connected::{Connected, Terms};
use crate::keys::Names;
use crate::unconnected::Unconnected;

type Outcome = watch::Receiver<Option<Result<Arc<Connected>, Unconnected>>>;
type Opened = Result<(Connected, Option<KeyValue>), Unconnected>;

/// An attempt that is older than this has lost something on its way, and who comes now does not
/// wait for it to give up. With the limit on connecting it bounds how many are under way.
const STALE: Duration = Duration::from_millis(500);
/// How long a server may take before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(200);

/// The link to one cluster. It does nothing by itself: a call that finds no usable connection
/// makes an attempt at a new one, and calls soon after wait for that same attempt. When to try
/// again is the core's decision.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    terms: Terms,
    names: Names,
    book: Arc<Book>,
    /// The server to begin with: another than the last.
    next: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connected>>,
    attempt: Option<Attempt>,
}

/// The latest attempt at a connection.
struct Attempt {
    began: Instant,
    outcome: Outcome,
}

impl Link {
    pub(crate) fn new(address: Address, terms: Terms, names: Names, book: Arc<Book>) -> Self {
        // Where it begins does not matter, but clients must not all begin with the same.
        let draw = HolderId::random().as_u128() % (address.endpoints.len().max(1) as u128);
        let next = AtomicUsize::new(usize::try_from(draw).unwrap_or(0));
        let inner = Inner { address, terms, names, book, next, state: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A connection to ask on. Cancel safe: an attempt goes on without those who left.
    pub(crate) async fn connected(&self) -> Result<Arc<Connected>, Unconnected> {
        let mut outcome = match self.current() {
            Ok(connected) => return Ok(connected),
            Err(outcome) => outcome,
        };
        let outcome = outcome.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(Unconnected::abandoned()),
        }
    }

    /// The connection that there is.
    pub(crate) fn usable(&self) -> Option<Arc<Connected>> {
        self.inner.state().usable()
    }

    fn current(&self) -> Result<Arc<Connected>, Outcome> {
        let mut state = self.inner.state();
        if let Some(connected) = state.usable() {
            return Ok(connected);
        }
        // Without a sender, an attempt ended with the runtime it ran on.
        if let Some(attempt) = &state.attempt
            && attempt.began.elapsed() < STALE
            && attempt.outcome.has_changed().is_ok()
            && attempt.outcome.borrow().is_none()
        {
            return Err(attempt.outcome.clone());
        }
        let (done, outcome) = watch::channel(None);
        state.attempt = Some(Attempt { began: Instant::now(), outcome: outcome.clone() });
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let opened = inner.open().await.map(|connected| inner.install(connected));
            done.send_replace(Some(opened));
        });
        Err(outcome)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.address.shown())
    }
}

impl State {
    fn usable(&self) -> Option<Arc<Connected>> {
        self.current.as_ref().filter(|connected| connected.is_usable()).map(Arc::clone)
    }
}

impl Inner {
    /// Makes a new connection the one to ask on, unless another attempt was faster.
    fn install(&self, connected: Connected) -> Arc<Connected> {
        let connected = Arc::new(connected);
        let mut state = self.state();
        if let Some(current) = state.usable() {
            return current;
        }
        let old = state.current.replace(Arc::clone(&connected));
        drop(state);
        if let Some(old) = old {
            old.retire();
        }
        connected
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(self: &Arc<Self>) -> Result<Connected, Unconnected> {
        let (limit, tls) = (self.terms.connect_timeout, self.address.tls);
        let opened = match tokio::time::timeout(limit, self.race()).await {
            Ok(opened) => opened,
            Err(_) => Err(Unconnected::timed_out(&self.address.shown(), tls, limit)),
        };
        match opened {
            Ok((connected, memory)) => {
                tracing::debug!(server = %connected.server, "connected");
                // What is missing or cannot be read is told by the call that needs it.
                if memory.is_some() {
                    let _ = self.book.learn_life(&self.names, memory.as_ref());
                }
                Ok(connected)
            }
            Err(error) => {
                tracing::debug!(servers = %self.address.shown(), %error, "not connected");
                Err(error)
            }
        }
    }

    /// Tries the servers one after another, each as soon as those before it failed or are slow,
    /// and takes the first that answers.
    async fn race(self: &Arc<Self>) -> Opened {
        let count = self.address.endpoints.len();
        let first = self.next.load(Ordering::Relaxed);
        let mut rest = (0..count).map(|n| (first + n) % count);
        let mut attempts = JoinSet::new();
        let mut told: Option<Unconnected> = None;
        let mut idle = false;
        loop {
            if let Some(n) = rest.next() {
                let inner = Arc::clone(self);
                attempts.spawn(async move { (n, inner.try_server(n).await) });
            } else {
                idle = true;
            }
            let done = tokio::select! {
                done = attempts.join_next() => done,
                () = tokio::time::sleep(STAGGER), if !idle => continue,
            };
            match done {
                Some(Ok((n, Ok(opened)))) => {
                    self.next.store((n + 1) % count, Ordering::Relaxed);
                    return Ok(opened);
                }
                // What passes by itself tells more than what needs an operator.
                Some(Ok((_, Err(error)))) => {
                    if told.as_ref().is_none_or(|told| error.now && !told.now) {
                        told = Some(error);
                    }
                }
                Some(Err(_)) => {}
                None => return Err(told.unwrap_or_else(Unconnected::abandoned)),
            }
        }
    }

    async fn try_server(&self, n: usize) -> Opened {
        let Some(endpoint) = self.address.endpoints.get(n) else {
            return Err(Unconnected::abandoned());
        };
        let opened = Connected::open(endpoint, &self.terms, &self.names).await;
        opened.map_err(|error| Unconnected::refused(&endpoint.to_string(), self.address.tls, error))
    }
}
