//! Time, as far as the model knows it.

/// A set of promises that processes count on.
///
/// The model has no clock. A call promises that what it was granted stands for a while after the
/// call began, and its process counts on it no longer. So a lease or a place may end at any moment
/// once every promise it rests on is over, and not before. Nothing is said about how long that
/// takes. This covers every ttl, every wait, every delay, and every order of ends. The margin for
/// clock drift is what makes it true of real clocks.
///
/// A process has at most two promises of a kind: that of the call under way, and that of the
/// latest call whose answer it relies on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Promises(u8);

impl Promises {
    /// The promise of the call under way.
    pub(crate) fn asked(process: u8) -> Self {
        Self(1 << (2 * process))
    }

    /// The promise that the process relies on.
    pub(crate) fn kept(process: u8) -> Self {
        Self(2 << (2 * process))
    }

    pub(crate) fn both(process: u8) -> Self {
        Self::asked(process).and(Self::kept(process))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The process relies on the call under way from now on.
    pub(crate) fn keep(self, process: u8) -> Self {
        let rest = self.without(Self::both(process));
        if self.contains(Self::asked(process)) { rest.and(Self::kept(process)) } else { rest }
    }
}
