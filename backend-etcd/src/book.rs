//! What this process knows of the store beyond single leases: which life of its data it is in,
//! how long that has lasted, and what tokens are counted from.
//!
//! All of it may be out of date, and costs no more than another round then: every transaction
//! that relies on it compares it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, KeyValue, TxnOp};
use lockcore::{BackendError, Incarnation};

use crate::error;
use crate::keys::Names;
use crate::memory::{Before, Reached, young};
use crate::record::{Life, number};

#[derive(Debug, Default)]
pub(crate) struct Book {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    life: Option<Life>,
    age: Option<Age>,
    /// Shards whose base was raised above the life's.
    raised: HashMap<u16, u64>,
    /// Revisions that were reached, by life: a restored backup may bring an earlier one back.
    reached: HashMap<u128, u64>,
}

/// How old a memory was at least, at some moment of ours.
#[derive(Clone, Copy, Debug)]
struct Age {
    id: u128,
    then: Duration,
    at: Instant,
}

impl Age {
    fn memory(&self) -> Incarnation {
        let since = self.at.elapsed();
        // Our clock may run faster than the store's, by less than one in a hundred.
        Incarnation::new(self.id, self.then + since.saturating_sub(since / 100))
    }
}

/// What is known that concerns one shard.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) life: Life,
    pub(crate) shard: u16,
    raised: Option<u64>,
}

impl Page {
    /// What tokens are counted from.
    pub(crate) fn base(&self) -> u64 {
        self.raised.unwrap_or(0).max(self.life.base)
    }

    /// Holds exactly while the page is up to date.
    pub(crate) fn compares(&self, names: &Names) -> [Compare; 2] {
        let raised = names.raised(self.shard);
        [
            Compare::value(names.memory(), CompareOp::Equal, self.life.write()),
            match self.raised {
                Some(base) => Compare::value(raised, CompareOp::Equal, base.to_string()),
                None => Compare::create_revision(raised, CompareOp::Equal, 0),
            },
        ]
    }

    /// What to ask for where it is not.
    pub(crate) fn questions(&self, names: &Names) -> [TxnOp; 2] {
        [TxnOp::get(names.memory(), None), TxnOp::get(names.raised(self.shard), None)]
    }

    /// Raises the base, so that what is created after `revision` has a token above `floor`.
    pub(crate) fn raise(&self, names: &Names, floor: u64, revision: u64) -> Option<(TxnOp, u64)> {
        let base = floor.saturating_sub(revision);
        let put = TxnOp::put(names.raised(self.shard), base.to_string(), None);
        (base > self.base()).then_some((put, base))
    }
}

impl Book {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known for a shard; `None` before anything is.
    pub(crate) fn page(&self, shard: u16) -> Option<Page> {
        let known = self.known();
        let life = known.life.clone()?;
        Some(Page { life, shard, raised: known.raised.get(&shard).copied() })
    }

    /// Which life the store is in, as far as is known.
    pub(crate) fn life(&self) -> Option<Life> {
        self.known().life.clone()
    }

    /// What is known before a transaction is sent that will show the memory record.
    pub(crate) fn before(&self) -> Before {
        let life = self.life();
        let known = life.map(|life| {
            let memory = self.memory(&life);
            (life, memory)
        });
        Before { known, reached: self.reached() }
    }

    /// What has been reached by now.
    pub(crate) fn reached(&self) -> Reached {
        Reached(self.known().reached.iter().map(|(id, reached)| (*id, *reached)).collect())
    }

    /// A transaction of this life has had this revision.
    pub(crate) fn note_revision(&self, life: &Life, revision: u64) {
        let mut known = self.known();
        let reached = known.reached.entry(life.id).or_default();
        *reached = revision.max(*reached);
    }

    /// How long the store has forgotten nothing, if it is still in that life: to be asked before
    /// the transaction that compares the life, and to be used after.
    pub(crate) fn memory(&self, life: &Life) -> Incarnation {
        let age = self.known().age.filter(|age| age.id == life.id);
        age.map_or_else(|| young(life.id), |age| age.memory())
    }

    /// Takes over the memory record as it was found.
    pub(crate) fn learn_life(
        &self,
        names: &Names,
        found: Option<&KeyValue>,
    ) -> Result<Option<Life>, BackendError> {
        let life = match found {
            Some(found) => {
                let life = Life::read(found.value());
                Some(life.ok_or_else(|| error::foreign(&names.memory()))?)
            }
            None => None,
        };
        self.known().turn_to(life.clone());
        Ok(life)
    }

