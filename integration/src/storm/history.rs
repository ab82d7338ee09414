//! Whether what the clients noted may have been.

use std::collections::HashMap;

use super::Note;

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
        self.count(|note| matches!(note, Note::Held { .. }))
    }

    /// What was said about the locks that were lost, and about the acquires that failed.
    pub fn accidents(&self) -> impl Iterator<Item = &Note> {
        self.0.iter().filter(|note| matches!(note, Note::Lost { .. } | Note::Failed { .. }))
    }

    /// The greatest token of a key.
    #[must_use]
    pub fn newest(&self, of: &str) -> u64 {
        let tokens = self.0.iter().filter_map(|note| match note {
            Note::Held { key, tokens, .. } if key == of => Some(tokens.1),
            _ => None,
        });
        tokens.max().unwrap_or_default()
    }

    /// Nobody had a valid guard of a key while another had one, and whoever came later has greater
    /// tokens.
    ///
    /// # Errors
    ///
    /// The two that contradict that.
    pub fn check(&self) -> Result<(), String> {
        let mut keys: HashMap<&str, Vec<(&Note, _, _)>> = HashMap::new();
        for note in &self.0 {
            if let Note::Held { key, tokens, time, .. } = note {
                keys.entry(key).or_default().push((note, *time, *tokens));
            }
        }
        for held in keys.values_mut() {
            held.sort_by_key(|(_, time, _)| *time);
            let mut before = held.iter();
            // Who was valid for the longest, and who has the greatest token, up to here.
            let Some(mut longest) = before.next() else { continue };
            let mut newest = longest;
            for one in before {
                if one.1.0 < longest.1.1 {
                    return Err(format!("two at once: `{}` and `{}`", longest.0, one.0));
                }
                if one.2.0 <= newest.2.1 {
                    return Err(format!("tokens fell: `{}`, then `{}`", newest.0, one.0));
                }
                (longest, newest) = (one, one);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key, tokens, times.
    type Held = (&'static str, (u64, u64), (u64, u64));

    fn check(held: &[Held]) -> Result<(), String> {
        let mut history = History::default();
        history.add(held.iter().map(|&(key, tokens, time)| Note::Held {
            who: "0".to_owned(),
            key: key.to_owned(),
            tokens,
            time,
        }));
        assert_eq!(history.held(), held.len());
        history.check()
    }

    #[test]
    fn what_must_not_be_is_found() {
        let rising = [("k", (7, 8), (30, 40)), ("k", (5, 6), (10, 20)), ("o", (1, 1), (15, 35))];
        assert_eq!(check(&rising), Ok(()));
        let at_once = [("k", (5, 5), (10, 21)), ("k", (7, 7), (20, 40))];
        assert!(check(&at_once).is_err_and(|error| error.starts_with("two at once")));
        let within = [("k", (5, 5), (10, 40)), ("k", (6, 6), (20, 21)), ("k", (7, 7), (50, 60))];
        assert!(check(&within).is_err_and(|error| error.starts_with("two at once")));
        for fallen in [6, 5] {
            let fallen = [("k", (5, 6), (10, 20)), ("k", (fallen, 9), (20, 30))];
            assert!(check(&fallen).is_err_and(|error| error.starts_with("tokens fell")));
        }
    }
}
