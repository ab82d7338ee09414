//! The memory backend, the executable specification, on the paused clock.

use std::net::SocketAddr;

use lockcore::{BoxError, MemoryBackend};
use lockcore_conformance::{Clock, Fault, Harness};

struct Memory(MemoryBackend);

impl Harness for Memory {
    type Backend = MemoryBackend;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(MemoryBackend::new()))
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<MemoryBackend, BoxError> {
        Ok(self.0.clone())
    }

    async fn inflict(&self, fault: Fault) -> bool {
        if fault == Fault::Wipe {
            self.0.wipe();
        }
        fault == Fault::Wipe
    }

    fn clock() -> Clock {
        Clock::Paused
    }

    fn about(&self) -> String {
        format!("memory {} (this process, paused clock)", env!("CARGO_PKG_VERSION"))
    }
}

fn main() -> std::process::ExitCode {
    lockcore_conformance::main::<Memory>()
}
