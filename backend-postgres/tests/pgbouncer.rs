//! The conformance suite through PgBouncer, which pools by transactions.

use std::net::SocketAddr;
use std::time::Duration;

use lockcore::BoxError;
use lockcore_conformance::servers::{PgBouncer, PostgresOptions, PostgresServer};
use lockcore_conformance::{Fault, Harness};
use lockcore_postgres::PostgresBackend;

/// To log in takes a while where many do and much else goes on.
const PATIENT: Duration = Duration::from_secs(10);

struct Pooled(PgBouncer);

impl Harness for Pooled {
    type Backend = PostgresBackend;

    async fn start() -> Result<Self, BoxError> {
        let postgres = PostgresServer::start(PostgresOptions::new()).await?;
        Ok(Self(PgBouncer::start(&postgres).await?))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<PostgresBackend, BoxError> {
        let store = PostgresBackend::builder(self.0.url_at(at[0])).pooler(true);
        Ok(store.connect_timeout(PATIENT).connect().await?)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr()]
    }

    async fn inflict(&self, fault: Fault) -> bool {
        self.0.inflict(fault).await
    }

    /// To be told of releases takes a session of one's own.
    fn signals(&self) -> bool {
        false
    }

    fn about(&self) -> String {
        format!("{}; waiters poll", self.0.about())
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Pooled>()
}
