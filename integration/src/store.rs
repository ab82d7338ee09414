//! The stores that tests run on, and a look at them past the locks.

pub mod etcd;
pub mod postgres;
pub mod redis;

use std::time::{Duration, Instant};

use lockcore_conformance::Fault;
use lockcore_conformance::servers::{
    EtcdOptions, EtcdServer, PostgresOptions, PostgresServer, RedisOptions, RedisServer,
};

use crate::{LOOK_AGAIN, SLACK};

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// etcd.
    Etcd,
    /// Postgres.
    Postgres,
    /// Redis, or Valkey.
    Redis,
}

/// A server of the test's own.
#[derive(Debug)]
pub enum Store {
    /// An etcd.
    Etcd(EtcdServer),
    /// A Postgres.
    Postgres(PostgresServer),
    /// A Redis.
    Redis(RedisServer),
}

impl Store {
    /// Starts a server: a program of this machine, which is sooner there than a container. Redis
    /// keeps nothing on disk then, the others keep everything.
    ///
    /// # Panics
    ///
    /// If there is none to be had.
    pub async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Redis => Self::redis(RedisOptions::new()).await,
            kind => Self::start_durable(kind).await,
        }
    }

    /// Starts a server that keeps its data over a kill and a restart.
    ///
    /// # Panics
    ///
    /// If there is none to be had.
    pub async fn start_durable(kind: Kind) -> Self {
        match kind {
            Kind::Etcd => {
                let options = EtcdOptions::new().private();
                Self::Etcd(EtcdServer::start(options).await.expect("a server"))
            }
            Kind::Postgres => {
                let counted = ("shared_preload_libraries", "pg_stat_statements");
                let options = PostgresOptions::new().setting(counted.0, counted.1);
                let options = options.private();
                Self::Postgres(PostgresServer::start(options).await.expect("a server"))
            }
            Kind::Redis => Self::redis(RedisOptions::new().durable()).await,
        }
    }

    async fn redis(options: RedisOptions) -> Self {
        Self::Redis(RedisServer::start(options.private()).await.expect("a server"))
    }

    /// What a client connects to.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Etcd(server) => server.url(),
            Self::Postgres(server) => server.url(),
            Self::Redis(server) => server.url(),
        }
    }

    /// Breaks or mends the server.
    ///
    /// # Panics
    ///
    /// If it cannot be done.
    pub async fn inflict(&self, fault: Fault) {
        let (done, about) = match self {
            Self::Etcd(server) => (server.inflict(fault).await, server.about()),
            Self::Postgres(server) => (server.inflict(fault).await, server.about()),
            Self::Redis(server) => (server.inflict(fault).await, server.about()),
        };
        assert!(done, "{fault}: {about} is not ours");
    }

    /// The keys of the leases that stand, as the records in the store say.
    ///
    /// # Panics
    ///
    /// If the server does not say.
    pub async fn leases(&self) -> Vec<String> {
        match self {
            Self::Etcd(_) => etcd::leases(&self.url()).await,
            Self::Postgres(_) => postgres::leases(&self.url()).await,
            Self::Redis(_) => redis::leases(&self.url()).await,
        }
    }

    /// Whether somebody waits for the release of a key, as the server sees it. Where it cannot
    /// tell for which key: of any.
    ///
    /// # Panics
    ///
    /// If the server does not say.
    pub async fn is_watched(&self, key: &str) -> bool {
        match self {
            Self::Etcd(server) => etcd::is_watched(server.addr()).await,
            Self::Postgres(_) => postgres::is_watched(&self.url()).await,
            Self::Redis(_) => redis::is_watched(&self.url(), key).await,
        }
    }

    /// How many requests about leases the server has been asked, as it counts: scripts on Redis,
    /// calls on etcd, statements on Postgres.
    ///
    /// # Panics
    ///
    /// If the server does not say.
    pub async fn requests(&self) -> u64 {
        match self {
            Self::Etcd(server) => etcd::requests(server.addr()).await,
            Self::Postgres(_) => postgres::requests(&self.url()).await,
            Self::Redis(_) => redis::requests(&self.url()).await,
        }
    }

    /// Waits until no lease is left, and says how long that took.
    ///
    /// # Panics
    ///
    /// If that takes longer than a ttl.
    pub async fn nothing_left(&self, ttl: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let left = self.leases().await;
            if left.is_empty() {
                return start.elapsed();
            }
            assert!(start.elapsed() < ttl + SLACK, "left behind: {left:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
