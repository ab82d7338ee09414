//! A message arrives.

use crate::flaw::Flaw;
use crate::laws::{Law, broken};
use crate::messages::{Answer, Body, Holder, Message, Request};
use crate::process::{Ending, Late, Phase};
use crate::promises::Promises;
use crate::store::{Call, Store};
use crate::world::{Config, Watch, Wipe, World};

/// What happens as a request arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// What had ended before, as bits.
    pub(crate) ended: u8,
    /// It will arrive once more.
    pub(crate) copied: bool,
    /// A listener is taken for gone.
    pub(crate) deaf: bool,
    /// What the store's clock shows.
    pub(crate) clock: u8,
}

impl World {
    pub(crate) fn deliver(&mut self, config: &Config, message: Message, arrival: Arrival) {
        if let Some(at) = self.network.iter().position(|other| *other == message) {
            self.network.remove(at);
        }
        match message.body {
            Body::Request(request) => self.execute(config, message, request, arrival),
            Body::Answer(answer) => self.hear(config, message.process, answer),
            Body::Signal { holder, token } => self.hear_signal(config, holder, token),
        }
    }

    fn execute(&mut self, config: &Config, message: Message, request: Request, arrival: Arrival) {
        let process = message.process;
        if arrival.copied {
            self.copies -= 1;
            self.send(Message { awaited: false, ..message });
        }
        let promise = if message.awaited { Promises::asked(process) } else { Promises::default() };
        let acting = self.process(process);
        // Nobody will use what an abandoned ask brings, unless its holder still waits.
        let abandoned = match request {
            Request::Acquire { wait, .. } => !(message.awaited || wait && acting.is_in_line()),
            _ => false,
        };
        let stray = abandoned || acting.is_spent(request.holder().number);
        let call = Call { promise, stray, clock: arrival.clock, deaf: arrival.deaf };
        self.deaf -= u8::from(arrival.deaf);
        let rules = config.rules();
        self.store.settle(arrival.ended);
        let before = self.store.clone();
        let outcome = self.store.execute(&request, call, &rules);
        self.note(config, broken(&before, &request, call, &outcome, &self.store, &rules));
        self.watch_the_order(config, &before, &request, outcome.answer);
        if let Some(holder) = outcome.signal {
            let mistaken = config.has(Flaw::SignalBelieved);
            let token = if mistaken { self.store.last + 1 } else { 0 };
            let body = Body::Signal { holder, token };
            self.send(Message { process: holder.process, body, awaited: false });
        }
        if let (Request::Release { holder }, false) = (request, message.awaited) {
            self.process_mut(process).undone(holder.number);
        }
        let heard = message.awaited || config.has(Flaw::LateAnswerTaken);
        if heard && config.late_answers {
            self.send(Message { body: Body::Answer(outcome.answer), ..message });
        } else if message.awaited {
            self.hear(config, process, outcome.answer);
        }
    }

    pub(crate) fn note(&mut self, config: &Config, law: Option<Law>) {
        let watched = match config.watch {
            Watch::All => law,
            Watch::Only(only) => law.filter(|law| Some(*law) == only),
        };
        self.broken = self.broken.or(watched);
    }

    /// Looks at fairness between processes, which is more than the store can see.
    fn watch_the_order(
        &mut self,
        config: &Config,
        before: &Store,
        request: &Request,
        answer: Answer,
    ) {
        let process = request.holder().process;
        let new = self.store.lease.filter(|new| {
            before.lease.is_none_or(|old| old.holder != new.holder || old.token != new.token)
        });
        if let Some(new) = new {
            for (at, other) in self.processes.iter_mut().enumerate() {
                let guard = matches!(other.phase, Phase::Holding { .. });
                let own = new.holder.number == other.me && at == usize::from(new.holder.process);
                other.interrupted |= guard && !own;
            }
            let mine = new.holder == self.me(process) && self.process(process).is_alive();
            if mine && matches!(request, Request::Acquire { .. }) {
                let ahead = self.order.iter().take_while(|other| **other != process);
                let overtaken = ahead.copied().any(|other| {
                    let holder = self.me(other);
                    let passed = before.place_of(holder).is_some_and(|place| place.passed);
                    self.process(other).placed && !passed
                });
                self.note(config, overtaken.then_some(Law::FirstCome));
            }
            if mine {
                self.order.retain(|other| *other != process);
            }
        }
        // Where the process comes to wait, unless it does already.
        let mine = request.holder().number >= self.process(process).me;
        let joins = match (request, answer) {
            (Request::Acquire { holder, .. }, Answer::Contended { placed: true }) => {
                before.place_of(*holder).is_none()
            }
            (Request::HandOver { .. }, Answer::Yielded) => true,
            _ => false,
        };
        if mine && joins && !self.process(process).placed {
            self.order.retain(|other| *other != process);
            self.order.push(process);
        }
    }

