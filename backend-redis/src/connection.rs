//! The link to the server: one connection, replaced when it broke or fell silent.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_core::Stream;
use lockcore::{BackendError, ReleaseSignal};
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::address::Address;
use crate::error::{self, Unconnected};
use crate::server::{self, Facts};
use crate::vigil::Vigil;
use crate::wake::{Topics, Wire};

type Attempt = watch::Receiver<Option<Result<Arc<Session>, Unconnected>>>;

/// The link to one server. It does nothing by itself: a call that finds no usable connection
/// makes one attempt at a new one, and calls meanwhile wait for that same attempt. When to try
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
    current: Option<Arc<Session>>,
    attempt: Option<Attempt>,
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
        Self {
            inner: Arc::new(inner),
        }
    }

    /// A connection to ask on. Cancel safe: an attempt goes on without those who left.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Unconnected> {
        let mut attempt = match self.current() {
            Ok(session) => return Ok(session),
            Err(attempt) => attempt,
        };
        let outcome = attempt.wait_for(Option::is_some).await;
        match outcome.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err(Unconnected::abandoned()),
        }
    }

    fn current(&self) -> Result<Arc<Session>, Attempt> {
        let mut state = self.inner.state();
        if let Some(session) = &state.current
            && session.is_usable()
        {
            return Ok(Arc::clone(session));
        }
        // Without a sender, an attempt ended with the runtime it ran on.
        if let Some(attempt) = &state.attempt
            && attempt.has_changed().is_ok()
        {
            return Err(attempt.clone());
        }
        let (outcome, attempt) = watch::channel(None);
        state.attempt = Some(attempt.clone());
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let opened = inner.open().await.map(Arc::new);
            let mut state = inner.state();
            state.attempt = None;
            let old = match &opened {
                Ok(session) => state.current.replace(Arc::clone(session)),
                Err(_) => None,
            };
            drop(state);
            if let Some(old) = old {
                old.topics.lose();
            }
            outcome.send_replace(Some(opened));
        });
        Err(attempt)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.address.shown)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> Result<Session, Unconnected> {
        let (server, tls) = (&self.address.shown, self.address.tls);
        let opened = tokio::time::timeout(self.connect_timeout, self.handshake()).await;
        let opened = match opened {
            Err(_) => Err(Unconnected::timed_out(server, tls, self.connect_timeout)),
            Ok(Err(error)) => {
                let error = error::scrub(error, self.address.password.as_deref());
                Err(Unconnected::refused(server, tls, error))
            }
            Ok(Ok(session)) => Ok(session),
        };
        match &opened {
            Ok(session) => {
                tracing::debug!(%server, resp3 = session.resp3, "connected");
                self.warn_of_eviction(&session.facts);
            }
            Err(error) => tracing::debug!(%server, %error, "not connected"),
        }
        opened
    }

    async fn handshake(&self) -> Result<Session, RedisError> {
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

    async fn greet(&self, resp3: bool) -> Result<Session, RedisError> {
        #[cfg(feature = "tls")]
        if self.address.tls {
            // rustls panics where it finds none or several. If the application chose one, it stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = self.address.client(resp3);
        let topics = Arc::new(Topics::default());
        let vigil = Arc::new(Vigil::default());
        // Calls are bounded by the core, which drops them; connecting is bounded as a whole.
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        if resp3 {
            let lifeline = Lifeline {
                topics: Arc::clone(&topics),
                vigil: Arc::clone(&vigil),
            };
            config = config.set_push_sender(move |push| {
                lifeline.pushed(&push);
                Ok::<(), ()>(())
            });
        }
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        // Only the connection keeps the lifeline from here on.
        drop(config);
        let facts = Facts::ask(&mut connection).await?;
        Ok(Session {
            connection,
            resp3,
            topics,
            vigil,
            facts,
            client: client.clone(),
            connect_timeout: self.connect_timeout,
            second: tokio::sync::Mutex::new(None),
        })
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

/// Owned by the driver's task: hears what the server pushes, and tells when the task ends.
struct Lifeline {
    topics: Arc<Topics>,
    vigil: Arc<Vigil>,
}

impl Lifeline {
    fn pushed(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.topics.lose(),
            PushKind::Message => {
                self.vigil.heard();
                if let Some(channel) = push.data.first().and_then(server::text) {
                    self.topics.fire(channel);
                }
            }
            _ => self.vigil.heard(),
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.topics.lose();
    }
}

/// One connection, from its handshake to its loss.
pub(crate) struct Session {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) facts: Facts,
    pub(crate) vigil: Arc<Vigil>,
    resp3: bool,
    /// Also knows whether the connection is lost.
    topics: Arc<Topics>,
    client: redis::Client,
    connect_timeout: Duration,
    /// Where the older protocol takes subscriptions.
    second: tokio::sync::Mutex<Option<Second>>,
}

impl Session {
    fn is_usable(&self) -> bool {
        !self.topics.is_lost() && !self.vigil.is_suspect()
    }

    /// A call failed without an answer: the connection is of no more use.
    pub(crate) fn broke(&self) {
        self.topics.lose();
    }

    pub(crate) async fn watch(&self, channel: String) -> Result<ReleaseSignal, BackendError> {
        let call = self.vigil.call();
        let armed = if self.resp3 {
            let wire = Wire::Shared(self.connection.clone());
            self.topics.watch(channel, wire).await
        } else {
            let (topics, wire) = self.second().await?;
            topics.watch(channel, wire).await
        };
        call.answered();
        armed
    }

    /// The second connection. Cancel safe: who comes next starts over.
    async fn second(&self) -> Result<(Arc<Topics>, Wire), BackendError> {
        let mut second = self.second.lock().await;
        let live = second.take_if(|second| second.topics.is_lost());
        drop(live);
        if second.is_none() {
            *second = Some(self.open_second().await?);
        }
        match &*second {
            Some(second) => Ok((Arc::clone(&second.topics), second.wire.clone())),
            None => Err(Unconnected::abandoned().into()),
        }
    }

    async fn open_second(&self) -> Result<Second, BackendError> {
        let (server, tls) = {
            let addr = self.client.get_connection_info().addr();
            let tls = matches!(addr, redis::ConnectionAddr::TcpTls { .. });
            (addr.to_string(), tls)
        };
        let limit = self.connect_timeout;
        let opened = tokio::time::timeout(limit, self.client.get_async_pubsub()).await;
        let (sink, stream) = match opened {
            Err(_) => return Err(Unconnected::timed_out(&server, tls, limit).into()),
            Ok(Err(error)) => {
                let settings = self.client.get_connection_info().redis_settings();
                let error = error::scrub(error, settings.password());
                return Err(Unconnected::refused(&server, tls, error).into());
            }
            Ok(Ok(pubsub)) => pubsub.split(),
        };
        let lifeline = Lifeline {
            topics: Arc::default(),
            vigil: Arc::clone(&self.vigil),
        };
        let topics = Arc::clone(&lifeline.topics);
        let reader = tokio::spawn(read(stream, lifeline)).abort_handle();
        Ok(Second {
            wire: Wire::Own(sink),
            topics,
            reader,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.topics.lose();
    }
}

/// A connection for subscriptions alone.
struct Second {
    topics: Arc<Topics>,
    wire: Wire,
    reader: AbortHandle,
}

impl Drop for Second {
    fn drop(&mut self) {
        self.reader.abort();
        self.topics.lose();
    }
}

async fn read(mut stream: PubSubStream, lifeline: Lifeline) {
    while let Some(message) = poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await {
        lifeline.topics.fire(message.get_channel_name());
    }
}
