//! Which stores count now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId, Incarnation, LockBackend, LockKey};

use super::Group;
use super::error::NodeState;
use super::sight::Enough;

/// How long the key that is taken for it would stand if it were not given back.
const PROBE: Duration = Duration::from_secs(5);

/// Which stores of a [`Quorum`](crate::Quorum) count now, as one process sees them.
///
/// A store that began, or lost its data, less than `max_ttl` ago does not count: so stores are to be
/// restarted one at a time, each when [`may_stop`](Self::may_stop) allows it.
#[derive(Debug)]
pub struct QuorumStatus {
    need: usize,
    nodes: Vec<(String, NodeState)>,
}

impl QuorumStatus {
    /// Each store's name, and whether it counts: [`Agreed`](NodeState::Agreed) if it does,
    /// [`Young`](NodeState::Young) with the time after which it will.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeState)> {
        self.nodes.iter().map(|(name, state)| (name.as_str(), state))
    }

    /// How many stores count now.
    #[must_use]
    pub fn counting(&self) -> usize {
        self.nodes().filter(|(_, state)| matches!(state, NodeState::Agreed)).count()
    }

    /// Whether locks are held and granted on while the store of this name is stopped or restarted:
    /// the others that count are a majority.
    #[must_use]
    pub fn may_stop(&self, name: &str) -> bool {
        let others = self
            .nodes()
            .filter(|(other, state)| *other != name && matches!(state, NodeState::Agreed));
        others.count() >= self.need
    }

    /// After how long all stores count that answer now: zero if they do. It is at most `max_ttl`.
    #[must_use]
    pub fn all_count_in(&self) -> Duration {
        let waits = self.nodes().filter_map(|(_, state)| match state {
            NodeState::Young(left) => Some(*left),
            _ => None,
        });
        waits.max().unwrap_or_default()
    }
}

impl fmt::Display for QuorumStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.nodes.len();
        writeln!(f, "{} of {all} stores count, {} are needed", self.counting(), self.need)?;
        for (name, state) in self.nodes() {
            let stop = if self.may_stop(name) { "may be stopped" } else { "must not be stopped" };
            match state {
                NodeState::Agreed => writeln!(f, "{name}: counts, {stop}")?,
                other => writeln!(f, "{name}: {other}")?,
            }
        }
        Ok(())
    }
}

impl Group {
    /// Takes and gives back a key of its own in each store.
    pub(crate) async fn status(&self) -> Result<QuorumStatus, BackendError> {
        let holder = HolderId::random();
        let ttl = PROBE.clamp(self.limits.min_ttl, self.limits.max_ttl);
        let key = LockKey::new(format!("leaselock.quorum/probe/{holder}"))?;
        let claim = Claim::new(key, holder, ttl).with_incarnation();
        let question = |backend: Arc<dyn LockBackend>| {
            let claim = claim.clone();
            async move { memory(&*backend, &claim).await }
        };
        let sights = self.ask(question, |_| Enough::No).await;
        let state = |seen: Result<Option<Incarnation>, BackendError>| match seen {
            Ok(Some(memory)) if memory.age < self.gate => {
                NodeState::Young(self.gate.saturating_sub(memory.age))
            }
            Ok(_) => NodeState::Agreed,
            Err(error) => NodeState::Failed(error),
        };
        let names = self.calls.nodes().iter().map(|node| node.name.to_string());
        let nodes = names.zip(sights.into_iter().map(state)).collect();
        Ok(QuorumStatus { need: self.need, nodes })
    }
}

async fn memory(
    backend: &dyn LockBackend,
    claim: &Claim,
) -> Result<Option<Incarnation>, BackendError> {
    let memory = match backend.acquire(claim).await? {
        Acquire::Acquired(lease) => lease.incarnation,
        Acquire::Contended(_) => {
            return Err(BackendError::rejected("a key that nobody else asks for is held"));
        }
    };
    backend.release(claim).await?;
    Ok(memory)
}
