//! What a process in both stores tells the others, and learns of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockcore::{BackendError, HolderId};

use super::entrance::{same, swapped, unseen};
use super::keys::{Desk, Key};
use super::phase::Phase;
use super::survey::foreign;

/// What a process in `Both` does once in a while.
pub(super) struct Neighbours {
    /// The old store and the new one.
    pub(super) desks: [Desk; 2],
    pub(super) ttl: Duration,
    pub(super) settings: Arc<str>,
    pub(super) process: HolderId,
    /// Processes run in the new store alone: it is asked first, so that each has its turn.
    pub(super) new_first: Arc<AtomicBool>,
}

impl Neighbours {
    /// Registers in both stores, or says why that must not be.
    pub(super) async fn begin(&self) -> Result<(), BackendError> {
        let [old, new] = &self.desks;
        let (sees_old, sees_new) = tokio::join!(old.shows_all(), new.shows_all());
        for (desk, seen) in [(old, sees_old), (new, sees_new)] {
            if let Err(error @ BackendError::Rejected(_)) = seen {
                return Err(unseen(desk.name, &error));
            }
        }
        for (desk, neighbour, stranger) in
            [(old, Phase::Old, Phase::New), (new, Phase::New, Phase::Old)]
        {
            if let Some(info) = desk.look(&Key::phase(stranger)).await? {
                return Err(swapped(desk, stranger, &info));
            }
            for phase in [neighbour, Phase::Both] {
                if let Some(info) = desk.look(&Key::phase(phase)).await? {
                    same(&self.settings, &info)?;
                    if phase == Phase::New {
                        self.new_first.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        for desk in &self.desks {
            let there = Key::phase(Phase::Both);
            desk.take(&there, self.ttl, 0, &self.settings).await?;
            // Of two that come at once, both find the same.
            if let Some(info) = desk.look(&there).await? {
                same(&self.settings, &info)?;
            }
        }
        Ok(())
    }

    /// Says that it is there, and looks for its neighbours. Whether either store has heard.
    pub(super) async fn renew(&self) -> bool {
        let [old, new] = &self.desks;
        let (key, neighbour) = (Key::phase(Phase::Both), Key::phase(Phase::New));
        let (in_old, in_new, there) = tokio::join!(
            old.take(&key, self.ttl, 0, &self.settings),
            new.take(&key, self.ttl, 0, &self.settings),
            new.look(&neighbour),
        );
        if let Ok(there) = there {
            self.new_first.store(there.is_some(), Ordering::Relaxed);
        }
        in_old.is_ok() || in_new.is_ok()
    }

    /// One of all processes sees, once in a while, whether all locks are in both stores. In a store
    /// with many keys of others that takes long, so nobody who enters a phase has to.
    pub(super) async fn survey(&self) -> Result<(), BackendError> {
        let [old, new] = self.desks.each_ref().map(|desk| Desk { limit: self.ttl, ..desk.clone() });
        for (left, other) in [(&old, &new), (&new, &old)] {
            let key = Key::survey(self.process);
            if left.take(&key, self.ttl, 0, &self.settings).await?.is_none() {
                continue;
            }
            match foreign(left, other).await? {
                None => drop(left.take(&Key::clean(), self.ttl * 2, 0, &self.settings).await?),
                Some(info) => {
                    left.give_back(&Key::clean()).await?;
                    tracing::debug!(lock.key = %info.key, "held in {} alone", left.name);
                }
            }
        }
        Ok(())
    }
}
