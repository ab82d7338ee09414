//! The keys that switches keep for themselves.
//!
//! Each has one holder, made of its name. Whoever asks is that holder, so all are granted it, with one
//! token for as long as it stands. Nobody releases one that says who runs: a release that comes late
//! would end what others have begun since.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HolderId, InvalidInput, LeaseInfo, LockBackend, LockKey, Renew,
};
use tokio::time::timeout;

use super::phase::Phase;

/// How long it may take to see what a store holds.
pub(super) const GLANCE: Duration = Duration::from_millis(100);

/// What all of them begin with.
pub(super) const PREFIX: &str = "leaselock.switchover/";

/// Refuses a key of the switch's own to its users.
pub(super) fn refuse(key: &LockKey) -> Result<(), InvalidInput> {
    if key.as_str().starts_with(PREFIX) {
        return Err(InvalidInput::new(format!("keys below `{PREFIX}` belong to the switch")));
    }
    Ok(())
}

/// A key of the switch's own.
#[derive(Clone, Debug)]
pub(super) struct Key(Result<LockKey, InvalidInput>, HolderId);

impl Key {
    fn new(name: &str) -> Self {
        Self(LockKey::new(format!("{PREFIX}{name}")), HolderId::from_u128(Self::hash(name)))
    }

    /// FNV-1a: the same in every process.
    pub(super) fn hash(text: &str) -> u128 {
        text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
    }

    /// Stands while somebody may run in the phase. Its token names this run of it.
    pub(super) fn phase(phase: Phase) -> Self {
        Self::new(&format!("phase/{phase}"))
    }

    /// Stands while this run of the phase is confirmed. Its token is the floor.
    pub(super) fn within(phase: Phase, run: u64) -> Self {
        Self::new(&format!("in/{phase}/{run}"))
    }

    /// How far the tokens of a store are.
    pub(super) fn ceiling() -> Self {
        Self::new("ceiling")
    }

    /// In the old store: somebody ran in `New` lately.
    pub(super) fn open() -> Self {
        Self::new("open/new")
    }

    /// Processes in `Both` have seen of late that all locks of this store are those of processes in
    /// `Both`.
    pub(super) fn clean() -> Self {
        Self::new("clean")
    }

    /// Who looks for that.
    pub(super) fn survey(process: HolderId) -> Self {
        Self(Self::new("survey").0, process)
    }

    /// Taken and released to see whether that can be done.
    pub(super) fn probe(process: HolderId) -> Self {
        Self(Self::new(&format!("probe/{process}")).0, process)
    }

    /// A process, for people who look.
    pub(super) fn process(phase: Phase, process: HolderId) -> Self {
        Self(Self::new(&format!("at/{phase}/{process}")).0, process)
    }
}

/// A store, as the switch uses it for keys of its own.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) name: &'static str,
    pub(super) store: Arc<dyn LockBackend>,
    /// How long one call may take.
    pub(super) limit: Duration,
}

impl Desk {
    fn claim(&self, key: &Key, ttl: Duration, least: u64) -> Result<Claim, BackendError> {
        let limits = self.store.limits();
        let ttl = ttl.clamp(limits.min_ttl, limits.max_ttl);
        let claim = Claim::new(key.0.clone()?, key.1, ttl).with_sharing();
        Ok(claim.with_min_token(least.min(limits.max_token)))
    }

    /// The answer, or that there is none.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        timeout(self.limit, call).await.unwrap_or_else(|_| {
            let (name, limit) = (self.name, self.limit);
            Err(BackendError::unavailable(format!("{name} did not answer within {limit:?}")))
        })
    }

    pub(super) async fn look(&self, key: &Key) -> Result<Option<LeaseInfo>, BackendError> {
        self.look_at(&key.0.clone()?).await
    }

    pub(super) async fn look_at(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.within(self.store.inspect(key)).await
    }

    /// Whether it refuses to show all of its leases. Little is asked, and not waited for long.
    pub(super) async fn shows_all(&self) -> Result<(), BackendError> {
        let desk = Self { limit: self.limit.min(GLANCE), ..self.clone() };
        desk.within(desk.store.list("", None, 0)).await.map(drop)
    }

    /// Leases that are not the switch's own.
    pub(super) async fn users(&self, most: usize) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut found = self.within(self.store.list("", None, most)).await?;
        let all = found.len();
        found.retain(|info| refuse(&info.key).is_ok());
        if found.len() < all && all == most {
            // On past its own, of which there may be many: `0` comes after `/`.
            let past = LockKey::new(PREFIX.replace('/', "0"))?;
            found.extend(self.within(self.store.list("", Some(&past), most)).await?);
        }
        Ok(found)
    }

    /// Its token; `None` where another holder has it.
    pub(super) async fn take(
        &self,
        key: &Key,
        ttl: Duration,
        least: u64,
        label: &Arc<str>,
    ) -> Result<Option<u64>, BackendError> {
        let claim = self.claim(key, ttl, least)?.with_label(label.clone());
        Ok(match self.within(self.store.acquire(&claim)).await? {
            Acquire::Acquired(lease) => Some(lease.token),
            Acquire::Contended(_) => None,
        })
    }

    /// Its token; `None` where it does not stand.
    pub(super) async fn renew(
        &self,
        key: &Key,
        ttl: Duration,
        least: u64,
    ) -> Result<Option<u64>, BackendError> {
        let claim = self.claim(key, ttl, least)?;
        Ok(match self.within(self.store.renew(&claim)).await? {
            Renew::Renewed(lease) => Some(lease.token),
            Renew::NotHeld => None,
        })
    }

    /// Never of a key that says who runs, or how far tokens are.
    pub(super) async fn give_back(&self, key: &Key) -> Result<(), BackendError> {
        let claim = self.claim(key, Duration::ZERO, 0)?;
        self.within(self.store.release(&claim)).await.map(drop)
    }
}
