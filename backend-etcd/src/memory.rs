//! How long the store has surely forgotten nothing, as a call finds it.

use std::time::Duration;

use lockcore::{BackendError, HolderId, StoreMemory};

use crate::backend::EtcdBackend;
use crate::book::Reached;
use crate::error::{self, Trouble};
use crate::record::Life;

/// What was known before a transaction was sent. What an answer then shows to be so still was so
/// all the time.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) known: Option<(Life, StoreMemory)>,
    pub(crate) reached: Reached,
}

/// Which cluster an answer came from, and the revision that had been reached there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) cluster: u64,
    /// `None`: the answer may be older than it is, and its revision says nothing.
    pub(crate) revision: Option<u64>,
}

impl State {
    pub(crate) fn of(header: Option<&etcd_client::ResponseHeader>) -> Result<Self, BackendError> {
        let header = header.ok_or_else(error::unexpected)?;
        let revision = u64::try_from(header.revision()).map_err(|_| error::unexpected())?;
        Ok(Self { cluster: header.cluster_id(), revision: Some(revision) })
    }
}

/// What a transaction showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Of(StoreMemory),
    /// There is no record of it, or one that a restored backup has brought back.
    Lost(Option<Life>),
}

impl Before {
    /// What to make of the memory record that an answer shows.
    pub(crate) fn judge(self, found: Option<Life>, state: State) -> Memory {
        let Some(life) = found else { return Memory::Lost(None) };
        if self.reached.is_restored(&life, state) {
            return Memory::Lost(Some(life));
        }
        match self.known {
            Some((known, memory)) if known == life => Memory::Of(memory),
            _ => Memory::Of(young(life.id)),
        }
    }
}

/// A memory of which nothing else is known.
pub(crate) fn young(id: u128) -> StoreMemory {
    StoreMemory::new(id, Duration::ZERO)
}

/// What was known of one life, seen from that which a later transaction met.
pub(crate) fn seen_from(memory: StoreMemory, life: Option<&Life>) -> StoreMemory {
    match life {
        Some(life) if life.id == memory.id => memory,
        Some(life) => young(life.id),
        None => young(memory.id),
    }
}

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
            self.book.ask_age(&self.route, &life).await;
        }
        Ok(())
    }

    /// The memory to tell with a lease that stands, whatever comes of this.
    pub(crate) async fn told(&self, memory: Memory) -> StoreMemory {
        let old = match memory {
            Memory::Of(memory) => return memory,
            Memory::Lost(old) => old,
        };
        if let Err(error) = self.book.found(&self.route, &self.names, old.as_ref()).await {
            tracing::debug!(%error, "the store does not take a new memory record");
        }
        let life = self.book.life().or(old);
        // An id of nobody's: all that is known is that nothing is.
        young(life.map_or_else(|| HolderId::random().as_u128(), |life| life.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Book;

    fn life(id: u128) -> Life {
        Life { cluster: 1, id, base: 1000 }
    }

    fn at(revision: u64) -> State {
        State { cluster: 1, revision: Some(revision) }
    }

    /// Life 1 is known to be an hour old, and revision 70 was reached in it.
    fn before() -> Before {
        let book = Book::default();
        book.note_revision(&life(1), 70);
        let memory = StoreMemory::new(1, Duration::from_secs(3600));
        Before { known: Some((life(1), memory)), reached: book.reached() }
    }

    #[test]
    fn only_the_life_that_was_known_is_as_old_as_it_was() {
        let hour = StoreMemory::new(1, Duration::from_secs(3600));
        assert_eq!(before().judge(Some(life(1)), at(70)), Memory::Of(hour));
        assert_eq!(before().judge(Some(life(2)), at(3)), Memory::Of(young(2)));
        assert_eq!(before().judge(None, at(71)), Memory::Lost(None));
        let unknown = Before { known: None, ..before() };
        assert_eq!(unknown.judge(Some(life(1)), at(70)), Memory::Of(young(1)));
    }

    #[test]
    fn a_restored_backup_is_not_taken_for_the_life_that_it_shows() {
        let lost = Memory::Lost(Some(life(1)));
        assert_eq!(before().judge(Some(life(1)), at(69)), lost);
        let elsewhere = State { cluster: 2, revision: None };
        assert_eq!(before().judge(Some(life(1)), elsewhere), lost);
        // A plain read may be older than it is.
        let read = State { cluster: 1, revision: None };
        assert!(matches!(before().judge(Some(life(1)), read), Memory::Of(_)));
    }

    #[test]
    fn a_raise_in_another_life_tells_of_that() {
        let hour = StoreMemory::new(1, Duration::from_secs(3600));
        assert_eq!(seen_from(hour, Some(&life(1))), hour);
        assert_eq!(seen_from(hour, Some(&life(2))), young(2));
        assert_eq!(seen_from(hour, None), young(1));
    }
}
