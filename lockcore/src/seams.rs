//! What a process is given by its surroundings: tasks, timers, the clock, random ids.
//!
//! A plain build passes each call on. With the feature `simulation`, which no release has on,
//! `simulation` takes their place on the threads that it simulates.

#[cfg(feature = "simulation")]
pub(crate) use crate::simulation::{
    flawed, holder, monotonic, reached, sleep, spawn, spawn_here, suspended, timeout,
};
#[cfg(not(feature = "simulation"))]
pub(crate) use plain::{flawed, holder, monotonic, reached, spawn, suspended};
#[cfg(not(feature = "simulation"))]
pub(crate) use tokio::spawn as spawn_here;
#[cfg(not(feature = "simulation"))]
pub(crate) use tokio::time::{sleep, timeout};

#[cfg(not(feature = "simulation"))]
mod plain {
    use std::future::Future;
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    /// Whether the simulation asks for this flaw: here never, and the compiler sees it.
    macro_rules! flawed {
        ($flaw:ident) => {
            false
        };
    }
    pub(crate) use flawed;

    /// The bits of the next holder; `None`: draw them.
    pub(crate) const fn holder() -> Option<u128> {
        None
    }

    /// Notes that this place was reached.
    pub(crate) const fn reached(_place: &'static str) {}

    /// A clock that stands still while the machine is suspended.
    pub(crate) fn monotonic() -> Instant {
        Instant::now()
    }

    /// The time spent suspended so far; `None`: ask the system.
    pub(crate) const fn suspended() -> Option<Duration> {
        None
    }

    pub(crate) fn spawn<T: Send + 'static>(
        runtime: &Handle,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        runtime.spawn(work)
    }
}
