//! Announced releases: subscriptions shared by all local watchers of a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, ReleaseSignal};
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};

use crate::error::{self, Failure};

/// How long a subscription outlives its last watcher. A combination that lost the race for a key
/// watches it again at once, and then finds the subscription still there.
const LINGER: Duration = Duration::from_millis(200);

/// The channels watched over one connection.
///
/// Each has one task, its task, and only the task subscribes and unsubscribes it: however
/// watchers come and go, the two cannot overtake each other. Watchers count themselves in and out
/// under the lock, and the task decides to leave under the same lock.
#[derive(Debug)]
pub(crate) struct Announcements {
    by_channel: Mutex<HashMap<String, Arc<Topic>>>,
    lost: watch::Sender<bool>,
}

#[derive(Debug)]
struct Topic {
    channel: String,
    watchers: Mutex<usize>,
    phase: watch::Sender<Phase>,
    released: watch::Sender<()>,
    /// Tells the task that nobody watches any more.
    left: Notify,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The server has not confirmed the subscription, or is about to end it.
    Arming,
    Armed,
    /// There will be no subscription; the reason, if it is not the loss of the connection.
    Over(Option<RedisError>),
}

impl Default for Announcements {
    fn default() -> Self {
        Self { by_channel: Mutex::default(), lost: watch::Sender::new(false) }
    }
}

impl Announcements {
    fn by_channel(&self) -> MutexGuard<'_, HashMap<String, Arc<Topic>>> {
        self.by_channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was published on a channel.
    pub(crate) fn fire(&self, channel: &str) {
        if let Some(topic) = self.by_channel().get(channel) {
            topic.released.send_replace(());
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// The connection is gone. Whoever watches is woken, asks again, and arms on the next one:
    /// what was released meanwhile was told to nobody.
    pub(crate) fn lose(&self) {
        let mut announcements = self.by_channel();
        self.lost.send_replace(true);
        for (_, topic) in announcements.drain() {
            topic.end(None);
        }
    }

    /// Arms a signal for a channel: when this returns, the server has confirmed.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        channel: String,
        connection: MultiplexedConnection,
    ) -> Result<ReleaseSignal, BackendError> {
        let Some((watcher, mut phase, mut released)) = self.join(channel, connection) else {
            return Err(cut());
        };
        // Cloned out at once: the borrow must not be held across an await.
        let phase = phase
            .wait_for(|phase| !matches!(phase, Phase::Arming))
            .await
            .map(|phase| phase.clone());
        match phase {
            Ok(Phase::Armed) => Ok(ReleaseSignal::new(async move {
                // An error means that the topic ended: as good a reason to look as a release.
                let _ = released.changed().await;
                drop(watcher);
            })),
            Ok(Phase::Over(Some(error))) => Err(error::of_question(error)),
            Ok(_) | Err(_) => Err(cut()),
        }
    }

    fn join(
        self: &Arc<Self>,
        channel: String,
        connection: MultiplexedConnection,
    ) -> Option<(Watcher, watch::Receiver<Phase>, watch::Receiver<()>)> {
        let mut task = None;
        let mut announcements = self.by_channel();
        if self.is_lost() {
            return None;
        }
        let topic = announcements.entry(channel).or_insert_with_key(|channel| {
            let topic = Arc::new(Topic {
                channel: channel.clone(),
                watchers: Mutex::new(0),
                phase: watch::Sender::new(Phase::Arming),
                released: watch::Sender::new(()),
                left: Notify::new(),
            });
            task = Some(SubscriptionTask {
                announcements: Arc::clone(self),
                topic: Arc::clone(&topic),
            });
            topic
        });
        *topic.watchers() += 1;
        let (phase, released) = (topic.phase.subscribe(), topic.released.subscribe());
        let watcher = Watcher { announcements: Arc::clone(self), topic: Arc::clone(topic) };
        drop(announcements);
        if let Some(task) = task {
            // Not under the lock: a runtime that shuts down drops the task here, which takes it.
            tokio::spawn(task.run(connection));
        }
        Some((watcher, phase, released))
    }
}

impl Topic {
    fn watchers(&self) -> MutexGuard<'_, usize> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, reason: Option<RedisError>) {
        self.phase.send_if_modified(|phase| {
            let open = !matches!(phase, Phase::Over(_));
            if open {
                *phase = Phase::Over(reason);
            }
            open
        });
        self.released.send_replace(());
    }
}

fn cut() -> BackendError {
    BackendError::unavailable(Failure::new(
        "the connection was lost before the subscription was confirmed",
    ))
}

/// A watcher's place; empty again when dropped.
struct Watcher {
    announcements: Arc<Announcements>,
    topic: Arc<Topic>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _announcements = self.announcements.by_channel();
        let mut watchers = self.topic.watchers();
        *watchers -= 1;
        if *watchers == 0 {
            self.topic.left.notify_one();
        }
    }
}

/// Keeps one channel subscribed as long as it is watched.
struct SubscriptionTask {
    announcements: Arc<Announcements>,
    topic: Arc<Topic>,
}

impl SubscriptionTask {
    async fn run(self, connection: MultiplexedConnection) {
        let mut lost = self.announcements.lost.subscribe();
        tokio::select! {
            biased;
            _ = lost.wait_for(|lost| *lost) => {}
            () = self.keep(connection) => {}
        }
    }

    async fn keep(&self, mut connection: MultiplexedConnection) {
        let channel = self.topic.channel.as_str();
        loop {
            if let Err(error) = connection.subscribe(channel).await {
                self.close(Some(error));
                return;
            }
            self.topic.phase.send_replace(Phase::Armed);
            loop {
                self.topic.left.notified().await;
                tokio::time::sleep(LINGER).await;
                let _announcements = self.announcements.by_channel();
                if *self.topic.watchers() == 0 {
                    // Who comes from here on waits for the next confirmation.
                    self.topic.phase.send_replace(Phase::Arming);
                    break;
                }
            }
            // Refused or cut, there is nothing to do about it: the worst is a message for nobody.
            let _ = connection.unsubscribe(channel).await;
            let mut announcements = self.announcements.by_channel();
            if *self.topic.watchers() == 0 {
                announcements.remove(channel);
                return;
            }
        }
    }

    fn close(&self, reason: Option<RedisError>) {
        let mut announcements = self.announcements.by_channel();
        // Another topic may have taken the place of one that ended.
        if let Some(topic) = announcements.get(&self.topic.channel)
            && Arc::ptr_eq(topic, &self.topic)
        {
            announcements.remove(&self.topic.channel);
        }
        self.topic.end(reason);
    }
}

/// Nobody is left waiting for a task whose runtime shut down.
impl Drop for SubscriptionTask {
    fn drop(&mut self) {
        self.close(None);
    }
}
