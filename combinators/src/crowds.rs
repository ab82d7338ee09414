//! Keys that several clients want at the same time.
//!
//! Clients that ask all stores at once may each be granted a key by some of them, and by too few.
//! So a key whose vote was split lately is asked for in one store first, its *lead*, which is the same
//! for all clients that list the stores in the same order: whoever has the key there goes on to the
//! others, and the rest has taken nothing that it must give back. Safety does not depend on it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::LockKey;

/// From this heat on a key is asked for in its lead first. A split vote adds `SPLIT` to it, up to
/// `HOTTEST`, and a lock that is taken takes one away.
const HOT: u32 = 4;
const SPLIT: u32 = 2;
const HOTTEST: u32 = 16;

/// How often in a row a majority that others hold is taken for a split vote.
const SPLITS: u32 = 4;

/// The longest wait after a split vote.
const MOST: Duration = Duration::from_millis(500);

/// So many keys are remembered.
const KEYS: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Crowds(Mutex<HashMap<LockKey, Crowd>>);

#[derive(Clone, Copy, Debug, Default)]
struct Crowd {
    heat: u32,
    /// How often in a row the key was granted by some stores and not by enough.
    splits: u32,
}

impl Crowds {
    fn of_all(&self) -> MutexGuard<'_, HashMap<LockKey, Crowd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_crowded(&self, key: &LockKey) -> bool {
        self.of_all().get(key).is_some_and(|crowd| crowd.heat >= HOT)
    }

    /// The key was granted.
    pub(crate) fn won(&self, key: &LockKey) {
        let mut all = self.of_all();
        let Some(crowd) = all.get_mut(key) else { return };
        (crowd.heat, crowd.splits) = (crowd.heat.saturating_sub(1), 0);
        if crowd.heat == 0 {
            all.remove(key);
        }
    }

    /// Others hold the key, and no vote was split.
    pub(crate) fn lost(&self, key: &LockKey) {
        if let Some(crowd) = self.of_all().get_mut(key) {
            crowd.splits = 0;
        }
    }

    /// When to come again after a split vote; `None` where it was none. `most_are_held`: others hold
    /// the key in enough stores.
    pub(crate) fn split(
        &self,
        key: &LockKey,
        took: Duration,
        most_are_held: bool,
    ) -> Option<Duration> {
        // Others were as fast: come again at different times, and less often if that repeats.
        let mut all = self.of_all();
        if all.len() >= KEYS {
            all.clear();
        }
        let crowd = all.entry(key.clone()).or_default();
        crowd.heat = (crowd.heat + SPLIT).min(HOTTEST);
        crowd.splits = (crowd.splits + 1).min(16);
        // A holder whose lease some store lacks looks the same, and does not go away.
        if most_are_held && crowd.splits > SPLITS {
            return None;
        }
        let within = took.max(Duration::from_millis(1)) * (1 << crowd.splits);
        Some(within.min(MOST).mul_f64(fastrand::f64()))
    }
}

/// Where the order of the stores begins for a key: the same in every process, and not the same for
/// all keys.
pub(crate) fn first_of(key: &LockKey, stores: usize) -> usize {
    // FNV-1a.
    let hash = key
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize % stores.max(1)
}
