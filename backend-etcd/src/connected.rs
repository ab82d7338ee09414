//! One connection to one server of the cluster.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KeyValue};
use lockcore_link::{Connection, Vigil};

use crate::address::Endpoint;
use crate::keep_alive::KeepAlives;
use crate::keys::Names;
use crate::mail::Mailbox;
use crate::wake::Wakes;

/// The server refuses connections that ask more often than every 5 seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WAIT: Duration = Duration::from_secs(5);
/// For a connection on which nothing is open, where pings are not welcome.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// How to talk to the servers.
#[derive(Clone, Default)]
pub(crate) struct Terms {
    pub(crate) user: Option<(String, String)>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<etcd_client::TlsOptions>,
    #[cfg(not(feature = "tls"))]
    pub(crate) tls: Option<std::convert::Infallible>,
    pub(crate) connect_timeout: Duration,
}

impl Terms {
    fn options(&self, endpoint: &Endpoint) -> ConnectOptions {
        // Calls are bounded by the core, which drops them.
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_auto_token_refresh(true)
            .with_keep_alive(PING_EVERY, PING_WAIT)
            .with_keep_alive_while_idle(false)
            .with_tcp_keepalive(TCP_KEEPALIVE)
            .with_connect_timeout(self.connect_timeout);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.clone().domain_name(&endpoint.host));
        }
        #[cfg(not(feature = "tls"))]
        let _ = endpoint;
        options
    }
}

/// One connection, from its handshake until it is found to be of no more use.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) server: String,
    pub(crate) vigil: Vigil,
    pub(crate) wakes: Wakes,
    pub(crate) mailbox: Mailbox,
    pub(crate) keeps: KeepAlives,
    broken: AtomicBool,
}

impl Connected {
    /// Connects, and asks for the memory record: only then it is known that an etcd which serves
    /// us is there.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        terms: &Terms,
        names: &Names,
    ) -> Result<(Self, Option<KeyValue>), Error> {
        let scheme = if terms.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{endpoint}");
        let client = Client::connect([url], Some(terms.options(endpoint))).await?;
        let vigil = Vigil::new();
        let call = vigil.call();
        let mut found = client.kv_client().get(names.memory(), None).await?;
        call.answered();
        let connected = Self {
            client,
            server: endpoint.to_string(),
            vigil,
            wakes: Wakes::default(),
            mailbox: Mailbox::default(),
            keeps: KeepAlives::default(),
            broken: AtomicBool::new(false),
        };
        Ok((connected, found.take_kvs().into_iter().next()))
    }
}

impl Connection for Connected {
    fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.vigil.is_suspect()
    }

    /// The connection is of no more use, or another has taken its place. Who watches on it is
    /// woken now: what is released from here on is told to nobody.
    fn retire(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.wakes.end();
        self.mailbox.end();
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)
    }
}
