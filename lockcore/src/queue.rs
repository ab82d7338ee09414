//! The queue of a process: per key, only its head talks to the store.
//!
//! A thousand tasks that want one key would otherwise be a thousand clients of the store. The
//! queue is first come, first served, and a task that stops waiting leaves no trace.
//!
//! The head has the turn. With the turn goes what the process has of the key: a place in the
//! store's line, or a lease that was handed over. A turn lasts no longer than its holder's lease:
//! where a runtime does not run the task that should give it back, others take it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use tokio::sync::oneshot;

use crate::clock::Moment;
use crate::key::LockKey;
use crate::seams;

mod baton;
mod burst;
mod turn;

pub(crate) use baton::Baton;
use burst::Burst;
pub(crate) use turn::Turn;

/// A map with so many keys forgets those of which the process has nothing any more.
const SWEEP_AT: usize = 64;

/// How long a task in the queue sleeps at most before it looks around.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How long a task waits that comes to an overdue turn: longer than a request takes by default.
const SECOND_CHANCE: Duration = Duration::from_secs(3);

/// Takes what nobody in the queue is left to take.
pub(crate) type Orphan = Box<dyn Fn(Baton) + Send + Sync>;

#[repr(align(128))]
pub(crate) struct Queue {
    lines: Mutex<Lines>,
    hasher: DefaultHashBuilder,
    next_turn: AtomicU64,
    /// Whether bursts are remembered while nobody has the turn: on a store without lines.
    remembers: bool,
    /// How long a task may keep the turn that has not asked the store yet.
    grace: Duration,
    orphan: Orphan,
}

/// Lines by key. The hash of a key is computed once for each turn.
type Lines = HashTable<(LockKey, Line)>;

/// The tasks of the process that want one key.
struct Line {
    /// The number of the turn, if somebody has it.
    turn: Option<u64>,
    /// When others may take the turn, if it was not given back.
    until: Option<Moment>,
    /// The turn is about to be given back.
    ending: bool,
    waiting: VecDeque<oneshot::Sender<Turn>>,
    burst: Burst,
}

impl Line {
    fn new(turn: u64) -> Self {
        let (waiting, burst) = (VecDeque::new(), Burst::default());
        Self { turn: Some(turn), until: None, ending: false, waiting, burst }
    }

    /// Whether a task waits.
    fn is_wanted(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_closed())
    }
}

impl Queue {
    /// An empty queue of a store that has lines or has none; `orphan` takes what the last task of
    /// a key leaves. A task that was given the turn has to run within `grace`.
    pub(crate) fn new(has_line: bool, grace: Duration, orphan: Orphan) -> Self {
        Self {
            lines: Mutex::default(),
            hasher: DefaultHashBuilder::default(),
            next_turn: AtomicU64::new(0),
            remembers: !has_line,
            grace,
            orphan,
        }
    }

    /// Takes the turn if nobody has it or waits for it.
    pub(crate) fn try_enter(self: &Arc<Self>, key: &LockKey) -> Option<Turn> {
        let hash = self.hash(key);
        let mut lines = self.lines();
        let number = self.next_turn.fetch_add(1, Ordering::Relaxed);
        if seams::flawed!(QueueIgnored) {
            return Some(Turn::new(self, hash, key, number, None));
        }
        match find(&mut lines, hash, key) {
            Some(line) if line.turn.is_some() => return None,
            Some(line) => line.turn = Some(number),
            None => {
                if lines.len() >= SWEEP_AT {
                    let now = Moment::now();
                    lines.retain(|(_, line)| line.turn.is_some() || line.burst.is_recent(now));
                }
                let entry = (key.clone(), Line::new(number));
                lines.insert_unique(hash, entry, |(key, _)| self.hasher.hash_one(key));
            }
        }
        Some(Turn::new(self, hash, key, number, None))
    }

    /// Whether the turn is about to be given back: its holder's release is on its way.
    pub(crate) fn is_ending(&self, key: &LockKey) -> bool {
        let hash = self.hash(key);
        find(&mut self.lines(), hash, key).is_some_and(|line| line.ending && !line.is_wanted())
    }

