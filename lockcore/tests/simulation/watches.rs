//! Watches on their way to the store, and signals on their way back.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{BackendError, Claim, LockBackend};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::link::at_once;
use crate::requests::served;
use crate::storm::{Mishap, Mood};
use crate::world::World;

/// A watch on its way to the store, and its signal on the way back.
pub(crate) struct Watch {
    pub(crate) world: Arc<World>,
    pub(crate) client: usize,
    pub(crate) claim: Claim,
}

impl Watch {
    pub(crate) async fn travel(
        self,
        armed: oneshot::Sender<Result<(), BackendError>>,
        mut signal: oneshot::Sender<()>,
    ) {
        let fate = self.world.state().network.fate();
        sleep(fate.there).await;
        let (mood, cut) = self.network();
        if mood == Mood::Refusing || fate.mishap == Mishap::Refuse {
            let _ = armed.send(Err(BackendError::unavailable("connection refused")));
            return;
        }
        if mood == Mood::Silent || cut || fate.mishap == Mishap::LoseRequest {
            return;
        }
        let store = self.world.state().store.clone();
        let released = served(at_once(store.watch(&self.claim)));
        sleep(fate.back).await;
        if self.network().1 || armed.send(Ok(())).is_err() {
            return;
        }
        tokio::select! {
            biased;
            () = signal.closed() => return,
            () = released => {}
        }
        // A signal is a message too.
        let fate = self.world.state().network.fate();
        sleep(fate.back.max(Duration::from_millis(1))).await;
        if !self.network().1 && !matches!(fate.mishap, Mishap::LoseAnswer | Mishap::LoseRequest) {
            let _ = signal.send(());
        }
    }

    /// Whether the store is up, and whether this client is cut off in some way.
    fn network(&self) -> (Mood, bool) {
        let network = &self.world.state().network;
        let cut = network.cuts[self.client];
        (network.mood, cut.swallows_requests() || cut.swallows_answers())
    }
}
