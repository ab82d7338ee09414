//! Release signals: one LISTEN per connection, shared by all local watchers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, ReleaseSignal};
use tokio::sync::{Notify, watch};
use tokio_postgres::Client;

use crate::error::{self, Failure};
use crate::exchange::Failed;

/// How long the connection listens after its last watcher has gone. Who lost the race for a key
/// watches it again at once, and who waits once will often wait again.
const LINGER: Duration = Duration::from_secs(5);

/// What is heard on one connection.
///
/// One task, the tender, listens and stops listening: however watchers come and go, the two cannot
/// overtake each other. Watchers count themselves in and out under the lock, and the tender
/// decides to leave under the same lock.
#[derive(Debug)]
pub(crate) struct Ears {
    channel: String,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    lost: watch::Sender<bool>,
    /// Tells the tender that nobody watches any more.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_payload: HashMap<String, Topic>,
    /// The number of the tender at work.
    tended: Option<u64>,
    tenders: u64,
}

/// The watchers of one key.
#[derive(Debug)]
struct Topic {
    watchers: usize,
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

impl Ears {
    pub(crate) fn new(channel: &str) -> Self {
        Self {
            channel: channel.to_owned(),
            state: Mutex::default(),
            phase: watch::Sender::new(Phase::Arming),
            lost: watch::Sender::new(false),
            left: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server told of a release.
    pub(crate) fn fire(&self, channel: &str, payload: &str) {
        if channel == self.channel
            && let Some(topic) = self.state().by_payload.get(payload)
        {
            topic.released.send_replace(());
        }
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
        for topic in state.by_payload.values() {
            topic.released.send_replace(());
        }
    }

    /// Arms a signal for a payload: when this returns, the server has confirmed.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        payload: String,
        client: &Arc<Client>,
    ) -> Result<ReleaseSignal, BackendError> {
        let (seat, mut phase, mut released) = self.sit(payload, client).ok_or_else(cut)?;
        // Cloned out at once: the borrow must not be held across an await.
        let phase = phase
            .wait_for(|phase| !matches!(phase, Phase::Arming))
            .await
            .map(|phase| phase.clone());
        match phase {
            Ok(Phase::Armed) => Ok(ReleaseSignal::new(async move {
                // An error means that the ears are gone: as good a reason to look as a release.
                let _ = released.changed().await;
                drop(seat);
            })),
            Ok(Phase::Over(Some(reason))) => Err(again(&reason)),
            Ok(_) | Err(_) => Err(cut()),
        }
    }

    fn sit(
        self: &Arc<Self>,
        payload: String,
        client: &Arc<Client>,
    ) -> Option<(Seat, watch::Receiver<Phase>, watch::Receiver<()>)> {
        let mut tender = None;
        let mut state = self.state();
        if self.is_lost() {
            return None;
        }
        if state.tended.is_none() {
            state.tenders += 1;
            state.tended = Some(state.tenders);
            self.phase.send_replace(Phase::Arming);
            tender = Some(Tender { ears: Arc::clone(self), number: state.tenders });
        }
        let topic = state
            .by_payload
            .entry(payload.clone())
            .or_insert_with(|| Topic { watchers: 0, released: watch::Sender::new(()) });
        topic.watchers += 1;
        let (phase, released) = (self.phase.subscribe(), topic.released.subscribe());
        drop(state);
        if let Some(tender) = tender {
            // Not under the lock: a runtime that shuts down drops the tender here, which takes it.
            tokio::spawn(tender.tend(Arc::clone(client)));
        }
        Some((Seat { ears: Arc::clone(self), payload }, phase, released))
    }
}

fn cut() -> BackendError {
    BackendError::unavailable(Failure::new(
        "the connection was lost before the server confirmed that it tells of releases",
    ))
}

/// The same error for each who waited for it.
fn again(reason: &Arc<BackendError>) -> BackendError {
    let words = Failure::new(format!("the server does not tell of releases: {reason}"));
    match **reason {
        BackendError::Rejected(_) => BackendError::rejected(words),
        _ => BackendError::unavailable(words),
    }
}

/// A watcher's place; empty again when dropped.
struct Seat {
    ears: Arc<Ears>,
    payload: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.ears.state();
        if let Some(topic) = state.by_payload.get_mut(&self.payload) {
            topic.watchers -= 1;
            if topic.watchers == 0 {
                state.by_payload.remove(&self.payload);
            }
        }
        if state.by_payload.is_empty() {
            self.ears.left.notify_one();
        }
    }
}

/// Keeps one connection listening as long as anybody watches.
struct Tender {
    ears: Arc<Ears>,
    number: u64,
}

impl Tender {
    async fn tend(self, client: Arc<Client>) {
        let mut lost = self.ears.lost.subscribe();
        tokio::select! {
            biased;
            _ = lost.wait_for(|lost| *lost) => {}
            () = self.keep(&client) => {}
        }
    }

    async fn keep(&self, client: &Client) {
        let ears = &self.ears;
        loop {
            // The name holds no quotes.
            let listening = client.batch_execute(&format!("LISTEN \"{}\"", ears.channel)).await;
            if let Err(error) = listening {
                let reason = Arc::new(error::of_question(Failed::from(error)));
                self.close(Some(reason));
                return;
            }
            ears.phase.send_replace(Phase::Armed);
            loop {
                ears.left.notified().await;
                tokio::time::sleep(LINGER).await;
                let state = ears.state();
                if state.by_payload.is_empty() {
                    // Who comes from here on waits for the next confirmation.
                    ears.phase.send_replace(Phase::Arming);
                    break;
                }
            }
            // Refused or cut, there is nothing to do about it: the worst is a message for nobody.
            let _ = client.batch_execute(&format!("UNLISTEN \"{}\"", ears.channel)).await;
            let mut state = ears.state();
            if state.by_payload.is_empty() {
                state.tended = None;
                return;
            }
        }
    }

    fn close(&self, reason: Option<Arc<BackendError>>) {
        let mut state = self.ears.state();
        // Another may be at work already, if this one has left.
        if state.tended == Some(self.number) {
            state.tended = None;
            self.ears.end(&mut state, reason);
        }
    }
}

/// Nobody is left waiting for a tender whose runtime shut down.
impl Drop for Tender {
    fn drop(&mut self) {
        self.close(None);
    }
}
