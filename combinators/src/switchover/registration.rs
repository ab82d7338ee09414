//! Registrations: which process is in which phase.
//!
//! A process registers first and looks for the opposite phase then. Of two that come at once, at
//! least one sees the other. It keeps its registration renewed, takes no lease that could outlive
//! it, and registers anew, looking again, after it lost it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{
    BackendError, Claim, Error, ErrorKind, HolderId, InvalidInput, LockBackend, LockGuard,
    LockManager,
};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ceiling::{Ceiling, floor_above};
use super::{Phase, reserved};
use crate::flaw::{Flaw, flawed};

/// How many of the opposite phase a refusal names.
const NAMED: usize = 5;

/// How long to wait before registering again after that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// So many promises are no burden.
const FEW: usize = 64;

/// How long registering may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Where a process registers, and where it looks for others.
#[derive(Clone)]
pub(super) struct Registrar {
    pub(super) phase: Phase,
    pub(super) process: HolderId,
    /// The stores of its phase.
    pub(super) managers: Vec<LockManager>,
    /// Of the store of an exclusive phase.
    pub(super) ceilings: Vec<Ceiling>,
    /// What an exclusive phase looks at.
    pub(super) change: Option<Change>,
}

/// From one store alone to the other.
#[derive(Clone)]
pub(super) struct Change {
    /// The opposite phase, which must not run.
    pub(super) opposite: Phase,
    /// The store in which it would, which is being left.
    pub(super) left: Arc<dyn LockBackend>,
    /// The largest floor that the store being entered takes.
    pub(super) most: u64,
    /// The floor, where it is known.
    pub(super) floor: Option<u64>,
}

/// A process's registration in its phase, kept until it is dropped.
pub(super) struct Registration {
    state: Arc<Mutex<State>>,
    managers: Vec<LockManager>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// A promise was taken back.
    released: Notify,
}

#[derive(Default)]
struct State {
    guards: Vec<LockGuard>,
    floor: u64,
    /// Why there is none.
    refused: Option<String>,
    /// There will be none any more.
    left: bool,
    /// Until when a holder of this process may believe to hold a lock.
    promised: HashMap<HolderId, Instant>,
    /// Forget promises that have ended when there are this many.
    sweep_at: usize,
}

impl Registration {
    /// Registers, or says why this process may not be in its phase now.
    pub(super) async fn begin(registrar: Registrar) -> Result<Self, Error> {
        let (guards, floor) = registrar.register().await?;
        let state = Arc::new(Mutex::new(State { guards, floor, ..State::default() }));
        let managers = registrar.managers.clone();
        let keeper = tokio::spawn(keep(registrar, state.clone()));
        Ok(Self { state, managers, keeper: Mutex::new(Some(keeper)), released: Notify::new() })
    }

    /// The floor of a lease for this claim, if the registration is sure to outlive it. From now
    /// on the holder may believe to have it, until it [takes that back](Self::released).
    pub(super) fn promise(&self, claim: &Claim) -> Result<u64, BackendError> {
        let mut state = lock(&self.state);
        if state.left {
            return Err(BackendError::rejected("this process has left its phase"));
        }
        if let Some(refused) = &state.refused {
            return Err(BackendError::rejected(refused.clone()));
        }
        let ttl = if flawed(Flaw::OutlivesRegistration) { Duration::ZERO } else { claim.ttl };
        let covers = |guard: &LockGuard| guard.remaining() >= ttl;
        if state.guards.is_empty() || !state.guards.iter().all(covers) {
            return Err(BackendError::unavailable(
                "this process is not registered in its phase: its registration was not renewed",
            ));
        }
        let now = Instant::now();
        if state.promised.len() >= state.sweep_at.max(FEW) {
            state.promised.retain(|_, end| *end > now);
            state.sweep_at = 2 * state.promised.len();
        }
        let end = state.promised.entry(claim.holder).or_insert(now);
        *end = (*end).max(now + claim.ttl);
        Ok(state.floor)
    }

    /// The holder does not believe to hold anything.
    pub(super) fn released(&self, holder: HolderId) {
        lock(&self.state).promised.remove(&holder);
        self.released.notify_waiters();
    }

    pub(super) fn floor(&self) -> u64 {
        lock(&self.state).floor
    }

