//! What was asked of a store and answered, and whether that may have been.
//!
//! Every client that a case is given writes down its calls. A call whose answer never came stays
//! open: it may have happened, now or later, or not at all.

mod check;
mod recorder;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HandOver, HolderId, LockKey, Release, Renew};
use tokio::time::Instant;

use crate::case::Failure;

pub(crate) use recorder::Recorded;

/// What happened in a case, in the order in which it began. Times are microseconds since then.
#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    /// What the random choices of the case came from.
    seed: u64,
    /// For how long a lease may be seen after its end.
    lag: u64,
    /// What a busy machine may add to that.
    slack: u64,
    /// Of a backend made of several stores.
    combined: bool,
    events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Call(Call),
    /// Something was done to the server: it may forget leases, or keep them for longer.
    Fault {
        began: u64,
        done: Option<u64>,
        what: String,
    },
    Relied(Relied),
}

/// One call of a backend. Keys, holders and clients are numbered as they come.
#[derive(Clone, Debug, PartialEq)]
struct Call {
    invoked: u64,
    /// `None`: no answer, its caller gave up or still waits.
    answered: Option<u64>,
    client: usize,
    verb: Verb,
    key: usize,
    holder: usize,
    ttl: u64,
    floor: u64,
    /// For how long a place in the key's line was asked for; 0: for none.
    wait: u64,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Acquire,
    /// Also each of many.
    Renew,
    Release,
    /// The part of a hand-over that ends the lease of the one holder.
    HandOver,
    /// The part of a hand-over that grants the key to the other holder.
    TakeOver,
}

impl Verb {
    /// Whether it may grant the key to its holder.
    fn asks(self) -> bool {
        matches!(self, Self::Acquire | Self::TakeOver)
    }

    /// Whether it ends the lease of its holder.
    fn ends(self) -> bool {
        matches!(self, Self::Release | Self::HandOver)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Open,
    /// Of an acquire or a renew.
    Granted {
        token: u64,
        ttl: u64,
    },
    /// Of an acquire, or of a hand-over that yielded.
    Contended,
    /// The token that was ended, where the answer tells it.
    Released {
        token: Option<u64>,
    },
    NotHeld,
    Ambiguous,
    Unavailable,
    /// Rejected, or bad input: nothing happened.
    Refused,
}

/// One stretch of time in which somebody relied on a lock.
#[derive(Clone, Debug, PartialEq)]
struct Relied {
    /// When the guard was there.
    began: u64,
    /// When it was last relied on: before the release was sent, or the last time it was valid.
    ended: u64,
    who: usize,
    key: usize,
    token: u64,
    /// When it was asked for.
    asked: u64,
}

/// The history of a case; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    zero: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    keys: HashMap<LockKey, usize>,
    holders: HashMap<HolderId, usize>,
    clients: usize,
    last: u64,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let log = Log { seed, ..Log::default() };
        let state = State { log, ..State::default() };
        Self { zero: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// How late a lease may be seen to end, and whether it is one of several stores.
    pub(crate) fn allow(&self, lag: Duration, slack: Duration, combined: bool) {
        let log = &mut self.state().log;
        (log.lag, log.slack, log.combined) = (micros(lag), micros(slack), combined);
    }

    /// Something is being done to the server, until the answer is told to have come.
    pub(crate) fn fault(&self, what: impl Into<String>) -> usize {
        let mut state = self.state();
        let event = Event::Fault { began: self.now(&mut state), done: None, what: what.into() };
        state.push(event)
    }

    pub(crate) fn fault_done(&self, fault: usize) {
        let mut state = self.state();
        let now = self.now(&mut state);
        if let Some(Event::Fault { done, .. }) = state.log.events.get_mut(fault) {
            *done = Some(now);
        }
    }

    /// Somebody relied on a lock: `asked` for it, had it from `began` on, and believed in it until
    /// `ended`.
    pub(crate) fn relied(
        &self,
        who: usize,
        key: &LockKey,
        token: u64,
        [asked, began, ended]: [Instant; 3],
    ) {
        let at = |instant: Instant| micros(instant.saturating_duration_since(self.zero));
        let (asked, began, ended) = (at(asked), at(began), at(ended));
        let mut state = self.state();
        let key = state.key(key);
        state.push(Event::Relied(Relied { began, ended, who, key, token, asked }));
    }

    /// How often somebody relied on a lock.
    pub(crate) fn stretches(&self) -> usize {
        let state = self.state();
        state.log.events.iter().filter(|event| matches!(event, Event::Relied(_))).count()
    }

    /// Fails unless all that was answered can have been so. See [`check_history`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.state().log.check()
    }

