//! Telling a silent connection from a slow one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A call given up after this long without hearing anything makes its connection suspect, or after
/// twice the time that the last answer took, if that is longer: on a slow wire a new connection
/// would only make the next call slower. Shorter waits are callers who changed their mind.
const PATIENCE: Duration = Duration::from_millis(100);
/// Waiting calls that heard nothing for this long make their connection suspect by themselves.
const SILENCE: Duration = Duration::from_secs(1);

/// Watches the calls on one connection.
///
/// The kernel takes long to notice that a peer is gone, and the driver waits with it. Here a
/// connection on which calls went unanswered is found suspect at once, so that the next call opens
/// a new one in place of queueing behind them.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    waiting: Mutex<Waiting>,
    suspect: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: usize,
    /// Since when nothing was heard; of meaning while calls wait.
    quiet_since: Option<Instant>,
    /// What the last answer took.
    usual: Duration,
}

impl Vigil {
    /// For a connection on which the first answer took this long.
    pub(crate) fn new(usual: Duration) -> Self {
        let vigil = Self::default();
        vigil.waiting().usual = usual;
        vigil
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is about to be sent.
    pub(crate) fn call(&self) -> Call<'_> {
        let mut waiting = self.waiting();
        if waiting.calls == 0 {
            waiting.quiet_since = Some(Instant::now());
        }
        waiting.calls += 1;
        Call { vigil: self, began: Instant::now(), answered: false }
    }

    /// Something came from the server: it is there.
    pub(crate) fn heard(&self) {
        self.waiting().quiet_since = Some(Instant::now());
        self.suspect.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed) || {
            let waiting = self.waiting();
            waiting.calls > 0 && waiting.quiet_for() >= SILENCE
        }
    }
}

impl Waiting {
    fn quiet_for(&self) -> Duration {
        self.quiet_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn patience(&self) -> Duration {
        (self.usual * 2).clamp(PATIENCE, SILENCE)
    }
}

/// One call that waits for its answer. Dropped unanswered, it was given up.
pub(crate) struct Call<'a> {
    vigil: &'a Vigil,
    began: Instant,
    answered: bool,
}

impl Call<'_> {
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.vigil.heard();
        }
        let mut waiting = self.vigil.waiting();
        waiting.calls -= 1;
        if self.answered {
            waiting.usual = self.began.elapsed();
        } else if waiting.quiet_for() >= waiting.patience() {
            self.vigil.suspect.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(vigil: &Vigil, for_: Duration) {
        vigil.waiting().quiet_since = Instant::now().checked_sub(for_);
    }

    #[test]
    fn a_call_given_up_in_silence_raises_suspicion() {
        let vigil = Vigil::default();
        drop(vigil.call());
        assert!(!vigil.is_suspect(), "a quick cancel");
        let call = vigil.call();
        quiet(&vigil, PATIENCE);
        drop(call);
        assert!(vigil.is_suspect());
        vigil.heard();
        assert!(!vigil.is_suspect(), "it was only slow");
    }

    #[test]
    fn on_a_slow_wire_patience_is_longer() {
        let vigil = Vigil::new(Duration::from_millis(120));
        for (silence, suspect) in [(200, false), (240, true)] {
            let call = vigil.call();
            quiet(&vigil, Duration::from_millis(silence));
            drop(call);
            assert_eq!(vigil.is_suspect(), suspect, "{silence} ms");
        }
        // One slow answer does not make it endless.
        let vigil = Vigil::new(Duration::from_secs(60));
        let call = vigil.call();
        quiet(&vigil, SILENCE);
        drop(call);
        assert!(vigil.is_suspect());
    }

    #[test]
    fn an_answer_to_another_call_shows_that_the_server_is_there() {
        let vigil = Vigil::default();
        let (first, second) = (vigil.call(), vigil.call());
        quiet(&vigil, PATIENCE);
        second.answered();
        drop(first);
        assert!(!vigil.is_suspect());
    }

    #[test]
    fn long_silence_is_suspect_while_calls_wait_and_only_then() {
        let vigil = Vigil::default();
        let call = vigil.call();
        quiet(&vigil, SILENCE);
        assert!(vigil.is_suspect());
        call.answered();
        quiet(&vigil, SILENCE);
        assert!(!vigil.is_suspect(), "idle");
    }
}