    /// Waits for the turn, and asks `give_up` now and then whether to stop waiting.
    ///
    /// Cancel safe: dropped, it leaves the queue.
    pub(crate) async fn enter<E>(
        self: &Arc<Self>,
        key: &LockKey,
        give_up: impl Fn() -> Option<E>,
    ) -> Result<Turn, E> {
        let mut turn = match self.join(key) {
            Ok(turn) => return Ok(turn),
            Err(turn) => turn,
        };
        let first_look = Moment::now().after(SECOND_CHANCE.min(self.grace));
        loop {
            let (hash, now) = (self.hash(key), Moment::now());
            // A turn without an end gets one when somebody waits for it.
            let until = find(&mut self.lines(), hash, key)
                .map(|line| *line.until.get_or_insert_with(|| now.after(self.grace)));
            let until = until.filter(|_| !seams::flawed!(TurnHasNoEnd));
            let look_around = now.after(LOOK_AROUND);
            // Who comes to a turn that is overdue waits too: the task that has it may have been
            // stopped, and run again now.
            let next = until.map_or(look_around, |until| until.max(first_look).min(look_around));
            tokio::select! {
                biased;
                turn = &mut turn => match turn {
                    Ok(turn) => return Ok(turn),
                    // The line has gone with its sender, which does not happen while it waits.
                    Err(_) => return match self.join(key) {
                        Ok(turn) => Ok(turn),
                        Err(again) => match again.await {
                            Ok(turn) => Ok(turn),
                            Err(_) => std::future::pending().await,
                        },
                    },
                },
                () = next.sleep_until() => {
                    if let Some(error) = give_up() {
                        return Err(error);
                    }
                    // A task that is late itself was stopped together with the one that has the
                    // turn, which runs again now.
                    if next.after(LOOK_AROUND).has_come() {
                        self.prolong(key);
                    } else if first_look.has_come() {
                        self.take_over(key);
                    }
                }
            }
        }
    }

    fn join(self: &Arc<Self>, key: &LockKey) -> Result<Turn, oneshot::Receiver<Turn>> {
        // Between the two looks the line may have gone.
        loop {
            if let Some(turn) = self.try_enter(key) {
                return Ok(turn);
            }
            let hash = self.hash(key);
            if let Some(line) = find(&mut self.lines(), hash, key) {
                let (sender, receiver) = oneshot::channel();
                line.waiting.push_back(sender);
                return Err(receiver);
            }
        }
    }

    /// Leaves the turn to the task that has it for as long as to one that was just given it.
    fn prolong(&self, key: &LockKey) {
        let (hash, until) = (self.hash(key), Moment::now().after(self.grace));
        if let Some(line) = find(&mut self.lines(), hash, key) {
            line.until = line.until.max(Some(until));
        }
    }

    /// Gives the turn to the next if its time is over: the task that has it does not run.
    fn take_over(self: &Arc<Self>, key: &LockKey) {
        let hash = self.hash(key);
        let mut lines = self.lines();
        let Some(line) = find(&mut lines, hash, key) else { return };
        if line.until.is_some_and(Moment::has_come) && !seams::flawed!(TurnHasNoEnd) {
            seams::reached("a turn was taken over");
            let next = self.next(&mut lines, hash, key, None);
            drop(lines);
            drop(next);
        }
    }

    /// Gives the turn to the next in the queue. What is answered must be dropped outside the lock:
    /// a turn that nobody took, with what goes with it.
    fn next(
        self: &Arc<Self>,
        lines: &mut Lines,
        hash: u64,
        key: &LockKey,
        baton: Option<Box<Baton>>,
    ) -> Option<Box<Baton>> {
        let Ok(mut entry) = lines.find_entry(hash, |(other, _)| other == key) else { return baton };
        let (_, line) = entry.get_mut();
        let number = self.next_turn.fetch_add(1, Ordering::Relaxed);
        (line.turn, line.until, line.ending) = (Some(number), None, false);
        if self.remembers {
            line.burst.turn_ended();
        }
        if !self.remembers && line.waiting.is_empty() {
            entry.remove();
            return baton;
        }
        let mut turn = Turn::new(self, hash, key, number, baton);
        while let Some(waiting) = line.waiting.pop_front() {
            match waiting.send(turn) {
                Ok(()) => return None,
                Err(back) => turn = back,
            }
        }
        line.turn = None;
        if !self.remembers {
            entry.remove();
        }
        turn.into_baton()
    }

    fn hash(&self, key: &LockKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(lines: &'a mut Lines, hash: u64, key: &LockKey) -> Option<&'a mut Line> {
    lines.find_mut(hash, |(other, _)| other == key).map(|(_, line)| line)
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
