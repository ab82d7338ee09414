//! The conformance suite on a quorum of three memory stores, on the paused clock.

use std::net::SocketAddr;
use std::time::Duration;

use lockcore::{Acquire, BoxError, Claim, HolderId, LockBackend, LockKey, MemoryBackend};
use lockcore_combinators::Quorum;
use lockcore_conformance::{Clock, Fault, Harness};

/// As long as the stores must have run before they count.
const MAX_TTL: Duration = Duration::from_secs(60);

struct Memories([MemoryBackend; 3]);

impl Harness for Memories {
    type Backend = Quorum;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(std::array::from_fn(|_| MemoryBackend::new())))
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<Quorum, BoxError> {
        let mut builder = Quorum::builder();
        for (name, store) in ["a", "b", "c"].into_iter().zip(&self.0) {
            builder = builder.node(name, store.clone());
        }
        let quorum = builder.max_ttl(MAX_TTL).build()?;
        until_it_counts(&quorum).await?;
        Ok(quorum)
    }

    fn combined(&self) -> bool {
        true
    }

    // A quorum answers for a majority, and whose memory that is changes.
    fn remembers(&self) -> bool {
        false
    }

    async fn inflict(&self, fault: Fault) -> bool {
        if fault != Fault::Wipe {
            return false;
        }
        for store in &self.0 {
            store.wipe();
        }
        true
    }

    fn clock() -> Clock {
        Clock::Paused
    }

    fn about(&self) -> String {
        format!("quorum {} (three memory stores)", env!("CARGO_PKG_VERSION"))
    }
}

/// The stores have begun, or another case on a clock of its own has emptied them. Time passes by
/// itself here.
async fn until_it_counts(quorum: &Quorum) -> Result<(), BoxError> {
    let key = LockKey::new("until-it-counts")?;
    loop {
        tokio::time::sleep(MAX_TTL).await;
        let claim = Claim::new(key.clone(), HolderId::random(), Duration::from_secs(1));
        if let Ok(Acquire::Acquired(_)) = quorum.acquire(&claim).await {
            quorum.release(&claim).await?;
            return Ok(());
        }
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Memories>()
}
