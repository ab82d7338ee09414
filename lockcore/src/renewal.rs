//! The renewals of all locks of a manager: one task renews what is due, in batches.
//!
//! Nothing but the renewal itself depends on this task's running in time: see
//! [`Belief::lost`](crate::held::Belief::lost).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::backoff::between;
use crate::claim::{Claim, Renew};
use crate::clock::Moment;
use crate::error::BackendError;
use crate::health::Purpose;
use crate::held::{Belief, Held, LostReason, Place};
use crate::seams;
use crate::settings::Settings;
use crate::store::Store;

/// Leases renewed by one request at most. A backend may split it.
const BATCH: usize = 500;

/// Requests under way at once.
const BATCHES: usize = 8;

/// For how long the task stays where nothing is held.
const LINGERS: Duration = Duration::from_millis(100);

/// A task that is so much later than it wanted to be is on a runtime that nobody runs.
const OVERDUE: Duration = Duration::from_secs(1);

/// The locks that are held, by when they are to be renewed.
#[derive(Debug)]
pub(crate) struct Renewals {
    store: Arc<Store>,
    /// Locks that the task has not looked at yet, by the part of their keys. It looks before any
    /// of them is due, and most are released before that. Locked after `due`.
    new: Vec<New>,
    due: Mutex<Due>,
    /// Until when there is a task that runs, in milliseconds since `began`: what `due` says, to be
    /// read without its lock.
    served: AtomicU64,
    began: Moment,
    /// Wakes the task for what is due earlier than it expects.
    earlier: Notify,
    room: Arc<Semaphore>,
}

/// The new locks of a part of the keys, in lines of the processor's cache that no other part
/// shares.
#[derive(Debug, Default)]
#[repr(align(128))]
struct New(Mutex<Vec<Arc<Held>>>);

impl New {
    fn locks(&self) -> MutexGuard<'_, Vec<Arc<Held>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Due {
    by_time: BTreeMap<(Moment, u64), Arc<Held>>,
    /// Tells apart what is due at the same moment.
    next: u64,
    /// When the task looks again; `None` if there is no task.
    task_looks: Option<Moment>,
    /// Since when the task has found nothing that is held.
    idle_since: Option<Moment>,
    /// The task that counts. One that was overdue is followed by another, and ends when it runs.
    task: u64,
}

impl Renewals {
    /// The renewals of the locks of so many parts of the keys.
    pub(crate) fn new(store: Arc<Store>, parts: usize) -> Self {
        Self {
            store,
            new: std::iter::repeat_with(New::default).take(parts).collect(),
            due: Mutex::default(),
            served: AtomicU64::new(0),
            began: Moment::now(),
            earlier: Notify::new(),
            room: Arc::new(Semaphore::new(BATCHES)),
        }
    }

    /// Renews a lease of this part of the keys from now on, until it is forgotten or lost.
    pub(crate) fn keep(self: &Arc<Self>, held: &Arc<Held>, part: usize, runtime: &Handle) {
        let settings = &self.store.settings;
        let task = if settings.max_hold.is_some() || settings.renew_every.is_none() {
            self.insert(held, next_look(settings, held.granted, &held.belief()))
        } else {
            self.add(held, part)
        };
        if let Some(task) = task {
            let renewals = self.clone();
            seams::spawn(runtime, async move { renewals.run(task).await });
        }
    }

    /// Adds a new lock. The number of a task to start, if one is needed.
    fn add(&self, held: &Arc<Held>, part: usize) -> Option<u64> {
        let mut new = self.new.get(part)?.locks();
        held.is_at(Place::New(new.len()));
        new.push(held.clone());
        drop(new);
        // Read after the lock is there: a task that has not seen it says before that it ends.
        if self.millis(held.granted) < self.served.load(Ordering::SeqCst) {
            return None;
        }
        let mut due = self.due();
        let task = due.wants_task(held.granted);
        self.tell(&due);
        task
    }

    /// Notes until when there is a task.
    fn tell(&self, due: &Due) {
        let until = due.task_looks.map_or(0, |looks| self.millis(looks.after(OVERDUE)));
        self.served.store(until, Ordering::SeqCst);
    }

