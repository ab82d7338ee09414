//! One key: its lease and its line.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::claim::{Claim, Contention};
use crate::key::HolderId;

/// All that is known of a key.
pub(super) struct Record {
    pub(super) lease: Option<Held>,
    /// The greatest token of the key so far, and when it was last used.
    pub(super) last: u64,
    pub(super) used: Instant,
    /// Who waits, first come first served.
    pub(super) line: VecDeque<Place>,
}

#[derive(Clone)]
pub(super) struct Held {
    pub(super) holder: HolderId,
    pub(super) token: u64,
    pub(super) ends: Instant,
    pub(super) label: Arc<str>,
    pub(super) announce: bool,
}

/// A place in a key's line.
pub(super) struct Place {
    pub(super) holder: HolderId,
    pub(super) ends: Instant,
    /// Whether the holder was listening when it asked last. The others ask again by themselves.
    pub(super) listens: bool,
    /// It was signalled and nobody heard: others go first until it asks again.
    pub(super) passed: bool,
}

impl Record {
    pub(super) fn new(now: Instant) -> Self {
        Self { lease: None, last: 0, used: now, line: VecDeque::new() }
    }

    /// Ends what time has ended.
    pub(super) fn settle(&mut self, now: Instant) {
        // L3: only the store's clock ends a lease.
        if self.lease.as_ref().is_some_and(|held| held.ends <= now) {
            self.lease = None;
        }
        // W2: a place that is past its end is gone.
        if !self.line.is_empty() {
            self.line.retain(|place| place.ends > now);
        }
    }

    /// The lease that stands, if it is this holder's.
    pub(super) fn lease_of(&mut self, holder: HolderId) -> Option<&mut Held> {
        self.lease.as_mut().filter(|held| held.holder == holder)
    }

    /// W3: the first place that was not passed over, to which alone a free key goes.
    pub(super) fn first(&self) -> Option<&Place> {
        self.line.iter().find(|place| !place.passed)
    }

    pub(super) fn position(&self, holder: HolderId) -> Option<usize> {
        self.line.iter().position(|place| place.holder == holder)
    }

    /// Gives a holder a place that ends no earlier than `ends`, at the tail unless it has one. W11:
    /// a line with `room` places takes no more.
    pub(super) fn join(&mut self, holder: HolderId, ends: Instant, listens: bool, room: usize) {
        if let Some(at) = self.position(holder) {
            let place = &mut self.line[at];
            // W2: a late or shorter ask never shortens it.
            place.ends = place.ends.max(ends);
            (place.listens, place.passed) = (listens, false);
        } else if self.line.len() < room {
            self.line.push_back(Place { holder, ends, listens, passed: false });
        }
    }

    /// Ends a holder's place; whether it was the first in line.
    pub(super) fn leave(&mut self, holder: HolderId) -> bool {
        let Some(at) = self.position(holder) else { return false };
        let was_first = self.first().is_some_and(|first| first.holder == holder);
        self.line.remove(at);
        was_first
    }

    /// W4: grants the key. Token and end are computed now, and the place is taken away.
    pub(super) fn grant(&mut self, claim: &Claim, now: Instant, now_us: u64) -> u64 {
        self.leave(claim.holder);
        self.last = (self.last + 1).max(now_us).max(claim.min_token);
        self.used = now;
        self.lease = Some(Held {
            holder: claim.holder,
            token: self.last,
            ends: now + claim.ttl,
            label: claim.label.clone(),
            announce: claim.announce,
        });
        self.last
    }

    /// When it is worth asking again: what is left of the lease, or of the first place.
    pub(super) fn contention(&self, holder: HolderId, now: Instant) -> Contention {
        let lease_ends = self.lease.as_ref().map(|held| held.ends);
        let ends = lease_ends.or_else(|| self.first().map(|first| first.ends));
        let ahead = self.position(holder).map(|at| u32::try_from(at).unwrap_or(u32::MAX));
        Contention::new(ends.map(|ends| ends - now)).with_ahead(ahead)
    }
}
