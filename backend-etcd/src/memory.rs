//! How long the store has surely forgotten nothing, as a call finds it.

use std::sync::Arc;

use lockcore::{BackendError, Incarnation};

use crate::error;
use crate::record::Life;

/// The revisions that had been reached when a call began, by life. There are few, and a lease
/// keeps them: a map would take more memory than the lease does.
#[derive(Clone, Debug)]
pub(crate) struct Reached(pub(crate) Arc<[(u128, u64)]>);

impl Reached {
    /// Whether a store that answers in this state is not the one that wrote this life, or has gone
    /// back since in the same life, as a backup does that was restored with the identity of its
    /// cluster.
    pub(crate) fn is_restored(&self, life: &Life, state: State) -> bool {
        let is_undone = |reached| state.revision.is_some_and(|revision| revision < reached);
        let known = self.0.iter().find(|(id, _)| *id == life.id);
        state.cluster != life.cluster || known.is_some_and(|(_, reached)| is_undone(*reached))
    }
}

/// What was known before a transaction was sent. What an answer then shows to be so still was so
/// all the time.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) known: Option<(Life, Incarnation)>,
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
    Of(Incarnation),
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
pub(crate) fn young(id: u128) -> Incarnation {
    Incarnation::new(id, std::time::Duration::ZERO)
}

/// What was known of one life, seen from that which a later transaction met.
pub(crate) fn seen_from(memory: Incarnation, life: Option<&Life>) -> Incarnation {
    match life {
        Some(life) if life.id == memory.id => memory,
        Some(life) => young(life.id),
        None => young(memory.id),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let memory = Incarnation::new(1, Duration::from_secs(3600));
        Before { known: Some((life(1), memory)), reached: book.reached() }
    }

    #[test]
    fn only_the_life_that_was_known_is_as_old_as_it_was() {
        let hour = Incarnation::new(1, Duration::from_secs(3600));
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
        let hour = Incarnation::new(1, Duration::from_secs(3600));
        assert_eq!(seen_from(hour, Some(&life(1))), hour);
        assert_eq!(seen_from(hour, Some(&life(2))), young(2));
        assert_eq!(seen_from(hour, None), young(1));
    }
}
