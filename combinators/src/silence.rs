//! Which stores have fallen silent.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Since when each store has answered nothing.
#[derive(Debug)]
pub(crate) struct Silence(Mutex<Vec<Option<Instant>>>);

impl Silence {
    pub(crate) fn new(stores: usize) -> Self {
        Self(Mutex::new(vec![None; stores]))
    }

    /// A call goes out.
    pub(crate) fn asked(&self, node: usize, at: Instant) {
        if let Some(since) = self.of_all().get_mut(node) {
            since.get_or_insert(at);
        }
    }

    /// An answer came, whatever it says.
    pub(crate) fn heard(&self, node: usize) {
        if let Some(since) = self.of_all().get_mut(node) {
            *since = None;
        }
    }

    /// Whether the store was asked before `began` and has answered nothing since: then it is hung
    /// or down, and no little slower than the others.
    pub(crate) fn since_before(&self, node: usize, began: Instant) -> bool {
        let since = self.of_all().get(node).copied().flatten();
        since.is_some_and(|since| since < began)
    }

    fn of_all(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
