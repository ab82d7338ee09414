//! The stores, and who contends on each of them.

pub(crate) mod etcd;
mod names;
pub(crate) mod postgres;
mod quorum;
pub(crate) mod redis;

use std::sync::Arc;
use std::time::Duration;

use lockcore::{LockBackend, LockManager, MemoryBackend};
use lockcore_etcd::EtcdBackend;
use lockcore_postgres::PostgresBackend;
use lockcore_redis::RedisBackend;
use serde::{Deserialize, Serialize};

pub(crate) use self::names::{
    DIRECT, DISTRIBUTED_LOCK, LOCK_SERVICE, OURS, PLAIN, POLLING, RAW, RSLOCK, SWAP,
};

use self::names::unknown;
use crate::Result;
use crate::contender::{Contender, Leaselock, TTL};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Store {
    Redis,
    Postgres,
    Etcd,
    /// A majority of five Redis.
    Quorum,
    Memory,
}

/// The stores that are one server.
pub(crate) const SERVERS: [Store; 3] = [Store::Redis, Store::Postgres, Store::Etcd];

impl Store {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Postgres => "Postgres",
            Self::Etcd => "etcd",
            Self::Quorum => "Quorum of five Redis",
            Self::Memory => "Memory",
        }
    }

    /// Other locks on this store.
    pub(crate) fn peers(self) -> &'static [&'static str] {
        match self {
            Self::Redis => &[RSLOCK, DISTRIBUTED_LOCK],
            Self::Postgres => &[DISTRIBUTED_LOCK],
            Self::Etcd => &[LOCK_SERVICE],
            Self::Quorum => &[RSLOCK],
            Self::Memory => &[],
        }
    }
}

/// Connects a contender.
pub(crate) async fn connect(
    store: Store,
    name: &str,
    urls: &[String],
) -> Result<Arc<dyn Contender>> {
    if name == OURS {
        return Ok(Arc::new(Leaselock(manager(store, urls, TTL).await?)));
    }
    match store {
        Store::Redis => redis::connect(name, &urls[0]).await,
        Store::Postgres => postgres::connect(name, &urls[0]).await,
        Store::Etcd => etcd::connect(name, &urls[0]).await,
        Store::Quorum => quorum::connect(name, urls).await,
        Store::Memory => Err(unknown(name)),
    }
}

/// The library's locks on a store.
pub(crate) async fn manager(store: Store, urls: &[String], ttl: Duration) -> Result<LockManager> {
    if store == Store::Quorum {
        return quorum::manager(urls).await;
    }
    let builder = LockManager::builder(backend(store, &urls[0]).await?);
    Ok(builder.ttl(ttl).label("bench").build()?)
}

async fn backend(store: Store, url: &str) -> Result<Arc<dyn LockBackend>> {
    Ok(match store {
        Store::Redis => Arc::new(RedisBackend::connect(url).await?),
        Store::Postgres => Arc::new(PostgresBackend::connect(url).await?),
        Store::Etcd => Arc::new(EtcdBackend::connect(url).await?),
        Store::Memory => Arc::new(MemoryBackend::new()),
        Store::Quorum => return Err("a quorum is made of several addresses".into()),
    })
}