    fn hear(&mut self, config: &Config, process: u8, answer: Answer) {
        match (self.process(process).phase, answer) {
            (Phase::Asking { late }, Answer::Granted(token)) => {
                self.granted(config, process, token, late);
            }
            (Phase::Asking { late }, Answer::Contended { placed }) => {
                self.contended(config, process, placed, late);
            }
            (Phase::Holding { token, believed, .. }, Answer::Granted(_)) => {
                if believed {
                    self.recount_lease(|stands| stands.keep(process));
                }
                self.call_is_over(process);
                let renewed = Phase::Holding { token, believed, renewing: false };
                self.process_mut(process).phase = renewed;
            }
            // A late copy of its ask may have brought its holder back since: that is released.
            (Phase::Holding { .. }, Answer::NotHeld) => self.undo_me(process),
            (Phase::Releasing(ending), answer) => {
                self.end(config, process, ending, answer);
                self.next_holder(process);
            }
            (Phase::Settling { ending, to }, answer) => {
                let ending = Ending { doubt: true, ..ending };
                self.end(config, process, ending, answer);
                let acting = self.process_mut(process);
                acting.me = to;
                acting.phase = Phase::Doubt;
            }
            (Phase::HandingOver { ending, to, late }, answer) => {
                self.end(config, process, ending, answer);
                let from = self.process(process).me;
                self.process_mut(process).me = to;
                match answer {
                    Answer::Granted(token) => self.granted(config, process, token, late),
                    Answer::Yielded => self.contended(config, process, true, late),
                    _ => {
                        self.call_is_over(process);
                        self.process_mut(process).phase = Phase::Idle;
                        self.undo(process, from);
                    }
                }
            }
            _ => {}
        }
    }

    /// The present holder of a process was granted the key.
    fn granted(&mut self, config: &Config, process: u8, token: u8, late: Late) {
        let trusts = !late.lease || config.has(Flaw::BeliefFromTheAnswer);
        let wanted = self.process(process).left.tasks > 0;
        if !trusts && config.has(Flaw::LateGrantForgotten)
            || !wanted && config.has(Flaw::HandedToNobody)
        {
            self.place_is_over(process);
            self.belief_is_over(process);
            self.next_holder(process);
            return;
        }
        if !trusts || !wanted {
            self.undo_me(process);
            return;
        }
        self.recount_lease(|stands| stands.keep(process));
        self.call_is_over(process);
        self.believe(config, process, token);
    }

    fn believe(&mut self, config: &Config, process: u8, token: u8) {
        self.place_is_over(process);
        // After a wipe an older grant may be heard later.
        let excused = self.wiped && config.wipe == Wipe::Once;
        self.note(config, (token <= self.greatest && !excused).then_some(Law::Tokens));
        self.greatest = self.greatest.max(token);
        let acting = self.process_mut(process);
        acting.left.tasks -= 1;
        acting.interrupted = false;
        acting.phase = Phase::Holding { token, believed: true, renewing: false };
    }

    fn contended(&mut self, config: &Config, process: u8, placed: bool, late: Late) {
        let asked = Promises::asked(process);
        let mut stands = self.store.line.iter().map(|place| place.stands);
        let waits = self.store.lease.is_some_and(|lease| lease.waits.contains(asked));
        let forgotten = self.wiped && !waits && !stands.any(|stands| stands.contains(asked));
        let in_time = !late.place || config.has(Flaw::PlaceFromTheAnswer);
        let counts = placed && in_time && !forgotten;
        if counts {
            self.recount_places(|stands| stands.keep(process));
        }
        self.call_is_over(process);
        let acting = self.process_mut(process);
        acting.phase = Phase::Napping;
        acting.placed |= counts;
        if !acting.left.waits {
            acting.left.tasks -= 1;
            self.next_holder(process);
        } else if config.has(Flaw::AskingAgainAsANewHolder) {
            let acting = self.process_mut(process);
            acting.me += 1;
            acting.phase = Phase::Doubt;
        }
    }

    /// What the user is told of a guard that has ended.
    fn end(&mut self, config: &Config, process: u8, ending: Ending, answer: Answer) {
        let may_have_worked = ending.doubt && ending.in_time;
        let held = match answer {
            Answer::Released(token) => {
                token == ending.token || may_have_worked || config.has(Flaw::ReleasedWithoutToken)
            }
            Answer::Granted(_) | Answer::Yielded => true,
            Answer::NotHeld | Answer::Contended { .. } => may_have_worked,
        };
        // A store that forgot the lease gave the key away.
        let interrupted = self.process(process).interrupted && !self.wiped;
        self.note(config, (held && interrupted).then_some(Law::ReleasedMeansHeld));
    }

    fn hear_signal(&mut self, config: &Config, holder: Holder, token: u8) {
        let acting = self.process(holder.process);
        if !acting.is_alive() {
            return;
        }
        let waits = acting.left.tasks > 0 && holder.number == acting.me;
        if waits && acting.phase == Phase::Napping && config.has(Flaw::SignalBelieved) {
            self.believe(config, holder.process, token);
            return;
        }
        let guard = matches!(acting.phase, Phase::Holding { .. }) && holder.number == acting.me;
        let handed = matches!(acting.phase, Phase::HandingOver { to, .. } if to == holder.number);
        let unknown = !acting.knows(holder)
            || guard && config.has(Flaw::SignalReleasesTheHeld)
            || handed && config.has(Flaw::SignalReleasesTheHandedOver);
        if unknown {
            // A place for nobody would cost everybody a wait.
            let body = Body::Request(Request::Release { holder });
            self.send(Message { process: holder.process, body, awaited: false });
        }
    }
}
