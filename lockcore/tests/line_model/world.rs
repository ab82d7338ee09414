//! What the core does: the processes, the network, and what is remembered for the checks.

use crate::flaw::Flaw;
use crate::laws::Law;
use crate::messages::{Body, Holder, Message, Request};
use crate::process::{Ending, Late, Phase, Process, Script};
use crate::promises::Promises;
use crate::store::{Rules, Store};

/// What is searched, and within which bounds.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) scripts: Vec<Script>,
    /// What tasks demand as the least token.
    pub(crate) floors: &'static [u8],
    /// What the store's clock may show when a token is made. 0: nothing.
    pub(crate) clocks: &'static [u8],
    pub(crate) cap: usize,
    /// The processes that listen for signals, as bits.
    pub(crate) listeners: u8,
    /// How many requests arrive once more.
    pub(crate) copies: u8,
    /// How many processes die.
    pub(crate) deaths: u8,
    /// How often a listener is taken for gone.
    pub(crate) deaf: u8,
    pub(crate) wipe: Wipe,
    /// Answers may be late or lost, or else only requests.
    pub(crate) late_answers: bool,
    /// Every state is checked for a way on, which takes time.
    pub(crate) liveness: bool,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) watch: Watch,
}

/// Which broken laws end a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    All,
    /// This one: the search goes on over others, to see what a mistake leads to.
    Only(Option<Law>),
}

/// Whether the store loses its data, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wipe {
    Never,
    /// Its clock is ahead of every token.
    Once,
    /// Its clock has gone back.
    OnceWithTheClock,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) processes: Vec<Process>,
    /// Sorted: it is a multiset.
    pub(crate) network: Vec<Message>,
    pub(crate) copies: u8,
    pub(crate) deaths: u8,
    pub(crate) deaf: u8,
    pub(crate) wiped: bool,
    /// The greatest token that a guard has had.
    pub(crate) greatest: u8,
    /// The processes in the order in which they came to wait.
    pub(crate) order: Vec<u8>,
    pub(crate) broken: Option<Law>,
}

