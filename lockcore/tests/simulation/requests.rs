//! Requests on their way to the store, and answers on their way back. They travel as tasks of the
//! world, so that neither a dropped caller nor a stopped process calls them back.

use std::sync::Arc;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, Lease, LockBackend, MemoryBackend, Release, Renew,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::calls::Verb;
use crate::link::{at_once, index};
use crate::sometimes::Sometimes;
use crate::storm::{Fate, Mishap, Mood, Network};
use crate::world::World;

/// What the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Acquire(Acquire),
    Renew(Renew),
    Release(Release),
    HandOver(HandOver),
}

/// An answer, and whether a lease began with this request.
pub(crate) type Answered = (Answer, bool);

/// What comes back for each claim of a request.
pub(crate) type Reply = Vec<Result<Answered, BackendError>>;

/// Counts a request for as long as it may still reach the store.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<World>);

impl UnderWay {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        world.state().under_way += 1;
        Self(world.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

/// One request: about one claim, about many (renewals), or about two (a hand-over).
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) world: Arc<World>,
    pub(crate) client: usize,
    pub(crate) verb: Verb,
    pub(crate) claims: Vec<Claim>,
    /// Of a hand-over: others go first.
    pub(crate) over: bool,
    pub(crate) _under_way: UnderWay,
}

impl Request {
    pub(crate) async fn travel(self, fate: Fate, reply: oneshot::Sender<Reply>) {
        sleep(fate.there).await;
        if let Mishap::Straggle(late) = fate.mishap {
            sleep(late).await;
        }
        if self.lost_on_the_way(fate) {
            return;
        }
        if fate.mishap == Mishap::Refuse || self.world.state().network.mood == Mood::Refusing {
            self.world.state().hit(Sometimes::Refused);
            sleep(fate.back).await;
            let _ = reply.send(self.all(|| BackendError::unavailable("connection refused")));
            return;
        }
        let answers = self.execute(reply.is_closed(), fate.odd);
        if let Mishap::Repeat(late) = fate.mishap {
            let (world, claims) = (self.world.clone(), self.claims.clone());
            let under_way = UnderWay::new(&world);
            let again = Self { world, claims, _under_way: under_way, ..self };
            tokio::spawn(async move {
                sleep(late).await;
                if !again.lost_on_the_way(fate) {
                    again.execute(true, None);
                }
            });
        }
        self.answer(fate, answers, reply).await;
    }

    fn all(&self, error: impl Fn() -> BackendError) -> Reply {
        let answers = if self.verb == Verb::HandOver { 1 } else { self.claims.len() };
        (0..answers).map(|_| Err(error())).collect()
    }

    fn lost_on_the_way(&self, fate: Fate) -> bool {
        let mut state = self.world.state();
        let cut = state.network.cuts[self.client].swallows_requests();
        let silent = state.network.mood == Mood::Silent;
        let lost = cut || silent || fate.mishap == Mishap::LoseRequest;
        if lost {
            state.hit(Sometimes::RequestLost);
        }
        lost
    }

    async fn answer(self, fate: Fate, answers: Reply, reply: oneshot::Sender<Reply>) {
        sleep(fate.back).await;
        let answers = match fate.mishap {
            Mishap::LoseAnswer | Mishap::Straggle(_) => None,
            Mishap::Reset => {
                self.world.state().hit(Sometimes::Reset);
                Some(self.all(|| BackendError::ambiguous("connection reset")))
            }
            _ => Some(answers),
        };
        let cut = self.world.state().network.cuts[self.client].swallows_answers();
        match answers.filter(|_| !cut) {
            Some(answers) => {
                let _ = reply.send(answers);
            }
            None => self.world.state().hit(Sometimes::AnswerLost),
        }
    }

    /// The store does what is asked; `given_up`: nobody waits for the answer. Of a batch it may
    /// not serve an odd one.
    fn execute(&self, given_up: bool, odd: Option<usize>) -> Reply {
        let mut state = self.world.state();
        let store = state.store.clone();
        let mut reply = Vec::new();
        if let (Verb::HandOver, [from, to]) = (self.verb, &self.claims[..]) {
            let (from, to) = (self.seen(from, &state.network), self.seen(to, &state.network));
            let mut answer = served(at_once(store.hand_over(&from, &to, self.over)));
            if let HandOver::Granted(lease) = &mut answer {
                lease.ttl = self.claims[1].ttl;
            }
            let fresh = state.handed_over(self.client, &from, &to, answer, given_up);
            reply.push(Ok((Answer::HandOver(answer), fresh)));
        } else {
            for (at, claim) in self.claims.iter().enumerate() {
                if self.claims.len() > 1 && odd.is_some_and(|odd| odd % self.claims.len() == at) {
                    reply.push(Err(BackendError::unavailable("its row is locked")));
                    continue;
                }
                let seen = self.seen(claim, &state.network);
                let answer = self.serve(&store, claim, &seen);
                let fresh = state.executed(&seen, answer, given_up);
                reply.push(Ok((answer, fresh)));
            }
        }
        let now = Instant::now();
        let keys = if self.verb == Verb::HandOver { 1 } else { self.claims.len() };
        for claim in &self.claims[..keys] {
            state.look_at_key(index(&claim.key), now);
        }
        reply
    }

    /// The claim as the store sees it: its clock runs at another rate, and it may have no lines.
    fn seen(&self, claim: &Claim, network: &Network) -> Claim {
        let mut seen = claim.clone();
        seen.ttl = network.scaled(claim.ttl);
        seen.wait = claim.wait.map(|wait| network.scaled(wait));
        // A store without lines tells every release.
        seen.announce |= !network.lines;
        seen
    }

    fn serve(&self, store: &MemoryBackend, claim: &Claim, seen: &Claim) -> Answer {
        let asked_for = |mut lease: Lease| {
            lease.ttl = claim.ttl;
            lease
        };
        match self.verb {
            Verb::Acquire => Answer::Acquire(match served(at_once(store.acquire(seen))) {
                Acquire::Acquired(lease) => Acquire::Acquired(asked_for(lease)),
                contended @ Acquire::Contended(_) => contended,
            }),
            Verb::Renew => Answer::Renew(match served(at_once(store.renew(seen))) {
                Renew::Renewed(lease) => Renew::Renewed(asked_for(lease)),
                Renew::NotHeld => Renew::NotHeld,
            }),
            Verb::Release | Verb::HandOver => Answer::Release(served(at_once(store.release(seen)))),
        }
    }
}

pub(crate) fn served<T>(answer: Result<T, BackendError>) -> T {
    answer.expect("the memory store takes what the core asks")
}
