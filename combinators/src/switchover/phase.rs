//! Where the locks are.

use std::fmt;
use std::str::FromStr;

use lockcore::InvalidInput;

/// Where the locks are while a team moves them from an old store to a new one.
///
/// Neighbouring phases exclude each other, for they share a store; `Old` and `New` do not, and
/// must never run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// In the old store alone.
    Old,
    /// In both, with one token.
    Both,
    /// In the new store alone.
    New,
}

impl Phase {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 3] = [Self::Old, Self::Both, Self::New];

    fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Both => "both",
            Self::New => "new",
        }
    }

    /// The one that must not run at the same time.
    pub(super) fn opposite(self) -> Option<Self> {
        match self {
            Self::Old => Some(Self::New),
            Self::Both => None,
            Self::New => Some(Self::Old),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Phase {
    type Err = InvalidInput;

    fn from_str(name: &str) -> Result<Self, InvalidInput> {
        Self::ALL.into_iter().find(|phase| phase.name() == name).ok_or_else(|| {
            InvalidInput::new(format!("a phase is `old`, `both` or `new`, not `{name}`"))
        })
    }
}
