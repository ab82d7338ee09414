//! How the link comes by a connection to one of the servers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockcore_link::{Connection, Connector};

use crate::address::Address;
use crate::connected::{Connected, share};
use crate::exchange::Settings;
use crate::release_signals::Unheard;
use crate::unconnected::Unconnected;

pub(crate) type Link = lockcore_link::Link<Servers>;

/// The servers, of which one grants leases, and what was learned about them.
pub(crate) struct Servers {
    address: Address,
    announcements: String,
    unheard: Unheard,
    settings: Settings,
    connect_timeout: Duration,
    /// Said by the user or learned: a pooler is in between.
    pooled: AtomicBool,
    warned: AtomicBool,
}

impl Servers {
    pub(crate) fn new(
        address: Address,
        announcements: &str,
        unheard: Unheard,
        settings: Settings,
        connect_timeout: Duration,
        pooled: bool,
    ) -> Self {
        Self {
            address,
            announcements: announcements.to_owned(),
            unheard,
            settings,
            connect_timeout,
            pooled: AtomicBool::new(pooled),
            warned: AtomicBool::new(false),
        }
    }

    async fn handshake(
        &self,
        server: usize,
        replaced: Option<&Connected>,
    ) -> Result<Connected, Unconnected> {
        let greet = |pooled| {
            let Self { address, announcements, unheard, settings, .. } = self;
            Connected::open(address, server, pooled, announcements, unheard, settings, replaced)
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

impl Connector for Servers {
    type Connection = Connected;
    type Error = Unconnected;

    /// Connects to the first of the servers that can grant leases.
    async fn open(&self, replaced: Option<&Connected>) -> Result<Connected, Unconnected> {
        let end = Instant::now() + self.connect_timeout;
        if let Some(replaced) = replaced.filter(|replaced| replaced.is_pooled()) {
            // What waits in the pooler for a session is dropped there.
            replaced.retire();
        }
        let servers = self.address.servers.len();
        let mut reason = Unconnected::abandoned();
        for server in 0..servers {
            let shown = &self.address.servers[server].0;
            let limit = share(end.saturating_duration_since(Instant::now()), servers - server);
            let opened = tokio::time::timeout(limit, self.handshake(server, replaced)).await;
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

    fn abandoned() -> Unconnected {
        Unconnected::abandoned()
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address.shown)
    }
}
