//! Stores that hold a lock together, enough of them.

mod error;
mod sight;
mod status;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, Contention, Lease, Limits, Release, Renew};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

pub use self::error::{NoAgreement, NodeState};
pub use self::status::QuorumStatus;

use crate::ballot::{Ballot, Outcome, Rules, Stand};
use crate::calls::{Answer, Calls, Reply, Verb};
use crate::crowds::Crowds;
use crate::flaw::{Flaw, flawed};
use crate::proposals::Proposals;
use crate::quorum::max_token;

/// Stores that hold a lock together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) calls: Calls,
    /// How many must agree: more than half.
    pub(crate) need: usize,
    pub(crate) limits: Limits,
    /// The age from which on a store's memory vouches for a lease.
    pub(crate) gate: Duration,
    pub(crate) node_timeout: Option<Duration>,
    pub(crate) proposals: Arc<Proposals>,
    pub(crate) crowds: Arc<Crowds>,
}

impl Group {
    /// How long one store may take. Two rounds fit into the sixth of the ttl that
    /// [`LockManager`](lockcore::LockManager) allows a request by default.
    fn limit(&self, claim: &Claim) -> Duration {
        let limit = self.node_timeout.unwrap_or(Duration::from_secs(1).min(claim.ttl / 12));
        // Well below the ttl, or what was granted first would end before the rest is known.
        limit.min(claim.ttl / 4)
    }

    /// Asks the stores. Nothing is awaited between the caller's question and this, so that a
    /// release which follows it comes later.
    fn open(&self, verb: Verb, claim: Claim) -> Option<Ballot> {
        let talk = self.calls.begin(verb, &claim)?;
        let rules = Rules {
            need: self.need,
            gate: match verb {
                Verb::Renew if flawed(Flaw::RenewalsPassTheGate) => Duration::ZERO,
                _ if flawed(Flaw::NoGate) => Duration::ZERO,
                _ => self.gate,
            },
            limit: self.limit(&claim),
            min_ttl: self.limits.min_ttl,
            max_ttl: self.limits.max_ttl,
            max_token: max_token(self.calls.nodes()),
            lead: self.calls.lead(&claim.key).filter(|_| !flawed(Flaw::NoLead)),
            // A holder that had the key needs to hear of all stores whether that stands.
            lead_first: verb == Verb::Acquire
                && !talk.had_agreed()
                && self.crowds.is_crowded(&claim.key),
        };
        Some(Ballot::open(talk, verb, claim, rules, self.proposals.clone()))
    }

