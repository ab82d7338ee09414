//! Locks held by a majority of independent stores.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Error, InvalidInput, LeaseInfo, Limits, LockBackend, LockKey,
    Release, ReleaseSignal, Renew, async_trait,
};

use crate::calls::{Calls, Node};
use crate::group::{Group, QuorumStatus};

const MAX_TTL: Duration = Duration::from_secs(60);

/// What the largest floor is below that of the stores. Tokens are agreed on by floors: above the
/// largest there would be no agreement between stores that count in different ways. This is room
/// for as many leases, or so many microseconds, beyond it.
const ROOM: u64 = 1 << 40;

/// A lock held by a majority of independent stores of any kinds: it survives the loss of a
/// minority of them.
///
/// See the [crate documentation](crate) for the protocol, and for what it promises.
#[derive(Clone, Debug)]
pub struct Quorum(pub(crate) Group);

impl Quorum {
    /// Settings for a quorum.
    pub fn builder() -> QuorumBuilder {
        QuorumBuilder::default()
    }

    /// Which stores count now, and which may be stopped: to be asked before each step of a rolling
    /// restart. It takes and releases a key below `leaselock.quorum/` in each store, and waits for
    /// a store for 1 s at the most.
    ///
    /// # Errors
    ///
    /// None for stores that fail: the status names them.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may leave its key in a store for 5 s.
    pub async fn status(&self) -> Result<QuorumStatus, Error> {
        Ok(self.0.status().await?)
    }
}

/// Settings of a [`Quorum`].
///
/// ```
/// use lockcore::MemoryBackend;
/// use lockcore_combinators::Quorum;
///
/// let quorum = Quorum::builder()
///     .node("a", MemoryBackend::new())
///     .node("b", MemoryBackend::new())
///     .node("c", MemoryBackend::new())
///     .build()?;
/// # Ok::<(), lockcore::InvalidInput>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "settings do nothing until `build`"]
pub struct QuorumBuilder {
    nodes: Vec<Node>,
    max_ttl: Option<Duration>,
    node_timeout: Option<Duration>,
}

impl QuorumBuilder {
    /// Adds a store, with a name for messages. Its clients should be this quorum's own. List the
    /// stores in the same order in every process: that is the order in which a key is asked for that
    /// many want.
    pub fn node(mut self, name: impl Into<String>, backend: impl LockBackend) -> Self {
        self.nodes.push(Node { name: name.into().into(), backend: Arc::new(backend) });
        self
    }

    /// The longest ttl that is taken; 60 s unless set. Every client of the quorum must use the
    /// same: a store that started or lost its data less than this ago may have forgotten a lease,
    /// so its grants do not count yet. A new quorum can be used that much after its stores began.
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = Some(max_ttl);
        self
    }

    /// How long one store may take to answer, well below the ttl; a twelfth of the ttl and at
    /// most 1 s unless set. It is waited for only where the others do not decide.
    pub fn node_timeout(mut self, limit: Duration) -> Self {
        self.node_timeout = Some(limit);
        self
    }

    /// Puts the quorum together. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] for less than three stores, two of one name, a `max_ttl` above what a store
    /// takes, or limits that no ttl meets.
    pub fn build(self) -> Result<Quorum, InvalidInput> {
        let nodes = self.nodes;
        if nodes.len() < 3 {
            return Err(InvalidInput::new(format!(
                "a quorum needs three stores or more to survive the loss of one, not {}",
                nodes.len()
            )));
        }
        for (index, node) in nodes.iter().enumerate() {
            if nodes.iter().take(index).any(|other| other.name == node.name) {
                return Err(InvalidInput::new(format!("the store {} is listed twice", node.name)));
            }
        }
        let max_ttl = self.max_ttl.unwrap_or(MAX_TTL);
        let limits = limits(&nodes, max_ttl)?;
        if self.max_ttl.is_some_and(|max_ttl| max_ttl > limits.max_ttl) {
            return Err(InvalidInput::new(format!(
                "a `max_ttl` of {max_ttl:?}, and one of the stores takes no ttl above {:?}: its \
                 grants would not count for longer than any lease lasts",
                limits.max_ttl
            )));
        }
        if self.node_timeout.is_some_and(|limit| limit.is_zero() || limit >= limits.max_ttl) {
            return Err(InvalidInput::new("a store's timeout is above zero and below the ttl"));
        }
        let need = nodes.len() / 2 + 1;
        Ok(Quorum(Group {
            calls: Calls::new(nodes),
            need,
            limits,
            gate: max_ttl,
            node_timeout: self.node_timeout,
            proposals: Arc::default(),
            crowds: Arc::default(),
        }))
    }
}

/// The largest floor that all of the stores take.
pub(crate) fn max_token(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.backend.limits().max_token).min().unwrap_or_default()
}

/// What all of the stores take, and can agree on.
pub(crate) fn limits(nodes: &[Node], max_ttl: Duration) -> Result<Limits, InvalidInput> {
    let all = || nodes.iter().map(|node| node.backend.limits());
    let min_ttl = all().map(|limits| limits.min_ttl).max().unwrap_or_default();
    let max_ttl = all().map(|limits| limits.max_ttl).min().unwrap_or_default().min(max_ttl);
    if min_ttl > max_ttl {
        return Err(InvalidInput::new(format!(
            "one store takes no ttl below {min_ttl:?}, and the longest is {max_ttl:?}"
        )));
    }
    let lag = all().map(|limits| limits.expiry_lag).max().unwrap_or_default();
    let max_token = max_token(nodes);
    let max_token = max_token - ROOM.min(max_token / 2);
    Ok(Limits::new(min_ttl, max_ttl).with_expiry_lag(lag).with_max_token(max_token))
}

#[async_trait]
impl LockBackend for Quorum {
    fn limits(&self) -> Limits {
        self.0.limits
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.0.acquire(claim).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.0.renew(claim).await
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.0.release(claim).await
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.0.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.0.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.0.list(prefix, after, limit).await
    }
}
