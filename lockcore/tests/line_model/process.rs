//! One process, as the store sees it: its local queue, and the head's talk with the store.

use crate::messages::Holder;

/// What the head of the queue is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Idle,
    /// An acquire is under way.
    Asking {
        late: Late,
    },
    /// The store answered Contended.
    Napping,
    /// The latest acquire, or what came before it, has no known outcome.
    Doubt,
    /// A guard. `believed`: its deadline has not passed. `renewing`: a renewal is under way.
    Holding {
        token: u8,
        believed: bool,
        renewing: bool,
    },
    /// The guard is being released.
    Releasing(Ending),
    /// The guard's lease is being handed to the next holder of this process.
    HandingOver {
        ending: Ending,
        to: u8,
        late: Late,
    },
    /// A hand_over had no answer, and the guard's holder is being released.
    Settling {
        ending: Ending,
        to: u8,
    },
    Dead,
}

/// How much of a call's time had passed when its answer came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Late {
    /// The ttl has passed: a grant is worth nothing.
    pub(crate) lease: bool,
    /// The wait has passed: a place is worth nothing.
    pub(crate) place: bool,
}

/// The end of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ending {
    pub(crate) token: u8,
    /// The first request was sent before the deadline.
    pub(crate) in_time: bool,
    /// A request was not answered: it may have worked.
    pub(crate) doubt: bool,
    /// A request is under way.
    pub(crate) sent: bool,
}

/// How much a process may do. It bounds the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Script {
    pub(crate) tasks: u8,
    pub(crate) asks: u8,
    pub(crate) renewals: u8,
    pub(crate) hand_overs: u8,
    /// Its tasks wait, or else they only try.
    pub(crate) waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    pub(crate) phase: Phase,
    /// The number of the holder it acts as, or will.
    pub(crate) me: u8,
    /// What it may still do. `tasks` are those that still want the key.
    pub(crate) left: Script,
    /// Holders that are released in the background, as bits, until the store has answered.
    pub(crate) undoing: u16,
    /// It was told that it has a place, and the wait that it asked for has not passed.
    pub(crate) placed: bool,
    /// Others were granted the key since this guard was. Only the model knows.
    pub(crate) interrupted: bool,
}

impl Process {
    pub(crate) fn new(script: Script) -> Self {
        Self {
            phase: Phase::Idle,
            me: 0,
            left: script,
            undoing: 0,
            placed: false,
            interrupted: false,
        }
    }

    pub(crate) fn believes(&self) -> bool {
        matches!(self.phase, Phase::Holding { believed: true, .. })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.phase != Phase::Dead
    }

    /// Whether this process is not done with a holder of its own.
    pub(crate) fn knows(&self, holder: Holder) -> bool {
        let to = match self.phase {
            Phase::HandingOver { to, .. } | Phase::Settling { to, .. } => Some(to),
            _ => None,
        };
        let acts_as = self.phase != Phase::Idle && holder.number == self.me;
        acts_as || to == Some(holder.number) || self.undoes(holder.number)
    }

    /// Whether a request of this holder comes too late to matter.
    pub(crate) fn is_spent(&self, number: u8) -> bool {
        number < self.me
    }

    pub(crate) fn undoes(&self, number: u8) -> bool {
        self.undoing & (1 << number) != 0
    }

    pub(crate) fn undo(&mut self, number: u8) {
        self.undoing |= 1 << number;
    }

    pub(crate) fn undone(&mut self, number: u8) {
        self.undoing &= !(1 << number);
    }

    /// Whether a task of this process waits in the line.
    pub(crate) fn is_in_line(&self) -> bool {
        matches!(self.phase, Phase::Asking { .. } | Phase::Napping | Phase::Doubt)
    }
}
