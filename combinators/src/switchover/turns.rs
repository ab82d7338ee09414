//! Letting neighbours have their turn.
//!
//! Who releases a key and asks for it at once would always be there before those in a neighbouring phase,
//! who have to hear of the release first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::LockKey;
use tokio::time::{Instant, sleep_until};

/// For how long, between these: four times what the release took.
const LEAST: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_millis(100);

/// So many keys are no burden.
const FEW: usize = 64;

/// Until when this process gives way for which key.
pub(super) struct Turns {
    /// There are processes in a neighbouring phase.
    neighbours: Arc<AtomicBool>,
    until: Mutex<HashMap<LockKey, Instant>>,
}

impl Turns {
    /// While the flag is set.
    pub(super) fn among(neighbours: Arc<AtomicBool>) -> Self {
        Self { neighbours, until: Mutex::default() }
    }

    /// This process has released the key.
    pub(super) fn released(&self, key: &LockKey, began: Instant) {
        if !self.neighbours.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= FEW {
            until.retain(|_, until| *until > now);
        }
        until.insert(key.clone(), now + ((now - began) * 4).clamp(LEAST, MOST));
    }

    pub(super) async fn come(&self, key: &LockKey) {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }
}
