//! Work that outlives the call that began it: undoing acquires, releasing dropped guards.

use std::collections::BTreeSet;
use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Knows the tasks under way, so that a program can wait for them before it ends.
#[derive(Debug)]
pub(crate) struct Background {
    tasks: watch::Sender<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    /// How many were ever begun: the number of the next.
    begun: u64,
    under_way: BTreeSet<u64>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { tasks: watch::Sender::default() }
    }

    /// Runs `work` on the runtime of `handle`, known from now on. It never panics: on a runtime
    /// that has shut down the work is dropped, and whatever it was to release ends with its ttl.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        handle: &Handle,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let mut number = 0;
        self.tasks.send_modify(|tasks| {
            number = tasks.begun;
            tasks.begun += 1;
            tasks.under_way.insert(number);
        });
        let known = Known { number, tasks: self.tasks.clone() };
        handle.spawn(async move {
            let result = work.await;
            drop(known);
            result
        })
    }

    /// Resolves when everything that is under way now has ended. What begins meanwhile is not
    /// waited for, or a busy program would wait for ever.
    pub(crate) async fn drained(&self) {
        let mut tasks = self.tasks.subscribe();
        let next = tasks.borrow().begun;
        let ended = |tasks: &Tasks| tasks.under_way.first().is_none_or(|first| *first >= next);
        // The sender lives as long as `self`: the wait can only end well.
        let _ = tasks.wait_for(ended).await;
    }
}

/// A task's entry, taken out whether it ends, panics or is dropped with its runtime.
struct Known {
    number: u64,
    tasks: watch::Sender<Tasks>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.tasks.send_modify(|tasks| {
            tasks.under_way.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drained_waits_for_what_was_under_way_and_for_nothing_else() {
        let (background, runtime) = (Background::new(), Handle::current());
        background.drained().await;
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        background.spawn(&runtime, sleep(10));
        let began = tokio::time::Instant::now();
        let drained = background.drained();
        let busy = async {
            for _ in 0..100 {
                background.spawn(&runtime, sleep(1000));
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

    #[tokio::test]
    async fn a_task_that_panics_or_is_aborted_has_ended() {
        let (background, runtime) = (Background::new(), Handle::current());
        background.spawn(&runtime, async { std::panic::resume_unwind(Box::new("on purpose")) });
        background.spawn(&runtime, std::future::pending::<()>()).abort();
        background.drained().await;
    }
}
