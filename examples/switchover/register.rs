//! What the locks protect, in one place: a fenced register for each key.
//!
//! A holder shows its token when it comes and again before it goes, and looks at its guard after
//! each answer. A guard that is valid then was valid when the register answered, for once lost it
//! stays lost. So whoever is refused and still valid has met another holder, or has a token that
//! did not rise. Whoever is refused and has lost its lock came too late, as it should find out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use leaselock::{FenceRegister, Phase};

/// The key that nobody takes in phase `both`.
pub(crate) const IDLE: &str = "idle";

/// The registers of all keys, and what they have seen.
#[derive(Default)]
pub(crate) struct Registers {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By key; in each the holder that came last.
    registers: BTreeMap<String, FenceRegister<u64>>,
    holders: u64,
    tally: Tally,
}

/// What became of all that was tried.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// How often a key was taken, by phase.
    pub(crate) acquired: BTreeMap<Phase, u64>,
    /// The first token of the idle key in each phase in which it was taken, in order.
    pub(crate) idle: Vec<(Phase, u64)>,
    /// Holders that met another while their guard was valid.
    pub(crate) overlaps: u64,
    /// Holders whose token was not greater than all before, though their guard was valid.
    pub(crate) fallen: u64,
    /// Holders that had lost their lock and were refused.
    pub(crate) late: u64,
    /// Acquires and releases that ended in an error.
    pub(crate) failed: u64,
}

/// Where a holder was refused.
#[derive(Clone, Copy)]
pub(crate) enum At {
    Coming,
    Going,
}

impl Registers {
    /// A holder comes: its number, if its token is greater than all before.
    pub(crate) fn come(&self, phase: Phase, key: &str, token: u64) -> Option<u64> {
        let seen = &mut *self.seen();
        let register = seen.registers.entry(key.to_owned()).or_insert(FenceRegister::new(0));
        // A register takes its last token again, from the same holder. This is another's.
        if token == register.token() {
            return None;
        }
        let holder = seen.holders + 1;
        register.write(token, holder).ok()?;
        seen.holders = holder;
        *seen.tally.acquired.entry(phase).or_default() += 1;
        if key == IDLE && seen.tally.idle.last().is_none_or(|(last, _)| *last != phase) {
            seen.tally.idle.push((phase, token));
        }
        Some(holder)
    }

    /// A holder goes, and writes before it does: whether nobody came after it.
    pub(crate) fn go(&self, key: &str, token: u64, holder: u64) -> bool {
        let seen = self.seen();
        let Some(register) = seen.registers.get(key) else { return false };
        // The token may have been raised while the lock was held.
        register.update(token, |last| *last == holder) == Ok(true)
    }

    /// A holder was refused, and looked at its guard after that.
    pub(crate) fn refused(&self, at: At, valid: bool) {
        let tally = &mut self.seen().tally;
        *match (valid, at) {
            (true, At::Coming) => &mut tally.fallen,
            (true, At::Going) => &mut tally.overlaps,
            (false, _) => &mut tally.late,
        } += 1;
    }

    pub(crate) fn failed(&self) {
        self.seen().tally.failed += 1;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.seen().tally.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
