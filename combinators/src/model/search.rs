//! What may happen next, for the model checker.

use std::fmt;

use stateright::{Model, Property};

use super::client::{Body, Client, Lane, Message, Phase, Said};
use super::node::Request;
use super::quorum::{Clocks, Config, State};
use crate::agreement::Step;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// Of this client, with this floor.
    Acquires(usize, u8),
    AsksAgain(usize, u8),
    Renews(usize),
    /// It does not wait for those who have not answered yet.
    Raises(usize, u8),
    StopsRenewing(usize),
    /// A guard or an attempt is over: released, rolled back or past its end.
    IsOver(usize),
    /// At this store. `ended`: its lease had ended before.
    Arrives {
        store: usize,
        message: Message,
        ended: bool,
        minted: u8,
    },
    LosesMemory(usize),
}

pub(super) const EXCLUSION: &str = "one valid guard at a time";
pub(super) const TOKENS: &str = "tokens of successive guards rise";

impl Model for Config {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        if !state.clients.iter().any(|client| client.may_acquire()) {
            // No guard will come that could meet another.
            return;
        }
        let floors = || self.floors.iter().copied();
        let begins = |client: usize| {
            let acting = state.clients[client];
            acting.phase == Phase::Idle && acting.left.attempts > 0
        };
        if let (false, Some(client)) =
            (self.wipe, [0, 1].into_iter().find(|&client| begins(client)))
        {
            // Only a wipe minds when a call began: else it may as well be now.
            events.extend(floors().map(|floor| Event::Acquires(client, floor)));
            return;
        }
        for (client, acting) in state.clients.iter().enumerate() {
            match acting.phase {
                Phase::Idle if acting.left.attempts > 0 => {
                    events.extend(floors().map(|floor| Event::Acquires(client, floor)));
                }
                Phase::Idle => {}
                Phase::Acquiring => {
                    if acting.left.again > 0 {
                        events.extend(floors().map(|floor| Event::AsksAgain(client, floor)));
                    }
                    events.push(Event::IsOver(client));
                }
                Phase::Holding { renewing: true, .. } => {
                    events.extend([Event::StopsRenewing(client), Event::IsOver(client)]);
                }
                Phase::Holding { .. } => {
                    if acting.left.renewals > 0 {
                        events.push(Event::Renews(client));
                    }
                    events.push(Event::IsOver(client));
                }
            }
            if let (true, Step::WaitOrRaise(token)) = (acting.asks(), state.step(self, client)) {
                events.extend(u8::try_from(token).map(|token| Event::Raises(client, token)));
            }
        }
        for lane in &state.lanes {
            let store = lane.name.0;
            self.arrivals(state, lane, events);
            if self.wipe && !state.wiped {
                events.push(Event::LosesMemory(store));
            }
        }
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut next = state.clone();
        match event {
            Event::Acquires(client, floor) => next.acquire(client, floor),
            Event::AsksAgain(client, floor) => next.ask_again(client, floor),
            Event::Renews(client) => {
                next.renew(self, client);
                next.decide(self, client);
            }
            Event::Raises(client, token) => next.raise(self, client, token),
            Event::StopsRenewing(client) => next.stop_renewing(client),
            Event::IsOver(client) => next.give_up(self, client),
            Event::Arrives { store, message, ended, minted } => {
                next.deliver(self, store, &message, ended, minted);
            }
            Event::LosesMemory(store) => next.wipe(store),
        }
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(EXCLUSION, |_: &Self, state: &State| {
                !state.clients.iter().all(Client::holds)
            }),
            Property::always(TOKENS, |_: &Self, state: &State| !state.fell),
            // And these happen, or the rest would say little.
            Property::sometimes("every attempt gets a guard", |model: &Self, state: &State| {
                let attempts: u8 = model.scripts.iter().map(|script| script.attempts).sum();
                state.guards == attempts
            }),
            Property::sometimes("an attempt meets another", |_: &Self, state: &State| {
                state.clients.iter().all(|client| client.phase == Phase::Acquiring)
                    && state.lanes.iter().any(|lane| lane.said.contains(&Said::Against))
            }),
            Property::sometimes("a token is raised", |_: &Self, state: &State| {
                state.on_its_way(|client, message| {
                    client.phase == Phase::Acquiring
                        && message.awaited
                        && matches!(message.body, Body::Request(Request::Renew { .. }))
                })
            }),
        ];
        if self.scripts.iter().any(|script| script.again > 0) {
            properties.push(Property::sometimes(
                "asking again helps",
                |model: &Self, state: &State| {
                    let clients = state.clients.iter().zip(&model.scripts);
                    clients
                        .into_iter()
                        .any(|(client, script)| client.holds() && client.left.again < script.again)
                },
            ));
        }
        if self.scripts.iter().any(|script| script.renewals > 0) {
            properties.push(Property::sometimes(
                "a lost lease is given back",
                |_: &Self, state: &State| {
                    state.on_its_way(|client, message| {
                        client.holds()
                            && matches!(
                                message.body,
                                Body::Request(Request::Acquire { floor: 1.. })
                            )
                    })
                },
            ));
        }
        if self.wipe {
            properties.push(Property::sometimes("the gate opens", |_: &Self, state: &State| {
                state.gate_opened() && state.guards == 2
            }));
        }
        properties
    }
}

