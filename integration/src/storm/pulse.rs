//! How fast this machine is: without that, a slow one looks like a lock that was lost for nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leaselock::redis::redis::aio::MultiplexedConnection;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::store::redis::{ask, connection};

/// The time between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Asks the nodes that are well all the time, and remembers how long that took.
#[derive(Debug)]
pub struct Pulse {
    beats: Arc<Mutex<Vec<(Instant, Duration)>>>,
    task: AbortHandle,
}

impl Pulse {
    /// Begins to ask these nodes.
    ///
    /// # Panics
    ///
    /// If one cannot be reached.
    pub async fn start(urls: &[String]) -> Self {
        let mut nodes = Vec::new();
        for url in urls {
            nodes.push(connection(url).await);
        }
        let beats = Arc::<Mutex<Vec<_>>>::default();
        let task = tokio::spawn(beat(nodes, beats.clone())).abort_handle();
        Self { beats, task }
    }

    /// The longest that it took since then to come to the processor and to ask a node that is well.
    ///
    /// # Panics
    ///
    /// Never: nobody panics while the beats are locked.
    #[must_use]
    pub fn slowest(&self, since: Instant) -> Duration {
        let beats = self.beats.lock().expect("no panic");
        let late = beats.last().map_or(Duration::ZERO, |(at, _)| at.elapsed());
        let took = beats.iter().rev().take_while(|(at, _)| *at >= since).map(|(_, took)| *took);
        took.max().unwrap_or_default().max(late.saturating_sub(EVERY))
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(mut nodes: Vec<MultiplexedConnection>, beats: Arc<Mutex<Vec<(Instant, Duration)>>>) {
    loop {
        let began = Instant::now();
        sleep(EVERY).await;
        let mut slowest = began.elapsed().saturating_sub(EVERY);
        for node in &mut nodes {
            let asked = Instant::now();
            let _: String = ask(node, &["PING"]).await.expect("it is well");
            slowest = slowest.max(asked.elapsed());
        }
        beats.lock().expect("no panic").push((Instant::now(), slowest));
    }
}
