//! The conformance suite through PgBouncer, which pools by transactions.

mod fixture;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fixture::Version2;
use lockcore::{BoxError, LockBackend};
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

    /// With a session of its own: processes before and behind the pooler share a table.
    async fn fixture(&self) -> Result<Option<Arc<dyn LockBackend>>, BoxError> {
        Ok(Some(Arc::new(Version2::connect(&self.0.postgres().url()).await?)))
    }

    async fn inflict(&self, fault: Fault) -> bool {
        self.0.inflict(fault).await
    }

    /// To be told of releases takes a session of one's own.
    fn signals(&self) -> bool {
        false
    }

    fn about(&self) -> String {
        let about = self.0.about();
        format!("{}; waiters poll)", about.trim_end_matches(')'))
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Pooled>()
}
