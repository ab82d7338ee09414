//! Switches between two servers.

use std::net::SocketAddr;
use std::time::Duration;

use leaselock::{BoxError, Phase, Switchover};
use lockcore_conformance::{Fault, Harness};

use crate::about::about;
use crate::node::Node;
use crate::server::Server;

/// The phases, as what a harness can be told by its type.
pub(crate) const OLD: u8 = 0;
pub(crate) const BOTH: u8 = 1;
pub(crate) const NEW: u8 = 2;

/// The longest ttl, which is also how long it takes at most until a process finds out that a store
/// has forgotten its phase.
const MAX_TTL: Duration = Duration::from_secs(20);

/// A switch from one to the other.
pub(crate) struct Switch<O, N, const PHASE: u8>(O, N);

impl<O: Server, N: Server, const PHASE: u8> Switch<O, N, PHASE> {
    const PHASE: Phase = match PHASE {
        OLD => Phase::Old,
        NEW => Phase::New,
        _ => Phase::Both,
    };
}

impl<O: Server, N: Server, const PHASE: u8> Harness for Switch<O, N, PHASE> {
    type Backend = Switchover;

    async fn start() -> Result<Self, BoxError> {
        let (old, new) = tokio::try_join!(O::start(), N::start())?;
        Ok(Self(old, new))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<Switchover, BoxError> {
        let (old, new) = tokio::try_join!(self.0.connect(at[0]), self.1.connect(at[1]))?;
        let builder =
            Switchover::builder(Node(old), Node(new), Self::PHASE).max_ttl(MAX_TTL).assume_alone();
        Ok(builder.start().await?)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr(), self.1.addr()]
    }

    fn combined(&self) -> bool {
        true
    }

    // The nodes hide it.
    fn remembers(&self) -> bool {
        false
    }

    async fn inflict(&self, fault: Fault) -> bool {
        let (old, new) = tokio::join!(self.0.inflict(fault), self.1.inflict(fault));
        old && new
    }

    fn about(&self) -> String {
        let phase = format!("phase {}", Self::PHASE);
        about("Switchover from", " to", &phase, &[self.0.about(), self.1.about()])
    }
}