    /// Takes over what the questions of a page found.
    pub(crate) fn learn(
        &self,
        names: &Names,
        page: &Page,
        memory: Option<&KeyValue>,
        raised: Option<&KeyValue>,
    ) -> Result<Option<Life>, BackendError> {
        let life = self.learn_life(names, memory)?;
        let base = match raised {
            Some(found) => {
                let base = std::str::from_utf8(found.value()).ok().and_then(number);
                Some(base.ok_or_else(|| error::foreign(&names.raised(page.shard)))?)
            }
            None => None,
        };
        self.note_raise(page.shard, base);
        Ok(life)
    }

    pub(crate) fn note_raise(&self, shard: u16, base: Option<u64>) {
        let mut known = self.known();
        match base {
            Some(base) => known.raised.insert(shard, base),
            None => known.raised.remove(&shard),
        };
    }

    /// How old a memory was at least at this moment, or a moment ago.
    pub(crate) fn note_age(&self, life: &Life, then: Duration) {
        self.known().age = Some(Age { id: life.id, then, at: Instant::now() });
    }

    pub(crate) fn knows_age(&self, life: &Life) -> bool {
        self.known().age.is_some_and(|age| age.id == life.id)
    }

    /// A new life was begun just now.
    pub(crate) fn begin(&self, life: Life) {
        let mut known = self.known();
        known.age = Some(Age { id: life.id, then: Duration::ZERO, at: Instant::now() });
        known.turn_to(Some(life));
    }
}

impl Known {
    fn turn_to(&mut self, life: Option<Life>) {
        if self.life == life {
            return;
        }
        self.raised.clear();
        if self.life.is_some() {
            tracing::warn!(
                "the store has forgotten its data, or others' have taken their place: locks that \
                 were held may be held twice until their holders renew them"
            );
        }
        self.life = life;
    }
}

/// What each of the questions of a transaction found.
pub(crate) fn found<const N: usize>(
    done: &etcd_client::TxnResponse,
) -> Result<[Option<KeyValue>; N], BackendError> {
    let mut answers = done.op_responses().into_iter();
    let mut all = [const { None }; N];
    for one in &mut all {
        match answers.next() {
            Some(etcd_client::TxnOpResponse::Get(mut get)) => {
                *one = get.take_kvs().into_iter().next();
            }
            _ => return Err(error::unexpected()),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::State;

    fn life(id: u128) -> Life {
        Life { cluster: 1, id, base: 1000 }
    }

    #[test]
    fn a_base_is_raised_only_upwards_and_far_enough() {
        let names = Names::new("p").expect("valid");
        let page = Page { life: life(1), shard: 0, raised: None };
        assert!(page.raise(&names, 1005, 5).is_none());
        let (_, base) = page.raise(&names, 2000, 5).expect("higher");
        assert_eq!(base, 1995);
        let page = Page { raised: Some(1995), ..page };
        assert_eq!(page.base(), 1995);
        assert!(page.raise(&names, 2000, 5).is_none());
        // A raise from before a new life does not count below that life's base.
        let page = Page { life: Life { base: 5000, ..life(2) }, ..page };
        assert_eq!(page.base(), 5000);
    }

    #[test]
    fn a_store_that_went_back_within_a_life_is_noticed() {
        let book = Book::default();
        let at = |revision| State { cluster: 1, revision: Some(revision) };
        assert!(!book.reached().is_restored(&life(1), at(0)));
        book.note_revision(&life(1), 70);
        book.note_revision(&life(1), 60);
        let before = book.reached();
        assert!(before.is_restored(&life(1), at(69)));
        assert!(!before.is_restored(&life(1), at(70)));
        // Another life begins where it will.
        assert!(!before.is_restored(&life(2), at(3)));
        book.note_revision(&life(2), 3);
        assert!(book.reached().is_restored(&life(1), at(69)));
        assert!(!book.reached().is_restored(&life(2), at(3)));
    }

    #[test]
    fn another_life_forgets_what_was_known_of_the_last() {
        let book = Book::default();
        book.known().turn_to(Some(life(1)));
        book.note_raise(7, Some(9000));
        book.known().turn_to(Some(life(1)));
        assert_eq!(book.page(7).expect("known").base(), 9000);
        book.known().age = Some(Age { id: 1, then: Duration::from_secs(5), at: Instant::now() });
        assert_eq!(book.memory(&life(1)).age.as_secs(), 5);
        book.known().turn_to(Some(life(2)));
        assert_eq!(book.page(7).expect("known").base(), 1000);
        assert_eq!(book.memory(&life(2)), young(2));
        book.known().turn_to(None);
        assert!(book.page(7).is_none());
    }
}
