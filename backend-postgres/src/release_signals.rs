//! Release signals: one session listens for all watchers of the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, ReleaseSignal};
use tokio::sync::{Notify, mpsc, watch};
use tokio_postgres::Client;

use crate::error::{self, Failed, Failure};

/// How long the session listens after its last watcher has gone. A holder that lost the race for a
/// key watches it again at once, and a process that waits once will often wait again.
const LINGER: Duration = Duration::from_secs(5);

/// Signals for holders that nobody watches for any more, as `HOLDER:KEY`.
pub(crate) type Unheard = mpsc::UnboundedSender<String>;

/// The channel of one listening session.
pub(crate) fn channel(listener: i64) -> String {
    format!("leaselock_{listener}")
}

/// What is heard on one session.
///
/// One task listens and stops listening: however watchers come and go, the two cannot overtake
/// each other. Watchers count themselves in and out under the lock, and the task decides to leave
/// under the same lock.
#[derive(Debug)]
pub(crate) struct ReleaseSignals {
    /// The number of the session, by which others signal it and see that it is there.
    listener: i64,
    /// Where announced releases are told.
    announcements: String,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    lost: watch::Sender<bool>,
    /// Tells the task that nobody watches any more.
    left: Notify,
    unheard: Unheard,
}

/// What a watcher waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// The turn of a holder in a line.
    Holder(String),
    /// An announced release, by its payload.
    Key(String),
}

#[derive(Debug, Default)]
struct State {
    by_topic: HashMap<Topic, Watchers>,
    /// The number of the task at work.
    task: Option<u64>,
    tasks: u64,
}

/// The watchers of one topic.
#[derive(Debug)]
struct Watchers {
    count: usize,
    released: watch::Sender<()>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The server has not confirmed that it will tell, or is about to stop.
    Arming,
    Armed,
    /// The server refuses to tell; the reason, if it is not the loss of the connection.
    Over(Option<Arc<BackendError>>),
}

impl ReleaseSignals {
    pub(crate) fn new(listener: i64, announcements: &str, unheard: Unheard) -> Self {
        Self {
            listener,
            announcements: announcements.to_owned(),
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Arming),
            lost: watch::Sender::new(false),
            left: Notify::new(),
            unheard,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number to signal this session by; 0 if it does not listen.
    pub(crate) fn listener(&self) -> i64 {
        if matches!(*self.phase.borrow(), Phase::Armed) { self.listener } else { 0 }
    }

    /// The number to signal a holder by; 0 if nobody watches for it.
    pub(crate) fn listener_for(&self, holder: String) -> i64 {
        let listener = self.listener();
        if listener != 0 && self.state().by_topic.contains_key(&Topic::Holder(holder)) {
            listener
        } else {
            0
        }
    }

    /// The server told something on a channel.
    pub(crate) fn fire(&self, channel: &str, payload: &str) {
        if channel == self.announcements {
            self.wake(&Topic::Key(payload.to_owned()));
        } else {
            self.signal(payload);
        }
    }

    /// It is the turn of a holder in a line: `HOLDER:KEY`.
    pub(crate) fn signal(&self, payload: &str) {
        let holder = payload.split(':').next().unwrap_or_default();
        if !self.wake(&Topic::Holder(holder.to_owned())) {
            // An error means that the backend is gone, and its places with it.
            let _ = self.unheard.send(payload.to_owned());
        }
    }

    fn wake(&self, topic: &Topic) -> bool {
        let state = self.state();
        let watchers = state.by_topic.get(topic);
        if let Some(watchers) = watchers {
            watchers.released.send_replace(());
        }
        watchers.is_some()
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// The connection is gone. Whoever watches is woken, asks again, and arms on the next one:
    /// what was released meanwhile was told to nobody.
    pub(crate) fn lose(&self) {
        let mut state = self.state();
        self.lost.send_replace(true);
        self.end(&mut state, None);
    }

    fn end(&self, state: &mut State, reason: Option<Arc<BackendError>>) {
        self.phase.send_replace(Phase::Over(reason));
        for watchers in state.by_topic.values() {
            watchers.released.send_replace(());
        }
    }

    /// Arms a signal for a topic: when this returns, the server has confirmed.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        topic: Topic,
        client: &Arc<Client>,
    ) -> Result<ReleaseSignal, BackendError> {
        let (watcher, mut phase, mut released) = self.join(topic, client).ok_or_else(cut)?;
        // Cloned out at once: the borrow must not be held across an await.
        let phase = phase
            .wait_for(|phase| !matches!(phase, Phase::Arming))
            .await
            .map(|phase| phase.clone());
        match phase {
            Ok(Phase::Armed) => Ok(ReleaseSignal::new(async move {
                // An error means that the session is gone: as good a reason to look as a release.
                let _ = released.changed().await;
                drop(watcher);
            })),
            Ok(Phase::Over(Some(reason))) => Err(error::again(&reason)),
            Ok(_) | Err(_) => Err(cut()),
        }
    }

    fn join(
        self: &Arc<Self>,
        topic: Topic,
        client: &Arc<Client>,
    ) -> Option<(Watcher, watch::Receiver<Phase>, watch::Receiver<()>)> {
        let mut task = None;
        let mut state = self.state();
        if self.is_lost() {
            return None;
        }
        if state.task.is_none() {
            state.tasks += 1;
            state.task = Some(state.tasks);
            self.phase.send_replace(Phase::Arming);
            task = Some(SubscriptionTask { signals: Arc::clone(self), number: state.tasks });
        }
        let watchers = state
            .by_topic
            .entry(topic.clone())
            .or_insert_with(|| Watchers { count: 0, released: watch::Sender::new(()) });
        watchers.count += 1;
        let (phase, released) = (self.phase.subscribe(), watchers.released.subscribe());
        drop(state);
        if let Some(task) = task {
            // Not under the lock: a runtime that shuts down drops the task here, which takes it.
            tokio::spawn(task.run(Arc::clone(client)));
        }
        Some((Watcher { signals: Arc::clone(self), topic }, phase, released))
    }
}

fn cut() -> BackendError {
    BackendError::unavailable(Failure::new(
        "the connection was lost before the server confirmed that it tells of releases",
    ))
}

/// One watcher, until it is dropped.
struct Watcher {
    signals: Arc<ReleaseSignals>,
    topic: Topic,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.signals.state();
        if let Some(watchers) = state.by_topic.get_mut(&self.topic) {
            watchers.count -= 1;
            if watchers.count == 0 {
                state.by_topic.remove(&self.topic);
            }
        }
        if state.by_topic.is_empty() {
            self.signals.left.notify_one();
        }
    }
}

