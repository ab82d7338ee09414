//! A server that is a store of a combination.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leaselock::etcd::EtcdBackend;
use leaselock::postgres::PostgresBackend;
use leaselock::redis::RedisBackend;
use leaselock::{BoxError, LockBackend};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{
    EtcdOptions, EtcdServer, PostgresOptions, PostgresServer, RedisOptions, RedisServer,
};

/// To log in to Postgres takes a while where many do and much else goes on.
const PATIENT: Duration = Duration::from_secs(10);

/// A server of one kind. It is the suite's own: what is named by the environment would be one
/// store, however often it is asked for.
pub(crate) trait Server: Sized + Send + Sync + 'static {
    fn start() -> impl Future<Output = Result<Self, BoxError>> + Send;

    /// A client of its own, through this address.
    fn connect(
        &self,
        at: SocketAddr,
    ) -> impl Future<Output = Result<Arc<dyn LockBackend>, BoxError>> + Send;

    fn addr(&self) -> SocketAddr;

    fn inflict(&self, fault: Fault) -> impl Future<Output = bool> + Send;

    /// `NAME VERSION (ORIGIN)`.
    fn about(&self) -> String;
}

/// What is the same for all of them.
macro_rules! server {
    ($server:ty) => {
        fn addr(&self) -> SocketAddr {
            self.addr()
        }

        async fn inflict(&self, fault: Fault) -> bool {
            self.inflict(fault).await
        }

        fn about(&self) -> String {
            self.about()
        }
    };
}

impl Server for RedisServer {
    async fn start() -> Result<Self, BoxError> {
        Self::start(RedisOptions::new().private()).await
    }

    async fn connect(&self, at: SocketAddr) -> Result<Arc<dyn LockBackend>, BoxError> {
        Ok(Arc::new(RedisBackend::connect(&self.url_at(at)).await?))
    }

    server!(RedisServer);
}

impl Server for EtcdServer {
    async fn start() -> Result<Self, BoxError> {
        Self::start(EtcdOptions::new().private()).await
    }

    async fn connect(&self, at: SocketAddr) -> Result<Arc<dyn LockBackend>, BoxError> {
        Ok(Arc::new(EtcdBackend::connect(&self.url_at(at)).await?))
    }

    server!(EtcdServer);
}

impl Server for PostgresServer {
    async fn start() -> Result<Self, BoxError> {
        Self::start(PostgresOptions::new().private()).await
    }

    async fn connect(&self, at: SocketAddr) -> Result<Arc<dyn LockBackend>, BoxError> {
        let store = PostgresBackend::builder(self.url_at(at));
        Ok(Arc::new(store.connect_timeout(PATIENT).connect().await?))
    }

    server!(PostgresServer);
}
