//! Seams for the simulation in `tests/simulation`. No part of the API.
//!
//! Nothing here acts on a thread that has not begun a [`Simulation`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A flaw that the core can be given, to see whether the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// A request to acquire may take for ever.
    AcquireUnbounded,
    /// An unknown outcome counts as if nothing had happened, so another holder asks next.
    AmbiguousIsUnavailable,
    /// The answers to a batch of renewals are taken in the wrong order.
    AnswersSwapped,
    /// A process passes the key on to itself for ever.
    BurstHasNoEnd,
    /// The deadline counts from the answer, not from the request.
    DeadlineFromAnswer,
    /// A request whose acquire was dropped is seen to its end and not released.
    DroppedAcquireNotUndone,
    /// Dropping a guard does not release it.
    DroppedGuardNotReleased,
    /// In an outage each task tries the store when it likes.
    EachTriesAtOnce,
    /// A guard hands over though its deadline has passed.
    HandsOverTooLate,
    /// A grant is handed out though its lease has ended meanwhile.
    LateGrantHandedOut,
    /// A renewal counts though it was answered after the deadline.
    LateRenewalCounts,
    /// A guard is valid until its task has marked the loss.
    LossByFlagAlone,
    /// `max_hold` does nothing.
    MaxHoldIgnored,
    /// A waiter without a signal sleeps on.
    NeverPolls,
    /// A new lock is never looked at by the task that renews.
    NewLocksOverlooked,
    /// The deadline has no margin for clock drift.
    NoDriftMargin,
    /// Nobody tries a store that has failed.
    NobodyTries,
    /// One lease of a batch has gone: all count as gone.
    NotHeldForAll,
    /// A renewal that is told that the lease has gone tries again.
    NotHeldIgnored,
    /// A release that is told that the lease has gone reports success.
    NotHeldIsReleased,
    /// What the last task of a process leaves of a key is not released.
    OrphanKept,
    /// After a hand-over of unknown outcome the new holder is released before the old one.
    OtherReleasedFirst,
    /// An answer does not end an outage.
    OutageHasNoEnd,
    /// Tasks in the queue are not told of an outage.
    OutageNotTold,
    /// A task whose turn was taken over asks on beside the one that took it.
    OvertakenGoesOn,
    /// A task that gives up does not pass its place on.
    PlaceDropped,
    /// Each task asks the store by itself.
    QueueIgnored,
    /// A release that fails is given up when `max_hold` is over.
    ReleaseEndsWithMaxHold,
    /// A release counts whatever lease it has ended.
    ReleaseIgnoresTheToken,
    /// The release of a dropped acquire does not wait for the request.
    ReleaseOvertakesAcquire,
    /// A lock that was released is renewed on.
    RenewalAfterRelease,
    /// A renewal may take for ever.
    RenewalUnbounded,
    /// Another holder asks though the last one may hold.
    RespawnWithoutRelease,
    /// `retry_for` does nothing.
    RetriesForEver,
    /// A signal counts as a grant.
    SignalBelieved,
    /// A holder asks again after a definite answer.
    SpentHolderAsksAgain,
    /// The time that the machine was suspended for is not counted.
    SuspendIgnored,
    /// `acquire_timeout` does not end.
    TimeLimitIgnored,
    /// A sleeper does not look whether the machine was suspended.
    TimersTrusted,
    /// A turn has no end: nobody takes it over.
    TurnHasNoEnd,
    /// A store that was not reached counts as one that said no.
    UnavailableIsContended,
    /// A hand-over that yields forgets its place in line.
    YieldedPlaceDropped,
}

thread_local! {
    static SIMULATED: Cell<bool> = const { Cell::new(false) };
    static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// While it lives, this thread is simulated: ids come from the thread's seeded generator, the
/// time spent suspended is that of the [`Process`] whose work runs, and the core has the flaw.
#[derive(Debug)]
#[must_use = "the simulation ends when it is dropped"]
pub struct Simulation {
    _this_thread: PhantomData<*const ()>,
}

impl Simulation {
    /// Begins it, with everything random in the core drawn from `seed`.
    pub fn begin(seed: u64, flaw: Option<Flaw>) -> Self {
        fastrand::seed(seed);
        SIMULATED.set(true);
        FLAW.set(flaw);
        REACHED.take();
        Self { _this_thread: PhantomData }
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        SIMULATED.set(false);
        FLAW.set(None);
    }
}

/// A simulated process: its tasks, and the tasks that the core spawns for them, can be stopped
/// together while the clock goes on.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stopped: AtomicBool,
    machine: Arc<Machine>,
    /// Tasks that were woken while the process was stopped.
    woken: Mutex<Vec<Waker>>,
}

