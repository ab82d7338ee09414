//! One claim put to all stores of a combination, until enough of them agree on its token.

mod crowd;
mod stand;

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Claim, Incarnation, Lease};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::stand::Stand;

use crate::agreement::Step;
#[cfg(not(test))]
use crate::agreement::step;
use crate::calls::{Answer, Reply, Talk, Verb, of_a_part};
use crate::flaw::{Flaw, flawed};
use crate::proposals::Proposals;
#[cfg(test)]
use crate::tests::step;

/// How often the lower tokens are raised before giving up. Without faults once is enough; each
/// further time another fault came between.
const ROUNDS: u32 = 6;

/// How short a wait for those who have not answered yet may be.
const GRACE: Duration = Duration::from_millis(1);

/// How a ballot ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Enough stores hold this token for this long, counted from the beginning of the ballot.
    Agreed(Lease),
    /// There are not enough; see the stands.
    Hopeless,
}

/// How a ballot is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How many must agree: more than half.
    pub(crate) need: usize,
    /// The age below which a store's memory does not vouch for a lease.
    pub(crate) gate: Duration,
    /// How long one call may take.
    pub(crate) limit: Duration,
    /// The shortest lease that can be asked for, the longest that is answered, and the largest
    /// token that can be asked for.
    pub(crate) min_ttl: Duration,
    pub(crate) max_ttl: Duration,
    pub(crate) max_token: u64,
    /// The store that decides between several who want the key.
    pub(crate) lead: Option<usize>,
    /// Ask the lead first, and the others when it has granted the key.
    pub(crate) lead_first: bool,
}

/// A ballot under way.
#[derive(Debug)]
pub(crate) struct Ballot {
    pub(crate) talk: Talk,
    verb: Verb,
    claim: Claim,
    rules: Rules,
    pub(crate) stands: Vec<Stand>,
    memories: Vec<Option<Incarnation>>,
    began: Instant,
    pub(crate) rounds: u32,
    /// How often those were asked again that others held.
    tries: u32,
    sender: mpsc::UnboundedSender<Reply>,
    replies: mpsc::UnboundedReceiver<Reply>,
    proposals: Arc<Proposals>,
    /// The least token that each store was asked for.
    floors: Vec<u64>,
    /// Tokens that stores chose themselves, and when they were asked.
    pub(crate) chosen: Vec<(u64, Instant)>,
}

impl Ballot {
    /// Asks every store, or the lead.
    pub(crate) fn open(
        talk: Talk,
        verb: Verb,
        claim: Claim,
        rules: Rules,
        proposals: Arc<Proposals>,
    ) -> Self {
        let (sender, replies) = mpsc::unbounded_channel();
        let nodes = talk.stores();
        let mut ballot = Self {
            talk,
            verb,
            claim,
            rules,
            stands: (0..nodes).map(|_| Stand::Later).collect(),
            memories: vec![None; nodes],
            began: Instant::now(),
            rounds: 1,
            tries: 0,
            sender,
            replies,
            proposals,
            floors: vec![0; nodes],
            chosen: Vec::new(),
        };
        match rules.lead.filter(|_| rules.lead_first) {
            Some(lead) => ballot.ask(lead, verb, 0),
            None => (0..nodes).for_each(|node| ballot.ask(node, verb, 0)),
        }
        ballot
    }

    /// Asks a store, for this token at least. Whoever was released meanwhile asks no more.
    fn ask(&mut self, node: usize, verb: Verb, token: u64) {
        self.ask_for(self.claim.ttl, node, verb, token, self.rules.limit);
    }

    fn ask_for(&mut self, ttl: Duration, node: usize, verb: Verb, token: u64, limit: Duration) {
        let floor = token.min(self.rules.max_token).max(self.claim.min_token);
        let mut claim = of_a_part(&self.claim).with_min_token(floor);
        claim.ttl = ttl;
        if let Some(asked) = self.floors.get_mut(node) {
            *asked = floor;
        }
        let sent = self.talk.send(node, verb, claim, limit, &self.sender);
        if let Some(stand) = self.stands.get_mut(node) {
            *stand = if sent { Stand::Asked } else { Stand::NotHeld };
        }
    }

