//! How a ballot comes to an end where several want the same key (see `crowds`).

use std::time::Duration;

use lockcore::Contention;
use tokio::time::{sleep, timeout};

use super::{Ballot, GRACE, Stand};
use crate::calls::Verb;
use crate::flaw::{Flaw, flawed};

/// How often those are asked again that others held for a moment.
const TRIES: u32 = 5;

impl Ballot {
    /// Asks those who were not asked yet.
    pub(super) fn ask_the_rest(&mut self) {
        self.ask_all(|stand| matches!(stand, Stand::Later));
    }

    /// Asks all that stand so, and raises those that have granted the key already, so that the
    /// tokens are equal at once. All of them together take no longer than one may.
    fn ask_all(&mut self, of: fn(&Stand) -> bool) {
        let token = self.proposals.next(self.greatest(), self.rules.max_token);
        let limit = self.left();
        for node in 0..self.stands.len() {
            let verb = match self.stands.get(node) {
                Some(stand) if of(stand) => self.verb,
                Some(Stand::Granted(lease)) if lease.token < token => Verb::Renew,
                _ => continue,
            };
            self.ask_for(self.claim.ttl, node, verb, token, limit);
        }
    }

    /// The rest of the time that one store may take.
    fn left(&self) -> Duration {
        self.rules.limit.saturating_sub(self.took())
    }

    /// The greatest token granted so far: it may fit the others as well.
    fn greatest(&self) -> u64 {
        let tokens = self.stands.iter().filter_map(|stand| match stand {
            Stand::Granted(lease) => Some(lease.token),
            _ => None,
        });
        tokens.max().unwrap_or(0)
    }

    /// Waits for the lead, and asks the others, unless another has the key there.
    pub(super) async fn hear_the_lead(&mut self, lead: usize) -> bool {
        let patience = self.talk.calls().patience(lead).min(self.rules.limit / 4);
        if let Ok(Some(reply)) = timeout(patience, self.replies.recv()).await {
            self.take(reply);
            if self.is_contended() {
                return false;
            }
        }
        self.ask_the_rest();
        true
    }

    pub(crate) fn is_contended(&self) -> bool {
        self.stands.iter().any(|stand| matches!(stand, Stand::Contended(_)))
    }

    /// Whether others hold the key, and only a minority that hangs could still change what that
    /// comes to.
    pub(super) fn is_in_vain(&self) -> bool {
        let asked = |(_, stand): &(usize, &Stand)| matches!(stand, Stand::Asked);
        let hung = |(node, _): (usize, &Stand)| self.talk.calls().is_hung(node);
        let mut waited = self.stands.iter().enumerate().filter(asked);
        self.verb == Verb::Acquire
            && !flawed(Flaw::WaitsInVain)
            && self.is_contended()
            && waited.clone().count() <= self.stands.len() - self.rules.need
            && waited.all(hung)
    }

    /// Whether to go on though others hold the key in some of the stores. Of those who came at the
    /// same time one has the key in the lead, and all others make way for it. Also the lease of a
    /// holder that is being released may be there a moment longer.
    pub(super) fn insists(&self) -> bool {
        let leads = self.rules.lead.and_then(|lead| self.stands.get(lead));
        let leads = matches!(leads, Some(Stand::Granted(_)));
        let hopeful = self.stands.iter().filter(|stand| match stand {
            Stand::Granted(_) => true,
            Stand::Contended(_) => !self.is_firm(stand),
            _ => false,
        });
        let hopeful = hopeful.count() >= self.rules.need;
        let in_time = self.took() < self.rules.limit / 2;
        leads && hopeful && in_time && self.verb == Verb::Acquire && self.tries < TRIES
    }

    /// Whether a holder has the key who did not come for it just now, as far as its time left tells:
    /// one that was attempted as lately as this has about all of its ttl, and most use the same.
    pub(crate) fn is_firm(&self, stand: &Stand) -> bool {
        let ttl = self.claim.ttl;
        match stand {
            Stand::Contended(Contention { retry_after: Some(left), .. }) => {
                *left > ttl || *left + 4 * self.took().max(GRACE) < ttl
            }
            _ => false,
        }
    }

    /// After a while, asks those again that others hold.
    pub(super) async fn ask_again(&mut self) {
        let pause = GRACE * (1 << self.tries);
        self.tries += 1;
        sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        self.ask_all(|stand| matches!(stand, Stand::Contended(_)));
    }
}
