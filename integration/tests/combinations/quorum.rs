//! Quorums of three servers.

use std::net::SocketAddr;

use leaselock::{BoxError, Quorum};
use lockcore_conformance::{Fault, Harness};

use crate::about::about;
use crate::node::Node;
use crate::server::Server;

/// A quorum of these.
pub(crate) struct QuorumOf<A, B, C>(A, B, C);

impl<A: Server, B: Server, C: Server> Harness for QuorumOf<A, B, C> {
    type Backend = Quorum;

    async fn start() -> Result<Self, BoxError> {
        let (a, b, c) = tokio::try_join!(A::start(), B::start(), C::start())?;
        Ok(Self(a, b, c))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<Quorum, BoxError> {
        let (a, b, c) =
            tokio::try_join!(self.0.connect(at[0]), self.1.connect(at[1]), self.2.connect(at[2]))?;
        let builder = Quorum::builder();
        let builder = builder.node("a", Node(a)).node("b", Node(b)).node("c", Node(c));
        Ok(builder.build()?)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr(), self.1.addr(), self.2.addr()]
    }

    fn combined(&self) -> bool {
        true
    }

    // The nodes hide it.
    fn remembers(&self) -> bool {
        false
    }

    async fn inflict(&self, fault: Fault) -> bool {
        let (a, b, c) =
            tokio::join!(self.0.inflict(fault), self.1.inflict(fault), self.2.inflict(fault));
        a && b && c
    }

    fn about(&self) -> String {
        let [a, b, c] = [self.0.about(), self.1.about(), self.2.about()];
        about("Quorum of", ",", "memory vouched for", &[a, b, c])
    }
}