    /// How long it has taken so far.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until it is decided.
    pub(crate) async fn decide(&mut self) -> Outcome {
        if let Some(lead) = self.rules.lead.filter(|_| self.rules.lead_first)
            && !self.hear_the_lead(lead).await
        {
            return Outcome::Hopeless;
        }
        // When those who have not answered yet are not waited for any longer.
        let mut patience = None;
        loop {
            let votes: Vec<_> = self.stands.iter().map(Stand::vote).collect();
            let mut next = step(&votes, self.rules.need);
            if next == Step::Wait && self.is_in_vain() {
                next = Step::Hopeless;
            }
            let raise = match next {
                Step::Agreed(token) => return Outcome::Agreed(self.agreed(token)),
                Step::Hopeless if self.insists() => {
                    self.ask_again().await;
                    continue;
                }
                Step::Hopeless => return Outcome::Hopeless,
                Step::Wait => None,
                Step::WaitOrRaise(token) => {
                    let end =
                        *patience.get_or_insert_with(|| Instant::now() + self.took().max(GRACE));
                    (Instant::now() >= end).then_some(token)
                }
                Step::Raise(token) => Some(token),
            };
            if let Some(token) = raise {
                if self.rounds == ROUNDS {
                    return Outcome::Hopeless;
                }
                self.rounds += 1;
                patience = None;
                self.raise(token);
                if flawed(Flaw::RaiseUnseen) {
                    return Outcome::Agreed(Lease::new(token, self.claim.ttl));
                }
                // Whoever was released meanwhile is asked nothing.
                continue;
            }
            tokio::select! {
                biased;
                reply = self.replies.recv() => match reply {
                    Some(reply) => self.take(reply),
                    // The sender is ours: it cannot be closed.
                    None => return Outcome::Hopeless,
                },
                () = until(patience) => {}
            }
        }
    }

    /// Without a decision for the claim: waits until it is clear what stood against it.
    pub(crate) async fn clarify(&mut self) {
        while !self.is_clear() {
            let Some(reply) = self.replies.recv().await else { return };
            self.take(reply);
        }
    }

    fn is_clear(&self) -> bool {
        let count = |of: fn(&Stand) -> bool| self.stands.iter().filter(|stand| of(stand)).count();
        let contended = count(|stand| matches!(stand, Stand::Contended(_)));
        let failed = count(Stand::failed);
        let asked = count(|stand| matches!(stand, Stand::Asked));
        let rest = self.stands.len() - failed;
        asked == 0 || rest < self.rules.need || (contended > 0 && rest - asked >= self.rules.need)
    }

    /// After the decision: hears the rest. Late leases are given the agreed token, and stores
    /// that have none, or had another's attempt at that moment, are asked to hold it too: the more
    /// do, the more may be lost. None of this counts now, and it ends with the lease, or when
    /// that is renewed or released.
    pub(crate) async fn finish(mut self, agreed: Option<u64>) {
        let mut raised = vec![false; self.stands.len()];
        let mut pause = self.took().max(GRACE);
        let end = self.began + self.claim.ttl;
        let mut again = self.verb == Verb::Renew;
        loop {
            if let Some(token) = agreed {
                self.raise_once(token, &mut raised);
                if again {
                    self.join(token, end);
                }
            }
            while self.stands.iter().any(|stand| matches!(stand, Stand::Asked)) {
                let Some(reply) = self.replies.recv().await else { return };
                self.take(reply);
                if let Some(token) = agreed {
                    self.raise_once(token, &mut raised);
                }
            }
            let missed = |stand: &Stand| matches!(stand, Stand::Contended(_) | Stand::NotHeld);
            let done = !self.stands.iter().any(missed) || self.talk.is_superseded();
            if agreed.is_none() || done || Instant::now() >= end {
                return;
            }
            again = true;
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(self.rules.limit.max(GRACE));
        }
    }

