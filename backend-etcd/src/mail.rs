//! Whose turn it is: one watch per connection, on the mailbox of this process.
//!
//! It is opened once and stays: a watch that is created while others write is served late (a slow
//! loop of the server's catches it up first).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::{Client, Error, WatchFilterType, WatchOptions};
use lockcore::{BackendError, HolderId, ReleaseSignal};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::error::{self, Failure};
use crate::spot;
use crate::trouble::Trouble;

/// How many holders are remembered that were told of their turn and have not asked yet. Forgetting
/// one costs a look.
const TOLD: usize = 1024;

/// The mailbox as one connection watches it; the first who listens opens the watch.
#[derive(Default)]
pub(crate) struct Mailbox {
    reader: Mutex<Option<Reader>>,
}

/// The task that reads the stream; it ends with this handle.
struct Reader {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    stage: watch::Sender<Stage>,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
enum Stage {
    Opening,
    Open,
    /// Why, and whether the server refused.
    Lost(Failure, bool),
}

#[derive(Default)]
struct State {
    lost: bool,
    /// Tells a holder's watch from the one that took its place.
    next: u64,
    listeners: HashMap<HolderId, (u64, oneshot::Sender<()>)>,
    told: HashSet<HolderId>,
}

impl Mailbox {
    fn reader(&self) -> MutexGuard<'_, Option<Reader>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is of no more use. Whoever listens is woken, asks again, and listens on the
    /// next one: what was put meanwhile was told to nobody.
    pub(crate) fn end(&self) {
        if let Some(reader) = self.reader().take() {
            reader.shared.lose(Failure::new("the connection was lost"), false);
        }
    }

    /// Whether a holder hears what it is told.
    pub(crate) fn listens(&self, holder: HolderId) -> bool {
        let reader = self.reader();
        reader.as_ref().is_some_and(|it| it.shared.state().listeners.contains_key(&holder))
    }

    /// Whether a holder was told of its turn since this was last asked.
    pub(crate) fn was_told(&self, holder: HolderId) -> bool {
        let reader = self.reader();
        reader.as_ref().is_some_and(|it| it.shared.state().told.remove(&holder))
    }

    /// Arms a holder's signal: when this returns, the server has confirmed the watch.
    ///
    /// Cancel safe: the watch that was asked for serves whoever comes next.
    pub(crate) async fn watch(
        &self,
        client: &Client,
        name: String,
        holder: HolderId,
        heard: impl Fn() + Send + 'static,
    ) -> Result<ReleaseSignal, BackendError> {
        let shared = self.open(client, name, heard);
        let mut stage = shared.stage.subscribe();
        let stage = stage.wait_for(|stage| !matches!(stage, Stage::Opening)).await;
        match stage.as_deref() {
            Ok(Stage::Open) => {}
            Ok(Stage::Lost(failure, true)) => return Err(BackendError::rejected(failure.clone())),
            Ok(Stage::Lost(failure, _)) => return Err(BackendError::unavailable(failure.clone())),
            Ok(Stage::Opening) | Err(_) => return Err(lost()),
        }
        drop(stage);
        let (sender, receiver) = oneshot::channel();
        let mut state = shared.state();
        if state.lost {
            return Err(lost());
        }
        state.next += 1;
        let seat = Seat { shared: Arc::clone(&shared), holder, number: state.next };
        state.listeners.insert(holder, (seat.number, sender));
        drop(state);
        Ok(ReleaseSignal::new(async move {
            // An error means that the stream ended: as good a reason to ask as a message.
            let _ = receiver.await;
            drop(seat);
        }))
    }

    fn open(
        &self,
        client: &Client,
        name: String,
        heard: impl Fn() + Send + 'static,
    ) -> Arc<Shared> {
        let mut reader = self.reader();
        if let Some(reader) = reader.as_ref().filter(|reader| !reader.shared.state().lost) {
            return Arc::clone(&reader.shared);
        }
        let stage = watch::Sender::new(Stage::Opening);
        let shared = Arc::new(Shared { stage, state: Mutex::default() });
        // A runtime that shuts down drops the task before it runs.
        let run = run(client.clone(), name, Ends(Arc::clone(&shared)), heard);
        let task = tokio::spawn(run).abort_handle();
        let old = reader.replace(Reader { shared: Arc::clone(&shared), task });
        drop(reader);
        drop(old);
        shared
    }
}

fn lost() -> BackendError {
    error::unavailable("the connection was lost before the signal was armed")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fire(&self, holder: HolderId) {
        let mut state = self.state();
        // W5: a holder that does not listen any more asks before it sleeps again.
        if let Some((_, listener)) = state.listeners.remove(&holder) {
            if state.told.len() >= TOLD {
                state.told.clear();
            }
            state.told.insert(holder);
            let _ = listener.send(());
        }
    }

    fn lose(&self, failure: Failure, refused: bool) {
        let mut state = self.state();
        state.lost = true;
        // Without their senders the signals resolve.
        state.listeners.clear();
        drop(state);
        self.stage.send_replace(Stage::Lost(failure, refused));
    }
}

/// Ends when its signal is dropped.
struct Seat {
    shared: Arc<Shared>,
    holder: HolderId,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        // The holder may have been watched anew meanwhile.
        if state.listeners.get(&self.holder).is_some_and(|(number, _)| *number == self.number) {
            state.listeners.remove(&self.holder);
        }
    }
}

/// However the task ends, those who listen are woken.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.0.state().lost {
            self.0.lose(Failure::new("the watch ended"), false);
        }
    }
}

async fn run(client: Client, name: String, ends: Ends, heard: impl Fn() + Send) {
    let shared = &ends.0;
    match read(client, name, shared, heard).await {
        Ok(()) => {}
        Err(error) => {
            let text = error::words(&error);
            let refusal = matches!(Trouble::Etcd(error).of_question(), BackendError::Rejected(_));
            shared.lose(Failure::new(text), refusal);
        }
    }
}

async fn read(
    client: Client,
    name: String,
    shared: &Shared,
    heard: impl Fn() + Send,
) -> Result<(), Error> {
    let options = WatchOptions::new().with_filters([WatchFilterType::NoDelete]);
    let mut stream = client.watch_client().watch(name, Some(options)).await?;
    while let Some(message) = stream.message().await? {
        heard();
        if message.canceled() {
            let reason = message.cancel_reason();
            let text = format!("the server does not let the user watch: {reason}");
            shared.lose(Failure::new(text), true);
            return Ok(());
        }
        if message.created() {
            shared.stage.send_replace(Stage::Open);
        }
        let told = message.events().iter().filter_map(etcd_client::Event::kv);
        for holder in told.filter_map(|kv| spot::addressee(kv.value())) {
            shared.fire(holder);
        }
    }
    Ok(())
}
