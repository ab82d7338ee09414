//! What a client notes, a line each.

use std::fmt;
use std::str::FromStr;

use crate::history::Held;

/// What happened to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// It relied on a lock.
    Held(Held),
    /// It lost a lock, which is excused or is not.
    Lost {
        /// Whether the promises of a quorum allow it.
        excused: bool,
        /// What is known about it.
        about: String,
    },
    /// An acquire failed, which is excused or is not. That others held the key is no failure.
    Failed {
        /// Whether this machine was too slow for it.
        excused: bool,
        /// What it said.
        about: String,
    },
    /// An acquire was given up halfway.
    GaveUp,
    /// An acquire ran out of time while others held the key, or was answered so at once.
    Contended,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |about: &str| about.replace('\n', " ");
        match self {
            Self::Held(held) => write!(f, "held {held}"),
            Self::Lost { excused, about } => write!(f, "lost {excused} {}", line(about)),
            Self::Failed { excused, about } => write!(f, "failed {excused} {}", line(about)),
            Self::GaveUp => f.write_str("gave-up"),
            Self::Contended => f.write_str("contended"),
        }
    }
}

impl FromStr for Note {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("no note: {line}");
        let number = |word: &str| word.parse().map_err(|_| wrong());
        match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["gave-up"] => return Ok(Self::GaveUp),
            ["contended"] => return Ok(Self::Contended),
            [kind @ ("lost" | "failed"), excused, about] => {
                let excused = excused.parse().map_err(|_| wrong())?;
                let about = about.to_owned();
                return Ok(if kind == "lost" {
                    Self::Lost { excused, about }
                } else {
                    Self::Failed { excused, about }
                });
            }
            _ => {}
        }
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["held", who, key, first, last, began, ended] => Ok(Self::Held(Held {
                who: who.to_owned(),
                key: key.to_owned(),
                tokens: (number(first)?, number(last)?),
                time: (number(began)?, number(ended)?),
            })),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_are_written() {
        let (who, key) = ("2.1".to_owned(), "k".to_owned());
        for note in [
            Note::Held(Held { who, key, tokens: (1, 2), time: (3, 4) }),
            Note::Lost { excused: true, about: "one two  three".to_owned() },
            Note::Failed { excused: false, about: "x".to_owned() },
            Note::GaveUp,
            Note::Contended,
        ] {
            assert_eq!(note.to_string().parse(), Ok(note));
        }
        assert!("held 1 k 1 2 3".parse::<Note>().is_err());
    }
}
