//! The link to the server: one connection, replaced when it broke or fell silent.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::address::Address;
use crate::connected::{Connected, Session, share};
use crate::exchange::Settings;
use crate::unconnected::Unconnected;

type Outcome = watch::Receiver<Option<Result<Arc<Connected>, Unconnected>>>;

/// An attempt that is older than this has lost something on its way, and who comes now does not
/// wait for it to give up. With the limit on connecting it bounds how many are under way.
const STALE: Duration = Duration::from_millis(500);

/// The link to the server. It does nothing by itself: a call that finds no usable connection
/// makes an attempt at a new one, and calls soon after wait for that same attempt. When to try
/// again is the core's decision.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    address: Address,
    channel: String,
    settings: Settings,
    connect_timeout: Duration,
    /// Said by the user or learned: a pooler is in between.
    pooled: AtomicBool,
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
    pub(crate) fn new(
        address: Address,
        channel: &str,
        settings: Settings,
        connect_timeout: Duration,
        pooled: bool,
    ) -> Self {
        let inner = Inner {
            address,
            channel: channel.to_owned(),
            settings,
            connect_timeout,
            pooled: AtomicBool::new(pooled),
            warned: AtomicBool::new(false),
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

    /// The session that calls were given up on. What it was sent may still be carried out behind
    /// the lock of another, long after its caller has gone: it ends before the next one begins.
    fn given_up(&self) -> Option<Session> {
        let state = self.state();
        let current = state.current.as_ref().filter(|current| !current.is_usable())?;
        if current.is_pooled() {
            // What waits in the pooler for a session is dropped there.
            current.retire();
        }
        current.unfinished().cloned()
    }

    /// Connects to the first of the servers that can grant leases.
    async fn open(&self) -> Result<Connected, Unconnected> {
        let end = Instant::now() + self.connect_timeout;
        let old = self.given_up();
        let servers = self.address.servers.len();
        let mut reason = Unconnected::abandoned();
        for server in 0..servers {
            let shown = &self.address.servers[server].0;
            let limit = share(end.saturating_duration_since(Instant::now()), servers - server);
            let opened = tokio::time::timeout(limit, self.handshake(server, old.as_ref())).await;
            match opened {
                Ok(Ok(connected)) => {
                    tracing::debug!(server = %shown, pooled = connected.is_pooled(), "connected");
                    self.warn_of_memory(shown, &connected);
                    return Ok(connected);
                }
                Ok(Err(refused)) => reason = refused,
                Err(_) => reason = Unconnected::timed_out(shown, limit),
            }
            tracing::debug!(server = %shown, error = %reason, "not connected");
        }
        Err(reason)
    }

    async fn handshake(
        &self,
        server: usize,
        old: Option<&Session>,
    ) -> Result<Connected, Unconnected> {
        let greet = |pooled| {
            Connected::open(&self.address, server, pooled, &self.channel, &self.settings, old)
        };
        let pooled = self.pooled.load(Ordering::Relaxed);
        match greet(pooled).await {
            Err(refused) if !pooled && refused.no_options => {
                tracing::debug!(%refused, "going on without startup options");
                let connected = greet(true).await?;
                self.pooled.store(true, Ordering::Relaxed);
                Ok(connected)
            }
            done => done,
        }
    }

    fn warn_of_memory(&self, server: &str, connected: &Connected) {
        if connected.volatile && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %server,
                "this server runs with fsync off: after a crash it may have forgotten locks, and \
                 then two may hold one"
            );
        }
    }
}
