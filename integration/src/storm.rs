//! Clients of a quorum whose nodes fail, and whether what they had may have been.
//!
//! They run as tasks and as processes (`contender`), so what they note is text, and its times are
//! of a clock that the processes of a machine share.

mod client;
mod history;
mod note;
mod pulse;

pub use self::client::{KEYS, Plan, contend};
pub use self::history::History;
pub use self::note::Note;
pub use self::pulse::Pulse;

/// Microseconds on a clock that all processes of this machine share.
#[must_use]
pub fn stamp() -> u64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};

        let time = clock_gettime(ClockId::Monotonic);
        let whole = u64::try_from(time.tv_sec).unwrap_or(0);
        whole * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
    }
    #[cfg(not(unix))]
    {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(time.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
    }
}
