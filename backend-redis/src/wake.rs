//! Release signals: subscriptions shared by all local watchers of a channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, ReleaseSignal};
use redis::RedisError;
use redis::aio::{MultiplexedConnection, PubSubSink};
use tokio::sync::{Notify, watch};

use crate::error::{self, Failure};

/// How long a subscription outlives its last watcher. A waiter who lost the race for a key
/// watches it again at once, and then finds the subscription still there.
const LINGER: Duration = Duration::from_millis(200);

/// Where subscriptions are made: beside the commands, or on a connection of their own.
#[derive(Clone)]
pub(crate) enum Wire {
    Shared(MultiplexedConnection),
    Own(PubSubSink),
}

impl Wire {
    async fn subscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        match self {
            Self::Shared(connection) => connection.subscribe(channel).await,
            Self::Own(sink) => sink.subscribe(channel).await,
        }
    }

    async fn unsubscribe(&mut self, channel: &str) -> Result<(), RedisError> {
        match self {
            Self::Shared(connection) => connection.unsubscribe(channel).await,
            Self::Own(sink) => sink.unsubscribe(channel).await,
        }
    }
}

/// The channels watched over one connection.
///
/// Each has one task, its tender, and only the tender subscribes and unsubscribes it: however
/// watchers come and go, the two cannot overtake each other. Watchers count themselves in and out
/// under the lock, and the tender decides to leave under the same lock.
#[derive(Debug)]
pub(crate) struct Topics {
    by_channel: Mutex<HashMap<String, Arc<Topic>>>,
    lost: watch::Sender<bool>,
}

#[derive(Debug)]
struct Topic {
    channel: String,
    watchers: Mutex<usize>,
    phase: watch::Sender<Phase>,
    released: watch::Sender<()>,
    /// Tells the tender that nobody watches any more.
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

impl Default for Topics {
    fn default() -> Self {
        Self { by_channel: Mutex::default(), lost: watch::Sender::new(false) }
    }
}

impl Topics {
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
        let mut topics = self.by_channel();
        self.lost.send_replace(true);
        for (_, topic) in topics.drain() {
            topic.end(None);
        }
    }

    /// Arms a signal for a channel: when this returns, the server has confirmed.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        channel: String,
        wire: Wire,
    ) -> Result<ReleaseSignal, BackendError> {
        let Some((seat, mut phase, mut released)) = self.sit(channel, wire) else {
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
                drop(seat);
            })),
            Ok(Phase::Over(Some(error))) => Err(error::of_question(error)),
            Ok(_) | Err(_) => Err(cut()),
        }
    }

    fn sit(
        self: &Arc<Self>,
        channel: String,
        wire: Wire,
    ) -> Option<(Seat, watch::Receiver<Phase>, watch::Receiver<()>)> {
        let mut tender = None;
        let mut topics = self.by_channel();
        if self.is_lost() {
            return None;
        }
        let topic = topics.entry(channel).or_insert_with_key(|channel| {
            let topic = Arc::new(Topic {
                channel: channel.clone(),
                watchers: Mutex::new(0),
                phase: watch::Sender::new(Phase::Arming),
                released: watch::Sender::new(()),
                left: Notify::new(),
            });
            tender = Some(Tender { topics: Arc::clone(self), topic: Arc::clone(&topic) });
            topic
        });
        *topic.watchers() += 1;
        let (phase, released) = (topic.phase.subscribe(), topic.released.subscribe());
        let seat = Seat { topics: Arc::clone(self), topic: Arc::clone(topic) };
        drop(topics);
        if let Some(tender) = tender {
            // Not under the lock: a runtime that shuts down drops the tender here, which takes it.
            tokio::spawn(tender.tend(wire));
        }
        Some((seat, phase, released))
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
struct Seat {
    topics: Arc<Topics>,
    topic: Arc<Topic>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _topics = self.topics.by_channel();
        let mut watchers = self.topic.watchers();
        *watchers -= 1;
        if *watchers == 0 {
            self.topic.left.notify_one();
        }
    }
}

/// Keeps one channel subscribed as long as it is watched.
struct Tender {
    topics: Arc<Topics>,
    topic: Arc<Topic>,
}

impl Tender {
    async fn tend(self, wire: Wire) {
        let mut lost = self.topics.lost.subscribe();
        tokio::select! {
            biased;
            _ = lost.wait_for(|lost| *lost) => {}
            () = self.keep(wire) => {}
        }
    }

    async fn keep(&self, mut wire: Wire) {
        let channel = self.topic.channel.as_str();
        loop {
            if let Err(error) = wire.subscribe(channel).await {
                self.close(Some(error));
                return;
            }
            self.topic.phase.send_replace(Phase::Armed);
            loop {
                self.topic.left.notified().await;
                tokio::time::sleep(LINGER).await;
                let _topics = self.topics.by_channel();
                if *self.topic.watchers() == 0 {
                    // Who comes from here on waits for the next confirmation.
                    self.topic.phase.send_replace(Phase::Arming);
                    break;
                }
            }
            // Refused or cut, there is nothing to do about it: the worst is a message for nobody.
            let _ = wire.unsubscribe(channel).await;
            let mut topics = self.topics.by_channel();
            if *self.topic.watchers() == 0 {
                topics.remove(channel);
                return;
            }
        }
    }

    fn close(&self, reason: Option<RedisError>) {
        let mut topics = self.topics.by_channel();
        // Another topic may have taken the place of one that ended.
        if let Some(topic) = topics.get(&self.topic.channel)
            && Arc::ptr_eq(topic, &self.topic)
        {
            topics.remove(&self.topic.channel);
        }
        self.topic.end(reason);
    }
}

/// Nobody is left waiting for a tender whose runtime shut down.
impl Drop for Tender {
    fn drop(&mut self) {
        self.close(None);
    }
}
