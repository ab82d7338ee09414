//! Which keys were contended lately.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, Ordering};

use lockcore::LockKey;

/// After a contended answer, so many acquires of a key expect another one.
const EXPECTED: u8 = 16;

/// Remembers contended keys, so that their acquires begin with the statement that knows the line.
/// Different keys may share an entry: then one of them is asked for by the slower statement.
pub(crate) struct Contended {
    hasher: RandomState,
    entries: [AtomicU8; 256],
}

impl Default for Contended {
    fn default() -> Self {
        let entries = std::array::from_fn(|_| AtomicU8::new(0));
        Self { hasher: RandomState::new(), entries }
    }
}

impl Contended {
    fn entry(&self, key: &LockKey) -> &AtomicU8 {
        let hash = self.hasher.hash_one(key.as_str());
        &self.entries[usize::from(hash as u8)]
    }

    pub(crate) fn is_expected(&self, key: &LockKey) -> bool {
        self.entry(key).load(Ordering::Relaxed) > 0
    }

    pub(crate) fn note(&self, key: &LockKey, contended: bool) {
        let entry = self.entry(key);
        if contended {
            entry.store(EXPECTED, Ordering::Relaxed);
        } else if let left @ 1.. = entry.load(Ordering::Relaxed) {
            entry.store(left - 1, Ordering::Relaxed);
        }
    }
}