    /// The last of it as text, for a failure that the checker has not found.
    pub(crate) fn tail(&self, lines: usize) -> String {
        self.state().log.tail(lines)
    }

    fn begin(&self, client: usize, verb: Verb, claim: &Claim) -> usize {
        let mut state = self.state();
        let invoked = self.now(&mut state);
        let (key, holder) = (state.key(&claim.key), state.holder(claim.holder));
        let call = Call {
            invoked,
            answered: None,
            client,
            verb,
            key,
            holder,
            ttl: micros(claim.ttl),
            floor: claim.min_token,
            wait: claim.wait.map_or(0, micros),
            answer: Answer::Open,
        };
        state.push(Event::Call(call))
    }

    fn end(&self, call: usize, answer: Answer) {
        let mut state = self.state();
        let now = self.now(&mut state);
        if let Some(Event::Call(call)) = state.log.events.get_mut(call) {
            (call.answered, call.answer) = (Some(now), answer);
        }
    }

    fn client(&self) -> usize {
        let mut state = self.state();
        state.clients += 1;
        state.clients - 1
    }

    /// What happens later has a later time, even while a paused clock stands still.
    fn now(&self, state: &mut State) -> u64 {
        state.last = micros(self.zero.elapsed()).max(state.last + 1);
        state.last
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: Event) -> usize {
        self.log.events.push(event);
        self.log.events.len() - 1
    }

    fn key(&mut self, key: &LockKey) -> usize {
        let next = self.keys.len();
        *self.keys.entry(key.clone()).or_insert(next)
    }

    fn holder(&mut self, holder: HolderId) -> usize {
        let next = self.holders.len();
        *self.holders.entry(holder).or_insert(next)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Answer {
    fn error(error: &BackendError) -> Self {
        match error {
            BackendError::Unavailable(_) => Self::Unavailable,
            BackendError::Rejected(_) | BackendError::InvalidInput(_) => Self::Refused,
            // Any doubt is ambiguous.
            _ => Self::Ambiguous,
        }
    }

    fn acquire(answer: &Result<Acquire, BackendError>) -> Self {
        match answer {
            Ok(Acquire::Acquired(lease)) => {
                Self::Granted { token: lease.token, ttl: micros(lease.ttl) }
            }
            Ok(Acquire::Contended(_)) => Self::Contended,
            Err(error) => Self::error(error),
        }
    }

    fn renew(answer: &Result<Renew, BackendError>) -> Self {
        match answer {
            Ok(Renew::Renewed(lease)) => {
                Self::Granted { token: lease.token, ttl: micros(lease.ttl) }
            }
            Ok(Renew::NotHeld) => Self::NotHeld,
            Err(error) => Self::error(error),
        }
    }

    fn release(answer: &Result<Release, BackendError>) -> Self {
        match answer {
            Ok(Release::Released { token }) => Self::Released { token: Some(*token) },
            Ok(Release::NotHeld) => Self::NotHeld,
            Err(error) => Self::error(error),
        }
    }

    /// What a hand-over did to the lease of the one holder.
    fn hand_over(answer: &Result<HandOver, BackendError>) -> Self {
        match answer {
            Ok(HandOver::Granted(_) | HandOver::Yielded(_)) => Self::Released { token: None },
            Ok(HandOver::NotHeld) => Self::NotHeld,
            Err(error) => Self::error(error),
        }
    }

    /// What the same hand-over gave to the other.
    fn take_over(answer: &Result<HandOver, BackendError>) -> Self {
        match answer {
            Ok(HandOver::Granted(lease)) => {
                Self::Granted { token: lease.token, ttl: micros(lease.ttl) }
            }
            Ok(HandOver::Yielded(_)) => Self::Contended,
            // Nothing happened.
            Ok(HandOver::NotHeld) => Self::Refused,
            Err(error) => Self::error(error),
        }
    }
}

/// Checks a history that a failed case has printed, from the line that begins with `history` on.
///
/// Nobody may have been granted a key, or have relied on it, while another surely had it; tokens
/// rise in real time and are given once; nobody is told that a key is taken while nobody can have
/// it; a release tells a token that its holder had; and a holder that was released has nothing
/// more. A call without an answer, or with an
/// ambiguous one, may have happened at any time since it began, or never. The line `fault` stands
/// for something that was done to the server, over which leases may be lost.
///
/// # Errors
///
/// What cannot have been, with the lines that contradict each other; or a line that is none.
pub fn check_history(text: &str) -> Result<(), Failure> {
    text.parse::<Log>()?.check()
}

#[cfg(test)]
mod tests;