    /// Asks those that have no lease to hold it as well, for what is left of it.
    fn join(&mut self, token: u64, end: Instant) {
        let mut left = end.saturating_duration_since(Instant::now());
        if flawed(Flaw::JoinsForLonger) {
            left = self.claim.ttl;
        }
        if left < self.rules.min_ttl {
            return;
        }
        for node in 0..self.stands.len() {
            if let Some(Stand::NotHeld | Stand::Contended(_)) = self.stands.get(node) {
                self.ask_for(left, node, Verb::Acquire, token, self.rules.limit);
            }
        }
    }

    fn raise_once(&mut self, token: u64, raised: &mut [bool]) {
        for node in self.below(token) {
            if let Some(raised) = raised.get_mut(node).filter(|raised| !**raised) {
                *raised = true;
                self.ask(node, Verb::Renew, token);
            }
        }
    }

    /// Who has granted less than this.
    fn below(&self, token: u64) -> Vec<usize> {
        let below = |stand: &Stand| matches!(stand, Stand::Granted(lease) if lease.token < token);
        let stands = self.stands.iter().enumerate();
        stands.filter(|(_, stand)| below(stand)).map(|(node, _)| node).collect()
    }

    /// Asks who has granted less than this for this.
    fn raise(&mut self, token: u64) {
        for node in self.below(token) {
            self.ask(node, Verb::Renew, token);
        }
    }

    fn take(&mut self, reply: Reply) {
        let Reply { node, verb, asked, answer } = reply;
        let stand = match answer {
            Answer::Granted(lease) => {
                let floor = self.floors.get(node).copied().unwrap_or(0);
                if verb == Verb::Acquire && lease.token > floor {
                    self.chosen.push((lease.token, asked));
                }
                let memory = lease.incarnation;
                if let (Some(slot), Some(_)) = (self.memories.get_mut(node), memory) {
                    *slot = memory;
                }
                match memory.filter(|memory| memory.age < self.rules.gate) {
                    Some(memory) => Stand::Young(memory),
                    None => Stand::Granted(lease),
                }
            }
            Answer::Contended(contention) => Stand::Contended(contention),
            Answer::NotHeld if flawed(Flaw::CountsJoined) && self.verb == Verb::Renew => {
                return self.ask(node, Verb::Acquire, 0);
            }
            Answer::NotHeld | Answer::Released(_) => Stand::NotHeld,
            Answer::Failed(error) => Stand::Failed(error),
        };
        if let Some(slot) = self.stands.get_mut(node) {
            *slot = stand;
        }
    }

    /// Two stores that are one: their names say which.
    pub(crate) fn listed_twice(&self) -> Option<(usize, usize)> {
        let id = |memory: &Option<Incarnation>| memory.map(|memory| memory.id);
        self.memories.iter().enumerate().find_map(|(second, memory)| {
            let this = id(memory)?;
            let first = self.memories.iter().take(second).position(|other| id(other) == Some(this));
            first.map(|first| (first, second))
        })
    }

    /// The lease of those who hold this token: as long as the shortest of them.
    fn agreed(&self, token: u64) -> Lease {
        let leases = self.stands.iter().filter_map(|stand| match stand {
            Stand::Granted(lease) if lease.token == token => Some(lease.ttl),
            _ => None,
        });
        if flawed(Flaw::TtlOfLastRound) {
            return Lease::new(token, self.claim.ttl + self.took() / 2);
        }
        // A store may round up; what is forgotten after `max_ttl` must not be promised for longer.
        Lease::new(token, leases.min().unwrap_or_default().min(self.rules.max_ttl))
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
