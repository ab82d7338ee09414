//! What processes and the store say to each other.

/// The identity of one acquisition: the n-th of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Holder {
    pub(crate) process: u8,
    pub(crate) number: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Request {
    /// `wait`: a contended holder gets a place in the line.
    Acquire {
        holder: Holder,
        wait: bool,
        floor: u8,
    },
    Renew {
        holder: Holder,
    },
    Release {
        holder: Holder,
    },
    /// `over`: the burst of this process is over, so it yields to the line.
    HandOver {
        from: Holder,
        to: Holder,
        over: bool,
        floor: u8,
    },
}

impl Request {
    /// The holder that may come to hold by this request, or that it is about.
    pub(crate) fn holder(&self) -> Holder {
        match *self {
            Self::Acquire { holder, .. } | Self::Renew { holder } | Self::Release { holder } => {
                holder
            }
            Self::HandOver { to, .. } => to,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    /// To acquire, renew and hand_over: the holder has the lease with this token.
    Granted(u8),
    /// `placed`: the holder has a place.
    Contended {
        placed: bool,
    },
    NotHeld,
    /// The token of the lease that was released.
    Released(u8),
    /// `to` waits at the tail of the line.
    Yielded,
}

/// On its way. It may arrive late, or never, and in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    pub(crate) process: u8,
    pub(crate) body: Body,
    /// Whether the process listens for the answer.
    pub(crate) awaited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Body {
    Request(Request),
    Answer(Answer),
    /// The key is free, and this holder is first. The token is what the next lease would get: only
    /// a mistaken process reads it.
    Signal {
        holder: Holder,
        token: u8,
    },
}
