//! One store, as the quorum sees it.

use super::flaw::Flaw;

/// The identity of one attempt to acquire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Holder {
    pub(super) client: usize,
    pub(super) attempt: u8,
}

/// A set of calls that a client counts on, or may come to: at most two per client.
///
/// This is all there is of time. A call of ttl *d* promises that what it was granted stands until
/// *d* after its start; the client believes no longer. So a lease may end, at any moment, once
/// the calls that granted or renewed it are over, and not before. Nothing is said about how long
/// that takes, so every ttl, every delay and every order of ends is covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Calls(u8);

impl Calls {
    /// The call under way of a client.
    pub(super) fn asked(client: usize) -> Self {
        Self(1 << (2 * client))
    }

    /// The call that a client's guard rests on.
    pub(super) fn kept(client: usize) -> Self {
        Self(2 << (2 * client))
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The call under way becomes the one that the guard rests on.
    pub(super) fn keep(self, client: usize) -> Self {
        let rest = self.without(Self::kept(client)).without(Self::asked(client));
        if self.contains(Self::asked(client)) { rest.and(Self::kept(client)) } else { rest }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Request {
    Acquire { floor: u8 },
    Renew { floor: u8 },
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Answer {
    Granted(u8),
    /// Granted, by a store whose memory is younger than a ttl may be.
    Young,
    Contended,
    NotHeld,
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lease {
    pub(super) holder: Holder,
    pub(super) token: u8,
    /// It cannot end before all of these are over.
    pub(super) stands: Calls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Node {
    pub(super) lease: Option<Lease>,
    /// The greatest token so far.
    pub(super) counter: u8,
    /// The calls that had begun when the memory was lost: when they are over, it is as old as any
    /// ttl.
    pub(super) young: Calls,
}

impl Node {
    /// Executes a request in one atomic step, as a backend does.
    ///
    /// `call` is the call that a lease granted now stands on, `minted` the token of a new lease.
    pub(super) fn execute(
        &mut self,
        holder: Holder,
        request: Request,
        call: Calls,
        minted: u8,
        flaw: Option<Flaw>,
    ) -> Answer {
        let mine = |lease: &&mut Lease| lease.holder == holder;
        let contended = self.lease.is_some_and(|lease| lease.holder != holder);
        match (request, self.lease.as_mut().filter(mine)) {
            (Request::Acquire { .. }, Some(lease)) => {
                lease.extend(call, flaw);
                self.granted(flaw)
            }
            (Request::Acquire { .. }, None) if contended => Answer::Contended,
            (Request::Acquire { .. }, None) => {
                self.counter = minted;
                self.lease = Some(Lease { holder, token: minted, stands: call });
                self.granted(flaw)
            }
            (Request::Renew { floor }, Some(lease)) => {
                lease.extend(call, flaw);
                if floor > lease.token || flaw == Some(Flaw::RaiseMayLower) {
                    lease.token = floor;
                    self.counter = floor;
                }
                if flaw == Some(Flaw::RenewalsPassTheGate) {
                    Answer::Granted(lease.token)
                } else {
                    self.granted(flaw)
                }
            }
            (Request::Release, Some(_)) => {
                self.lease = None;
                Answer::Released
            }
            (Request::Renew { .. } | Request::Release, None) => Answer::NotHeld,
        }
    }

    /// A new lease is worth nothing while the store may have forgotten another's.
    fn granted(&self, flaw: Option<Flaw>) -> Answer {
        match self.lease {
            Some(_) if !self.young.is_empty() && flaw != Some(Flaw::NoGate) => Answer::Young,
            Some(lease) => Answer::Granted(lease.token),
            None => Answer::NotHeld,
        }
    }

    /// Whether the lease may have ended by now.
    pub(super) fn may_end(&self) -> bool {
        self.lease.is_some_and(|lease| lease.stands.is_empty())
    }

    /// Whether this request would begin a new lease.
    pub(super) fn mints(&self, request: Request) -> bool {
        matches!(request, Request::Acquire { .. }) && self.lease.is_none()
    }

    /// Changes the calls that are counted on.
    pub(super) fn recount(&mut self, change: impl Fn(Calls) -> Calls) {
        self.young = change(self.young);
        if let Some(lease) = &mut self.lease {
            lease.stands = change(lease.stands);
        }
    }
}

impl Lease {
    fn extend(&mut self, call: Calls, flaw: Option<Flaw>) {
        self.stands =
            if flaw == Some(Flaw::LastWriteShortens) { call } else { self.stands.and(call) };
    }
}
