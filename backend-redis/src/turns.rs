//! Whose turn it is: one subscription a process, and its holders that wait in lines.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::{BackendError, HolderId, ReleaseSignal};
use redis::aio::MultiplexedConnection;
use tokio::sync::{OnceCell, oneshot};

use crate::error::{self, Failure};

/// The holders that listen over one connection. Whoever ends a lease publishes the first holder of
/// the key's line on the channel of its process.
#[derive(Debug)]
pub(crate) struct Turns {
    channel: String,
    subscribed: OnceCell<()>,
    /// What the state says, to be read with each call.
    lost: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection is gone.
    lost: bool,
    /// Tells a holder's watch from the one that took its place.
    next: u64,
    listeners: HashMap<HolderId, (u64, oneshot::Sender<()>)>,
}

impl Turns {
    pub(crate) fn new(channel: String) -> Self {
        let (subscribed, lost) = (OnceCell::new(), AtomicBool::new(false));
        Self { channel, subscribed, lost, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a holder hears what is published for it.
    pub(crate) fn listens(&self, holder: HolderId) -> bool {
        self.subscribed.initialized() && self.state().listeners.contains_key(&holder)
    }

    /// Something was published. Whether it was on the channel of this process.
    pub(crate) fn fire(&self, channel: &str, holder: &str) -> bool {
        if channel != self.channel {
            return false;
        }
        // W5: a holder that does not listen any more asks before it sleeps again.
        if let Ok(holder) = holder.parse()
            && let Some((_, listener)) = self.state().listeners.remove(&holder)
        {
            let _ = listener.send(());
        }
        true
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// The connection is gone. All who listen are woken, ask again, and listen on the next one:
    /// what was published meanwhile was told to nobody.
    pub(crate) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        self.lost.store(true, Ordering::Relaxed);
        // Without their senders the signals resolve.
        state.listeners.clear();
    }

    /// Arms a holder's signal. The first on a connection subscribes; when this returns the server
    /// has confirmed.
    ///
    /// Cancel safe: whoever comes next subscribes again, and once more changes nothing.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        holder: HolderId,
        mut connection: MultiplexedConnection,
    ) -> Result<ReleaseSignal, BackendError> {
        let subscribe = async || connection.subscribe(&self.channel).await;
        self.subscribed.get_or_try_init(subscribe).await.map_err(error::of_question)?;
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.lost {
            return Err(BackendError::unavailable(Failure::new(
                "the connection was lost before the signal was armed",
            )));
        }
        state.next += 1;
        let watch = Watch { signals: Arc::clone(self), holder, number: state.next };
        state.listeners.insert(holder, (watch.number, sender));
        drop(state);
        Ok(ReleaseSignal::new(async move {
            // An error means that the connection is gone: as good a reason to ask as a signal.
            let _ = receiver.await;
            drop(watch);
        }))
    }
}

/// Ends when its signal is dropped.
struct Watch {
    signals: Arc<Turns>,
    holder: HolderId,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.signals.state();
        // The holder may have been watched anew meanwhile.
        if state.listeners.get(&self.holder).is_some_and(|(number, _)| *number == self.number) {
            state.listeners.remove(&self.holder);
        }
    }
}
