//! What is known about those who ask.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HolderId};
use tokio::sync::oneshot;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Holders {
    known: HashMap<HolderId, Known>,
    /// Forget what is old when there are this many.
    sweep_at: usize,
}

/// What is known about a holder.
#[derive(Debug)]
pub(super) struct Known {
    /// The end of the last call to each store.
    pub(super) last: Vec<Option<oneshot::Receiver<()>>>,
    /// A release was sent: it gets no lease any more.
    pub(super) spent: bool,
    /// How often it has asked for a lease, and how often it was granted or renewed one.
    pub(super) asked: u64,
    pub(super) agreed: u64,
    /// The token of the lease.
    pub(super) token: Option<u64>,
    /// Calls to stores and conversations that have not ended.
    pub(super) under_way: usize,
    /// It is spent, and its caller knows.
    pub(super) over: bool,
    verdict: Verdict,
    /// When nobody asks about it any more.
    until: Instant,
}

/// What is answered to an attempt.
pub(crate) type Said = Result<Acquire, BackendError>;

/// What an attempt that was taken back comes to, for who asks again meanwhile.
#[derive(Debug)]
enum Verdict {
    Nothing,
    /// It is being taken back. Whoever was last to ask again waits for it.
    Coming(Option<oneshot::Sender<Said>>),
    /// Its caller had gone, and has not been told.
    Said(Said),
}

/// What there is to tell to who asks again.
#[derive(Debug)]
pub(super) enum Again {
    Nothing,
    Said(Said),
    Coming(oneshot::Receiver<Said>),
}

impl Holders {
    const FEW: usize = 64;

    pub(super) fn of(&mut self, claim: &Claim, nodes: usize) -> &mut Known {
        let now = Instant::now();
        if self.known.len() >= self.sweep_at.max(Self::FEW) {
            self.known.retain(|_, known| known.until > now || known.under_way > 0);
            self.sweep_at = 2 * self.known.len();
        }
        let known = self.known.entry(claim.holder).or_insert_with(|| Known {
            last: std::iter::repeat_with(|| None).take(nodes).collect(),
            spent: false,
            asked: 0,
            agreed: 0,
            token: None,
            under_way: 0,
            over: false,
            verdict: Verdict::Nothing,
            until: now,
        });
        // A holder asks again while its lease may stand, or soon after.
        known.until = known.until.max(now + 2 * claim.ttl + Duration::from_secs(60));
        known
    }

    pub(super) fn get(&mut self, holder: HolderId) -> Option<&mut Known> {
        self.known.get_mut(&holder)
    }

    /// One of the things under way for a holder has ended.
    pub(super) fn ended(&mut self, holder: HolderId) {
        let Some(known) = self.known.get_mut(&holder) else { return };
        known.under_way = known.under_way.saturating_sub(1);
        if known.over && known.under_way == 0 {
            self.known.remove(&holder);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

impl Known {
    /// It is being taken back: it asks no more, and is told what comes of that.
    pub(super) fn take_back(&mut self) {
        self.spent = true;
        self.verdict = Verdict::Coming(None);
    }

    /// It asks again.
    pub(super) fn again(&mut self) -> Again {
        match mem::replace(&mut self.verdict, Verdict::Nothing) {
            Verdict::Nothing => Again::Nothing,
            Verdict::Said(said) => Again::Said(said),
            Verdict::Coming(_) => {
                let (sender, coming) = oneshot::channel();
                self.verdict = Verdict::Coming(Some(sender));
                Again::Coming(coming)
            }
        }
    }

    /// It was taken back, and this is what its attempt comes to. When the caller, or one who has
    /// asked again, knows, the holder can be forgotten.
    pub(super) fn conclude(&mut self, said: Said, caller: oneshot::Sender<Said>) {
        let again = match mem::replace(&mut self.verdict, Verdict::Nothing) {
            Verdict::Coming(again) => again,
            Verdict::Nothing | Verdict::Said(_) => None,
        };
        let untold = match caller.send(said) {
            Ok(()) => None,
            Err(said) => match again {
                Some(again) => again.send(said).err(),
                None => Some(said),
            },
        };
        self.over = untold.is_none();
        if let Some(said) = untold {
            self.verdict = Verdict::Said(said);
        }
    }
}
