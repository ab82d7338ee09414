//! How the link comes by a connection to one of the servers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockcore_link::{Connection, Connector};

use crate::address::Address;
use crate::connected::{Connected, Session, share};
use crate::exchange::Settings;
use crate::unconnected::Unconnected;

pub(crate) type Link = lockcore_link::Link<Servers>;

/// The servers, of which one grants leases, and what was learned about them.
pub(crate) struct Servers {
    address: Address,
    channel: String,
    settings: Settings,
    connect_timeout: Duration,
    /// Said by the user or learned: a pooler is in between.
    pooled: AtomicBool,
    warned: AtomicBool,
}

impl Servers {
    pub(crate) fn new(
        address: Address,
        channel: &str,
        settings: Settings,
        connect_timeout: Duration,
        pooled: bool,
    ) -> Self {
        Self {
            address,
            channel: channel.to_owned(),
            settings,
            connect_timeout,
            pooled: AtomicBool::new(pooled),
            warned: AtomicBool::new(false),
        }
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

impl Connector for Servers {
    type Connection = Connected;
    type Error = Unconnected;

    /// Connects to the first of the servers that can grant leases.
    async fn open(&self, replaced: Option<&Connected>) -> Result<Connected, Unconnected> {
        let end = Instant::now() + self.connect_timeout;
        let old = replaced.and_then(given_up);
        let servers = self.address.servers.len();
        let mut reason = Unconnected::abandoned();
        for server in 0..servers {
            let shown = &self.address.servers[server].0;
            let limit = share(end.saturating_duration_since(Instant::now()), servers - server);
            let opened = tokio::time::timeout(limit, self.handshake(server, old)).await;
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

/// The session that calls were given up on. What it was sent may still be carried out behind the
/// lock of another, long after its caller has gone: it ends before the next one begins.
fn given_up(replaced: &Connected) -> Option<&Session> {
    if replaced.is_pooled() {
        // What waits in the pooler for a session is dropped there.
        replaced.retire();
    }
    replaced.unfinished()
}
