//! The laws, said of one step of the store, independently of how the store takes it.

use crate::messages::{Answer, Holder, Request};
use crate::promises::Promises;
use crate::store::{Call, Outcome, Place, Rules, Store};

/// A law that was broken. The numbers are those of `docs/laws.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Law {
    /// L2: a holder with a lease that asks again is granted again.
    AskingAgain,
    /// L3, W2: nothing ends before its time.
    Time,
    /// L4: renew and release change nothing of others.
    HoldersOnly,
    /// L5: the token of each grant is greater than every earlier one.
    Tokens,
    /// W1: a contended holder that waits has one place.
    Place,
    /// W2: places keep their order.
    Order,
    /// W3: a free key goes to the first in line.
    FirstCome,
    /// W4: a grant takes the place away.
    Grant,
    /// W6: a release ends the lease and the place, and answers the token.
    Release,
    /// W7: contended without a wait leaves nothing.
    NoWait,
    /// W8: only a listener is passed over, until it asks again.
    Gone,
    /// W9: hand_over in one step, while the lease of `from` stands.
    HandOver,
    /// W6 and W10: no lease and no place stands for nobody.
    Stranded,
    /// A guard that was told that its release worked had held the key all the time.
    ReleasedMeansHeld,
}

/// The law that this step breaks, if it breaks one. In `before` all that had ended is gone.
pub(crate) fn broken(
    before: &Store,
    request: &Request,
    call: Call,
    outcome: &Outcome,
    after: &Store,
    rules: &Rules,
) -> Option<Law> {
    let step = Step { before, request, call, outcome, after, rules };
    let checks = [step.new_lease(), step.old_lease(), step.places(), step.answer()];
    checks.into_iter().find_map(Result::err)
}

struct Step<'a> {
    before: &'a Store,
    request: &'a Request,
    call: Call,
    outcome: &'a Outcome,
    after: &'a Store,
    rules: &'a Rules,
}

type Check = Result<(), Law>;

fn must(kept: bool, law: Law) -> Check {
    if kept { Ok(()) } else { Err(law) }
}

