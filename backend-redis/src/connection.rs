//! The link to the server: one connection, replaced when it broke or fell silent.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::sync::watch;

use crate::address::Address;
use crate::connected::Connected;
use crate::error;
use crate::server::Facts;
use crate::unconnected::Unconnected;

type Outcome = watch::Receiver<Option<Result<Arc<Connected>, Unconnected>>>;

/// An attempt that is older than this has lost something on its way, and who comes now does not
/// wait for it to give up. With the limit on connecting it bounds how many are under way.
const STALE: Duration = Duration::from_millis(500);

/// The link to one server. It does nothing by itself: a call that finds no usable connection
/// makes an attempt at a new one, and calls soon after wait for that same attempt. When to try
/// again is the core's decision.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    connect_timeout: Duration,
    /// Learned from the server: it does not know the newer protocol.
    resp2: AtomicBool,
    warned: AtomicBool,
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
    pub(crate) fn new(address: Address, connect_timeout: Duration) -> Self {
        let inner = Inner {
            resp2: AtomicBool::new(address.resp2),
            warned: AtomicBool::new(false),
            address,
            connect_timeout,
            state: Mutex::default(),
        };
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
        f.write_str(&self.inner.address.shown)
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

    async fn open(&self) -> Result<Connected, Unconnected> {
        let (server, tls) = (&self.address.shown, self.address.tls);
        let opened = tokio::time::timeout(self.connect_timeout, self.handshake()).await;
        let opened = match opened {
            Err(_) => Err(Unconnected::timed_out(server, tls, self.connect_timeout)),
            Ok(Err(error)) => {
                let error = error::scrub(error, self.address.password.as_deref());
                Err(Unconnected::refused(server, tls, error))
            }
            Ok(Ok(connected)) => Ok(connected),
        };
        match &opened {
            Ok(connected) => {
                tracing::debug!(%server, resp3 = connected.resp3(), "connected");
                self.warn_of_eviction(&connected.facts);
            }
            Err(error) => tracing::debug!(%server, %error, "not connected"),
        }
        opened
    }

    async fn handshake(&self) -> Result<Connected, RedisError> {
        if !self.resp2.load(Ordering::Relaxed) {
            match self.greet(true).await {
                Err(error) if error::lacks_resp3(&error) => {
                    // Its text is not logged: it may repeat the password.
                    tracing::debug!("the server does not know RESP3: going on with RESP2");
                    self.resp2.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        self.greet(false).await
    }

    async fn greet(&self, resp3: bool) -> Result<Connected, RedisError> {
        Connected::open(&self.address, self.connect_timeout, resp3).await
    }

    fn warn_of_eviction(&self, facts: &Facts) {
        if let Some(policy) = &facts.evicts
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                server = %self.address.shown,
                maxmemory_policy = %policy,
                "this server may evict locks when its memory is full, and then two may hold one: \
                 set maxmemory-policy to noeviction"
            );
        }
    }
}
