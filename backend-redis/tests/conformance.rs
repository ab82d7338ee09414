//! The conformance suite on a real Redis.

mod fixture;

use std::net::SocketAddr;
use std::sync::Arc;

use fixture::Version2;
use lockcore::{BoxError, LockBackend};
use lockcore_conformance::servers::{RedisOptions, RedisServer};
use lockcore_conformance::{Fault, Harness};
use lockcore_redis::RedisBackend;

struct Redis(RedisServer);

impl Harness for Redis {
    type Backend = RedisBackend;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(RedisServer::start(RedisOptions::new()).await?))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<RedisBackend, BoxError> {
        Ok(RedisBackend::connect(&self.0.url_at(at[0])).await?)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr()]
    }

    async fn fixture(&self) -> Result<Option<Arc<dyn LockBackend>>, BoxError> {
        Ok(Some(Arc::new(Version2::connect(&self.0.url()).await?)))
    }

    async fn inflict(&self, fault: Fault) -> bool {
        self.0.inflict(fault).await
    }

    fn about(&self) -> String {
        self.0.about()
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Redis>()
}
