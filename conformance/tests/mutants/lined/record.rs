//! What a store with lines knows of a key.

use std::collections::VecDeque;
use std::time::Duration;

use lockcore::{Claim, Contention, HolderId};
use tokio::time::Instant;

use super::flaws::LineFlaw;

/// The most places in a line.
const MAX_LINE: usize = 128;

/// Later than any case.
const NEVER: Duration = Duration::from_secs(1_000_000);

#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) lease: Option<Held>,
    /// Whose lease time has ended, and whose was released.
    pub(super) ended: Option<HolderId>,
    pub(super) released: Option<HolderId>,
    pub(super) last: u64,
    pub(super) line: VecDeque<Place>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) claim: Claim,
    pub(super) token: u64,
    pub(super) ends: Instant,
    /// It was handed over.
    pub(super) handed: bool,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) holder: HolderId,
    pub(super) ends: Instant,
    wait: Duration,
    pub(super) listens: bool,
    pub(super) passed: bool,
    /// The token at the time, and when it was taken.
    token: u64,
    since: Instant,
}

impl Record {
    pub(super) fn settle(&mut self, flaw: LineFlaw) {
        let now = Instant::now();
        if let Some(held) = self.lease.take_if(|held| held.ends <= now) {
            self.ended = Some(held.claim.holder);
            if flaw == LineFlaw::ExpiryForgetsTheLine {
                self.line.clear();
            }
        }
        if flaw == LineFlaw::PlacesEndOneAfterTheOther {
            while self.line.front().is_some_and(|first| first.ends <= now) {
                let ended = self.line.pop_front().expect("just seen").ends;
                if let Some(next) = self.line.front_mut() {
                    next.ends = next.ends.max(ended + next.wait);
                }
            }
            return;
        }
        self.line.retain(|place| place.ends > now);
    }

    pub(super) fn lease_of(&mut self, holder: HolderId) -> Option<&mut Held> {
        self.lease.as_mut().filter(|held| held.claim.holder == holder)
    }

    pub(super) fn first(&self, flaw: LineFlaw) -> Option<HolderId> {
        let mut standing = self.line.iter().filter(|place| !place.passed);
        let first = match flaw {
            LineFlaw::TheLastComesFirst => standing.next_back(),
            _ => standing.next(),
        };
        first.map(|place| place.holder)
    }

    pub(super) fn position(&self, holder: HolderId) -> Option<usize> {
        self.line.iter().position(|place| place.holder == holder)
    }

    /// Whether there was room.
    pub(super) fn join(
        &mut self,
        claim: &Claim,
        wait: Duration,
        listens: bool,
        flaw: LineFlaw,
    ) -> bool {
        let now = Instant::now();
        let ends = now
            + match flaw {
                LineFlaw::PlacesHaveNoEnd => NEVER,
                LineFlaw::PlacesEndEarly => wait / 2,
                _ => wait,
            };
        let (holder, token) = (claim.holder, self.last + 1);
        let new = Place { holder, ends, wait, listens, passed: false, token, since: now };
        if let Some(at) = self.position(holder) {
            let place = &mut self.line[at];
            place.listens = listens;
            place.passed &= flaw == LineFlaw::GoneListenersStayMarked;
            match flaw {
                LineFlaw::ALateAskShortens => place.ends = ends,
                LineFlaw::AskingAgainDoesNotExtend => {}
                _ => place.ends = place.ends.max(ends),
            }
            match flaw {
                LineFlaw::AskingAgainGoesToTheTail => {
                    let place = self.line.remove(at).expect("just seen");
                    self.line.push_back(place);
                }
                LineFlaw::AskingAgainAppends => self.line.push_back(new),
                _ => {}
            }
            return true;
        }
        if self.line.len() >= MAX_LINE && flaw != LineFlaw::LinesHaveNoEnd {
            return false;
        }
        self.line.push_back(new);
        true
    }

    /// Makes a place last for ever.
    pub(super) fn never_ends(&mut self, holder: HolderId) {
        let mine = self.line.iter_mut().filter(|place| place.holder == holder);
        mine.for_each(|place| place.ends = Instant::now() + NEVER);
    }

    /// Ends a holder's place; whether it was the first in line.
    pub(super) fn leave(&mut self, holder: HolderId, flaw: LineFlaw) -> bool {
        let was_first = self.first(flaw) == Some(holder);
        if flaw == LineFlaw::AskingAgainAppends {
            if let Some(at) = self.position(holder) {
                self.line.remove(at);
            }
        } else {
            self.line.retain(|place| place.holder != holder);
        }
        was_first
    }

    pub(super) fn grant(&mut self, claim: &Claim, now_us: u64, flaw: LineFlaw) -> u64 {
        let now = Instant::now();
        let (mut token, mut ends) =
            ((self.last + 1).max(now_us).max(claim.min_token), now + claim.ttl);
        if let Some(at) = self.position(claim.holder) {
            let place = &self.line[at];
            match flaw {
                LineFlaw::TheTokenIsThatOfThePlace => token = place.token,
                LineFlaw::TheEndIsThatOfThePlace => ends = place.since + claim.ttl,
                _ => {}
            }
        }
        if flaw != LineFlaw::GrantLeavesThePlace {
            self.leave(claim.holder, flaw);
        }
        self.last = self.last.max(token);
        self.lease = Some(Held { claim: claim.clone(), token, ends, handed: false });
        token
    }

    pub(super) fn contention(&self, holder: HolderId, flaw: LineFlaw) -> Contention {
        let now = Instant::now();
        let ends = self.lease.as_ref().map(|held| held.ends);
        let ends =
            ends.or_else(|| self.line.iter().find(|place| !place.passed).map(|place| place.ends));
        let ahead = self.position(holder).map(|at| match flaw {
            LineFlaw::AheadIsAlwaysZero => 0,
            LineFlaw::AheadIsTooLarge => u32::try_from(at).expect("few") + 1000,
            _ => u32::try_from(at).expect("few"),
        });
        Contention::new(ends.map(|ends| ends - now)).with_ahead(ahead)
    }
}
