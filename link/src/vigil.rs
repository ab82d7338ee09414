//! Telling a silent connection from a slow one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A call given up after this long without hearing anything makes its connection suspect, or after
/// twice the time that the last answer took, if that is longer: on a slow wire a new connection
/// would only make the next call slower. Shorter waits are callers who changed their mind; longer
/// ones that still were too short are added up.
const PATIENCE: Duration = Duration::from_millis(100);
/// Waiting calls that heard nothing for this long make their connection suspect by themselves.
const SILENCE: Duration = Duration::from_secs(1);

/// Watches the calls on one connection, and tells whether it has fallen silent.
///
/// The kernel takes long to notice that a peer is gone, and a driver waits with it. Here a
/// connection on which calls went unanswered is found suspect at once, so that the next call opens
/// a new one in place of queueing behind them.
///
/// It is suspect
///
/// - when a call was given up after nothing had been heard for 100 ms, or for twice as long as the
///   last answer took, where that is longer, but at most 1 s. Calls given up one after another add
///   up, as far as each heard nothing for 100 ms: callers may all be less patient than this is;
/// - while a call waits and nothing has been heard for 1 s.
///
/// Anything heard from the server ends the suspicion. A connection on which no call waits is never
/// found suspect, however quiet it is.
///
/// How long answers take is known from the first on: so let the first question on a new connection,
/// which also shows that a server is there, be a [call](Self::call).
///
/// It never waits and starts no task. Time is tokio's, so tests can pause it; no runtime is needed.
#[derive(Debug, Default)]
pub struct Vigil {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    calls: usize,
    /// Since when nothing was heard; of meaning while calls wait.
    quiet_since: Option<Instant>,
    /// How long calls that were given up have waited since anything was heard, before this stretch
    /// of waiting.
    in_vain: Duration,
    /// What the last answer took.
    usual: Duration,
    suspect: bool,
}

impl Vigil {
    /// For a connection on which nothing has been asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is about to be sent.
    pub fn call(&self) -> Call<'_> {
        // Not under the lock, which all calls share.
        let began = Instant::now();
        let mut waiting = self.waiting();
        if waiting.calls == 0 {
            waiting.quiet_since = waiting.quiet_since.max(Some(began));
        }
        waiting.calls += 1;
        Call { vigil: self, began, end: End::GivenUp }
    }

    /// Something came from the server unasked: it is there.
    pub fn heard(&self) {
        let now = Instant::now();
        self.waiting().heard(now);
    }

    /// Whether the connection has fallen silent: the next call is better made on another.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        let waiting = self.waiting();
        waiting.suspect || (waiting.calls > 0 && waiting.quiet_for(Instant::now()) >= SILENCE)
    }
}

impl Waiting {
    fn heard(&mut self, now: Instant) {
        self.quiet_since = self.quiet_since.max(Some(now));
        self.in_vain = Duration::ZERO;
        self.suspect = false;
    }

    fn given_up(&mut self, now: Instant) {
        let quiet = self.quiet_for(now);
        if quiet < PATIENCE {
            return;
        }
        let in_vain = self.in_vain.saturating_add(quiet);
        if in_vain >= self.patience() {
            self.suspect = true;
        }
        if self.calls == 0 {
            self.in_vain = in_vain;
        }
    }

    fn quiet_for(&self, now: Instant) -> Duration {
        self.quiet_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn patience(&self) -> Duration {
        (self.usual * 2).clamp(PATIENCE, SILENCE)
    }
}

/// One call that waits for its answer. Dropped, it was given up.
///
/// So a future that holds it is cancel safe as far as the vigil goes: wherever it is dropped, the
/// call is counted as given up. A call whose connection broke may be dropped as well: that one is
/// not to be used again in any case.
#[derive(Debug)]
#[must_use = "dropped, the call is given up"]
pub struct Call<'a> {
    vigil: &'a Vigil,
    began: Instant,
    end: End,
}

#[derive(Debug)]
enum End {
    GivenUp,
    Answered,
    Other,
}

