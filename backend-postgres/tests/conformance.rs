//! The conformance suite on a real PostgreSQL.

mod fixture;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fixture::Version2;
use lockcore::{BoxError, LockBackend};
use lockcore_conformance::servers::{PostgresOptions, PostgresServer};
use lockcore_conformance::{Fault, Harness};
use lockcore_postgres::PostgresBackend;

/// To log in takes a while where many do and much else goes on.
const PATIENT: Duration = Duration::from_secs(10);

struct Postgres(PostgresServer);

impl Harness for Postgres {
    type Backend = PostgresBackend;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(PostgresServer::start(PostgresOptions::new()).await?))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<PostgresBackend, BoxError> {
        let store = PostgresBackend::builder(self.0.url_at(at[0]));
        Ok(store.connect_timeout(PATIENT).connect().await?)
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
    lockcore_conformance::main::<Postgres>()
}
