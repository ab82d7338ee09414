//! The protocol of the quorum.

use super::client::{Body, Client, Lane, Message, Name, Phase, Said, Script};
use super::flaw::{Flaw, decide};
use super::node::{Calls, Holder, Node, Request};
use crate::agreement::Step;

/// What is checked, and within which bounds.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) stores: usize,
    pub(super) scripts: [Script; 2],
    /// What clients propose as the least token.
    pub(super) floors: &'static [u8],
    pub(super) clocks: Clocks,
    /// One store may lose its memory, once.
    pub(super) wipe: bool,
    /// Whether an answer may be late or lost, or else only requests.
    pub(super) late_answers: bool,
    /// Whether releases are messages. Else they are left out: what the release of a spent holder
    /// does, the end of its lease does as well, and that comes at any time.
    pub(super) releases: bool,
    pub(super) flaw: Option<Flaw>,
}

/// What the clocks of stores show when they mint a token: max(counter + 1, clock, floor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clocks {
    /// There are none: the counter alone.
    None,
    /// Anything up to this.
    Wild(u8),
    /// Anything up to this, and after the gate of the wiped store has opened more than before the
    /// wipe: the clocks differ by less than the gate.
    WithinTheGate(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State {
    pub(super) lanes: Vec<Lane>,
    pub(super) clients: [Client; 2],
    /// The greatest token that a guard has had.
    pub(super) greatest: u8,
    /// How many guards there have been.
    pub(super) guards: u8,
    /// A guard got a token that is not greater than an earlier one's.
    pub(super) fell: bool,
    pub(super) wiped: bool,
}

impl State {
    pub(super) fn new(config: &Config) -> Self {
        let client = |script| Client { phase: Phase::Idle, attempt: 0, left: script };
        Self {
            lanes: (0..config.stores)
                .map(|name| Lane { name: Name(name), ..Lane::default() })
                .collect(),
            clients: config.scripts.map(client),
            greatest: 0,
            guards: 0,
            fell: false,
            wiped: false,
        }
    }

    fn holder(&self, client: usize) -> Holder {
        Holder { client, attempt: self.clients[client].attempt }
    }

    fn lane(&mut self, name: usize) -> &mut Lane {
        self.lanes.iter_mut().find(|lane| lane.name.0 == name).expect("every store has a lane")
    }

    /// Begins a call: all stores are asked.
    fn ask(&mut self, client: usize, request: Request) {
        let holder = self.holder(client);
        for lane in &mut self.lanes {
            lane.ask(holder, request);
        }
    }

    pub(super) fn acquire(&mut self, client: usize, floor: u8) {
        self.clients[client].left.attempts -= 1;
        self.clients[client].phase = Phase::Acquiring;
        self.ask(client, Request::Acquire { floor });
    }

    /// No answer came in time, and nothing was released: the same holder asks again. The call
    /// before goes on behind, and may raise what it was granted.
    pub(super) fn ask_again(&mut self, client: usize, floor: u8) {
        self.clients[client].left.again -= 1;
        let holder = self.holder(client);
        if let Some(greatest) = self.lanes.iter().filter_map(|lane| lane.token(client)).max() {
            for lane in &mut self.lanes {
                if lane.token(client).is_some_and(|token| token < greatest) {
                    lane.send_behind(holder, Request::Renew { floor: greatest });
                }
            }
        }
        self.end_call(client);
        self.ask(client, Request::Acquire { floor });
    }

    pub(super) fn renew(&mut self, config: &Config, client: usize) {
        let acting = &mut self.clients[client];
        acting.left.renewals -= 1;
        let Phase::Holding { token, ref mut renewing, .. } = acting.phase else { return };
        *renewing = true;
        let before = self.lanes.iter().map(|lane| lane.said[client]).collect::<Vec<_>>();
        self.ask(client, Request::Renew { floor: token });
        if config.flaw == Some(Flaw::RenewCountsOldAnswers) {
            for (lane, said) in self.lanes.iter_mut().zip(before) {
                lane.said[client] = said;
            }
        }
    }

    /// The call under way is over, without success.
    fn end_call(&mut self, client: usize) {
        for lane in &mut self.lanes {
            lane.forget(client);
            lane.node.recount(|calls| calls.without(Calls::asked(client)));
        }
    }

    /// A renewal is given up, or its ttl has passed. The guard is believed as long as before.
    pub(super) fn stop_renewing(&mut self, client: usize) {
        self.end_call(client);
        if let Phase::Holding { renewing, .. } = &mut self.clients[client].phase {
            *renewing = false;
        }
    }

    /// An attempt is rolled back, or its ttl has passed; or a guard is released, or its deadline
    /// has passed.
    pub(super) fn give_up(&mut self, config: &Config, client: usize) {
        let holder = self.holder(client);
        self.end_call(client);
        for lane in &mut self.lanes {
            lane.node.recount(|calls| calls.without(Calls::kept(client)));
            if config.releases {
                lane.send_behind(holder, Request::Release);
            }
        }
        let acting = &mut self.clients[client];
        let reused = config.flaw == Some(Flaw::HolderReused) && acting.phase == Phase::Acquiring;
        acting.attempt += u8::from(!reused);
        acting.phase = Phase::Idle;
    }

    /// The step that the votes of a client ask for.
    pub(super) fn step(&self, config: &Config, client: usize) -> Step {
        let votes: Vec<_> = self.lanes.iter().map(|lane| lane.said[client]).collect();
        let answers = votes.iter().filter(|said| **said != Said::Nothing).count();
        let of = match (config.flaw, &self.clients[client].phase) {
            (Some(Flaw::AcquireMajorityOfAnswers), Phase::Acquiring) => answers,
            (Some(Flaw::RenewMajorityOfGranted), Phase::Holding { granted, .. }) => {
                usize::from(*granted)
            }
            _ => config.stores,
        };
        decide(&votes, of / 2 + 1, config.flaw)
    }

    /// Takes the steps that the votes of a client ask for.
    pub(super) fn decide(&mut self, config: &Config, client: usize) {
        while self.clients[client].asks() {
            match (self.step(config, client), &self.clients[client].phase) {
                (Step::Wait | Step::WaitOrRaise(_), _) => return,
                (Step::Raise(token), _) => self.raise(config, client, small(token)),
                (Step::Agreed(token), _) => self.agree(config, client, small(token)),
                (Step::Hopeless, Phase::Acquiring) => self.give_up(config, client),
                (Step::Hopeless, _) => {
                    self.stop_renewing(client);
                    if config.flaw == Some(Flaw::RenewalReleases) {
                        let holder = self.holder(client);
                        for lane in &mut self.lanes {
                            lane.send_behind(holder, Request::Release);
                        }
                    }
                }
            }
        }
    }

    /// Asks those with lower tokens for this one.
    pub(super) fn raise(&mut self, config: &Config, client: usize, token: u8) {
        let holder = self.holder(client);
        for lane in &mut self.lanes {
            if config.flaw == Some(Flaw::DeadlineFromLastRound) {
                lane.node.recount(|calls| calls.without(Calls::asked(client)));
            }
            if lane.token(client).is_some_and(|other| other < token) {
                lane.ask(holder, Request::Renew { floor: token });
            }
        }
    }

    /// A majority agrees: the client believes, until the ttl after the call's start.
    fn agree(&mut self, config: &Config, client: usize, token: u8) {
        let holder = self.holder(client);
        let renewed = self.clients[client].holds();
        let mut granted = 0;
        for lane in &mut self.lanes {
            let said = lane.said[client];
            granted += u8::from(said == Said::Granted(token));
            lane.node.recount(|calls| match config.flaw {
                Some(Flaw::DeadlineFromAnswer) => {
                    calls.without(Calls::asked(client)).without(Calls::kept(client))
                }
                _ => calls.keep(client),
            });
            lane.forget(client);
            match said {
                // It lost the lease, and gets it back. It did not count this time.
                Said::Against if renewed => {
                    lane.send_behind(holder, Request::Acquire { floor: token });
                }
                // Its grant comes late, and is raised then.
                Said::Nothing => lane.send_behind(holder, Request::Renew { floor: token }),
                Said::Granted(lower)
                    if lower < token && config.flaw == Some(Flaw::WriteBackUnanswered) =>
                {
                    lane.send_behind(holder, Request::Renew { floor: token });
                }
                Said::Against | Said::Granted(_) => {}
            }
        }
        if config.flaw == Some(Flaw::RenewCountsOldAnswers) {
            for lane in &mut self.lanes {
                if lane.node.lease.is_some_and(|lease| lease.holder == holder) {
                    lane.said[client] = Said::Granted(token);
                }
            }
        }
        if !renewed {
            self.guards += 1;
            self.fell |= token <= self.greatest;
        }
        self.greatest = self.greatest.max(token);
        self.clients[client].phase = Phase::Holding { token, granted, renewing: false };
    }

    /// A message arrives.
    pub(super) fn deliver(
        &mut self,
        config: &Config,
        store: usize,
        message: &Message,
        ended: bool,
        minted: u8,
    ) {
        let client = message.holder.client;
        let lane = self.lane(store);
        if let Some(at) = lane.messages.iter().position(|other| other == message) {
            lane.messages.remove(at);
        }
        match message.body {
            Body::Request(request) => {
                if ended {
                    lane.node.lease = None;
                }
                let call = if message.awaited { Calls::asked(client) } else { Calls::default() };
                let answer = lane.node.execute(message.holder, request, call, minted, config.flaw);
                if message.awaited && config.late_answers {
                    lane.send(Message { body: Body::Answer(answer), ..*message });
                    return;
                }
                if message.awaited {
                    lane.said[client] = answer.into();
                }
            }
            Body::Answer(answer) => lane.said[client] = answer.into(),
        }
        self.decide(config, client);
    }

    /// A store loses its memory.
    pub(super) fn wipe(&mut self, store: usize) {
        let mut begun = Calls::default();
        for (client, acting) in self.clients.iter().enumerate() {
            if acting.asks() {
                begun = begun.and(Calls::asked(client));
            }
            if acting.holds() {
                begun = begun.and(Calls::kept(client));
            }
        }
        self.lane(store).node = Node { young: begun, ..Node::default() };
        self.wiped = true;
    }

    /// Whether there is such a message on its way, of such a client.
    pub(super) fn on_its_way(&self, such: impl Fn(&Client, &Message) -> bool) -> bool {
        let mut messages = self.lanes.iter().flat_map(|lane| &lane.messages);
        messages.any(|message| such(&self.clients[message.holder.client], message))
    }

    /// Whether a store was wiped and its gate has opened again.
    pub(super) fn gate_opened(&self) -> bool {
        self.wiped && self.lanes.iter().all(|lane| lane.node.young.is_empty())
    }

    /// Drops messages that cannot do anything any more: of holders that have no lease there and
    /// will not ask for one.
    pub(super) fn tidy(&mut self) {
        let attempts = [0, 1].map(|client| self.clients[client].attempt);
        for lane in &mut self.lanes {
            let holds = |holder: Holder| {
                attempts[holder.client] == holder.attempt
                    || lane.node.lease.is_some_and(|lease| lease.holder == holder)
            };
            let asks: Vec<_> = lane
                .messages
                .iter()
                .filter(|message| matches!(message.body, Body::Request(Request::Acquire { .. })))
                .map(|message| message.holder)
                .collect();
            lane.messages.retain(|message| asks.contains(&message.holder) || holds(message.holder));
        }
        self.lanes.sort_unstable();
    }
}

fn small(token: u64) -> u8 {
    u8::try_from(token).expect("tokens of the model are small")
}
