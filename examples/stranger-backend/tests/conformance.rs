//! The suite, run from outside: a harness, and a line of `main`.

use std::net::SocketAddr;

use lockcore::BoxError;
use lockcore_conformance::{Fault, Harness};
use stranger_backend::{LineBackend, LineServer};

struct Lines(LineServer);

impl Harness for Lines {
    type Backend = LineBackend;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(LineServer::start().await?))
    }

    async fn connect(&self, at: &[SocketAddr]) -> Result<LineBackend, BoxError> {
        Ok(LineBackend::new(at[0]))
    }

    // So far it runs. The rest puts the suite's proxy in between, and breaks the server.

    fn endpoints(&self) -> Vec<SocketAddr> {
        vec![self.0.addr()]
    }

    // Its answers are too short to tell one.
    fn remembers(&self) -> bool {
        false
    }

    async fn inflict(&self, fault: Fault) -> bool {
        match fault {
            Fault::Pause => self.0.pause(true),
            Fault::Resume => self.0.pause(false),
            Fault::Kill => self.0.kill().await,
            Fault::Restart => return self.0.restart().await.is_ok(),
            Fault::Wipe => self.0.wipe(),
            _ => return false,
        }
        true
    }

    fn about(&self) -> String {
        format!("stranger {} (a server in this process)", env!("CARGO_PKG_VERSION"))
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Lines>()
}