    fn millis(&self, at: Moment) -> u64 {
        u64::try_from(at.since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the renewal of a lease. A request that is under way is not waited for: for a lease
    /// that was released it changes nothing (L4).
    pub(crate) fn forget(&self, held: &Held, part: usize) {
        let Some(new) = self.new.get(part) else { return };
        // Under this lock: a place among the new ones moves.
        let mut new = new.locks();
        match held.take_place() {
            Some(Place::Due(at, number)) => {
                drop(new);
                self.due().by_time.remove(&(at, number));
            }
            Some(Place::New(index)) => {
                new.swap_remove(index);
                if let Some(moved) = new.get(index) {
                    moved.is_at(Place::New(index));
                }
            }
            None => {}
        }
    }

    /// Puts the new locks where they are due.
    fn sort(&self, due: &mut Due) {
        if seams::flawed!(NewLocksOverlooked) {
            return;
        }
        let settings = &self.store.settings;
        for new in &self.new {
            for held in new.locks().drain(..) {
                due.put(&held, next_look(settings, held.granted, &held.belief()));
            }
        }
    }

    /// Puts a lock where it is due. The number of a task to start, if one is needed.
    fn insert(&self, held: &Arc<Held>, at: Moment) -> Option<u64> {
        self.insert_all([(held, at)])
    }

    /// Puts locks where they are due. The number of a task to start, if one is needed.
    fn insert_all<'a>(
        &self,
        locks: impl IntoIterator<Item = (&'a Arc<Held>, Moment)>,
    ) -> Option<u64> {
        let mut due = self.due();
        let mut first = None;
        for (held, at) in locks {
            if due.put(held, at) {
                first = Some(first.map_or(at, |first: Moment| first.min(at)));
            }
        }
        let first = first?;
        if due.task_looks.is_some_and(|looks| first < looks) {
            due.task_looks = Some(first);
            self.earlier.notify_one();
        }
        let task = due.wants_task(Moment::now());
        self.tell(&due);
        task
    }

    /// Renews what is due, until nothing is held.
    async fn run(self: Arc<Self>, task: u64) {
        let _ended = Ended { renewals: &self, task };
        loop {
            let next = match self.take(task) {
                Next::Renew(batch) => {
                    let room = self.room.clone().acquire_owned().await;
                    let renewals = self.clone();
                    seams::spawn_here(async move {
                        renewals.renew(batch).await;
                        drop(room);
                    });
                    continue;
                }
                Next::Look(at) => at,
                Next::End => return,
            };
            tokio::select! {
                biased;
                () = self.earlier.notified() => {}
                () = next.sleep_until() => {}
            }
        }
    }

    /// What the task does next.
    fn take(&self, task: u64) -> Next {
        let settings = &self.store.settings;
        let now = Moment::now();
        let mut due = self.due();
        if due.task != task {
            return Next::End;
        }
        self.sort(&mut due);
        // What is held from now on is due no earlier than this, so that nobody need wake the task.
        let idle = now.after(shortest(settings).mul_f64(0.8));
        if due.by_time.is_empty() {
            // Where locks are taken and released all the time, there is no task for each of them.
            let ends = due.idle_since.get_or_insert(now).after(LINGERS);
            if now < ends {
                let looks = ends.min(idle);
                due.task_looks = Some(looks);
                self.tell(&due);
                return Next::Look(looks);
            }
            due.task_looks = None;
            self.tell(&due);
            // What came before it was told is this task's still.
            self.sort(&mut due);
        }
        let Some((&(first, _), _)) = due.by_time.first_key_value() else { return Next::End };
        due.idle_since = None;
        // In an outage one lease is renewed for all of them, when it is time to try again.
        let wait = if first <= now {
            self.store.health.may_try(Purpose::Lease).err()
        } else {
            Some(first)
        };
        if let Some(wait) = wait {
            let lost = due.by_time.values().take(BATCH).map(|held| held.belief().deadline).min();
            let looks = wait.min(idle).min(lost.unwrap_or(idle).max(now.after(TICK)));
            due.task_looks = Some(looks);
            self.tell(&due);
            if first <= now {
                drop_lost(&mut due, now);
            }
            return Next::Look(looks);
        }
        let size = if self.store.health.is_failing() { 1 } else { BATCH };
        // A little early, so that leases which are due one after the other share a request.
        let until = now.after(shortest(settings) / 16);
        let mut batch = Vec::new();
        while batch.len() < size
            && let Some(entry) = due.by_time.first_entry()
            && entry.key().0 <= until
        {
            batch.push(entry.remove());
        }
        due.task_looks = Some(now);
        self.tell(&due);
        Next::Renew(batch)
    }

    async fn renew(self: Arc<Self>, batch: Vec<Arc<Held>>) {
        let settings = &self.store.settings;
        let started = Moment::now();
        let mut wanted = Vec::with_capacity(batch.len());
        for held in batch {
            let _ = held.take_place();
            let belief = held.belief();
            let was_released = belief.lost == Some(LostReason::Released);
            match belief.lost() {
                Some(_) if was_released && seams::flawed!(RenewalAfterRelease) => {
                    wanted.push((held, belief));
                }
                Some(reason) => held.lose(reason),
                None if renews(settings, &belief) => {
                    held.renews(started);
                    wanted.push((held, belief));
                }
                None => self.look_again(self.next(&held, started)),
            }
        }
        let max_token = self.store.limits.max_token;
        let claims: Vec<Claim> = wanted
            .iter()
            // A backend made of several stores repairs one that has missed the token. A token may
            // be larger than a claim may demand: then the most that is allowed is asked for.
            .map(|(held, belief)| held.claim.clone().with_min_token(belief.token.min(max_token)))
            .collect();
        if claims.is_empty() {
            return;
        }
        let mut answers = self.store.renew_many(&claims).await;
        if seams::flawed!(AnswersSwapped) {
            answers.reverse();
        }
        if seams::flawed!(NotHeldForAll)
            && answers.iter().any(|answer| matches!(answer, Ok(Renew::NotHeld)))
        {
            answers.fill_with(|| Ok(Renew::NotHeld));
        }
        let mut again = Vec::with_capacity(wanted.len());
        for (at, (held, _)) in wanted.iter().enumerate() {
            match answers.get(at) {
                Some(Ok(Renew::Renewed(lease))) => {
                    held.renewed(started, *lease);
                    again.extend(self.next(held, started));
                }
                Some(Ok(Renew::NotHeld)) if seams::flawed!(NotHeldIgnored) => {
                    again.extend(self.next(held, started));
                }
                Some(Ok(Renew::NotHeld)) => held.lose(LostReason::NotHeld),
                failed => {
                    let error = failed.and_then(|answer| answer.as_ref().err());
                    again.extend(self.retry(held, error));
                }
            }
        }
        self.look_again(again);
    }

    /// The next renewal of a lease, or its deadline, unless it is lost.
    fn next<'a>(&self, held: &'a Arc<Held>, started: Moment) -> Option<(&'a Arc<Held>, Moment)> {
        let belief = standing(held)?;
        Some((held, next_look(&self.store.settings, started, &belief)))
    }

    /// The next renewal of a lease whose last one failed.
    fn retry<'a>(
        &self,
        held: &'a Arc<Held>,
        error: Option<&BackendError>,
    ) -> Option<(&'a Arc<Held>, Moment)> {
        if let Some(error) = error {
            tracing::debug!(
                lock.key = %held.claim.key, lock.holder = %held.claim.holder, %error,
                "a renewal failed; the next one follows while the lease is good"
            );
        }
        let ttl = held.claim.ttl;
        let next = Moment::now().after(between(ttl / 40, ttl / 20));
        Some((held, next.min(standing(held)?.deadline)))
    }

