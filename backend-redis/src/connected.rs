//! One connection, and who listens on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lockcore::{BackendError, HolderId, ReleaseSignal};
use lockcore_link::{Connection, Vigil};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};

use crate::address::Address;
use crate::announcements::Announcements;
use crate::memory::Memory;
use crate::server::{self, Facts};
use crate::turns::Turns;

/// Who waits for something on one connection. Also knows whether that is lost.
#[derive(Clone)]
struct Signals {
    turns: Arc<Turns>,
    announcements: Arc<Announcements>,
}

impl Signals {
    fn lose(&self) {
        self.turns.lose();
        self.announcements.lose();
    }

    fn heard(&self, channel: &str, payload: &str) {
        if !self.turns.fire(channel, payload) {
            self.announcements.fire(channel);
        }
    }
}

/// Owned by the driver's task: hears what the server pushes, and tells when the task ends.
struct Lifeline {
    signals: Signals,
    vigil: Arc<Vigil>,
}

impl Lifeline {
    fn pushed(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Disconnection => self.signals.lose(),
            PushKind::Message => {
                self.vigil.heard();
                if let [channel, payload] = &*push.data
                    && let Some((channel, payload)) =
                        server::text(channel).zip(server::text(payload))
                {
                    self.signals.heard(channel, payload);
                }
            }
            _ => self.vigil.heard(),
        }
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.signals.lose();
    }
}

/// One connection, from its handshake to its loss.
pub(crate) struct Connected {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) facts: Facts,
    pub(crate) vigil: Arc<Vigil>,
    pub(crate) memory: Memory,
    resp3: bool,
    /// The server is one of a cluster's.
    clustered: AtomicBool,
    signals: Signals,
}

impl Connected {
    pub(crate) async fn open(
        address: &Address,
        channel: String,
        resp3: bool,
    ) -> Result<Self, RedisError> {
        #[cfg(feature = "tls")]
        if address.tls {
            // rustls panics where it finds none or several. If the application chose one, it stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = address.client(resp3);
        let signals =
            Signals { turns: Arc::new(Turns::new(channel)), announcements: Arc::default() };
        let vigil = Arc::new(Vigil::default());
        // Calls are bounded by the core, which drops them; connecting is bounded as a whole.
        let mut config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        if resp3 {
            let lifeline = Lifeline { signals: signals.clone(), vigil: Arc::clone(&vigil) };
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
        let clustered = AtomicBool::new(facts.clustered);
        Ok(Self { connection, facts, vigil, memory: Memory::default(), resp3, clustered, signals })
    }

    pub(crate) fn resp3(&self) -> bool {
        self.resp3
    }

    /// Whether keys may be on other servers.
    pub(crate) fn is_clustered(&self) -> bool {
        self.clustered.load(Ordering::Relaxed)
    }

    /// The server refused a call of several keys, and had not told that it is one of a cluster's.
    pub(crate) fn found_clustered(&self) {
        self.clustered.store(true, Ordering::Relaxed);
    }

    /// The connection is of no more use: a call failed without an answer, or another server serves.
    pub(crate) fn broke(&self) {
        self.signals.lose();
    }

    /// Whether a holder hears that its turn has come.
    pub(crate) fn listens(&self, holder: HolderId) -> bool {
        self.signals.turns.listens(holder)
    }

    /// Arms the signal of a holder that waits in a line.
    pub(crate) async fn watch_turn(&self, holder: HolderId) -> Result<ReleaseSignal, BackendError> {
        // The servers of a cluster do not know who listens on another of them.
        if !self.resp3 || self.is_clustered() {
            return Ok(ReleaseSignal::never());
        }
        let call = self.vigil.call();
        let armed = self.signals.turns.watch(holder, self.connection.clone()).await;
        // After the first on a connection, nothing is asked.
        call.ended();
        armed
    }

    /// Arms a signal for the releases that are announced on a channel.
    pub(crate) async fn watch_releases(
        &self,
        channel: String,
    ) -> Result<ReleaseSignal, BackendError> {
        // RESP2 cannot take subscriptions beside commands.
        if !self.resp3 {
            return Ok(ReleaseSignal::never());
        }
        let call = self.vigil.call();
        let armed = self.signals.announcements.watch(channel, self.connection.clone()).await;
        // Where others watch the same channel, nothing was asked.
        call.ended();
        armed
    }
}

impl Connection for Connected {
    fn is_usable(&self) -> bool {
        !self.signals.turns.is_lost() && !self.vigil.is_suspect()
    }

    /// All who listen on it are woken now, not when the last call that hangs on it is given up.
    fn retire(&self) {
        self.signals.lose();
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.signals.lose();
    }
}