/// Keeps one session listening as long as anybody watches.
struct SubscriptionTask {
    signals: Arc<ReleaseSignals>,
    number: u64,
}

impl SubscriptionTask {
    async fn run(self, client: Arc<Client>) {
        let mut lost = self.signals.lost.subscribe();
        tokio::select! {
            biased;
            _ = lost.wait_for(|lost| *lost) => {}
            () = self.keep(&client) => {}
        }
    }

    async fn keep(&self, client: &Client) {
        let signals = &self.signals;
        // The names hold no quotes.
        let channels = [channel(signals.listener), signals.announcements.clone()];
        let each =
            |verb: &str| channels.clone().map(|name| format!("{verb} \"{name}\"")).join("; ");
        loop {
            let listening = client.batch_execute(&each("LISTEN")).await;
            if let Err(error) = listening {
                let reason = Arc::new(error::of_question(Failed::from(error)));
                self.close(Some(reason));
                return;
            }
            signals.phase.send_replace(Phase::Armed);
            loop {
                signals.left.notified().await;
                tokio::time::sleep(LINGER).await;
                let state = signals.state();
                if state.by_topic.is_empty() {
                    // Watchers that come from here on wait for the next confirmation.
                    signals.phase.send_replace(Phase::Arming);
                    break;
                }
            }
            // Refused or cut, there is nothing to do about it: the worst is a message for nobody.
            let _ = client.batch_execute(&each("UNLISTEN")).await;
            let mut state = signals.state();
            if state.by_topic.is_empty() {
                state.task = None;
                return;
            }
        }
    }

    fn close(&self, reason: Option<Arc<BackendError>>) {
        let mut state = self.signals.state();
        // Another may be at work already, if this one has left.
        if state.task == Some(self.number) {
            state.task = None;
            self.signals.end(&mut state, reason);
        }
    }
}

/// Nobody is left waiting for a task whose runtime shut down.
impl Drop for SubscriptionTask {
    fn drop(&mut self) {
        self.close(None);
    }
}