    pub(crate) async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        self.limits.check(claim)?;
        let floor = self.proposals.next(claim.min_token, self.limits.max_token);
        let Some(ballot) = self.open(Verb::Acquire, claim.clone().with_min_token(floor)) else {
            return self.calls.verdict(claim.holder).await.unwrap_or_else(|| {
                Err(BackendError::unavailable("this holder was released: the next is another"))
            });
        };
        let (sender, answer) = oneshot::channel();
        tokio::spawn(self.clone().acquiring(claim.clone(), ballot, sender));
        hear(answer).await
    }

    pub(crate) async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.limits.check(claim)?;
        let Some(ballot) = self.open(Verb::Renew, claim.clone()) else {
            return Ok(Renew::NotHeld);
        };
        let (sender, answer) = oneshot::channel();
        tokio::spawn(self.clone().renewing(claim.clone(), ballot, sender));
        hear(answer).await
    }

    async fn acquiring(
        self,
        claim: Claim,
        mut ballot: Ballot,
        answer: oneshot::Sender<Result<Acquire, BackendError>>,
    ) {
        let outcome = ballot.decide().await;
        // The store that is furthest ahead alone: a lead over another's token is none over its.
        if let Some(&(token, asked)) = ballot.chosen.iter().max() {
            self.proposals.learn(token, asked);
        }
        let twice = ballot.listed_twice();
        if let (Outcome::Agreed(lease), None) = (&outcome, twice) {
            self.crowds.won(&claim.key);
            tracing::debug!(
                lock.key = %claim.key, lock.holder = %claim.holder, lock.token = lease.token,
                rounds = ballot.rounds, "agreed"
            );
            let token = lease.token;
            ballot.talk.agree(token);
            let _ = answer.send(Ok(Acquire::Acquired(*lease)));
            return ballot.finish(Some(token)).await;
        }
        let contended = |stand: &&Stand| matches!(stand, Stand::Contended(_));
        let contended = ballot.stands.iter().filter(contended).count();
        let may_stand = ballot.talk.had_agreed() && contended <= ballot.stands.len() - self.need;
        if twice.is_none() && may_stand && !flawed(Flaw::UndoesWhatStands) {
            // It has asked again, and was told of a lease that nobody has shown to be gone.
            let error = NoAgreement::new(&self, &ballot.stands);
            let _ = answer.send(Err(BackendError::ambiguous(error)));
            return ballot.finish(None).await;
        }
        let (sender, releases) = mpsc::unbounded_channel();
        if !ballot.talk.roll_back(&claim, self.limit(&claim), &sender) {
            // It belongs to whoever asked again, or it was released.
            let _ = answer.send(Err(BackendError::ambiguous(
                "this holder has asked again or was released before that was decided",
            )));
            return ballot.finish(None).await;
        }
        drop(sender);
        let held: Vec<_> = ballot.stands.iter().map(Stand::granted).collect();
        let said = match twice {
            Some(pair) => Err(self.twice(pair)),
            None => {
                ballot.clarify().await;
                self.refused(&claim, &ballot)
            }
        };
        released(held, releases).await;
        // What is answered now is definite: the next attempt is another holder's.
        ballot.talk.conclude(said, answer);
    }

    /// What is answered without a majority.
    fn refused(&self, claim: &Claim, ballot: &Ballot) -> Result<Acquire, BackendError> {
        let count = |of: fn(&Stand) -> bool| ballot.stands.iter().filter(|stand| of(stand)).count();
        let granted = count(|stand| matches!(stand, Stand::Granted(_)));
        let contended = count(|stand| matches!(stand, Stand::Contended(_)));
        let failed = count(Stand::failed);
        let rest = ballot.stands.len() - failed;
        // Without the failed ones there could be enough, were it not for the other holder.
        if contended == 0 || rest < self.need {
            return Err(self.no_agreement(&ballot.stands));
        }
        let firm = ballot.stands.iter().filter(|stand| ballot.is_firm(stand));
        let split = granted > 0 && firm.count() < self.need;
        let most_are_held = contended >= self.need;
        let again =
            split.then(|| self.crowds.split(&claim.key, ballot.took(), most_are_held)).flatten();
        let contention = if let Some(pause) = again {
            Contention::new(Some(pause))
        } else {
            if !split {
                self.crowds.lost(&claim.key);
            }
            let hints = ballot.stands.iter().filter_map(|stand| match stand {
                // Unknown is later than any.
                Stand::Contended(contention) => {
                    Some(contention.retry_after.unwrap_or(Duration::MAX))
                }
                _ => None,
            });
            let mut hints: Vec<_> = hints.collect();
            hints.sort_unstable();
            // So many of the contended ones must become free.
            let must = self.need.saturating_sub(rest - contended).max(1);
            let free = hints.get(must - 1).copied();
            Contention::new(free.filter(|free| *free < Duration::MAX))
        };
        Ok(Acquire::Contended(contention))
    }

    fn no_agreement(&self, stands: &[Stand]) -> BackendError {
        let error = NoAgreement::new(self, stands);
        let refused = stands.iter().filter(|stand| {
            matches!(
                stand,
                Stand::Failed(BackendError::Rejected(_) | BackendError::InvalidInput(_))
            )
        });
        if refused.count() > stands.len() - self.need {
            BackendError::rejected(error)
        } else {
            BackendError::unavailable(error)
        }
    }

    fn twice(&self, (first, second): (usize, usize)) -> BackendError {
        let name = |node: usize| self.calls.nodes().get(node).map_or("?", |node| &node.name);
        BackendError::rejected(format!(
            "{} and {} are the same store: a quorum needs independent ones",
            name(first),
            name(second)
        ))
    }

    async fn renewing(
        self,
        claim: Claim,
        mut ballot: Ballot,
        answer: oneshot::Sender<Result<Renew, BackendError>>,
    ) {
        let outcome = ballot.decide().await;
        if let Some(pair) = ballot.listed_twice().filter(|_| !flawed(Flaw::RenewedTwice)) {
            let _ = answer.send(Err(self.twice(pair)));
            return ballot.finish(None).await;
        }
        if let Outcome::Agreed(lease) = outcome {
            ballot.talk.agree(lease.token);
            let _ = answer.send(Ok(Renew::Renewed(lease)));
            return ballot.finish(Some(lease.token)).await;
        }
        let not_held = ballot.stands.iter().filter(|stand| matches!(stand, Stand::NotHeld)).count();
        if not_held > self.calls.nodes().len() - self.need {
            // Too few hold it for a majority: it is gone. The rest of it keeps others out until
            // its guard knows, at the latest by its deadline, and ends by itself then.
            if !claim.shared {
                ballot.talk.lost();
            }
            if flawed(Flaw::TakesFromTheGuard) {
                let (sender, _) = mpsc::unbounded_channel();
                self.calls.release(&claim, self.limit(&claim), &sender);
            }
            let _ = answer.send(Ok(Renew::NotHeld));
            return ballot.finish(None).await;
        }
        let error = NoAgreement::new(&self, &ballot.stands);
        let nothing_happened = ballot.stands.iter().all(|stand| {
            matches!(stand, Stand::NotHeld | Stand::Failed(BackendError::Unavailable(_)))
        });
        let _ = answer.send(Err(if nothing_happened {
            BackendError::unavailable(error)
        } else {
            BackendError::ambiguous(error)
        }));
        ballot.finish(None).await;
    }

    pub(crate) async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        self.limits.check(claim)?;
        let (sender, mut replies) = mpsc::unbounded_channel();
        let token = self.calls.release(claim, self.limit(claim), &sender);
        drop(sender);
        let nodes = self.calls.nodes().len();
        let (mut released, mut not_held, began) = (0, 0, Instant::now());
        let mut tokens = Vec::with_capacity(nodes);
        let mut stands: Vec<_> = std::iter::repeat_with(|| Stand::Asked).take(nodes).collect();
        let mut end = None;
        while let Some(reply) = before(end, replies.recv()).await {
            let stand = match reply.answer {
                Answer::Released(ended) => {
                    released += 1;
                    tokens.push(ended);
                    Stand::Granted(Lease::new(0, Duration::ZERO))
                }
                Answer::Failed(error) => Stand::Failed(error),
                Answer::NotHeld | Answer::Granted(_) | Answer::Contended(_) => {
                    not_held += 1;
                    Stand::NotHeld
                }
            };
            if let Some(slot) = stands.get_mut(reply.node) {
                *slot = stand;
            }
            let is_told = if released >= self.need {
                self.agreed(token, &tokens).is_some()
            } else {
                not_held > nodes - self.need
            };
            if is_told && end.is_none() {
                // A program that ends now would leave a lease behind where the answer is a little
                // later.
                end = Some(Instant::now() + began.elapsed().max(Duration::from_millis(1)));
            }
            // One that is hung is no little later, and would cost everybody that time.
            let comes = |(node, stand): (usize, &Stand)| {
                let hung = self.calls.is_hung(node) && !flawed(Flaw::WaitsForTheHung);
                matches!(stand, Stand::Asked) && !hung
            };
            let is_enough = released >= self.need || not_held > nodes - self.need;
            if is_enough && !stands.iter().enumerate().any(comes) {
                break;
            }
        }
        // The agreed token may be that of a store which was not heard.
        let all_told = !stands.iter().any(|stand| matches!(stand, Stand::Asked | Stand::Failed(_)));
        let least = tokens.iter().min().copied();
        let least = least.filter(|_| all_told || flawed(Flaw::GuessesTheToken));
        let told = self.agreed(token, &tokens).or(least).filter(|_| released >= self.need);
        if let Some(token) = told {
            return Ok(Release::Released { token });
        }
        if not_held > nodes - self.need {
            return Ok(Release::NotHeld);
        }
        let error = NoAgreement::new(self, &stands);
        let unreached =
            |stand: &Stand| matches!(stand, Stand::Failed(BackendError::Unavailable(_)));
        Err(if stands.iter().all(unreached) {
            BackendError::unavailable(error)
        } else {
            BackendError::ambiguous(error)
        })
    }

    /// The token that was agreed on, as far as the released leases tell it. A lease may not have been
    /// raised to it yet, or may have been raised above it.
    fn agreed(&self, known: Option<u64>, tokens: &[u64]) -> Option<u64> {
        let with = |token| tokens.iter().filter(|other| **other == token).count();
        let of_enough = || tokens.iter().copied().find(|token| with(*token) >= self.need);
        let guess = || tokens.iter().min().copied().filter(|_| flawed(Flaw::GuessesTheToken));
        known.filter(|known| tokens.contains(known)).or_else(of_enough).or_else(guess)
    }
}

async fn before<T>(end: Option<Instant>, reply: impl Future<Output = Option<T>>) -> Option<T> {
    match end {
        Some(end) => timeout_at(end, reply).await.ok().flatten(),
        None => reply.await,
    }
}

/// Waits for the stores that had granted something.
async fn released(held: Vec<bool>, mut releases: mpsc::UnboundedReceiver<Reply>) {
    let mut left = held.iter().filter(|held| **held).count();
    while left > 0
        && let Some(reply) = releases.recv().await
    {
        left -= usize::from(held.get(reply.node).is_some_and(|held| *held));
    }
}

/// The answer of a task that goes on when nobody waits for it any more.
async fn hear<T>(answer: oneshot::Receiver<Result<T, BackendError>>) -> Result<T, BackendError> {
    answer.await.unwrap_or_else(|_| Err(BackendError::ambiguous("the runtime is shutting down")))
}