#[derive(Debug, Default)]
struct Machine {
    /// For how long its machine was suspended so far, in nanoseconds.
    suspended: AtomicU64,
}

impl Process {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another runtime of the same process, which stops by itself.
    #[must_use]
    pub fn another_runtime(&self) -> Self {
        Self(Arc::new(Inner { machine: self.0.machine.clone(), ..Inner::default() }))
    }

    /// Stops it, as SIGSTOP does: none of its tasks is polled until it resumes.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.0.stopped.store(false, Ordering::Relaxed);
        let woken = std::mem::take(&mut *self.woken());
        woken.into_iter().for_each(Waker::wake);
    }

    /// Says, before it resumes, that its machine was suspended for the last `duration`: its
    /// monotonic clock and its timers stood still.
    pub fn was_suspended(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.machine.suspended.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Makes `work` a task of this process.
    pub fn wrap<F: Future>(&self, work: F) -> Work<F> {
        Work { process: self.clone(), work: Some(Box::pin(work)) }
    }

    /// Looks at something with this process's clock.
    pub fn look<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(self.clone()));
        let seen = look();
        CURRENT.set(before);
        seen
    }

    fn woken(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task of a [`Process`].
#[derive(Debug)]
pub struct Work<F: Future> {
    process: Process,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Work<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if this.process.0.stopped.load(Ordering::Relaxed) {
            this.process.woken().push(context.waker().clone());
            return Poll::Pending;
        }
        let Some(work) = &mut this.work else { return Poll::Pending };
        this.process.look(|| work.as_mut().poll(context))
    }
}

impl<F: Future> Drop for Work<F> {
    fn drop(&mut self) {
        // What a dropped future spawns belongs to the process too.
        let work = self.work.take();
        self.process.look(|| drop(work));
    }
}

/// Notes that this place was reached.
pub(crate) fn reached(place: &'static str) {
    if SIMULATED.get() {
        REACHED.with_borrow_mut(|reached| *reached.entry(place).or_default() += 1);
    }
}

/// How often each noted place was reached since the simulation began.
#[must_use]
pub fn places() -> BTreeMap<&'static str, u64> {
    REACHED.take()
}

pub(crate) fn is_flawed(flaw: Flaw) -> bool {
    FLAW.get() == Some(flaw)
}

/// Whether the simulation asks for this flaw.
macro_rules! flawed {
    ($flaw:ident) => {
        $crate::simulation::is_flawed($crate::simulation::Flaw::$flaw)
    };
}
pub(crate) use flawed;

/// The bits of the next holder; `None`: draw them.
pub(crate) fn holder() -> Option<u128> {
    SIMULATED.get().then(|| fastrand::u128(..))
}

/// A clock that stands still while the machine is suspended.
pub(crate) fn monotonic() -> Instant {
    Instant::now() - suspended().unwrap_or_default()
}

/// The time spent suspended so far; `None`: ask the system.
pub(crate) fn suspended() -> Option<Duration> {
    SIMULATED.get().then(|| {
        CURRENT.with_borrow(|current| {
            let nanos = current.as_ref().map(|process| &process.0.machine.suspended);
            nanos
                .map_or(Duration::ZERO, |nanos| Duration::from_nanos(nanos.load(Ordering::Relaxed)))
        })
    })
}

/// Spawns a task of the process whose work runs.
pub(crate) fn spawn<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    match CURRENT.with_borrow(Clone::clone) {
        Some(process) => runtime.spawn(process.wrap(work)),
        None => runtime.spawn(work),
    }
}

/// Spawns a task of the process whose work runs, on the runtime that runs it.
pub(crate) fn spawn_here<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    spawn(&Handle::current(), work)
}

/// Sleeps by the monotonic clock of the process: time spent suspended does not count.
pub(crate) fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
    let (before, asleep) = (suspended(), tokio::time::sleep(duration));
    async move {
        let end = asleep.deadline();
        asleep.await;
        loop {
            let since = suspended().unwrap_or_default().saturating_sub(before.unwrap_or_default());
            let end = end + since;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Bounds a call by the monotonic clock of the process.
pub(crate) fn timeout<F: Future>(
    limit: Duration,
    call: F,
) -> impl Future<Output = Result<F::Output, ()>> {
    let limit = sleep(limit);
    async move {
        tokio::select! {
            biased;
            answer = call => Ok(answer),
            () = limit => Err(()),
        }
    }
}
