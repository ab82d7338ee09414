//! Which life of its data the store is in: asking for it, and beginning a new one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use lockcore::{BackendError, HolderId, Incarnation};

use crate::backend::EtcdBackend;
use crate::book;
use crate::error;
use crate::memory::{Memory, young};
use crate::record::Life;
use crate::trouble::Trouble;

/// As long as the longest ttl, and an hour: past it a memory is older than any lease.
const YOUNG: u32 = 25 * 60 * 60;

/// The year 2100, in microseconds since 1970: below the largest floor by twelve years.
const LATEST: u64 = 4_102_444_800_000_000;

impl EtcdBackend {
    /// Learns which life the store is in and how old that is, where this process has not asked
    /// yet. Writes nothing.
    pub(crate) async fn get_to_know(&self) -> Result<(), BackendError> {
        let mut life = self.book.life();
        if life.is_none() {
            let found = self.route.get(self.names.memory(), None).await;
            let found = found.map_err(Trouble::of_question)?;
            life = self.book.learn_life(&self.names, found.kvs().first())?;
        }
        if let Some(life) = life {
            self.ask_age(&life).await;
        }
        Ok(())
    }

    /// The memory to tell with a lease that stands, whatever comes of this.
    pub(crate) async fn told(&self, memory: Memory) -> Incarnation {
        let old = match memory {
            Memory::Of(memory) => return memory,
            Memory::Lost(old) => old,
        };
        if let Err(error) = self.found(old.as_ref()).await {
            tracing::debug!(%error, "the store does not take a new memory record");
        }
        let life = self.book.life().or(old);
        // An id of nobody's: all that is known is that nothing is.
        young(life.map_or_else(|| HolderId::random().as_u128(), |life| life.id))
    }

    /// Reads the memory record, and writes one where there is none.
    pub(crate) async fn look_up(&self) -> Result<(), BackendError> {
        let found = self.route.get(self.names.memory(), None).await;
        let found = found.map_err(Trouble::of_question)?;
        match found.kvs().first() {
            Some(found) => self.book.learn_life(&self.names, Some(found)).map(drop),
            None => self.found(None).await,
        }
    }

    /// Asks how old the memory is, once for each.
    pub(crate) async fn ask_age(&self, life: &Life) {
        if self.book.knows_age(life) {
            return;
        }
        let then = match self.route.time_to_live(life.young_id()).await {
            Ok(young) if young.ttl() < 0 => Duration::from_secs(YOUNG.into()),
            // What is left is cut to seconds.
            Ok(young) => {
                let age = young.granted_ttl().saturating_sub(young.ttl()).saturating_sub(1);
                Duration::from_secs(age.try_into().unwrap_or(0))
            }
            Err(trouble) => {
                tracing::debug!(?trouble, "the store does not tell how old its memory is");
                // The life was known before, so this much is sure in any case.
                Duration::ZERO
            }
        };
        self.book.note_age(life, then);
    }

    /// Writes a memory record where there is none, or in place of one that a restored backup
    /// brought back. Who else does so meanwhile may win.
    pub(crate) async fn found(&self, old: Option<&Life>) -> Result<(), BackendError> {
        let id = HolderId::random().as_u128();
        let base = old.map_or(0, |old| old.base).max(sane(micros())?);
        let mut life = Life { cluster: 0, id, base };
        let young = self.route.grant(life.young_id(), YOUNG).await;
        life.cluster = young.map_err(Trouble::of_grant)?.state.cluster;
        let name = self.names.memory();
        let unchanged = match old {
            Some(old) => Compare::value(name.as_str(), CompareOp::Equal, old.write()),
            None => Compare::create_revision(name.as_str(), CompareOp::Equal, 0),
        };
        let txn = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::put(name.as_str(), life.write(), None::<PutOptions>)])
            .or_else([TxnOp::get(name.as_str(), None)]);
        let done = self.route.txn(txn).await.map_err(Trouble::of_command)?;
        if done.succeeded() {
            match old {
                Some(old) => tracing::warn!(
                    was = %format_args!("{:016x}", old.cluster),
                    is = %format_args!("{:016x}", life.cluster),
                    "this etcd cluster holds a restored backup: leases granted since that backup are \
                     forgotten, and tokens go on from this machine's clock"
                ),
                None => tracing::info!(base, "the first use of this store, or since it was wiped"),
            }
            self.book.begin(life);
            return Ok(());
        }
        self.revoke_behind(life.young_id());
        let [found] = book::found(&done)?;
        self.book.learn_life(&self.names, found.as_ref()).map(drop)
    }
}

/// This machine's clock, in microseconds since 1970.
fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(0)
}

/// A base from a clock that is far ahead would put every token of the store, for ever, above what
/// floors and doubles can express.
fn sane(clock: u64) -> Result<u64, BackendError> {
    if clock < LATEST {
        return Ok(clock);
    }
    Err(BackendError::rejected(error::Failure::new(
        "this machine's clock is past the year 2100, and tokens would be counted from it: set it \
         right",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_ahead_begins_no_memory() {
        let (now, last) = (micros(), LATEST - 1);
        assert_eq!(sane(now).expect("sane"), now);
        assert_eq!(sane(last).expect("sane"), last);
        const { assert!(LATEST < lockcore::MAX_TOKEN) };
        for ahead in [LATEST, lockcore::MAX_TOKEN, u64::MAX] {
            let error = sane(ahead).expect_err("far ahead");
            assert!(matches!(error, BackendError::Rejected(_)), "{error:?}");
            assert!(error.to_string().contains("clock"), "{error}");
        }
    }
}
