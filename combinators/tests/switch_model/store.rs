//! A store: what the laws promise of it, and no more.

use std::collections::BTreeMap;

use crate::world::{LOCK, PHASE};

/// A key, and with it its one holder, except for the key that is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// Of `Old` or `New`.
    Phase(Side),
    /// Of a run of it.
    Within(Side, u8),
    Ceiling,
    /// Somebody ran in `New`.
    Mark,
    Locked,
}

/// A store, and the phase in which locks are in it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Old,
    New,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Look,
    Take,
    Renew,
    Release,
}

/// What a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ask {
    pub(crate) at: Side,
    pub(crate) verb: Verb,
    pub(crate) key: Key,
    pub(crate) holder: u16,
    pub(crate) least: u8,
}

/// The token of what stands now, or was asked for: none where it does not stand, or another has it.
pub(crate) type Answer = Option<u8>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// Holder, token and end.
    leases: BTreeMap<Key, (u16, u8, u8)>,
    /// The last token of each key.
    counters: BTreeMap<Key, u8>,
}

impl Store {
    /// A lock was taken with this token long ago.
    pub(crate) fn with_history(token: u8) -> Self {
        let counters = [(Key::Locked, token), (Key::Ceiling, token + 1)].into();
        Self { leases: BTreeMap::new(), counters }
    }

    pub(crate) fn wipe(&mut self) {
        // Its clock, which dates tokens, goes on.
        self.leases.clear();
    }

    pub(crate) fn holder(&self, key: Key, now: u8) -> Option<(u16, u8)> {
        let standing = self.leases.get(&key).filter(|(_, _, end)| *end > now);
        standing.map(|(holder, token, _)| (*holder, *token))
    }

    pub(crate) fn execute(&mut self, ask: Ask, now: u8) -> Answer {
        let standing = self.holder(ask.key, now);
        let ours = standing.filter(|(holder, _)| *holder == ask.holder);
        let ttl = match ask.key {
            Key::Phase(_) | Key::Within(..) => PHASE,
            Key::Ceiling | Key::Locked => LOCK,
            Key::Mark => u8::MAX / 2,
        };
        match (ask.verb, standing, ours) {
            (Verb::Look, Some((_, token)), _) => Some(token),
            (Verb::Release, _, Some((_, token))) => {
                self.leases.remove(&ask.key);
                Some(token)
            }
            (Verb::Take, None, _) => {
                let last = self.counters.get(&ask.key).copied().unwrap_or(0);
                let token = (last + 1).max(ask.least);
                self.counters.insert(ask.key, token);
                self.leases.insert(ask.key, (ask.holder, token, now + ttl));
                Some(token)
            }
            (Verb::Take | Verb::Renew, _, Some((holder, token))) => {
                // Taken again it has the token that it had.
                let least = if ask.verb == Verb::Renew { ask.least } else { 0 };
                let token = token.max(least);
                let end = self.leases.get(&ask.key).map_or(0, |lease| lease.2).max(now + ttl);
                self.counters.insert(ask.key, token);
                self.leases.insert(ask.key, (holder, token, end));
                Some(token)
            }
            _ => None,
        }
    }

    /// Forgets what has ended: states that differ in nothing else are one.
    pub(crate) fn tidy(&mut self, now: u8) {
        self.leases.retain(|_, (_, _, end)| *end > now);
    }
}
