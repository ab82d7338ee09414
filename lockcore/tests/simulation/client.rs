//! What the tasks of a client do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::simulation::Process;
use lockcore::{LockGuard, LockManager};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::operations::{Acquiring, Called};
use crate::plan::KEYS;
use crate::sometimes::Sometimes;
use crate::state::Kind;
use crate::world::World;

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    pub(crate) number: usize,
    pub(crate) process: Process,
    /// Its tasks run on the runtime that does not stall.
    pub(crate) main: bool,
    pub(crate) locks: LockManager,
    /// Lost guards that nobody drops before the end.
    pub(crate) kept: Arc<Mutex<Vec<Arc<LockGuard>>>>,
}

/// A random duration, in milliseconds.
pub(crate) fn millis(random: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(random.u64(from..to))
}

impl Client {
    /// Acquires and lets go, with pauses of up to `most` milliseconds, until the run ends.
    pub(crate) async fn work(self, most: u64, mut random: fastrand::Rng) {
        while !self.world.is_ending() {
            let pause = millis(&mut random, 0, most);
            self.world.nap(pause).await;
            let key = random.usize(..KEYS.len());
            let kind = match random.u8(..20) {
                0..8 => Kind::Wait,
                8..12 => Kind::For(millis(&mut random, 1, 8_000)),
                12 => Kind::For(Duration::ZERO),
                13..17 => Kind::Try,
                _ => Kind::Dropped(millis(&mut random, 0, 3_000)),
            };
            if let Some(guard) = self.acquire(key, kind).await {
                let more = self.more(key, &mut random).await;
                self.hold(&guard, &mut random).await;
                for guard in more {
                    self.part(guard, &mut random).await;
                }
                self.part(guard, &mut random).await;
            }
        }
        // The network is well now: what this leaves behind must be undone.
        let key = random.usize(..KEYS.len());
        if let Some(guard) = self.acquire(key, Kind::Dropped(millis(&mut random, 0, 60))).await {
            self.release(guard).await;
        }
    }

    /// Every other time: the other keys too, as far as they are free.
    async fn more(&self, key: usize, random: &mut fastrand::Rng) -> Vec<Arc<LockGuard>> {
        let mut more = Vec::new();
        if random.bool() {
            for other in (0..KEYS.len()).filter(|other| *other != key) {
                more.extend(self.acquire(other, Kind::Try).await);
            }
        }
        more
    }

    pub(crate) async fn acquire(&self, key: usize, kind: Kind) -> Option<Arc<LockGuard>> {
        let lock = self.locks.lock(KEYS[key]).expect("a valid key");
        let acquiring = Acquiring::begin(&self.world, self.number, key, kind, self.main);
        let outcome = match kind {
            Kind::Wait => lock.acquire().await.map(Some),
            Kind::For(limit) => lock.acquire_timeout(limit).await.map(Some),
            Kind::Try => lock.try_acquire().await,
            Kind::Dropped(after) => {
                tokio::select! {
                    biased;
                    outcome = lock.acquire() => outcome.map(Some),
                    () = sleep(after) => {
                        self.world.state().hit(Sometimes::DroppedAcquireWaiting);
                        return None;
                    }
                }
            }
        };
        acquiring.end(&outcome);
        let guard = Arc::new(outcome.ok()??);
        self.world.state().given(self.number, key, &guard);
        self.listen(&guard);
        Some(guard)
    }

    /// Waits for the loss in a task of its own.
    fn listen(&self, guard: &LockGuard) -> oneshot::Receiver<()> {
        let (world, lost, holder) = (self.world.clone(), guard.lost(), guard.holder());
        let (heard, hears) = oneshot::channel();
        tokio::spawn(self.process.wrap(async move {
            let reason = lost.await;
            world.state().told(holder, reason);
            let _ = heard.send(());
        }));
        hears
    }

    async fn hold(&self, guard: &LockGuard, random: &mut fastrand::Rng) {
        let length = match random.u8(..10) {
            0..6 => millis(random, 0, 4_000),
            6..9 => millis(random, 4_000, 20_000),
            _ => millis(random, 20_000, 60_000),
        };
        match random.u8(..3) {
            0 => self.world.nap(length).await,
            1 => {
                tokio::select! {
                    biased;
                    _ = self.listen(guard) => {}
                    () = self.world.nap(length) => {}
                }
            }
            _ => {
                let done = guard.run(self.world.nap(length)).await;
                self.world.state().hit(match done {
                    Ok(()) => Sometimes::RunFinished,
                    Err(_) => Sometimes::RunStopped,
                });
            }
        }
    }

    async fn part(&self, guard: Arc<LockGuard>, random: &mut fastrand::Rng) {
        self.world.state().parts(guard.holder());
        if self.world.is_ending() && !guard.is_valid() {
            // The next in line must not need this.
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
            return;
        }
        match random.u8(..20) {
            0..10 => self.release(guard).await,
            10..13 => {
                let patience = millis(random, 0, 2_000);
                tokio::select! {
                    biased;
                    () = self.release(guard) => {}
                    () = sleep(patience) => {
                        self.world.state().hit(Sometimes::ReleaseDropped);
                    }
                }
            }
            _ => drop(guard),
        }
    }

    pub(crate) async fn release(&self, guard: Arc<LockGuard>) {
        let (id, now, valid) = (guard.holder(), Instant::now(), guard.is_valid());
        let stood = self.world.state().clients[self.number].runtime(self.main).stood_for(now);
        let Some(guard) = Arc::into_inner(guard) else { unreachable!("others look, and let go") };
        let outcome = guard.release().await;
        let called = Called { at: now, main: self.main, stood, valid };
        self.world.state().released(self.number, id, called, &outcome);
    }
}
