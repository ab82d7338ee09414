//! The queue of a process: per key, only its head talks to the store.
//!
//! A thousand tasks that want one key would otherwise be a thousand clients of the store. The
//! queue is first come, first served, and a task that stops waiting leaves no trace.
//!
//! A hand-over inside a process is faster than any other process can react. So that those get
//! their turn, the head gives way for a moment after a burst of such hand-overs. The burst may
//! last longer each time nobody used the moment, and is short again as soon as the store answers
//! that someone else holds the key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::clock::Moment;
use crate::key::LockKey;

/// How long a burst lasts before the head gives way: at first, and at most.
const SHORT_BURST: Duration = Duration::from_millis(50);
const LONG_BURST: Duration = Duration::from_secs(1);

/// The shortest and the longest moment to give way for.
const SHORT_PAUSE: Duration = Duration::from_millis(2);
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// Sweep away the lines nobody is in when there are this many.
const SWEEP_AT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Queue {
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    by_key: HashMap<LockKey, Line>,
    sweep_at: usize,
}

type Line = Arc<tokio::sync::Mutex<Burst>>;

/// Hand-overs of a key inside this process, one right after the other.
#[derive(Debug)]
struct Burst {
    /// When it began and when its last turn ended.
    span: Option<(Moment, Moment)>,
    longest: Duration,
    round_trip: Duration,
}

impl Default for Burst {
    fn default() -> Self {
        Self { span: None, longest: SHORT_BURST, round_trip: Duration::ZERO }
    }
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { lines: Mutex::new(Lines { by_key: HashMap::new(), sweep_at: SWEEP_AT }) }
    }

    /// Waits for the turn of this caller. Cancel safe: dropped, it leaves the queue.
    pub(crate) async fn enter(&self, key: &LockKey) -> Turn {
        Turn { burst: self.line(key).lock_owned().await }
    }

    /// Takes the turn if nobody has it or waits for it.
    pub(crate) fn try_enter(&self, key: &LockKey) -> Option<Turn> {
        Some(Turn { burst: self.line(key).try_lock_owned().ok()? })
    }

    fn line(&self, key: &LockKey) -> Line {
        let lines = &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.by_key.get(key) {
            return line.clone();
        }
        if lines.by_key.len() >= lines.sweep_at {
            // Whoever is in a line holds it too; nobody can join while the map is locked.
            lines.by_key.retain(|_, line| Arc::strong_count(line) > 1);
            lines.sweep_at = (lines.by_key.len() * 2).max(SWEEP_AT);
        }
        lines.by_key.entry(key.clone()).or_default().clone()
    }
}

/// The right to talk to the store about a key. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn {
    burst: OwnedMutexGuard<Burst>,
}

impl Turn {
    /// How long to give way to other processes first, if it is time to.
    pub(crate) fn give_way(&mut self) -> Option<Duration> {
        let now = Moment::now();
        let pause = (self.burst.round_trip * 2).clamp(SHORT_PAUSE, LONG_PAUSE);
        match self.burst.span {
            // The key was free for long enough already.
            Some((_, left)) if now.since(left) >= pause => {}
            Some((began, _)) if now.since(began) >= self.burst.longest => {
                self.burst.span = None;
                self.burst.longest = (self.burst.longest * 2).min(LONG_BURST);
                return Some(pause);
            }
            Some(_) => return None,
            None => {}
        }
        self.burst.span = Some((now, now));
        None
    }

    /// The store answered after `round_trip`; `contended`: someone else has the key.
    pub(crate) fn answered(&mut self, round_trip: Duration, contended: bool) {
        self.burst.round_trip = round_trip;
        if contended {
            *self.burst = Burst { round_trip, ..Burst::default() };
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((_, left)) = &mut self.burst.span {
            *left = Moment::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> LockKey {
        LockKey::new(format!("k{n}")).expect("valid")
    }

    #[tokio::test]
    async fn turns_go_round_in_order() {
        let queue = Arc::new(Queue::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = queue.enter(&key(0)).await;
        let mut tasks = Vec::new();
        for n in 0..10 {
            let (queue, order) = (queue.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = queue.enter(&key(0)).await;
                order.lock().expect("unpoisoned").push(n);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        // Nobody jumps the queue.
        assert!(queue.try_enter(&key(0)).is_none());
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*order.lock().expect("unpoisoned"), (0..10).collect::<Vec<_>>());
        assert!(queue.try_enter(&key(0)).is_some());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_leaves_the_queue() {
        let queue = Arc::new(Queue::new());
        let turn = queue.enter(&key(0)).await;
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.enter(&key(0)).await }
        });
        tokio::task::yield_now().await;
        drop(turn);
        // Granted but never looked at, or still waiting: either way it must vanish.
        waiting.abort();
        drop(waiting.await);
        assert!(queue.try_enter(&key(0)).is_some());
    }

    #[tokio::test]
    async fn lines_nobody_is_in_are_swept_away() {
        let queue = Queue::new();
        let kept = queue.enter(&key(0)).await;
        for n in 1..=2 * SWEEP_AT {
            queue.enter(&key(n)).await;
        }
        let lines = queue.lines.lock().expect("unpoisoned").by_key.len();
        assert!(lines <= SWEEP_AT, "{lines}");
        assert!(queue.try_enter(&key(0)).is_none());
        drop(kept);
        assert!(queue.try_enter(&key(0)).is_some());
    }

    /// How long one burst of turns of a millisecond each lasts, and the pause after it.
    async fn burst(queue: &Queue) -> (u128, Duration) {
        let began = tokio::time::Instant::now();
        loop {
            let mut turn = queue.enter(&key(0)).await;
            if let Some(pause) = turn.give_way() {
                return (began.elapsed().as_millis(), pause);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_head_gives_way_rarely_to_nobody_and_often_to_somebody() {
        let queue = Queue::new();
        for length in [50, 100, 200, 400, 800, 1000, 1000] {
            assert_eq!(burst(&queue).await, (length, SHORT_PAUSE));
        }
        let mut turn = queue.enter(&key(0)).await;
        turn.answered(Duration::from_millis(30), true);
        drop(turn);
        assert_eq!(burst(&queue).await, (50, Duration::from_millis(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_free_for_a_while_needs_no_giving_way() {
        let queue = Queue::new();
        for _ in 0..100 {
            let mut turn = queue.enter(&key(0)).await;
            assert_eq!(turn.give_way(), None);
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(turn);
            tokio::time::sleep(SHORT_PAUSE).await;
        }
    }
}
