//! How the link comes by a connection to the server.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockcore_link::Connector;
use redis::RedisError;

use crate::address::Address;
use crate::connected::Connected;
use crate::error;
use crate::server::Facts;
use crate::unconnected::Unconnected;

pub(crate) type Link = lockcore_link::Link<Peer>;

/// One server, and what was learned about it.
pub(crate) struct Peer {
    address: Address,
    connect_timeout: Duration,
    /// Where this process hears whose turn it is.
    channel: String,
    /// Learned from the server: it does not know the newer protocol.
    resp2: AtomicBool,
    warned: AtomicBool,
}

impl Peer {
    pub(crate) fn new(address: Address, connect_timeout: Duration, channel: String) -> Self {
        Self {
            resp2: AtomicBool::new(address.resp2),
            warned: AtomicBool::new(false),
            address,
            connect_timeout,
            channel,
        }
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
        Connected::open(&self.address, self.channel.clone(), resp3).await
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

impl Connector for Peer {
    type Connection = Connected;
    type Error = Unconnected;

    async fn open(&self, _replaced: Option<&Connected>) -> Result<Connected, Unconnected> {
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

    fn abandoned() -> Unconnected {
        Unconnected::abandoned()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address.shown)
    }
}
