//! Which stores have fallen silent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::flaw::{Flaw, flawed};

/// A store that has answered nothing for so long, though it was asked, is not waited for where
/// others can decide. Longer for a store that is always slow.
const HUNG: Duration = Duration::from_millis(50);

/// What each store has answered lately.
#[derive(Debug)]
pub(crate) struct Silence(Mutex<Vec<Store>>);

#[derive(Clone, Copy, Debug, Default)]
struct Store {
    /// Since when it has answered nothing.
    since: Option<Instant>,
    /// When it answered last.
    heard: Option<Instant>,
    /// How long its answers took of late: the slowest, of which each later answer takes off an eighth.
    took: Duration,
}

impl Store {
    fn patience(&self) -> Duration {
        HUNG.max(4 * self.took)
    }
}

impl Silence {
    pub(crate) fn new(stores: usize) -> Self {
        Self(Mutex::new(vec![Store::default(); stores]))
    }

    /// A call goes out.
    pub(crate) fn asked(&self, node: usize, at: Instant) {
        if let Some(store) = self.of_all().get_mut(node) {
            store.since.get_or_insert(at);
        }
    }

    /// An answer came to a call of then, whatever it says.
    pub(crate) fn heard(&self, node: usize, asked: Instant) {
        if let Some(store) = self.of_all().get_mut(node) {
            let heard = Some(Instant::now());
            // A store that is slow now and then is not hung.
            let took = asked.elapsed().max(store.took - store.took / 8);
            *store = Store { since: None, heard, took };
        }
    }

    /// None came to a call of then.
    pub(crate) fn failed(&self, node: usize, asked: Instant) {
        if let Some(store) = self.of_all().get_mut(node)
            && store.heard.is_none_or(|heard| heard < asked)
        {
            store.since = Some(store.since.map_or(asked, |since| since.min(asked)));
        }
    }

    /// Nobody waits any more for the answer to a call of then: it would have come, or not.
    pub(crate) fn given_up(&self, node: usize, asked: Instant) {
        if let Some(store) = self.of_all().get_mut(node) {
            store.since = store.since.filter(|since| *since != asked);
        }
    }

    pub(crate) fn is_silent_for(&self, node: usize, time: Duration) -> bool {
        let store = self.of_all().get(node).copied().unwrap_or_default();
        store.since.is_some_and(|since| since.elapsed() >= time)
    }

    pub(crate) fn is_hung(&self, node: usize) -> bool {
        let store = self.of_all().get(node).copied().unwrap_or_default();
        store.since.is_some_and(|since| since.elapsed() >= store.patience())
    }

    /// How long it is waited for before others are asked in its place.
    pub(crate) fn patience(&self, node: usize) -> Duration {
        self.of_all().get(node).copied().unwrap_or_default().patience()
    }

    fn of_all(&self) -> MutexGuard<'_, Vec<Store>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question to a store. Dropped without an end, it was given up.
pub(crate) struct Question {
    silence: Arc<Silence>,
    node: usize,
    asked: Instant,
    is_answered: Option<bool>,
}

impl Question {
    pub(crate) fn begin(silence: &Arc<Silence>, node: usize) -> Self {
        let (silence, asked) = (silence.clone(), Instant::now());
        silence.asked(node, asked);
        Self { silence, node, asked, is_answered: None }
    }

    /// Whether the store has answered it.
    pub(crate) fn ends(mut self, is_answered: bool) {
        self.is_answered = Some(is_answered);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        match self.is_answered {
            Some(true) => self.silence.heard(self.node, self.asked),
            Some(false) => self.silence.failed(self.node, self.asked),
            None if flawed(Flaw::AsksWithoutEnd) => {}
            None => self.silence.given_up(self.node, self.asked),
        }
    }
}
