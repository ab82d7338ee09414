//! What a client asks for, checked against the rules of a holder: one request in flight, spent
//! after a definite answer, released before another asks.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Claim, HolderId};
use tokio::time::Instant;

use crate::checks::Check;
use crate::holder::Holder;
use crate::link::index;
use crate::plan::REQUEST_TIMEOUT;
use crate::requests::Answer;
use crate::state::{State, short};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Acquire,
    Renew,
    Release,
    HandOver,
}

/// How a call ended for its caller.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// `true`: with a lease that began with this request.
    Answered(Answer, bool),
    Unavailable,
    Ambiguous,
    /// The caller dropped it.
    Dropped,
}

/// A call whose caller waits.
#[derive(Debug)]
pub(crate) struct Call {
    world: Arc<World>,
    made: Made,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) client: usize,
    pub(crate) key: usize,
    pub(crate) verb: Verb,
    pub(crate) holder: HolderId,
    /// Of a hand-over: who is to have the key.
    pub(crate) to: Option<HolderId>,
    pub(crate) wait: Option<Duration>,
    pub(crate) started: Instant,
    /// The holder was doubtful already.
    pub(crate) doubtful: bool,
}

impl Call {
    pub(crate) fn begin(world: &Arc<World>, client: usize, verb: Verb, claim: &Claim) -> Self {
        let made = world.state().call_begins(client, verb, claim, None);
        Self { world: world.clone(), made, ended: false }
    }

    pub(crate) fn hands_over(world: &Arc<World>, client: usize, from: &Claim, to: &Claim) -> Self {
        let made = world.state().call_begins(client, Verb::HandOver, from, Some(to));
        Self { world: world.clone(), made, ended: false }
    }

    pub(crate) fn end(mut self, outcome: Outcome) {
        self.ended = true;
        self.world.state().call_ends(self.made, outcome);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.world.state();
            state.call_ends(self.made, Outcome::Dropped);
            state.heard(self.made.client, false);
        }
    }
}

impl State {
    fn call_begins(
        &mut self,
        client: usize,
        verb: Verb,
        claim: &Claim,
        to: Option<&Claim>,
    ) -> Made {
        let (key, holder, started) = (index(&claim.key), claim.holder, Instant::now());
        self.note(|| format!("client {client} asks {verb:?} {} {}", claim.key, short(holder)));
        let slot = self.slot(client, key);
        slot.calls += 1;
        (slot.last_active, slot.last_used) = (started, started);
        let doubtful = slot.doubtful.contains(&holder);
        if verb == Verb::Acquire {
            let last = slot.doubtful.iter().copied().find(|other| *other != holder);
            if !doubtful {
                slot.doubtful.push(holder);
            }
            // Others take over the turn of a task that did not run.
            let there = &self.clients[client];
            let ran = |asked| there.runs() && asked >= there.resumed();
            if let Some(last) = last.filter(|last| ran(self.holders[last].asked)) {
                // Its release may be sent by a task that runs later in the same instant.
                self.beside.push((started, holder, last));
            }
        }
        self.tries(client, verb, claim);
        self.clients[client].called = started;
        let known = self.holders.entry(holder).or_insert_with(|| Holder::new(client, key));
        let deadline = known.deadline;
        let asks = |verb: &Verb| known.in_flight[*verb as usize] > 0;
        // A renewal changes nothing for a lease that has gone.
        let others = [Verb::Acquire, Verb::Release, Verb::HandOver].iter().any(asks);
        let over = known.release_sent || known.hands_over;
        let spent = match verb {
            Verb::Acquire => known.spent || known.guarded || over,
            Verb::Renew => over,
            Verb::HandOver => !known.guarded || over,
            Verb::Release => false,
        };
        known.in_flight[verb as usize] += 1;
        match verb {
            Verb::Acquire => known.asked = started,
            Verb::Renew => known.renewed_at = Some(started),
            Verb::Release => {
                known.release_sent = true;
                known.place = None;
            }
            Verb::HandOver => (known.hands_over, known.released_at) = (true, Some(started)),
        }
        if verb == Verb::Renew {
            self.clients[client].renewing.notify_waiters();
        }
        if verb == Verb::Release {
            self.slot(client, key).doubtful.retain(|other| *other != holder);
            let first = self.holders[&holder].heir_of;
            let stands =
                |it: &Holder| !it.release_answered && it.deadline.is_some_and(|end| started < end);
            if first.is_some_and(|first| stands(&self.holders[&first])) {
                self.broken(Check::FromFirst, || short(holder));
            }
        }
        if let Some(to) = to {
            let heir = Holder { heir_of: Some(holder), spent: true, ..Holder::new(client, key) };
            self.holders.insert(to.holder, heir);
            if deadline.is_none_or(|end| end <= started) {
                self.broken(Check::HandsOverInTime, || short(holder));
            }
        }
        if others && verb != Verb::Renew {
            self.broken(Check::OneRequest, || format!("{verb:?} by {}", short(holder)));
        }
        if spent {
            self.broken(Check::SpentHolder, || format!("{verb:?} by {}", short(holder)));
        }
        let (to, wait) = (to.map(|to| to.holder), to.unwrap_or(claim).wait);
        Made { client, key, verb, holder, to, wait, started, doubtful }
    }

    fn call_ends(&mut self, made: Made, outcome: Outcome) {
        if self.over {
            return;
        }
        let now = Instant::now();
        self.note(|| {
            let Made { client, verb, holder, .. } = made;
            format!("client {client} hears {verb:?} {} {outcome:?}", short(holder))
        });
        let slot = self.slot(made.client, made.key);
        slot.calls -= 1;
        (slot.last_active, slot.last_used) = (now, now);
        let unanswered = matches!(outcome, Outcome::Dropped);
        let early = now - made.started + Duration::from_millis(2) < REQUEST_TIMEOUT;
        if unanswered && early && made.verb == Verb::Acquire {
            self.broken(Check::AcquireSeenToEnd, || {
                format!("{:?} by {} was dropped", made.verb, short(made.holder))
            });
        }
        self.holder(made.holder).in_flight[made.verb as usize] -= 1;
        match made.verb {
            Verb::Acquire => self.acquire_ends(made, outcome),
            Verb::Renew => self.renew_ends(made, outcome, now),
            Verb::Release => self.release_ends(made, outcome),
            Verb::HandOver => self.hand_over_ends(made, outcome),
        }
    }

    /// Looks at holders that asked beside another of their process.
    pub(crate) fn look_at_neighbours(&mut self, now: Instant) {
        while let Some((at, holder, last)) = self.beside.first().copied().filter(|it| it.0 < now) {
            self.beside.remove(0);
            if !self.holders[&last].release_sent {
                self.broken(Check::ReleaseFirst, || {
                    format!("{} asks at {at:?}, {} may hold", short(holder), short(last))
                });
            }
        }
    }

    pub(crate) fn holder(&mut self, holder: HolderId) -> &mut Holder {
        self.holders.get_mut(&holder).expect("a holder that has asked")
    }
}
