//! One connection, and who listens to it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use lockcore::{BackendError, ReleaseSignal};
use lockcore_link::{Connection, Vigil};
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};
use tokio::task::AbortHandle;

use crate::address::Address;
use crate::error;
use crate::server::{self, Facts};
use crate::unconnected::Unconnected;
use crate::wake::{Topics, Wire};

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
pub(crate) struct Connected {
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

impl Connected {
    pub(crate) async fn open(
        address: &Address,
        connect_timeout: Duration,
        resp3: bool,
    ) -> Result<Self, RedisError> {
        #[cfg(feature = "tls")]
        if address.tls {
            // rustls panics where it finds none or several. If the application chose one, it stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = address.client(resp3);
        let topics = Arc::new(Topics::default());
        let vigil = Arc::new(Vigil::default());
        // Calls are bounded by the core, which drops them; connecting is bounded as a whole.
        let mut config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        if resp3 {
            let lifeline = Lifeline { topics: Arc::clone(&topics), vigil: Arc::clone(&vigil) };
            config = config.set_push_sender(move |push| {
                lifeline.pushed(&push);
                Ok::<(), ()>(())
            });
        }
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // Only the connection keeps the lifeline from here on.
        drop(config);
        let call = vigil.call();
        let facts = Facts::ask(&mut connection).await?;
        call.answered();
        Ok(Self {
            connection,
            resp3,
            topics,
            vigil,
            facts,
            client: client.clone(),
            connect_timeout,
            second: tokio::sync::Mutex::new(None),
        })
    }

    pub(crate) fn resp3(&self) -> bool {
        self.resp3
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
        // Where others watch the same channel, nothing was asked.
        call.ended();
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
        let lifeline = Lifeline { topics: Arc::default(), vigil: Arc::clone(&self.vigil) };
        let topics = Arc::clone(&lifeline.topics);
        let reader = tokio::spawn(read(stream, lifeline)).abort_handle();
        Ok(Second { wire: Wire::Own(sink), topics, reader })
    }
}

impl Connection for Connected {
    fn is_usable(&self) -> bool {
        !self.topics.is_lost() && !self.vigil.is_suspect()
    }

    /// Who watches on it is woken now, not when the last call that hangs on it is given up.
    fn retire(&self) {
        self.topics.lose();
        if let Ok(mut second) = self.second.try_lock() {
            *second = None;
        }
    }
}

impl Drop for Connected {
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
