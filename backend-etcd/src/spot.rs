//! Places in a key's line, as they stand in the store.

use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, TxnOp,
    TxnOpResponse, TxnResponse,
};
use lockcore::{BackendError, Claim, HolderId, LockKey};

use crate::error;
use crate::keys::Names;
use crate::record::{number, ttl};

const VERSION: &str = "1";

/// One holder's place. It stands while the lease of etcd's that it is on does, and its position is
/// the revision that created it: a later write keeps that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) holder: HolderId,
    /// The ttl of its lease.
    pub(crate) seconds: u32,
    /// Whose mailbox its holder's turn is told to.
    pub(crate) channel: String,
    pub(crate) lease: i64,
    pub(crate) created: i64,
    pub(crate) modified: i64,
}

impl Spot {
    /// Reads a place in this key's line.
    fn read(names: &Names, key: &LockKey, found: &KeyValue) -> Result<Self, BackendError> {
        let read = || {
            let name = std::str::from_utf8(found.key()).ok()?;
            let holder = name.strip_prefix(&names.line(key))?.parse().ok()?;
            let mut parts = std::str::from_utf8(found.value()).ok()?.split('|');
            if parts.next()? != VERSION {
                return None;
            }
            let seconds = number(parts.next()?)?.try_into().ok()?;
            let channel: HolderId = parts.next()?.parse().ok()?;
            // Without a lease it would never end, and we write none such.
            let lease = Some(found.lease()).filter(|&lease| lease != 0)?;
            let fits = parts.next().is_none();
            let (created, modified) = (found.create_revision(), found.mod_revision());
            let channel = channel.to_string();
            fits.then_some(Self { holder, seconds, channel, lease, created, modified })
        };
        read().ok_or_else(|| error::foreign(&String::from_utf8_lossy(found.key())))
    }

    /// How long it may stand at most.
    pub(crate) fn wait(&self) -> Duration {
        ttl(self.seconds)
    }

    /// Holds while the place stands as it was seen.
    pub(crate) fn stands(&self, names: &Names, key: &LockKey) -> Compare {
        Compare::mod_revision(names.place(key, self.holder), CompareOp::Equal, self.modified)
    }

    /// Tells the holder that it may be its turn. The message goes with the place's lease.
    pub(crate) fn mail(&self, names: &Names) -> TxnOp {
        let on = PutOptions::new().with_lease(self.lease);
        TxnOp::put(names.mail(&self.channel), format!("{VERSION}|{}", self.holder), Some(on))
    }
}

/// Who is told by a message in a mailbox.
pub(crate) fn addressee(message: &[u8]) -> Option<HolderId> {
    let text = std::str::from_utf8(message).ok()?;
    text.strip_prefix(VERSION)?.strip_prefix('|')?.parse().ok()
}

/// Gives a holder a place, or puts the one that it has on another lease.
pub(crate) fn put(
    names: &Names,
    claim: &Claim,
    channel: &str,
    (lease, seconds): (i64, u32),
) -> TxnOp {
    let value = format!("{VERSION}|{seconds}|{channel}");
    let on = PutOptions::new().with_lease(lease);
    TxnOp::put(names.place(&claim.key, claim.holder), value, Some(on))
}

/// Holds while nobody is in a key's line.
pub(crate) fn nobody(names: &Names, key: &LockKey) -> Compare {
    // An empty range compares as a key that does not exist.
    Compare::create_revision(names.line(key), CompareOp::Equal, 0).with_range(names.line_end(key))
}

/// Holds while nobody is ahead of the place that was created by this revision. Whether that place
/// stands is another question.
pub(crate) fn nobody_ahead(names: &Names, key: &LockKey, created: i64) -> Compare {
    Compare::create_revision(names.line(key), CompareOp::Greater, created.saturating_sub(1))
        .with_range(names.line_end(key))
}

/// Asks for all places in a key's line.
pub(crate) fn everybody(names: &Names, key: &LockKey) -> TxnOp {
    TxnOp::get(names.line(key), Some(GetOptions::new().with_range(names.line_end(key))))
}

/// Asks for the first place in a key's line.
pub(crate) fn first(names: &Names, key: &LockKey) -> TxnOp {
    let sorted = GetOptions::new()
        .with_range(names.line_end(key))
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    TxnOp::get(names.line(key), Some(sorted))
}

/// The places that a question of a transaction found, first come first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Vec<Spot>);

impl Line {
    pub(crate) fn read(
        names: &Names,
        key: &LockKey,
        found: &[KeyValue],
    ) -> Result<Self, BackendError> {
        let spots = found.iter().map(|one| Spot::read(names, key, one));
        let mut spots = spots.collect::<Result<Vec<_>, _>>()?;
        spots.sort_unstable_by_key(|spot| spot.created);
        spots.dedup();
        Ok(Self(spots))
    }

    pub(crate) fn of(&self, holder: HolderId) -> Option<&Spot> {
        self.0.iter().find(|spot| spot.holder == holder)
    }

    /// How many places are ahead of a holder's own.
    pub(crate) fn ahead(&self, holder: HolderId) -> Option<u32> {
        let at = self.0.iter().position(|spot| spot.holder == holder)?;
        Some(u32::try_from(at).unwrap_or(u32::MAX))
    }

    pub(crate) fn first(&self) -> Option<&Spot> {
        self.0.first()
    }

    /// The first in line besides a holder.
    pub(crate) fn first_but(&self, holder: HolderId) -> Option<&Spot> {
        self.0.iter().find(|spot| spot.holder != holder)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What each question of a transaction found, in their order.
pub(crate) fn gets<const N: usize>(done: &TxnResponse) -> Result<[Vec<KeyValue>; N], BackendError> {
    let found = done.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut get) => Some(get.take_kvs()),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    found.try_into().map_err(|_| error::unexpected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_addressee() {
        let holder = HolderId::from_u128(7);
        assert_eq!(addressee(format!("1|{holder}").as_bytes()), Some(holder));
        for wrong in ["", "1|", "2|00000000000000000000000000000007", "1", "1|7"] {
            assert_eq!(addressee(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
