//! All that the clients noted.

use super::Note;
use crate::history::{Held, check};

/// All that the clients noted.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<Note>);

impl History {
    /// Adds notes.
    pub fn add(&mut self, notes: impl IntoIterator<Item = Note>) {
        self.0.extend(notes);
    }

    /// How many notes are of a kind.
    pub fn count(&self, of: impl Fn(&Note) -> bool) -> usize {
        self.0.iter().filter(|note| of(note)).count()
    }

    /// How often a lock was held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.locks().count()
    }

    /// What was said about the locks that were lost, and about the acquires that failed.
    pub fn accidents(&self) -> impl Iterator<Item = &Note> {
        self.0.iter().filter(|note| matches!(note, Note::Lost { .. } | Note::Failed { .. }))
    }

    /// The greatest token of a key.
    #[must_use]
    pub fn newest(&self, of: &str) -> u64 {
        let tokens = self.locks().filter(|held| held.key == of).map(|held| held.tokens.1);
        tokens.max().unwrap_or_default()
    }

    /// Whether what was held may have been.
    ///
    /// # Errors
    ///
    /// The two that contradict each other.
    pub fn check(&self) -> Result<(), String> {
        check(self.locks())
    }

    fn locks(&self) -> impl Iterator<Item = &Held> {
        self.0.iter().filter_map(|note| match note {
            Note::Held(held) => Some(held),
            _ => None,
        })
    }
}