impl Call<'_> {
    /// The server answered, whatever it said. The time since [`Vigil::call`] is what an answer
    /// takes.
    pub fn answered(mut self) {
        self.end = End::Answered;
    }

    /// The call ended, and the time it took says nothing about answers: it may have found in place
    /// what it would have asked for, or asked several times. It is taken as a sign of life.
    pub fn ended(mut self) {
        self.end = End::Other;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut waiting = self.vigil.waiting();
        waiting.calls -= 1;
        match self.end {
            End::GivenUp => waiting.given_up(now),
            End::Answered => {
                waiting.heard(now);
                waiting.usual = now.duration_since(self.began);
            }
            End::Other => waiting.heard(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Makes a call that is answered.
    async fn answer(vigil: &Vigil, after: Duration) {
        let call = vigil.call();
        advance(after).await;
        call.answered();
    }

    /// Makes a call that is given up.
    async fn give_up(vigil: &Vigil, after: Duration) {
        let call = vigil.call();
        advance(after).await;
        drop(call);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_in_silence_raises_suspicion() {
        let vigil = Vigil::new();
        for _ in 0..100 {
            give_up(&vigil, PATIENCE - ms(1)).await;
        }
        assert!(!vigil.is_suspect(), "callers who changed their mind");
        give_up(&vigil, PATIENCE).await;
        assert!(vigil.is_suspect());
        vigil.heard();
        assert!(!vigil.is_suspect(), "it was only slow");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_suspicion() {
        let vigil = Vigil::new();
        let late = vigil.call();
        give_up(&vigil, PATIENCE).await;
        assert!(vigil.is_suspect());
        late.answered();
        assert!(!vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_slow_wire_patience_is_longer() {
        let vigil = Vigil::new();
        answer(&vigil, ms(120)).await;
        give_up(&vigil, ms(239)).await;
        assert!(!vigil.is_suspect());
        vigil.heard();
        give_up(&vigil, ms(240)).await;
        assert!(vigil.is_suspect());
        // One slow answer does not make it endless.
        answer(&vigil, ms(60_000)).await;
        assert!(!vigil.is_suspect());
        give_up(&vigil, SILENCE).await;
        assert!(vigil.is_suspect());
        // And it is as short as before when answers are fast again.
        answer(&vigil, ms(1)).await;
        give_up(&vigil, PATIENCE).await;
        assert!(vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_of_little_patience_find_a_dead_connection_together() {
        let vigil = Vigil::new();
        answer(&vigil, ms(400)).await;
        for _ in 0..3 {
            assert!(!vigil.is_suspect());
            give_up(&vigil, ms(250)).await;
            // Time in which nobody waits does not count, nor does who changed their mind.
            advance(ms(5_000)).await;
            give_up(&vigil, ms(99)).await;
        }
        assert!(!vigil.is_suspect());
        give_up(&vigil, ms(250)).await;
        assert!(vigil.is_suspect());

        // What is heard in between takes back all.
        vigil.heard();
        give_up(&vigil, ms(799)).await;
        vigil.heard();
        give_up(&vigil, ms(799)).await;
        assert!(!vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stretch_of_waiting_counts_once_however_many_wait() {
        let vigil = Vigil::new();
        answer(&vigil, ms(400)).await;
        let calls = [vigil.call(), vigil.call(), vigil.call()];
        for call in calls {
            advance(ms(200)).await;
            drop(call);
        }
        assert!(!vigil.is_suspect(), "600 ms of 800");
        give_up(&vigil, ms(199)).await;
        assert!(!vigil.is_suspect());
        give_up(&vigil, ms(100)).await;
        assert!(vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn what_needed_no_answer_says_nothing_about_answers() {
        let vigil = Vigil::new();
        answer(&vigil, ms(120)).await;
        vigil.call().ended();
        give_up(&vigil, ms(239)).await;
        assert!(!vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_to_another_call_shows_that_the_server_is_there() {
        let vigil = Vigil::new();
        let (first, second, third) = (vigil.call(), vigil.call(), vigil.call());
        advance(ms(50)).await;
        second.answered();
        advance(ms(99)).await;
        drop(first);
        assert!(!vigil.is_suspect());
        advance(ms(1)).await;
        drop(third);
        assert!(vigil.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn long_silence_is_suspect_while_calls_wait_and_only_then() {
        let vigil = Vigil::new();
        let call = vigil.call();
        advance(SILENCE - ms(1)).await;
        assert!(!vigil.is_suspect());
        advance(ms(1)).await;
        assert!(vigil.is_suspect());
        vigil.heard();
        assert!(!vigil.is_suspect());
        call.answered();
        advance(SILENCE * 100).await;
        assert!(!vigil.is_suspect(), "idle");
        let _call = vigil.call();
        assert!(!vigil.is_suspect(), "was idle");
    }

    #[test]
    fn it_needs_no_runtime() {
        let vigil = Vigil::new();
        drop(vigil.call());
        vigil.call().answered();
        assert!(!vigil.is_suspect());
    }
}
