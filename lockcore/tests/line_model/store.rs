//! The store: the steps that every backend implements in one atomic call.

use crate::flaw::Flaw;
use crate::messages::{Answer, Holder, Request};
use crate::promises::Promises;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lease {
    pub(crate) holder: Holder,
    pub(crate) token: u8,
    /// It does not end before these are over.
    pub(crate) stands: Promises,
    /// Nor before these: it took the holder's place, and a wait is never longer than a ttl.
    pub(crate) waits: Promises,
    /// A request that arrived after its holder was spent began it. Only the model knows.
    pub(crate) stray: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) holder: Holder,
    /// It does not end before these are over.
    pub(crate) stands: Promises,
    /// Its listener was taken for gone.
    pub(crate) passed: bool,
    /// As of a lease.
    pub(crate) stray: bool,
}

/// The record of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Store {
    pub(crate) lease: Option<Lease>,
    /// The last token.
    pub(crate) last: u8,
    pub(crate) line: Vec<Place>,
}

/// What the store does not decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How many places the line has.
    pub(crate) cap: usize,
    /// The processes that listen for signals, as bits.
    pub(crate) listeners: u8,
    pub(crate) flaw: Option<Flaw>,
}

/// The call that a request belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// What its process counts on.
    pub(crate) promise: Promises,
    /// Its holder is spent.
    pub(crate) stray: bool,
    /// What the store's clock shows, as a token.
    pub(crate) clock: u8,
    /// The first listener is taken for gone.
    pub(crate) deaf: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) signal: Option<Holder>,
}

impl Rules {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn listens(&self, holder: Holder) -> bool {
        self.listeners & (1 << holder.process) != 0
    }
}

impl Store {
    pub(crate) fn lease_of(&self, holder: Holder) -> Option<Lease> {
        self.lease.filter(|lease| lease.holder == holder)
    }

    pub(crate) fn place_of(&self, holder: Holder) -> Option<&Place> {
        self.line.iter().find(|place| place.holder == holder)
    }

    /// Who has the right of way.
    pub(crate) fn first(&self) -> Option<Holder> {
        self.line.iter().find(|place| !place.passed).map(|place| place.holder)
    }

    /// What may have ended by now, as bits: the lease, and then each place.
    pub(crate) fn may_end(&self, rules: &Rules) -> u8 {
        let lease =
            self.lease.is_some_and(|lease| lease.stands.is_empty() && lease.waits.is_empty());
        let places = self.line.iter().enumerate().filter(|(at, place)| {
            let right_ends = rules.has(Flaw::RightEndsBeforeThePlace)
                && *at == 0
                && (self.lease.is_none() || lease);
            (place.stands.is_empty() || right_ends) && !rules.has(Flaw::PlacesWithoutEnd)
        });
        places.fold(u8::from(lease), |ends, (at, _)| ends | 2 << at)
    }

    /// Ends what has ended.
    pub(crate) fn settle(&mut self, ended: u8) {
        if ended & 1 != 0 {
            self.lease = None;
        }
        let mut at = 0;
        self.line.retain(|_| {
            at += 1;
            ended & (1 << at) == 0
        });
    }

    /// Executes a request in one atomic step.
    pub(crate) fn execute(&mut self, request: &Request, call: Call, rules: &Rules) -> Outcome {
        match *request {
            Request::Acquire { holder, wait, floor } => {
                self.acquire(holder, wait, floor, call, rules)
            }
            Request::Renew { holder } => self.renew(holder, call, rules),
            Request::Release { holder } => self.release(holder, call, rules),
            Request::HandOver { from, to, over, floor } => {
                self.hand_over(from, to, over, floor, call, rules)
            }
        }
    }

