//! One case on one store, on a runtime of its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::{BoxError, LockBackend};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinError;

use crate::case::{Case, Cx, Failure, Needs, Outcome, Pending, Store, ensure};
use crate::harness::{Clock, Fault, Harness};

/// How long one case may take. On the paused clock an hour: it passes in no time when a case
/// waits for nothing, so a hang is found at once.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSED_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How long a case on the paused clock may take in real time: it stands still while tasks that
/// never wait keep each other busy.
const SPIN_LIMIT: Duration = Duration::from_secs(20);

/// How much of a history is shown for a failure that the checker has not found.
const TAIL: usize = 40;

/// How a case ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// The harness cannot do what the case needs, named here.
    NotApplicable(String),
}

/// Runs one case on a store, on a runtime of its own, with the same random choices each time.
///
/// For shells other than [`main`](crate::main); `runtime` is where the harness lives.
///
/// # Errors
///
/// The [`Failure`] of a case that does not hold, with its notes.
pub fn on<H: Harness>(case: &Case, harness: Arc<H>, runtime: &Handle) -> Result<Verdict, Failure> {
    run(case, harness, runtime, 0, &Abilities::default()).map(|(verdict, _)| verdict)
}

/// Which faults the harness can inflict, as far as it was tried.
#[derive(Debug, Default)]
pub(crate) struct Abilities(Mutex<HashMap<Fault, bool>>);

/// The seed of one case in a run: other cases that run or do not run change nothing about it.
pub(crate) fn seed_of(case: &Case, root: u64) -> u64 {
    // FNV-1a, which stays the same from release to release.
    case.name().bytes().fold(root ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// How a case ended that did not fail, and what it has measured.
pub(crate) fn run<H: Harness>(
    case: &Case,
    harness: Arc<H>,
    runtime: &Handle,
    root_seed: u64,
    abilities: &Abilities,
) -> Result<(Verdict, Vec<String>), Failure> {
    let clock = H::clock();
    let no_wire = "the store has no TCP endpoint";
    let no_signals = "the store does not signal releases";
    let no_memory = "the store does not tell its memory";
    let (needs, endpoints) = (case.requirement(), harness.endpoints().len());
    ensure!(
        !harness.combined() || endpoints != 1,
        "the harness says that the backend is made of several stores, and has one endpoint"
    );
    let missing = match needs {
        needs if needs.wire() && endpoints == 0 => Some(no_wire),
        needs if needs.signals() && !harness.signals() => Some(no_signals),
        needs if needs.memory() && !harness.remembers() => Some(no_memory),
        _ => None,
    };
    if let Some(missing) = missing {
        return Ok((Verdict::NotApplicable(missing.to_owned()), Vec::new()));
    }
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    let limit = match clock {
        Clock::Paused => {
            builder.start_paused(true);
            PAUSED_LIMIT
        }
        Clock::Real => LIMIT,
    };
    let seed = seed_of(case, root_seed);
    // What the core leaves to chance is chosen in this thread as well.
    fastrand::seed(seed);
    let store = Arc::new(Shared { harness, runtime: runtime.clone(), clock });
    builder.build()?.block_on(async {
        let no_line = needs.line() && !store.has_line().await?;
        let missing = match needs.faults() {
            _ if no_line => Some("the store has no line".to_owned()),
            Some(faults) => store.missing(faults, abilities).await?,
            None if needs == Needs::Fixture && store.fixture().await?.is_none() => {
                Some("the harness has no fixture client".to_owned())
            }
            None => None,
        };
        if let Some(missing) = missing {
            return Ok((Verdict::NotApplicable(missing), Vec::new()));
        }
        let cx = Cx::new(store, clock, seed).await?;
        let outcome: Outcome = tokio::select! {
            outcome = case.start(&cx) => outcome,
            () = tokio::time::sleep(limit) => {
                Err(Failure::new(format!("it hung: no end after {limit:?}")))
            }
            () = spun(clock) => {
                Err(Failure::new(format!("it spun: no end after {SPIN_LIMIT:?} of real time")))
            }
        };
        outcome
            .map_err(|failure| with_notes(&failure, &cx, &cx.history.tail(TAIL)))
            .and_then(|()| cx.history.check().map_err(|failure| with_notes(&failure, &cx, "")))
            .map(|()| {
                let notes = cx.notes().into_iter().filter(|note| note.of_interest);
                (Verdict::Passed, notes.map(|note| note.text).collect())
            })
    })
}

/// Resolves after the limit in real time on the paused clock, which does not move while there is
/// anything to do.
async fn spun(clock: Clock) {
    if clock == Clock::Real {
        return std::future::pending().await;
    }
    let (ring, bell) = tokio::sync::oneshot::channel::<()>();
    let (cancel, cancelled) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if cancelled.recv_timeout(SPIN_LIMIT) == Err(RecvTimeoutError::Timeout) {
            let _ = ring.send(());
        }
    });
    let _ = bell.await;
    drop(cancel);
}

