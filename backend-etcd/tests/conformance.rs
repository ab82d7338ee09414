//! The conformance suite on a real etcd.

mod fixture;

use std::net::SocketAddr;
use std::sync::Arc;

use fixture::Version1;
use lockcore::{BoxError, LockBackend};
use lockcore_conformance::servers::{EtcdOptions, EtcdServer};
use lockcore_conformance::{Fault, Harness};
use lockcore_etcd::EtcdBackend;

struct Etcd(EtcdServer);

impl Harness for Etcd {
    type Backend = EtcdBackend;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(EtcdServer::start(EtcdOptions::new()).await?))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<EtcdBackend, BoxError> {
        Ok(EtcdBackend::connect(&self.0.url_at(at[0])).await?)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr()]
    }

    async fn fixture(&self) -> Result<Option<Arc<dyn LockBackend>>, BoxError> {
        Ok(Some(Arc::new(Version1::connect(self.0.addr().to_string()).await?)))
    }

    async fn inflict(&self, fault: Fault) -> bool {
        self.0.inflict(fault).await
    }

    fn about(&self) -> String {
        self.0.about()
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Etcd>()
}
