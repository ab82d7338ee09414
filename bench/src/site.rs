//! The servers: programs of this machine, started where a row first needs them.

use std::collections::BTreeMap;

use lockcore_conformance::Fault;
use lockcore_conformance::servers::{
    EtcdOptions, EtcdServer, PostgresOptions, PostgresServer, RedisOptions, RedisServer,
};

use crate::Result;
use crate::counters::Counter;
use crate::stores::Store;

/// Limits on the memory of a server.
const REDIS_MEMORY: [&str; 2] = ["--maxmemory", "1gb"];
const ETCD_MEMORY: [&str; 2] = ["--quota-backend-bytes=1073741824", "--snapshot-count=10000"];

const QUORUM: usize = 5;

#[derive(Default)]
pub(crate) struct Site {
    redis: Vec<RedisServer>,
    postgres: Option<PostgresServer>,
    etcd: Option<EtcdServer>,
    counters: BTreeMap<Store, Counter>,
}

impl Site {
    /// The addresses of an empty store, with its counter.
    pub(crate) async fn fresh(&mut self, store: Store) -> Result<(Vec<String>, &Counter)> {
        self.start(store).await?;
        // Its connection would not survive the wipe of every store.
        self.counters.remove(&store);
        match store {
            Store::Redis => drop(self.redis[0].inflict(Fault::Wipe).await),
            Store::Quorum => {
                for server in &self.redis {
                    server.inflict(Fault::Wipe).await;
                }
            }
            Store::Postgres => {
                if let Some(server) = &self.postgres {
                    server.inflict(Fault::Wipe).await;
                }
            }
            Store::Etcd => {
                if let Some(server) = &self.etcd {
                    server.inflict(Fault::Wipe).await;
                }
            }
            Store::Memory => {}
        }
        let urls = self.urls(store);
        let counter = Counter::open(store, &urls).await?;
        Ok((urls, self.counters.entry(store).or_insert(counter)))
    }

    /// The counter of a store that was started.
    pub(crate) fn counter(&self, store: Store) -> Result<&Counter> {
        self.counters.get(&store).ok_or_else(|| "the store does not run".into())
    }

    fn urls(&self, store: Store) -> Vec<String> {
        match store {
            Store::Redis => self.redis.iter().take(1).map(RedisServer::url).collect(),
            Store::Quorum => self.redis.iter().map(RedisServer::url).collect(),
            Store::Postgres => self.postgres.iter().map(PostgresServer::url).collect(),
            Store::Etcd => self.etcd.iter().map(EtcdServer::url).collect(),
            Store::Memory => vec![String::new()],
        }
    }

    /// The address of a proxy in front of a store, as its clients need it.
    pub(crate) fn behind(
        &self,
        store: Store,
        proxy: impl FnOnce(std::net::SocketAddr) -> Result<std::net::SocketAddr>,
    ) -> Result<String> {
        match store {
            Store::Redis => {
                let server = self.redis.first().ok_or("no Redis")?;
                Ok(server.url_at(proxy(server.addr())?))
            }
            Store::Postgres => {
                let server = self.postgres.as_ref().ok_or("no Postgres")?;
                Ok(server.url_at(proxy(server.addr())?))
            }
            Store::Etcd => {
                let server = self.etcd.as_ref().ok_or("no etcd")?;
                Ok(server.url_at(proxy(server.addr())?))
            }
            Store::Quorum | Store::Memory => Err("it is not one server".into()),
        }
    }

    /// Names the servers that were used.
    pub(crate) fn about(&self) -> Vec<String> {
        let redis = self.redis.first().map(RedisServer::about);
        let postgres = self.postgres.as_ref().map(PostgresServer::about);
        let etcd = self.etcd.as_ref().map(EtcdServer::about);
        redis.into_iter().chain(postgres).chain(etcd).collect()
    }

    async fn start(&mut self, store: Store) -> Result<()> {
        match store {
            Store::Redis | Store::Quorum => {
                let wanted = if store == Store::Quorum { QUORUM } else { 1 };
                while self.redis.len() < wanted {
                    let options = RedisOptions::new().private().args(REDIS_MEMORY);
                    self.redis.push(RedisServer::start(options).await?);
                }
            }
            Store::Postgres if self.postgres.is_none() => {
                let options = PostgresOptions::new()
                    .private()
                    .setting("fsync", "on")
                    .setting("full_page_writes", "on")
                    .setting("max_wal_size", "512MB")
                    .setting("shared_preload_libraries", "pg_stat_statements");
                self.postgres = Some(PostgresServer::start(options).await?);
            }
            Store::Etcd if self.etcd.is_none() => {
                let options = EtcdOptions::new().private().durable().args(ETCD_MEMORY);
                self.etcd = Some(EtcdServer::start(options).await?);
            }
            Store::Postgres | Store::Etcd | Store::Memory => {}
        }
        Ok(())
    }
}