fn with_notes(failure: &Failure, cx: &Cx, history: &str) -> Failure {
    let mut message = failure.to_string();
    for note in cx.notes() {
        let _ = write!(message, "\n    {:>9.3?} {}", note.at, note.text);
    }
    if !history.is_empty() {
        let _ = write!(message, "\n{history}");
    }
    Failure::new(message)
}

/// A harness as cases see it. Its faults are inflicted on its own runtime, where its containers'
/// connections live.
struct Shared<H> {
    harness: Arc<H>,
    runtime: Handle,
    clock: Clock,
}

impl<H: Harness> Shared<H> {
    /// Whether the store keeps a line for each key, as its clients say.
    async fn has_line(&self) -> Result<bool, Failure> {
        let client = self.connect(&self.harness.endpoints()).await?;
        Ok(client.limits().has_line())
    }

    /// Says that the harness cannot inflict one of these faults. Each is tried once in a run.
    async fn missing(
        &self,
        faults: &[Fault],
        abilities: &Abilities,
    ) -> Result<Option<String>, Failure> {
        let known = || abilities.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &fault in faults {
            let tried = known().get(&fault).copied();
            let able = match tried {
                Some(able) => able,
                None => self.try_out(fault).await?,
            };
            known().insert(fault, able);
            if !able {
                return Ok(Some(format!("the harness cannot {fault} its server")));
            }
        }
        Ok(None)
    }

    /// What is tried is mended at once: the case begins with a whole server. One that was broken
    /// and cannot be mended is a failure, and no inability.
    async fn try_out(&self, fault: Fault) -> Result<bool, Failure> {
        let (breaks, mends) = match fault {
            Fault::Pause | Fault::Resume => (Fault::Pause, Some(Fault::Resume)),
            Fault::Kill | Fault::Restart => (Fault::Kill, Some(Fault::Restart)),
            Fault::Wipe => (Fault::Wipe, None),
        };
        if !self.inflict(breaks).await {
            return Ok(false);
        }
        if let Some(mends) = mends {
            let mended = self.inflict(mends).await;
            ensure!(mended, "the harness can {breaks} its server, and could not {mends} it");
        }
        Ok(true)
    }
}

impl<H: Harness> Store for Shared<H> {
    fn connect<'a>(
        &'a self,
        at: &'a [SocketAddr],
    ) -> Pending<'a, Result<Arc<dyn LockBackend>, BoxError>> {
        Box::pin(async move {
            let backend = self.harness.connect(at).await?;
            Ok(Arc::new(backend) as Arc<dyn LockBackend>)
        })
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        self.harness.endpoints()
    }

    fn combined(&self) -> bool {
        self.harness.combined()
    }

    fn signals(&self) -> bool {
        self.harness.signals()
    }

    fn inflict(&self, fault: Fault) -> Pending<'_, bool> {
        if self.clock == Clock::Paused {
            return Box::pin(self.harness.inflict(fault));
        }
        let harness = self.harness.clone();
        let task = self.runtime.spawn(async move { harness.inflict(fault).await });
        Box::pin(async move {
            match task.await.map_err(JoinError::try_into_panic) {
                Ok(able) => able,
                // What went wrong there is no inability: the case fails of it.
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                Err(Err(_)) => false,
            }
        })
    }

    fn fixture(&self) -> Pending<'_, Result<Option<Arc<dyn LockBackend>>, BoxError>> {
        Box::pin(self.harness.fixture())
    }
}

#[cfg(test)]
mod tests;