    /// Ends it, once nobody believes to hold a lock, and waits until the stores know.
    pub(super) async fn leave(&self) {
        lock(&self.state).left = true;
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // Or it might register anew meanwhile. What it is just doing comes to nothing.
            keeper.abort();
            let _ = keeper.await;
        }
        while !flawed(Flaw::LeavesAtOnce) {
            let released = self.released.notified();
            let Some(end) = lock(&self.state).promised.values().max().copied() else { break };
            tokio::select! {
                () = sleep_until(end) => break,
                () = released => {}
            }
        }
        let guards = std::mem::take(&mut lock(&self.state).guards);
        for guard in guards {
            // Else it ends with its ttl.
            let _ = guard.release().await;
        }
        for manager in &self.managers {
            manager.drain().await;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper {
            keeper.abort();
        }
    }
}

/// Registers anew whenever the registration was lost.
async fn keep(registrar: Registrar, state: Arc<Mutex<State>>) {
    loop {
        let mut lost = JoinSet::new();
        for guard in &lock(&state).guards {
            lost.spawn(guard.lost());
        }
        lost.join_next().await;
        // Nothing is granted from here on.
        lock(&state).guards.clear();
        // The store may have lost all of its data.
        registrar.ceilings.iter().for_each(Ceiling::forget);
        while let Err(error) = anew(&registrar, &state).await {
            tracing::warn!(phase = %registrar.phase, %error, "not registered");
            sleep(AGAIN).await;
        }
    }
}

async fn anew(registrar: &Registrar, state: &Mutex<State>) -> Result<(), Error> {
    let registered = registrar.register().await;
    let mut state = lock(state);
    match registered {
        // Given back in the background.
        Ok(_) if state.left => Ok(()),
        Ok((guards, floor)) => {
            let floor = if flawed(Flaw::FloorKept) { state.floor } else { floor };
            (state.guards, state.floor, state.refused) = (guards, floor, None);
            Ok(())
        }
        Err(error) => {
            if error.kind() == ErrorKind::Rejected {
                state.refused = Some(error.to_string());
            }
            Err(error)
        }
    }
}

impl Registrar {
    /// Registers, then looks for the opposite phase, then finds the floor: others may have been
    /// in that phase since this process last looked.
    async fn register(&self) -> Result<(Vec<LockGuard>, u64), Error> {
        if let Some(change) = &self.change {
            // Looking before as well keeps those who cannot enter out of the others' sight.
            self.look(change).await?;
        }
        let key = reserved::registration(self.phase, self.process);
        let mut guards = Vec::new();
        for manager in &self.managers {
            guards.push(manager.lock(&*key)?.acquire_timeout(LIMIT).await?);
        }
        let Some(change) = &self.change else { return Ok((guards, 0)) };
        match self.enter(change).await {
            Ok(floor) => Ok((guards, floor)),
            Err(error) => {
                for guard in guards {
                    // Else it ends with its ttl.
                    let _ = guard.release().await;
                }
                Err(error)
            }
        }
    }

    async fn enter(&self, change: &Change) -> Result<u64, Error> {
        let reached = flawed(Flaw::LooksTooEarly) || self.look(change).await?;
        // Nobody takes locks in the store being left alone from here on.
        let floor = match change.floor {
            Some(floor) if !reached => floor,
            // It may have gone on since the floor was found.
            given => floor_above(&change.left).await?.max(given.unwrap_or(0)),
        };
        if floor > change.most {
            return Err(InvalidInput::new(format!(
                "the store being left has tokens up to {floor}, and the other takes none above {}",
                change.most
            ))
            .into());
        }
        Ok(floor)
    }

    /// Refuses while anybody is in the opposite phase; whether the store being left was reached.
    async fn look(&self, change: &Change) -> Result<bool, Error> {
        let prefix = reserved::registrations(change.opposite);
        let others = match timeout(LIMIT, change.left.list(&prefix, None, NAMED)).await {
            Ok(Ok(others)) => others,
            // Whoever gives the floor has seen to it that the store is gone.
            _ if change.floor.is_some() => {
                tracing::warn!(phase = %self.phase, "the store being left was not reached");
                return Ok(false);
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(BackendError::unavailable("no answer to a list").into()),
        };
        if others.is_empty() {
            return Ok(true);
        }
        let names = others
            .iter()
            .map(|other| format!("{} (for {:.0?} at least)", other.label, other.remaining));
        Err(BackendError::rejected(format!(
            "phase `{}` must not run while processes are in phase `{}`: {}; move those to phase \
             `both` first, or wait until their registrations have ended",
            self.phase,
            change.opposite,
            names.collect::<Vec<_>>().join(", ")
        ))
        .into())
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