impl Step<'_> {
    fn places(&self) -> Check {
        let (before, after) = (self.before, self.after);
        let asks = self.request.holder();
        for (at, place) in after.line.iter().enumerate() {
            let again = after.line[at + 1..].iter().any(|other| other.holder == place.holder);
            must(!again, Law::Place)?;
            must(after.lease_of(place.holder).is_none(), Law::Grant)?;
            if let Some(old) = before.place_of(place.holder) {
                must(place.stands.contains(old.stands), Law::Time)?;
                let newly_passed = place.passed && !old.passed;
                must(!newly_passed || self.rules.listens(place.holder), Law::Gone)?;
            }
        }
        let survivors =
            |old: &&Place| after.place_of(old.holder).is_some_and(|new| new.holder == old.holder);
        let old: Vec<_> = before.line.iter().filter(survivors).map(|place| place.holder).collect();
        let new: Vec<_> = after.line.iter().map(|place| place.holder).collect();
        // Those that stay are in their old order, and whoever comes is behind them.
        must(new.starts_with(&old), Law::Order)?;
        for gone in before.line.iter().filter(|place| after.place_of(place.holder).is_none()) {
            must(gone.holder == asks, Law::Gone)?;
            let may_go = match self.request {
                Request::Release { .. } => true,
                Request::Acquire { wait, .. } => !wait || self.granted(),
                Request::HandOver { .. } => self.granted(),
                Request::Renew { .. } => false,
            };
            must(may_go, Law::Time)?;
        }
        Ok(())
    }

    fn granted(&self) -> bool {
        matches!(self.outcome.answer, Answer::Granted(_))
    }

    /// Whether a free key belongs to this holder, when it asks.
    fn is_first(&self, holder: Holder) -> bool {
        let stands = |place: &&Place| !place.passed || place.holder == holder;
        self.before.line.iter().find(stands).is_none_or(|place| place.holder == holder)
    }

    fn new_lease(&self) -> Check {
        let (before, after) = (self.before, self.after);
        let Some(new) = after.lease else {
            return Ok(());
        };
        if before.lease.is_some_and(|old| old.holder == new.holder && old.token == new.token) {
            return Ok(());
        }
        match *self.request {
            Request::Acquire { holder, .. } => {
                must(before.lease.is_none() && holder == new.holder, Law::HoldersOnly)?;
                must(self.is_first(holder), Law::FirstCome)?;
            }
            Request::HandOver { from, to, over, .. } => {
                must(before.lease_of(from).is_some() && to == new.holder, Law::HandOver)?;
                must(!over || self.is_first(to) || !self.others_wait(to), Law::HandOver)?;
            }
            Request::Renew { .. } | Request::Release { .. } => return Err(Law::HoldersOnly),
        }
        let floor = match *self.request {
            Request::Acquire { floor, .. } | Request::HandOver { floor, .. } => floor,
            Request::Renew { .. } | Request::Release { .. } => 0,
        };
        must(new.token > before.last && new.token >= floor, Law::Tokens)?;
        must(new.stands.contains(self.call.promise), Law::Time)
    }

    fn others_wait(&self, holder: Holder) -> bool {
        self.before.line.iter().any(|place| !place.passed && place.holder != holder)
    }

    fn old_lease(&self) -> Check {
        let Some(old) = self.before.lease else {
            return Ok(());
        };
        match self.after.lease.filter(|new| new.holder == old.holder) {
            Some(new) => {
                must(new.stands.contains(old.stands), Law::Time)?;
                must(new.waits.contains(old.waits), Law::Time)
            }
            None => {
                let may_go = match *self.request {
                    Request::Release { holder } => holder == old.holder,
                    Request::HandOver { from, .. } => from == old.holder,
                    Request::Acquire { .. } | Request::Renew { .. } => false,
                };
                must(may_go, Law::HoldersOnly)
            }
        }
    }

    fn answer(&self) -> Check {
        let (before, after, answer) = (self.before, self.after, self.outcome.answer);
        let rests = |stands: Promises| stands.contains(self.call.promise);
        match *self.request {
            Request::Acquire { holder, wait, .. } => {
                if let Some(old) = before.lease_of(holder) {
                    must(answer == Answer::Granted(old.token), Law::AskingAgain)?;
                    return must(after.lease.is_some_and(|l| rests(l.stands)), Law::Time);
                }
                if before.lease.is_none() && self.is_first(holder) {
                    return must(self.granted(), Law::FirstCome);
                }
                let place = after.place_of(holder);
                must(!place.is_some_and(|place| place.passed), Law::Gone)?;
                if !wait {
                    return must(place.is_none(), Law::NoWait);
                }
                let full = before.line.len() >= self.rules.cap;
                must(place.is_some() || full, Law::Place)?;
                must(answer == Answer::Contended { placed: place.is_some() }, Law::Place)?;
                must(place.is_none_or(|place| rests(place.stands)), Law::Time)
            }
            Request::Renew { holder } => match before.lease_of(holder) {
                Some(old) => {
                    must(answer == Answer::Granted(old.token), Law::HoldersOnly)?;
                    must(after.lease.is_some_and(|l| rests(l.stands)), Law::Time)
                }
                None => must(answer == Answer::NotHeld && before == after, Law::HoldersOnly),
            },
            Request::Release { holder } => self.release(holder),
            Request::HandOver { from, to, over, .. } => self.hand_over(from, to, over),
        }
    }

    fn release(&self, holder: Holder) -> Check {
        let (before, after, answer) = (self.before, self.after, self.outcome.answer);
        let gone = after.lease_of(holder).is_none() && after.place_of(holder).is_none();
        must(gone, Law::Release)?;
        let Some(old) = before.lease_of(holder) else {
            return must(answer == Answer::NotHeld, Law::Release);
        };
        must(answer == Answer::Released(old.token), Law::Release)?;
        self.next_is_signalled()
    }

    /// After the key became free.
    fn next_is_signalled(&self) -> Check {
        let first = self.after.line.iter().find(|place| !place.passed).map(|place| place.holder);
        let listens = first.filter(|first| self.rules.listens(*first));
        must(self.call.deaf || self.outcome.signal == listens, Law::Release)
    }

    fn hand_over(&self, from: Holder, to: Holder, over: bool) -> Check {
        let (before, after, answer) = (self.before, self.after, self.outcome.answer);
        if let Some(old) = before.lease_of(to) {
            return must(answer == Answer::Granted(old.token), Law::HandOver);
        }
        if before.lease_of(from).is_none() {
            return must(answer == Answer::NotHeld && before == after, Law::HandOver);
        }
        if answer != Answer::Yielded {
            must(!(over && self.others_wait(to) && !self.is_first(to)), Law::HandOver)?;
            return must(after.lease_of(to).is_some(), Law::HandOver);
        }
        must(over && self.others_wait(to) && after.lease.is_none(), Law::HandOver)?;
        let kept = before.place_of(to).is_some() && after.place_of(to).is_some();
        let last = after.line.last().is_some_and(|place| place.holder == to);
        must(kept || last, Law::HandOver)?;
        self.next_is_signalled()
    }
}