impl Config {
    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules { cap: self.cap, listeners: self.listeners, flaw: self.flaw }
    }
}

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            store: Store::default(),
            processes: config.scripts.iter().map(|script| Process::new(*script)).collect(),
            network: Vec::new(),
            copies: config.copies,
            deaths: config.deaths,
            deaf: config.deaf,
            wiped: false,
            greatest: 0,
            order: Vec::new(),
            broken: None,
        }
    }

    pub(crate) fn process(&self, process: u8) -> &Process {
        &self.processes[usize::from(process)]
    }

    pub(crate) fn process_mut(&mut self, process: u8) -> &mut Process {
        &mut self.processes[usize::from(process)]
    }

    pub(crate) fn me(&self, process: u8) -> Holder {
        Holder { process, number: self.process(process).me }
    }

    pub(crate) fn send(&mut self, message: Message) {
        let at = self.network.partition_point(|other| *other < message);
        self.network.insert(at, message);
    }

    fn request(&mut self, process: u8, request: Request, awaited: bool) {
        self.send(Message { process, body: Body::Request(request), awaited });
    }

    // What a process counts on.

    pub(crate) fn recount_lease(&mut self, change: impl Fn(Promises) -> Promises) {
        if let Some(lease) = &mut self.store.lease {
            lease.stands = change(lease.stands);
        }
    }

    pub(crate) fn recount_places(&mut self, change: impl Fn(Promises) -> Promises) {
        for place in &mut self.store.line {
            place.stands = change(place.stands);
        }
        if let Some(lease) = &mut self.store.lease {
            lease.waits = change(lease.waits);
        }
    }

    /// The call under way has ended, or its process counts on it no longer.
    pub(crate) fn call_is_over(&mut self, process: u8) {
        self.recount_lease(|stands| stands.without(Promises::asked(process)));
        self.recount_places(|stands| stands.without(Promises::asked(process)));
    }

    pub(crate) fn place_is_over(&mut self, process: u8) {
        self.process_mut(process).placed = false;
        self.recount_places(|stands| stands.without(Promises::kept(process)));
    }

    /// The guard is believed no longer.
    pub(crate) fn belief_is_over(&mut self, process: u8) {
        self.recount_lease(|stands| stands.without(Promises::both(process)));
    }

    // What a process does.

    /// The head asks, for the first time or again. A place is asked for from the first ask on.
    pub(crate) fn ask(&mut self, process: u8, floor: u8) {
        let holder = self.me(process);
        let asking = self.process_mut(process);
        asking.left.asks -= 1;
        asking.phase = Phase::Asking { late: Late::default() };
        let wait = asking.left.waits;
        self.request(process, Request::Acquire { holder, wait, floor }, true);
    }

    /// The call under way is given up: its outcome is not known.
    pub(crate) fn time_out(&mut self, config: &Config, process: u8) {
        self.abandon(config, process);
        let acting = self.process_mut(process);
        match &mut acting.phase {
            Phase::Asking { .. } => acting.phase = Phase::Doubt,
            Phase::Holding { renewing, .. } => *renewing = false,
            Phase::Releasing(ending)
            | Phase::HandingOver { ending, .. }
            | Phase::Settling { ending, .. } => {
                ending.doubt = true;
                ending.sent = false;
            }
            Phase::Idle | Phase::Napping | Phase::Doubt | Phase::Dead => {}
        }
    }

    /// Nobody listens any more: a request may still arrive, an answer is dropped.
    fn abandon(&mut self, config: &Config, process: u8) {
        self.call_is_over(process);
        let mistaken = config.has(Flaw::LateAnswerTaken);
        self.network.retain(|message| {
            let answer = matches!(message.body, Body::Answer(_));
            mistaken || !(answer && message.process == process && message.awaited)
        });
        for message in &mut self.network {
            message.awaited &= message.process != process;
        }
        self.network.sort_unstable();
    }

    /// A task gives up, and another goes on as the same holder, place and all.
    pub(crate) fn pass_on(&mut self, config: &Config, process: u8) {
        let acting = self.process_mut(process);
        acting.left.tasks -= 1;
        if !acting.is_in_line() {
            return;
        }
        if config.has(Flaw::OneTaskLeavesForAll) {
            let placed = acting.placed;
            self.undo_me(process);
            self.process_mut(process).placed = placed;
        } else if config.has(Flaw::PassedOnAsANewHolder) {
            self.abandon(config, process);
            let acting = self.process_mut(process);
            acting.me += 1;
            acting.phase = Phase::Idle;
        }
    }

    /// The last task gives up.
    pub(crate) fn leave(&mut self, config: &Config, process: u8) {
        let acting = self.process_mut(process);
        acting.left.tasks = acting.left.tasks.saturating_sub(1);
        if acting.phase == Phase::Napping && config.has(Flaw::AbandonedWaiterKeepsItsPlace) {
            self.place_is_over(process);
            self.next_holder(process);
            return;
        }
        self.undo_me(process);
    }

    /// The present holder is released in the background, until the store has answered.
    pub(crate) fn undo_me(&mut self, process: u8) {
        let number = self.process(process).me;
        self.place_is_over(process);
        self.belief_is_over(process);
        self.next_holder(process);
        self.undo(process, number);
    }

    pub(crate) fn next_holder(&mut self, process: u8) {
        self.order.retain(|other| *other != process);
        let acting = self.process_mut(process);
        acting.me += 1;
        acting.phase = Phase::Idle;
    }

    pub(crate) fn undo(&mut self, process: u8, number: u8) {
        self.process_mut(process).undo(number);
        self.request(process, Request::Release { holder: Holder { process, number } }, false);
    }

    pub(crate) fn renew(&mut self, process: u8) {
        let holder = self.me(process);
        let acting = self.process_mut(process);
        acting.left.renewals -= 1;
        if let Phase::Holding { renewing, .. } = &mut acting.phase {
            *renewing = true;
        }
        self.request(process, Request::Renew { holder }, true);
    }

    /// The work has ended. Renewals have stopped, though one may still arrive.
    fn end_guard(&mut self, config: &Config, process: u8) -> Option<Ending> {
        let Phase::Holding { token, believed, .. } = self.process(process).phase else {
            return None;
        };
        self.abandon(config, process);
        self.belief_is_over(process);
        Some(Ending { token, in_time: believed, doubt: false, sent: false })
    }

    /// The guard is released, or released again.
    pub(crate) fn release(&mut self, config: &Config, process: u8) {
        let ending = match self.process(process).phase {
            Phase::Releasing(ending) => Some(ending),
            _ => self.end_guard(config, process),
        };
        let Some(ending) = ending else { return };
        self.process_mut(process).phase = Phase::Releasing(Ending { sent: true, ..ending });
        let holder = self.me(process);
        self.request(process, Request::Release { holder }, true);
    }

    /// The next task does not wait for a release that has no answer.
    pub(crate) fn detach(&mut self, process: u8) {
        let number = self.process(process).me;
        self.next_holder(process);
        self.undo(process, number);
    }

    /// The guard's lease is handed to the next holder of this process, or once more to the same.
    pub(crate) fn hand_over(&mut self, config: &Config, process: u8, over: bool, floor: u8) {
        let from = self.me(process);
        let (ending, to) = match self.process(process).phase {
            Phase::HandingOver { ending, to, .. } => {
                let another = u8::from(config.has(Flaw::HandOverAgainToAnother));
                (Some(ending), to + another)
            }
            _ => (self.end_guard(config, process), from.number + 1),
        };
        let Some(ending) = ending else { return };
        let ending = Ending { sent: true, ..ending };
        let acting = self.process_mut(process);
        acting.left.hand_overs -= 1;
        acting.phase = Phase::HandingOver { ending, to, late: Late::default() };
        let to = Holder { process, number: to };
        self.request(process, Request::HandOver { from, to, over, floor }, true);
    }

    /// A hand_over had no answer: `from` is released until that is answered, and only then does
    /// `to` ask, or is released.
    pub(crate) fn settle(&mut self, config: &Config, process: u8) {
        let from = self.me(process);
        let (ending, to) = match self.process(process).phase {
            Phase::HandingOver { ending, to, .. } | Phase::Settling { ending, to } => (ending, to),
            _ => return,
        };
        if config.has(Flaw::AcquireToFirst) {
            self.next_holder(process);
            self.process_mut(process).undo(from.number);
            self.process_mut(process).phase = Phase::Doubt;
            return;
        }
        if config.has(Flaw::UndoAtOnce) && self.process(process).left.tasks == 0 {
            self.next_holder(process);
            self.undo(process, from.number);
            self.next_holder(process);
            self.undo(process, to);
            return;
        }
        let ending = Ending { sent: true, ..ending };
        self.process_mut(process).phase = Phase::Settling { ending, to };
        self.request(process, Request::Release { holder: from }, true);
    }

    pub(crate) fn die(&mut self, config: &Config, process: u8) {
        self.abandon(config, process);
        self.belief_is_over(process);
        self.place_is_over(process);
        self.order.retain(|other| *other != process);
        let acting = self.process_mut(process);
        acting.phase = Phase::Dead;
        acting.undoing = 0;
        self.deaths -= 1;
    }

    /// The store loses its data.
    pub(crate) fn wipe(&mut self, config: &Config) {
        let last = if config.wipe == Wipe::Once { self.store.last } else { 0 };
        self.store = Store { last, ..Store::default() };
        self.order.clear();
        for process in &mut self.processes {
            process.placed = false;
        }
        self.wiped = true;
    }
}
