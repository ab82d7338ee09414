//! The one clock of the core.
//!
//! Local deadlines must count the time a machine is suspended: the store's clock goes on
//! meanwhile. `std::time::Instant` stops during suspend on Linux, so a moment here is tokio's
//! clock plus the time spent suspended since the process began, as the difference between
//! CLOCK_BOOTTIME and CLOCK_MONOTONIC tells it. On tokio's paused test clock the first part is
//! virtual and the second does not move, so every law about time can be tested to the
//! millisecond, without a switch.

use std::time::Duration;

use tokio::time::Instant;

use crate::seams;
pub(crate) use crate::seams::{sleep, timeout};

/// An instant of the suspend-aware clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

/// A timer that would sleep longer than this wakes to look whether the machine was suspended:
/// timers do not count suspended time.
const SLICE: Duration = Duration::from_secs(1);

/// Stands for "never" where a duration does not fit the clock: thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

impl Moment {
    pub(crate) fn now() -> Self {
        // Read first: of two readings the earlier offset is never too large, and the sum never
        // behind the boot clock at this line.
        let suspended = suspended();
        let now = seams::monotonic();
        // Most machines never were, and the clock is read often.
        if suspended.is_zero() { Self(now) } else { Self(now + suspended) }
    }

    /// This moment and `duration` more; far in the future where the clock would overflow.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or_else(|| self.0 + FAR))
    }

    /// What is left until this moment: zero once it has come.
    pub(crate) fn remaining(self) -> Duration {
        self.since(Self::now())
    }

    /// The time from `earlier` to this moment; zero if it is not later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    pub(crate) fn has_come(self) -> bool {
        self <= Self::now()
    }

    /// Sleeps until the moment has come, suspended time counted.
    pub(crate) async fn sleep_until(self) {
        loop {
            let left = self.remaining();
            if left.is_zero() {
                return;
            }
            let slice = if seams::flawed!(TimersTrusted) { left } else { left.min(SLICE) };
            sleep(slice).await;
        }
    }
}

/// The time that this machine was suspended for since the process began.
fn suspended() -> Duration {
    if seams::flawed!(SuspendIgnored) {
        return Duration::ZERO;
    }
    seams::suspended().unwrap_or_else(suspend::total)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod suspend {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// The time spent suspended since the first call; it never shrinks. A process stopped between
    /// the very first two readings counts that time too: deadlines come early then, never late.
    pub(super) fn total() -> Duration {
        static LARGEST: AtomicU64 = AtomicU64::new(0);

        let mut largest = LARGEST.load(Ordering::Relaxed);
        // Rare, and a write is dear where many look.
        if since_first() > largest {
            // Seen twice: a virtual machine that goes on from a snapshot may for a moment have
            // processors whose clocks differ, and one reading may be of two of them.
            let confirmed = since_first().min(since_first());
            largest = LARGEST.fetch_max(confirmed, Ordering::Relaxed).max(confirmed);
        }
        #[cfg(test)]
        let largest = largest + tests::INJECTED.get();
        Duration::from_nanos(largest)
    }

    /// How much the two clocks have moved apart since the first call.
    fn since_first() -> u64 {
        static FIRST: OnceLock<u64> = OnceLock::new();

        let now = difference();
        // The least of several: with one that is too large, a suspend would go unseen later.
        now.saturating_sub(*FIRST.get_or_init(|| now.min(difference()).min(difference())))
    }

    fn difference() -> u64 {
        let boot = nanos(ClockId::Boottime);
        // The second reading is the later one, so the difference can only be too small, by what
        // passed in between: the largest one seen is the best.
        boot.saturating_sub(nanos(ClockId::Monotonic))
    }

    fn nanos(clock: ClockId) -> u64 {
        let time = clock_gettime(clock);
        // Never negative, on clocks that count from the start of the machine.
        time.tv_sec.cast_unsigned().saturating_mul(1_000_000_000)
            + u64::try_from(time.tv_nsec).unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) mod tests {
        use std::cell::Cell;

        thread_local! {
            /// Nanoseconds that this thread's tests pretend to have been suspended for.
            pub(crate) static INJECTED: Cell<u64> = const { Cell::new(0) };
        }
    }
}

/// As if the machine had been suspended for so long, as far as this thread can see.
#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
pub(crate) fn pretend_suspended(duration: Duration) {
    suspend::tests::INJECTED.set(u64::try_from(duration.as_nanos()).expect("a short sleep"));
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod suspend {
    use std::time::Duration;

    /// Windows counts suspended time in `Instant` itself; macOS does not, and there the docs of
    /// the guard say so.
    pub(super) fn total() -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_follows_the_paused_clock_exactly() {
        let start = Moment::now();
        let end = start.after(Duration::from_secs(90));
        end.sleep_until().await;
        assert!(end.has_come());
        let slept = Moment::now().since(start);
        assert!(slept >= Duration::from_secs(90), "{slept:?}");
        assert!(slept < Duration::from_millis(90_010), "{slept:?}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test(start_paused = true)]
    async fn suspended_time_counts() {
        let end = Moment::now().after(Duration::from_secs(10));
        pretend_suspended(Duration::from_secs(10));
        let came = end.has_come();
        pretend_suspended(Duration::ZERO);
        assert!(came);
    }

    #[tokio::test]
    async fn an_endless_duration_does_not_overflow() {
        let far = Moment::now().after(Duration::MAX);
        assert!(far.remaining() > Duration::from_secs(365 * 24 * 60 * 60));
    }
}
