//! The conformance suite on a switch between two memory stores: in the phase in which a lock is
//! held in both, and in the two in which it is held in one.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use lockcore::{BoxError, MemoryBackend};
use lockcore_combinators::{Phase, Switchover};
use lockcore_conformance::{Clock, Fault, Harness};

struct Memories<const PHASE: usize>([MemoryBackend; 2]);

const PHASES: [Phase; 3] = [Phase::Old, Phase::Both, Phase::New];

impl<const PHASE: usize> Harness for Memories<PHASE> {
    type Backend = Switchover;

    async fn start() -> Result<Self, BoxError> {
        Ok(Self(std::array::from_fn(|_| MemoryBackend::new())))
    }

    async fn connect(&self, _: &[SocketAddr]) -> Result<Switchover, BoxError> {
        let start = || {
            let [old, new] = self.0.clone();
            Switchover::builder(old, new, PHASES[PHASE]).assume_alone().start()
        };
        let switch = start().await?;
        // The floor is some seconds ahead of the clock of a store that is as far as the other, and
        // tokens ahead of the clock are not remembered over a wipe.
        tokio::time::sleep(Duration::from_secs(7)).await;
        Ok(switch)
    }

    fn combined(&self) -> bool {
        true
    }

    // A switch tells none.
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
        let version = env!("CARGO_PKG_VERSION");
        format!("switchover {version} (phase {}, two memory stores)", PHASES[PHASE])
    }
}

fn main() -> ExitCode {
    let runs = [
        lockcore_conformance::main::<Memories<0>>,
        lockcore_conformance::main::<Memories<1>>,
        lockcore_conformance::main::<Memories<2>>,
    ];
    let failed = runs.iter().filter(|run| run() != ExitCode::SUCCESS).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
