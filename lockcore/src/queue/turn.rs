//! The turn of a key: who has it talks to the store.

use std::sync::Arc;
use std::time::Duration;

use super::{Baton, Line, Queue, find};
use crate::clock::Moment;
use crate::key::LockKey;
use crate::seams;

/// The right to talk to the store about a key. Dropping it lets the next task in.
#[derive(Debug)]
pub(crate) struct Turn {
    queue: Arc<Queue>,
    key: LockKey,
    hash: u64,
    number: u64,
    /// Boxed: it is large, and most turns have none.
    baton: Option<Box<Baton>>,
    is_over: bool,
}

impl Turn {
    pub(super) fn new(
        queue: &Arc<Queue>,
        hash: u64,
        key: &LockKey,
        number: u64,
        baton: Option<Box<Baton>>,
    ) -> Self {
        Self { queue: queue.clone(), key: key.clone(), hash, number, baton, is_over: false }
    }

    /// What comes back with a turn that nobody took.
    pub(super) fn into_baton(mut self) -> Option<Box<Baton>> {
        self.is_over = true;
        self.baton.take()
    }

    /// What came with the turn.
    pub(crate) fn take_baton(&mut self) -> Option<Baton> {
        self.baton.take().map(|baton| *baton)
    }

    /// Ends the turn. What the process has of the key goes with it to the next task, or comes back
    /// if there is none.
    #[must_use = "what comes back has to be released"]
    pub(crate) fn pass(mut self, baton: Baton) -> Option<Baton> {
        self.give(Some(Box::new(baton))).map(|left| *left)
    }

    fn give(&mut self, baton: Option<Box<Baton>>) -> Option<Box<Baton>> {
        self.is_over = true;
        let mut lines = self.queue.lines();
        match find(&mut lines, self.hash, &self.key) {
            Some(line) if line.turn == Some(self.number) => {
                self.queue.next(&mut lines, self.hash, &self.key, baton)
            }
            // Others have taken the turn over.
            _ => baton,
        }
    }

    /// The turn is about to be given back. Whether another task of the process waits for it.
    pub(crate) fn ends(&self) -> bool {
        self.with(|line| {
            line.ending = true;
            line.is_wanted()
        })
        .unwrap_or(false)
    }

    /// The task that has the turn runs, and keeps it until this moment at least; `false` if others
    /// have taken it over.
    pub(crate) fn goes_on(&self, until: Moment) -> bool {
        let is_mine = self.with(|line| line.until = line.until.max(Some(until))).is_some();
        is_mine || seams::flawed!(QueueIgnored)
    }

    /// Others may take the turn at this moment, if it was not given back until then.
    pub(crate) fn lasts_until(&self, until: Moment) {
        self.with(|line| line.until = Some(until));
    }

    /// The key is held until the deadline. `from_store`: when the process got it from the store,
    /// and not from a task of its own.
    pub(crate) fn holds(&self, deadline: Moment, from_store: Option<Moment>) {
        self.with(|line| {
            line.until = Some(deadline);
            if let Some(at) = from_store {
                line.burst.begins(at);
            }
        });
    }

    /// Whether the process has passed the key on to itself for long enough.
    pub(crate) fn burst_is_over(&self) -> bool {
        let now = Moment::now();
        self.with(|line| line.burst.is_over(now)).unwrap_or(false)
    }

    /// On a store without lines: how long to let others in first, if it is time to.
    pub(crate) fn give_way(&mut self) -> Option<Duration> {
        let now = Moment::now();
        self.with(|line| line.burst.give_way(now, line.is_wanted())).flatten()
    }

    /// On a store without lines: it answered after `round_trip`; `contended`: someone else has
    /// the key.
    pub(crate) fn answered(&mut self, round_trip: Duration, contended: bool) {
        self.with(|line| line.burst.answered(round_trip, contended));
    }

    /// The line, unless others have taken the turn over.
    fn with<T>(&self, look: impl FnOnce(&mut Line) -> T) -> Option<T> {
        let mut lines = self.queue.lines();
        find(&mut lines, self.hash, &self.key)
            .filter(|line| line.turn == Some(self.number))
            .map(look)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let baton = self.baton.take();
        let left = self.give(baton);
        if let Some(left) = left
            && !seams::flawed!(OrphanKept)
        {
            (self.queue.orphan)(*left);
        }
    }
}