    fn look_again<'a>(self: &Arc<Self>, locks: impl IntoIterator<Item = (&'a Arc<Held>, Moment)>) {
        if let Some(task) = self.insert_all(locks) {
            let renewals = self.clone();
            seams::spawn_here(async move { renewals.run(task).await });
        }
    }

    fn due(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    /// Puts a lock where it is due; `false` if it needs no renewal any more.
    fn put(&mut self, held: &Arc<Held>, at: Moment) -> bool {
        let number = self.next;
        self.next += 1;
        let wanted = held.is_at(Place::Due(at, number));
        if wanted {
            self.by_time.insert((at, number), held.clone());
        }
        wanted
    }

    /// The number of a task to start: where there is none, or it does not run.
    fn wants_task(&mut self, now: Moment) -> Option<u64> {
        if self.task_looks.is_some_and(|looks| now <= looks.after(OVERDUE)) {
            return None;
        }
        (self.task_looks, self.idle_since) = (Some(now), None);
        self.task += 1;
        Some(self.task)
    }
}

enum Next {
    Renew(Vec<Arc<Held>>),
    Look(Moment),
    End,
}

/// The shortest pause between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);

/// Leaves no sign of a task that has ended, even with its runtime: the next lock starts another.
struct Ended<'a> {
    renewals: &'a Renewals,
    task: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut due = self.renewals.due();
        if due.task == self.task {
            due.task_looks = None;
            self.renewals.tell(&due);
        }
    }
}

/// What is believed of a lock. One that is lost says so, and is looked at no more.
fn standing(held: &Held) -> Option<Belief> {
    let belief = held.belief();
    match belief.lost() {
        Some(reason) => {
            held.lose(reason);
            None
        }
        None => Some(belief),
    }
}

/// Tells those whose deadline has passed.
fn drop_lost(due: &mut Due, now: Moment) {
    let lost: Vec<_> = due
        .by_time
        .iter()
        .take_while(|((at, _), _)| *at <= now)
        .filter(|(_, held)| held.belief().lost().is_some())
        .map(|(place, _)| *place)
        .collect();
    for place in lost {
        if let Some(held) = due.by_time.remove(&place)
            && let Some(reason) = held.belief().lost()
        {
            held.lose(reason);
        }
    }
}

fn renews(settings: &Settings, belief: &Belief) -> bool {
    settings.renew_every.is_some() && belief.hold_end.is_none_or(|end| belief.deadline < end)
}

/// When a lease is looked at next: at its renewal, counted from the start of the last one, and a
/// little earlier by chance, so that locks taken together are not renewed together; or at its
/// deadline.
fn next_look(settings: &Settings, started: Moment, belief: &Belief) -> Moment {
    match settings.renew_every {
        Some(every) if renews(settings, belief) => {
            started.after(between(every.mul_f64(0.9), every)).min(belief.deadline)
        }
        _ => belief.deadline,
    }
}

/// The least time between the grant of a lease and its first renewal.
fn shortest(settings: &Settings) -> Duration {
    settings.renew_every.unwrap_or(settings.ttl)
}
