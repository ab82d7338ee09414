//! Work that outlives the call that began it: undoing acquires, releasing dropped guards.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Counts the tasks under way, so that a program can wait for them before it ends.
#[derive(Debug)]
pub(crate) struct Background {
    under_way: watch::Sender<usize>,
}

impl Background {
    pub(crate) fn new() -> Self {
        Self { under_way: watch::Sender::new(0) }
    }

    /// Runs `work` on the runtime of `handle`, counted from now on. It never panics: on a
    /// runtime that has shut down the work is dropped, and whatever it was to release ends with
    /// its ttl.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        handle: &Handle,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.under_way.send_modify(|count| *count += 1);
        let counted = Counted(self.under_way.clone());
        handle.spawn(async move {
            let result = work.await;
            drop(counted);
            result
        })
    }

    /// Resolves when nothing is under way.
    pub(crate) async fn drained(&self) {
        // The sender lives as long as `self`: the wait can only end well.
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }
}

struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
