//! The calls of one holder, one after the other: a release never overtakes what it undoes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Claim, HolderId};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// The holders that have calls under way, and those that ask no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Holders>>);

#[derive(Debug, Default)]
struct Holders {
    known: HashMap<HolderId, Known>,
    /// Forget what is old when there are this many.
    sweep_at: usize,
}

#[derive(Debug)]
struct Known {
    /// The end of the last call.
    last: Option<oneshot::Receiver<()>>,
    under_way: usize,
    /// A release was sent, which may come late: it gets no lease any more.
    spent: bool,
    /// When nobody asks as this holder any more.
    until: Instant,
}

/// A call's place behind the others of its holder, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    holder: HolderId,
    before: Option<oneshot::Receiver<()>>,
    _ended: oneshot::Sender<()>,
}

impl Turns {
    const FEW: usize = 64;

    /// A place at the end; nothing is awaited for it. Whether the holder is spent is known when its
    /// turn has [come](Turn::come).
    pub(super) fn take(&self, claim: &Claim) -> Turn {
        let (ended, last) = oneshot::channel();
        let now = Instant::now();
        let mut holders = self.holders();
        if holders.known.len() >= holders.sweep_at.max(Self::FEW) {
            holders.known.retain(|_, known| known.until > now || known.under_way > 0);
            holders.sweep_at = 2 * holders.known.len();
        }
        let new = Known { last: None, under_way: 0, spent: false, until: now };
        let known = holders.known.entry(claim.holder).or_insert(new);
        known.under_way += 1;
        // A holder asks again while its lease may stand, or soon after.
        known.until = known.until.max(now + 2 * claim.ttl + Duration::from_secs(60));
        let before = known.last.replace(last);
        Turn { turns: self.clone(), holder: claim.holder, before, _ended: ended }
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Waits for the calls before it; `false` for a holder that is spent.
    pub(super) async fn come(&mut self) -> bool {
        if let Some(before) = self.before.take() {
            // Ended is ended, however.
            let _ = before.await;
        }
        !self.turns.holders().known.get(&self.holder).is_some_and(|known| known.spent)
    }

    /// From here on the holder gets no lease.
    pub(super) fn spend(&self) {
        if let Some(known) = self.turns.holders().known.get_mut(&self.holder) {
            known.spent = true;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut holders = self.turns.holders();
        if let Some(known) = holders.known.get_mut(&self.holder) {
            known.under_way = known.under_way.saturating_sub(1);
            if known.under_way == 0 && !known.spent {
                holders.known.remove(&self.holder);
            }
        }
    }
}
