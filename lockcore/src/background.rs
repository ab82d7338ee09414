//! Work that outlives the call that began it: undoing acquires, releasing dropped guards.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::clock::Moment;
use crate::seams;

/// Knows the tasks under way, so that a program can wait for them before it ends.
#[derive(Debug, Default)]
pub(crate) struct Background {
    tasks: Mutex<Tasks>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Tasks {
    /// How many were ever begun: the number of the next.
    begun: u64,
    /// Until when each one matters: what it undoes ends by itself then.
    under_way: BTreeMap<u64, Moment>,
}

impl Background {
    /// Runs `work` on the runtime of `handle`, known from now on. It never panics: on a runtime
    /// that has shut down the work is dropped, and what it was to release ends with its ttl.
    ///
    /// Nobody waits for it after `until`: a runtime may be one that nobody runs.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        handle: &Handle,
        until: Moment,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let number = {
            let mut tasks = self.tasks();
            tasks.begun += 1;
            let number = tasks.begun;
            tasks.under_way.insert(number, until);
            number
        };
        let known = Known { number, background: self.clone() };
        seams::spawn(handle, async move {
            work.await;
            drop(known);
        });
    }

    /// Resolves when everything that is under way now has ended, or matters no more. What begins
    /// meanwhile is not waited for, or a busy program would wait for ever.
    pub(crate) async fn drained(&self) {
        let last = self.tasks().begun;
        loop {
            let ended = self.ended.notified();
            let longest = {
                let mut tasks = self.tasks();
                tasks.under_way.retain(|_, until| !until.has_come());
                tasks.under_way.range(..=last).map(|(_, until)| *until).max()
            };
            let Some(longest) = longest else { return };
            tokio::select! {
                biased;
                () = ended => {}
                () = longest.sleep_until() => {}
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's entry, taken out whether it ends, panics or is dropped with its runtime.
struct Known {
    number: u64,
    background: Arc<Background>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.background.tasks().under_way.remove(&self.number);
        self.background.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_secs(seconds: u64) -> Moment {
        Moment::now().after(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_what_was_under_way_and_for_nothing_else() {
        let (background, runtime) = (Arc::new(Background::default()), Handle::current());
        background.drained().await;
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        background.spawn(&runtime, in_secs(60), sleep(10));
        let began = tokio::time::Instant::now();
        let drained = background.drained();
        let busy = async {
            for _ in 0..100 {
                background.spawn(&runtime, in_secs(2000), sleep(1000));
                sleep(1).await;
            }
        };
        tokio::select! {
            biased;
            () = drained => {}
            () = busy => panic!("it waits for what began later"),
        }
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_not_waited_for_when_it_matters_no_more() {
        let (background, runtime) = (Arc::new(Background::default()), Handle::current());
        background.spawn(&runtime, in_secs(30), std::future::pending());
        let began = tokio::time::Instant::now();
        background.drained().await;
        let waited = began.elapsed().as_secs();
        assert!((30..=31).contains(&waited), "{waited} s");
    }

    #[tokio::test]
    async fn a_task_that_panics_has_ended() {
        let (background, runtime) = (Arc::new(Background::default()), Handle::current());
        background.spawn(&runtime, in_secs(60), async {
            std::panic::resume_unwind(Box::new("on purpose"))
        });
        background.drained().await;
    }
}