    fn acquire(
        &mut self,
        holder: Holder,
        wait: bool,
        floor: u8,
        call: Call,
        rules: &Rules,
    ) -> Outcome {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.holder == holder) {
            if !rules.has(Flaw::AskingAgainDoesNotExtend) {
                lease.extend(call, rules);
            }
            return Outcome::of(Answer::Granted(lease.token));
        }
        let was_first = self.lease.is_none() && self.first() == Some(holder);
        let wait = wait || rules.has(Flaw::AskWithoutWaitStays);
        if wait {
            self.keep_place(holder, call, rules);
        }
        let first = self.first();
        let may_pass = first.is_none_or(|first| first == holder) || rules.has(Flaw::NewcomerPasses);
        if self.lease.is_none() && may_pass {
            let waited = self.place_of(holder).is_some();
            let keeps_token = waited && rules.has(Flaw::GrantKeepsTheToken);
            let least = if keeps_token { self.last } else { self.last + 1 };
            return self.grant(holder, least.max(floor), call, rules);
        }
        let mut signal = None;
        if !wait {
            self.line.retain(|place| place.holder != holder);
            if was_first {
                signal = self.signal(call, rules);
            }
        } else if self.place_of(holder).is_none() && self.line.len() < rules.cap {
            self.append(holder, call, call.stray);
        }
        let placed = wait && self.place_of(holder).is_some();
        Outcome { answer: Answer::Contended { placed }, signal }
    }

    fn renew(&mut self, holder: Holder, call: Call, rules: &Rules) -> Outcome {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.holder == holder) {
            lease.extend(call, rules);
            return Outcome::of(Answer::Granted(lease.token));
        }
        let first = self.lease.is_none() && self.first() == Some(holder);
        if first && rules.has(Flaw::RenewTakesTheRightOfWay) {
            return self.grant(holder, self.last + 1, call, rules);
        }
        Outcome::of(Answer::NotHeld)
    }

    fn release(&mut self, holder: Holder, call: Call, rules: &Rules) -> Outcome {
        if let Some(lease) = self.lease_of(holder) {
            self.lease = None;
            let signal = self.signal(call, rules);
            return Outcome { answer: Answer::Released(lease.token), signal };
        }
        let was_first = self.lease.is_none() && self.first() == Some(holder);
        if !rules.has(Flaw::ReleaseForgetsThePlace) {
            self.line.retain(|place| place.holder != holder);
        }
        let signal = if was_first { self.signal(call, rules) } else { None };
        Outcome { answer: Answer::NotHeld, signal }
    }

    fn hand_over(
        &mut self,
        from: Holder,
        to: Holder,
        over: bool,
        floor: u8,
        call: Call,
        rules: &Rules,
    ) -> Outcome {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.holder == to) {
            lease.extend(call, rules);
            return Outcome::of(Answer::Granted(lease.token));
        }
        let Some(before) = self.lease_of(from) else {
            if self.lease.is_none() && rules.has(Flaw::HandOverNeedsNoFrom) {
                // No excuse: a right store grants this to nobody, however late it comes.
                let call = Call { stray: false, ..call };
                return self.grant(to, self.last + 1, call, rules);
            }
            return Outcome::of(Answer::NotHeld);
        };
        let call = Call { stray: before.stray, ..call };
        let other = self.first().is_some_and(|first| first != to);
        if over && other && !rules.has(Flaw::HandOverIgnoresTheLine) {
            self.lease = None;
            let signal = self.signal(call, rules);
            let full = self.line.len() >= rules.cap && rules.has(Flaw::YieldDroppedFromAFullLine);
            if self.place_of(to).is_some() && !rules.has(Flaw::YieldAppendsTwice) {
                self.keep_place(to, call, rules);
            } else if !full {
                // A full line takes it all the same: it held the key until now.
                self.append(to, call, call.stray);
            }
            return Outcome { answer: Answer::Yielded, signal };
        }
        let keeps = rules.has(Flaw::HandOverKeepsTheToken);
        let least = if keeps { self.last } else { self.last + 1 };
        self.grant(to, least.max(floor), call, rules)
    }

    fn grant(&mut self, holder: Holder, token: u8, call: Call, rules: &Rules) -> Outcome {
        let waits = match self.place_of(holder) {
            Some(place) if !rules.has(Flaw::WaitLongerThanTtl) => place.stands,
            _ => Promises::default(),
        };
        if !rules.has(Flaw::GrantLeavesThePlace) {
            self.line.retain(|place| place.holder != holder);
        }
        let token = token.max(call.clock);
        self.last = token;
        let (stands, stray) = (call.promise, call.stray);
        self.lease = Some(Lease { holder, token, stands, waits, stray });
        Outcome::of(Answer::Granted(token))
    }

    /// A holder in line asks again: its place ends later, and stays where it is.
    fn keep_place(&mut self, holder: Holder, call: Call, rules: &Rules) {
        let Some(at) = self.line.iter().position(|place| place.holder == holder) else {
            return;
        };
        let place = &mut self.line[at];
        place.passed = false;
        place.stands = if rules.has(Flaw::LateAskShortensThePlace) {
            call.promise
        } else {
            place.stands.and(call.promise)
        };
        if rules.has(Flaw::AskingAgainGoesToTheTail) {
            let place = self.line.remove(at);
            self.line.push(place);
        } else if rules.has(Flaw::AskingAgainAppends) {
            self.append(holder, call, call.stray);
        }
    }

    fn append(&mut self, holder: Holder, call: Call, stray: bool) {
        self.line.push(Place { holder, stands: call.promise, passed: false, stray });
    }

    /// Signals the first in line that somebody hears.
    fn signal(&mut self, call: Call, rules: &Rules) -> Option<Holder> {
        let mut deaf = call.deaf;
        loop {
            let at = self.line.iter().position(|place| !place.passed)?;
            let holder = self.line[at].holder;
            let listens = rules.listens(holder);
            if !deaf || !(listens || rules.has(Flaw::PollerTakenForGone)) {
                return listens.then_some(holder);
            }
            deaf = false;
            if rules.has(Flaw::PassedIsRemoved) {
                self.line.remove(at);
            } else {
                self.line[at].passed = true;
            }
        }
    }
}

impl Lease {
    fn extend(&mut self, call: Call, rules: &Rules) {
        self.stands = if rules.has(Flaw::LateAskShortensTheLease) {
            call.promise
        } else {
            self.stands.and(call.promise)
        };
    }
}

impl Outcome {
    fn of(answer: Answer) -> Self {
        Self { answer, signal: None }
    }
}
