//! One connection, replaced when it is of no more use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// An attempt that is older than this has lost something on its way, and who comes now does not
/// wait for it to give up. With the limit on connecting it bounds how many are under way.
const STALE: Duration = Duration::from_millis(500);

/// One connection, as a [`Link`] sees it.
pub trait Connection: Send + Sync + 'static {
    /// Whether calls can be made on it: it has not broken, and is not
    /// [suspect](crate::Vigil::is_suspect).
    ///
    /// Called with every [`Link::connected`], under the lock of the link: quick, and without a
    /// call of the link.
    fn is_usable(&self) -> bool;

    /// Another has taken its place: nobody is to wait on it any more. Called once; there may still
    /// be callers who hold it.
    fn retire(&self);
}

/// How a [`Link`] comes by a connection.
///
/// Its `Debug` is what the link shows.
pub trait Connector: Send + Sync + 'static {
    /// What it opens.
    type Connection: Connection;
    /// Why it could not: told to all who waited.
    type Error: Clone + Send + Sync + 'static;

    /// Opens a connection, and sees that it is of use: that a server answers on it.
    ///
    /// `replaced` is the one that it is opened in place of, if there was one. What was sent on it
    /// and not answered may still be carried out.
    ///
    /// The link sets no limit of time: this does. It runs in a task of its own and is dropped with
    /// the runtime only. Where an earlier attempt takes long, several run at once.
    ///
    /// # Errors
    ///
    /// What keeps it from opening one. The link does not try again by itself.
    fn open(
        &self,
        replaced: Option<&Self::Connection>,
    ) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// The error of an attempt that came to no end: its runtime was shut down, or it panicked.
    fn abandoned() -> Self::Error;
}

/// The way to one server, or to whichever of several serves: one connection, shared by all callers
/// and replaced when it is of no more use.
///
/// It does nothing by itself. A call that finds no usable connection makes an attempt at a new one,
/// and calls soon after wait for that same attempt. An attempt that takes longer than 500 ms is not
/// waited for by those who come then: they make another, and the first to succeed serves all who
/// come after. When to try again after an error is the caller's decision.
///
/// Clones are handles of the same link.
pub struct Link<C: Connector> {
    inner: Arc<Inner<C>>,
}

struct Inner<C: Connector> {
    connector: C,
    state: Mutex<State<C>>,
}

struct State<C: Connector> {
    current: Option<Arc<C::Connection>>,
    attempt: Option<Attempt<C>>,
}

type Opened<C> = Result<Arc<<C as Connector>::Connection>, <C as Connector>::Error>;
type Outcome<C> = watch::Receiver<Option<Opened<C>>>;

/// The latest attempt at a connection.
struct Attempt<C: Connector> {
    began: Instant,
    outcome: Outcome<C>,
}

impl<C: Connector> Link<C> {
    /// A link without a connection: the first caller opens one.
    #[must_use]
    pub fn new(connector: C) -> Self {
        let state = Mutex::new(State { current: None, attempt: None });
        Self { inner: Arc::new(Inner { connector, state }) }
    }

    /// A connection to ask on: the current one if it is usable, or else a new one.
    ///
    /// It may break at any moment, and is to be asked for again with each call.
    ///
    /// # Errors
    ///
    /// Why the attempt that was made or joined failed.
    ///
    /// # Panics
    ///
    /// Without a tokio runtime, when there is no usable connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an attempt goes on without those who left, serves the others who wait for it,
    /// and its connection is there for who comes next.
    pub async fn connected(&self) -> Opened<C> {
        let mut outcome = match self.current() {
            Ok(connection) => return Ok(connection),
            Err(outcome) => outcome,
        };
        let outcome = outcome.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(C::abandoned()),
        }
    }

    /// The connection that there is, if it is usable. Opens none.
    #[must_use]
    pub fn usable(&self) -> Option<Arc<C::Connection>> {
        self.inner.state().usable()
    }

    fn current(&self) -> Result<Arc<C::Connection>, Outcome<C>> {
        let mut state = self.inner.state();
        if let Some(connection) = state.usable() {
            return Ok(connection);
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
            let opened = inner.open().await.map(|connection| inner.install(connection));
            done.send_replace(Some(opened));
        });
        Err(outcome)
    }
}

impl<C: Connector> Clone for Link<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<C: Connector + fmt::Debug> fmt::Debug for Link<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner.connector, f)
    }
}

impl<C: Connector> State<C> {
    fn usable(&self) -> Option<Arc<C::Connection>> {
        self.current.as_ref().filter(|connection| connection.is_usable()).map(Arc::clone)
    }
}

impl<C: Connector> Inner<C> {
    async fn open(&self) -> Result<C::Connection, C::Error> {
        let current = self.state().current.clone();
        let replaced = current.as_deref().filter(|connection| !connection.is_usable());
        self.connector.open(replaced).await
    }

    /// Makes a new connection the one to ask on, unless another attempt was faster.
    fn install(&self, connection: C::Connection) -> Arc<C::Connection> {
        let connection = Arc::new(connection);
        let mut state = self.state();
        if let Some(current) = state.usable() {
            return current;
        }
        let old = state.current.replace(Arc::clone(&connection));
        drop(state);
        if let Some(old) = old {
            old.retire();
        }
        connection
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