impl Config {
    /// Each message on its way may arrive next.
    fn arrivals(&self, state: &State, lane: &Lane, events: &mut Vec<Event>) {
        let store = lane.name.0;
        for (at, &message) in lane.messages.iter().enumerate() {
            if at > 0 && lane.messages[at - 1] == message {
                continue;
            }
            let mut arrive = |ended, minted| {
                events.push(Event::Arrives { store, message, ended, minted });
            };
            let Body::Request(request) = message.body else {
                arrive(false, 0);
                continue;
            };
            let minds = match request {
                Request::Acquire { .. } => true,
                Request::Renew { .. } => {
                    lane.node.lease.is_some_and(|lease| lease.holder == message.holder)
                }
                Request::Release => false,
            };
            for ended in [false, true] {
                let mut node = lane.node;
                if ended {
                    if !(minds && node.may_end()) {
                        continue;
                    }
                    node.lease = None;
                }
                match request {
                    Request::Acquire { floor } if node.mints(request) => {
                        let least = floor.max(node.counter + 1);
                        for minted in self.clocks(state, least) {
                            arrive(ended, minted);
                        }
                    }
                    _ => arrive(ended, 0),
                }
            }
        }
    }

    fn clocks(&self, state: &State, least: u8) -> std::ops::RangeInclusive<u8> {
        match self.clocks {
            Clocks::None => least..=least,
            Clocks::WithinTheGate(_) if state.gate_opened() => least.max(20)..=least.max(20),
            Clocks::Wild(most) | Clocks::WithinTheGate(most) => least..=least.max(most),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquires(client, floor) => write!(f, "client {client} acquires, floor {floor}"),
            Self::AsksAgain(client, floor) => {
                write!(f, "client {client} asks again, floor {floor}")
            }
            Self::Renews(client) => write!(f, "client {client} renews"),
            Self::Raises(client, token) => write!(f, "client {client} raises to {token}"),
            Self::StopsRenewing(client) => write!(f, "client {client} gives up renewing"),
            Self::IsOver(client) => write!(f, "client {client}: its attempt or guard is over"),
            Self::LosesMemory(store) => write!(f, "store {store} loses its memory"),
            Self::Arrives { store, message, ended, minted } => {
                let Message { holder, body, awaited } = message;
                let late = if *awaited { "" } else { ", late" };
                let (client, attempt) = (holder.client, holder.attempt);
                match body {
                    Body::Answer(answer) => {
                        return write!(f, "client {client} hears {answer:?} from store {store}");
                    }
                    Body::Request(request) => {
                        write!(f, "store {store}: {request:?} of {client}.{attempt}{late}")?;
                    }
                }
                if *ended {
                    write!(f, "; the lease there had ended")?;
                }
                if *minted > 0 {
                    write!(f, "; token {minted}")?;
                }
                Ok(())
            }
        }
    }
}
