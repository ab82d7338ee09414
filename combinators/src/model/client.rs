//! A client of the quorum, and what lies between it and a store.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::node::{Answer, Holder, Node, Request};
use crate::agreement::Vote;

/// The latest that a client has heard from a store in the call under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Said {
    #[default]
    Nothing,
    Granted(u8),
    Against,
}

impl Said {
    pub(super) fn token(&self) -> Option<u8> {
        match self {
            Self::Granted(token) => Some(*token),
            Self::Nothing | Self::Against => None,
        }
    }
}

impl From<Said> for Vote {
    fn from(said: Said) -> Self {
        match said {
            Said::Nothing => Self::Pending,
            Said::Granted(token) => Self::Granted(token.into()),
            Said::Against => Self::Against,
        }
    }
}

impl From<Answer> for Said {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Granted(token) => Self::Granted(token),
            Answer::Young | Answer::Contended | Answer::NotHeld | Answer::Released => Self::Against,
        }
    }
}

/// How much a client may do. It bounds the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Script {
    /// Acquisitions, each of a holder of its own.
    pub(super) attempts: u8,
    /// How often it asks again as the same holder, because no answer came in time.
    pub(super) again: u8,
    pub(super) renewals: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    Idle,
    Acquiring,
    /// Holds a guard and believes in it. `granted` stores were counted.
    Holding {
        token: u8,
        granted: u8,
        renewing: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Client {
    pub(super) phase: Phase,
    /// The number of the holder it acts as, or will.
    pub(super) attempt: u8,
    pub(super) left: Script,
}

impl Client {
    /// Whether a call is under way.
    pub(super) fn asks(&self) -> bool {
        matches!(self.phase, Phase::Acquiring | Phase::Holding { renewing: true, .. })
    }

    pub(super) fn holds(&self) -> bool {
        matches!(self.phase, Phase::Holding { .. })
    }

    /// Whether it may come to hold a guard that it does not hold now.
    pub(super) fn may_acquire(&self) -> bool {
        self.left.attempts > 0 || self.phase == Phase::Acquiring
    }
}

/// On its way. It may arrive late, or never, and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Message {
    pub(super) holder: Holder,
    pub(super) body: Body,
    /// Whether the client listens for the answer, in the call under way.
    pub(super) awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Body {
    Request(Request),
    Answer(Answer),
}

/// What a store is called in a trail. It makes no difference: all names are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Name(pub(super) usize);

impl PartialEq for Name {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A store, what is on its way from and to it, and what each client has heard from it.
///
/// All that differs from store to store is in here, so sorting the lanes names the state up to
/// exchanging stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lane {
    pub(super) name: Name,
    pub(super) node: Node,
    /// Sorted: it is a multiset.
    pub(super) messages: Vec<Message>,
    pub(super) said: [Said; 2],
}

impl Lane {
    pub(super) fn send(&mut self, message: Message) {
        let at = self.messages.partition_point(|other| *other < message);
        self.messages.insert(at, message);
    }

    pub(super) fn ask(&mut self, holder: Holder, request: Request) {
        self.said[holder.client] = Said::Nothing;
        self.send(Message { holder, body: Body::Request(request), awaited: true });
    }

    /// The token that this store has granted to a client, as far as it has heard.
    pub(super) fn token(&self, client: usize) -> Option<u8> {
        self.said[client].token()
    }

    /// Sends what nobody awaits the answer of.
    pub(super) fn send_behind(&mut self, holder: Holder, request: Request) {
        self.send(Message { holder, body: Body::Request(request), awaited: false });
    }

    /// The call under way of a client is over: what is on its way may still arrive, and nobody
    /// listens for what comes back.
    pub(super) fn forget(&mut self, client: usize) {
        self.said[client] = Said::Nothing;
        self.messages.retain(|message| {
            message.holder.client != client || matches!(message.body, Body::Request(_))
        });
        for message in &mut self.messages {
            message.awaited &= message.holder.client != client;
        }
        self.messages.sort_unstable();
    }
}
