//! Settings of a switch, and its start.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, HolderId, InvalidInput, LockBackend, LockManager};

use super::ceiling::Ceiling;
use super::registration::{Change, Registrar, Registration};
use super::{Inner, Phase, Switchover};
use crate::calls::{Calls, Node};
use crate::group::Group;
use crate::quorum::limits;

const MAX_TTL: Duration = Duration::from_secs(60);

/// How much longer than a lease a registration lives: renewed every third of its ttl, it is never
/// shorter than a lease.
const REGISTRATION: u32 = 3;

/// Settings of a [`Switchover`].
#[must_use = "settings do nothing until `start`"]
pub struct SwitchoverBuilder {
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
    phase: Phase,
    floor: Option<u64>,
    max_ttl: Duration,
    label: Option<String>,
}

impl SwitchoverBuilder {
    pub(super) fn new(old: Arc<dyn LockBackend>, new: Arc<dyn LockBackend>, phase: Phase) -> Self {
        Self { old, new, phase, floor: None, max_ttl: MAX_TTL, label: None }
    }

    /// A floor for the tokens of phase `Old` or `New`, for when the store being left is gone: what
    /// [`Switchover::floor`] said before.
    ///
    /// It is not needed otherwise. So that tokens rise for keys that nobody took in `Both`, the
    /// store being left is asked at every start how far its tokens are. With a floor set, a store
    /// that is not reached is taken to be gone, and everybody with it who took locks there alone:
    /// **nobody looks for the opposite phase then**.
    pub fn floor(mut self, floor: u64) -> Self {
        self.floor = Some(floor);
        self
    }

    /// The longest ttl that is taken; 60 s unless set. After a crash nobody can enter the
    /// opposite phase for three times that.
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// Words about this process for people who look at the [status](Switchover::status); host
    /// and process id unless set.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Registers this process in its phase, and finds its floor.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`](lockcore::ErrorKind::Rejected) while processes run in the opposite
    /// phase, with their labels; those of the stores. Both must be reached, or the floor be given.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a registration that was made is taken back.
    pub async fn start(self) -> Result<Switchover, Error> {
        let Self { old, new, phase, floor, max_ttl, label } = self;
        let nodes = vec![
            Node { name: "the old store".into(), backend: old.clone() },
            Node { name: "the new store".into(), backend: new.clone() },
        ];
        let limits = limits(&nodes, max_ttl)?;
        let stores = match phase {
            Phase::Old => vec![old.clone()],
            Phase::Both => vec![old.clone(), new.clone()],
            Phase::New => vec![new.clone()],
        };
        // In `Both` each store's own counter of the key is as far as the other's.
        let exclusive = stores.iter().filter(|_| phase != Phase::Both);
        let ceilings: Vec<_> = exclusive.cloned().map(Ceiling::of).collect();
        let manager = |store: Arc<dyn LockBackend>| {
            let ttl = (limits.max_ttl * REGISTRATION).max(store.limits().min_ttl);
            if ttl > store.limits().max_ttl {
                return Err(InvalidInput::new(format!(
                    "a registration lives for {ttl:?}, longer than the store takes: set a \
                     smaller `max_ttl`"
                ))
                .into());
            }
            let builder = LockManager::builder(store).ttl(ttl);
            match &label {
                Some(label) => builder.label(label.clone()).build(),
                None => builder.build(),
            }
        };
        let managers = stores.into_iter().map(manager).collect::<Result<_, Error>>()?;
        let change = match phase {
            Phase::Old => Some((Phase::New, new.clone(), old.limits())),
            Phase::Both => None,
            Phase::New => Some((Phase::Old, old.clone(), new.limits())),
        };
        let change = change.map(|(opposite, left, entered)| {
            let most = entered.max_token;
            Change { opposite, left, most, floor }
        });
        let process = HolderId::random();
        let registrar = Registrar { phase, process, managers, ceilings: ceilings.clone(), change };
        let registration = Registration::begin(registrar).await?;
        let both = Group {
            calls: Calls::new(nodes),
            need: 2,
            // A holder in a neighbouring phase has the key in one store alone.
            seen: 1,
            in_order: true,
            limits,
            gate: Duration::ZERO,
            node_timeout: None,
            proposals: Arc::default(),
            splits: Arc::default(),
        };
        let inner = Inner { phase, old, new, both, limits, registration, ceilings };
        Ok(Switchover { inner: Arc::new(inner) })
    }
}

impl std::fmt::Debug for SwitchoverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchoverBuilder")
            .field("old", &self.old)
            .field("new", &self.new)
            .field("phase", &self.phase)
            .field("floor", &self.floor)
            .field("max_ttl", &self.max_ttl)
            .finish_non_exhaustive()
    }
}
