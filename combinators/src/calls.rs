//! Calls to the stores that a combination is made of.
//!
//! Each call runs in a task of its own, so that what is begun is finished when the caller has
//! its answer or is gone. The calls of one holder to one store are made in order: a release never
//! overtakes the acquire before it.

mod holders;

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, Contention, HolderId, Lease, LockBackend, LockKey, Release, Renew,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

pub(crate) use self::holders::Said;
use self::holders::{Again, Holders, Known};
use crate::crowds::first_of;
use crate::flaw::{Flaw, flawed};
use crate::silence::{Question, Silence};

/// What a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Acquire,
    Renew,
    Release,
}

/// What it answered.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The holder has a lease.
    Granted(Lease),
    Contended(Contention),
    NotHeld,
    /// The token of the lease that ended.
    Released(u64),
    Failed(BackendError),
}

/// An answer, and whose.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) node: usize,
    pub(crate) verb: Verb,
    pub(crate) asked: Instant,
    pub(crate) answer: Answer,
}

/// A store of a combination.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) backend: Arc<dyn LockBackend>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.name, self.backend)
    }
}

/// The stores, and what is under way to them.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    nodes: Arc<[Node]>,
    holders: Arc<Mutex<Holders>>,
    silence: Arc<Silence>,
}

impl Calls {
    pub(crate) fn new(nodes: Vec<Node>) -> Self {
        let silence = Arc::new(Silence::new(nodes.len()));
        Self { nodes: nodes.into(), holders: Arc::default(), silence }
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Begins to ask for a lease, or to renew it. `None` for a holder that a release was sent for:
    /// whatever it was granted now might be taken back.
    pub(crate) fn begin(&self, verb: Verb, claim: &Claim) -> Option<Talk> {
        let mut holders = self.holders();
        let known = holders.of(claim, self.nodes.len());
        if known.spent && !claim.shared && !flawed(Flaw::NeverSpent) {
            return None;
        }
        known.asked += u64::from(verb == Verb::Acquire);
        known.under_way += 1;
        let (asked, agreed) = (known.asked, known.agreed);
        Some(Talk { calls: self.clone(), holder: claim.holder, asked, agreed })
    }

    pub(crate) fn is_hung(&self, node: usize) -> bool {
        self.silence.is_hung(node)
    }

    pub(crate) fn is_silent_for(&self, node: usize, time: Duration) -> bool {
        self.silence.is_silent_for(node, time)
    }

    /// A question goes out that is no call of a holder's.
    pub(crate) fn asks(&self, node: usize) -> Question {
        Question::begin(&self.silence, node)
    }

    pub(crate) fn patience(&self, node: usize) -> Duration {
        self.silence.patience(node)
    }

    /// The store that is asked first for a key which others want as well.
    pub(crate) fn lead(&self, key: &LockKey) -> Option<usize> {
        let stores = self.nodes.len();
        let order = (0..stores).cycle().skip(first_of(key, stores)).take(stores);
        order.into_iter().find(|node| !self.is_hung(*node))
    }

    /// What to answer to a holder that asks again after it was taken back: its caller had stopped
    /// waiting. `None`: there is nothing to say.
    pub(crate) async fn verdict(&self, holder: HolderId) -> Option<Said> {
        if flawed(Flaw::NoVerdict) {
            return None;
        }
        let again = self.holders().get(holder)?.again();
        match again {
            Again::Nothing => None,
            Again::Said(said) => Some(said),
            Again::Coming(coming) => coming.await.ok(),
        }
    }

    /// Releases everywhere, for a caller who does not ask as this holder again. The token that was
    /// agreed on.
    pub(crate) fn release(
        &self,
        claim: &Claim,
        limit: Duration,
        replies: &mpsc::UnboundedSender<Reply>,
    ) -> Option<u64> {
        let (token, queued) = {
            let mut holders = self.holders();
            let known = holders.of(claim, self.nodes.len());
            (known.spent, known.over) = (true, true);
            (known.token, self.queue_releases(known, claim.holder, |_| true))
        };
        self.send_all(queued, claim, limit, replies);
        token
    }

    fn queue_releases(
        &self,
        known: &mut Known,
        holder: HolderId,
        from: impl Fn(&Option<oneshot::Receiver<()>>) -> bool,
    ) -> Vec<Queued> {
        let nodes = if flawed(Flaw::ReleasesOne) { 1 } else { self.nodes.len() };
        let nodes: Vec<_> =
            (0..nodes).filter(|node| known.last.get(*node).is_some_and(&from)).collect();
        nodes.into_iter().filter_map(|node| self.queue(known, node, holder)).collect()
    }

    /// A place behind the calls to the same store for the same holder.
    fn queue(&self, known: &mut Known, node: usize, holder: HolderId) -> Option<Queued> {
        let (ended, last) = oneshot::channel();
        let before = known.last.get_mut(node)?.replace(last);
        known.under_way += 1;
        let under_way = UnderWay { calls: self.clone(), holder };
        Some(Queued { node, before, ended, under_way })
    }

    fn send_all(
        &self,
        queued: Vec<Queued>,
        claim: &Claim,
        limit: Duration,
        replies: &mpsc::UnboundedSender<Reply>,
    ) {
        let claim = if flawed(Flaw::ReleasesInSilence) { claim.clone() } else { of_a_part(claim) };
        for queued in queued {
            self.send(queued, Verb::Release, claim.clone(), limit, replies);
        }
    }

    /// Sends a call when it is its turn. After `limit` it is given up, and its outcome is not
    /// known.
    fn send(
        &self,
        queued: Queued,
        verb: Verb,
        claim: Claim,
        limit: Duration,
        replies: &mpsc::UnboundedSender<Reply>,
    ) {
        let Queued { node, before, ended, under_way } = queued;
        let Some(store) = self.nodes.get(node).cloned() else { return };
        let (replies, silence) = (replies.clone(), self.silence.clone());
        tokio::spawn(async move {
            if let Some(before) = before.filter(|_| !flawed(Flaw::NoOrder)) {
                // Ended is ended, however.
                let _ = before.await;
            }
            let asked = Instant::now();
            silence.asked(node, asked);
            let call = ask(&*store.backend, verb, &claim, limit);
            // A store that panics has answered nothing, and must not be waited for.
            let answer = unless_it_panics(call)
                .await
                .unwrap_or_else(|| Answer::Failed(BackendError::ambiguous("the call panicked")));
            match answer {
                Answer::Failed(_) => silence.failed(node, asked),
                _ => silence.heard(node, asked),
            }
            let _ = ended.send(());
            drop(under_way);
            let _ = replies.send(Reply { node, verb, asked, answer });
        });
    }

    fn ended(&self, holder: HolderId) {
        self.holders().ended(holder);
    }

    #[cfg(test)]
    pub(crate) fn holders_known(&self) -> usize {
        self.holders().len()
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        // Consistent between any two statements that can panic.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits for its turn. Nothing is spawned while the holders are locked: on a runtime
/// that has shut down the task is dropped at once, and says so to them.
struct Queued {
    node: usize,
    before: Option<oneshot::Receiver<()>>,
    ended: oneshot::Sender<()>,
    under_way: UnderWay,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
struct UnderWay {
    calls: Calls,
    holder: HolderId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.calls.ended(self.holder);
    }
}

/// What is said to the stores for one question of a holder.
#[derive(Debug)]
pub(crate) struct Talk {
    calls: Calls,
    holder: HolderId,
    /// How often the holder had asked for a lease when it began, and how often it was granted or
    /// renewed one when it ended.
    asked: u64,
    agreed: u64,
}

impl Talk {
    pub(crate) fn stores(&self) -> usize {
        self.calls.nodes.len()
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Sends a call; `false` if the holder gets no lease any more.
    pub(crate) fn send(
        &self,
        node: usize,
        verb: Verb,
        claim: Claim,
        limit: Duration,
        replies: &mpsc::UnboundedSender<Reply>,
    ) -> bool {
        // Looking and queueing are one step: a release cannot come in between.
        let queued = {
            let mut holders = self.calls.holders();
            let known = holders.of(&claim, self.stores());
            let spent = known.spent && !claim.shared && !flawed(Flaw::NeverSpent);
            if spent { None } else { self.calls.queue(known, node, self.holder) }
        };
        let Some(queued) = queued else { return false };
        self.calls.send(queued, verb, claim, limit, replies);
        true
    }

    /// The holder was granted a lease, or renewed it.
    pub(crate) fn agree(&mut self, token: u64) {
        if let Some(known) = self.calls.holders().get(self.holder) {
            known.agreed += 1;
            known.token = known.token.max(Some(token));
            self.agreed = known.agreed;
        }
    }

    /// Whether the holder was ever granted a lease, or renewed it.
    pub(crate) fn had_agreed(&self) -> bool {
        self.calls.holders().get(self.holder).is_some_and(|known| known.agreed > 0)
    }

    /// The holder has lost its lease for good, and gets none any more.
    pub(crate) fn lost(&self) {
        if let Some(known) = self.calls.holders().get(self.holder) {
            known.spent = true;
        }
    }

    /// Whether a release was sent for the holder, or its lease was renewed since.
    pub(crate) fn is_superseded(&self) -> bool {
        let superseded = |known: &mut Known| known.spent || known.agreed != self.agreed;
        self.calls.holders().get(self.holder).is_none_or(superseded)
    }

    /// Takes back whatever was granted, everywhere, and lets the holder ask no more. `false`, and
    /// nothing is sent, if that would take a lease from somebody: the holder has asked again
    /// meanwhile. Nor is there anything to do once it was released.
    pub(crate) fn roll_back(
        &self,
        claim: &Claim,
        limit: Duration,
        replies: &mpsc::UnboundedSender<Reply>,
    ) -> bool {
        let queued = {
            let mut holders = self.calls.holders();
            let known = holders.of(claim, self.stores());
            let superseded = known.asked != self.asked && !flawed(Flaw::UndoesTheNext);
            // Others may have been granted it since.
            if known.spent || superseded || claim.shared {
                return false;
            }
            known.take_back();
            // A store that was never asked has nothing.
            self.calls.queue_releases(known, self.holder, Option::is_some)
        };
        self.calls.send_all(queued, claim, limit, replies);
        true
    }

    /// The holder was taken back, and this is what its attempt comes to. When the caller, or one who
    /// has asked again, knows, the holder can be forgotten.
    pub(crate) fn conclude(&self, said: Said, caller: oneshot::Sender<Said>) {
        if let Some(known) = self.calls.holders().get(self.holder) {
            known.conclude(said, caller);
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.calls.ended(self.holder);
    }
}

/// The claim as a single store sees it. A combination stays out of the lines of its stores: to be
/// first in some of them would keep others out of all. So it hears of releases by announcements.
pub(crate) fn of_a_part(claim: &Claim) -> Claim {
    claim.clone().with_wait(None).with_announcement().with_incarnation()
}

/// The output, or `None` where a poll panicked.
async fn unless_it_panics<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // After a panic it is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

async fn ask(backend: &dyn LockBackend, verb: Verb, claim: &Claim, limit: Duration) -> Answer {
    let call = async {
        Ok(match verb {
            Verb::Acquire => match backend.acquire(claim).await? {
                Acquire::Acquired(lease) => Answer::Granted(lease),
                Acquire::Contended(contention) => Answer::Contended(contention),
            },
            Verb::Renew => match backend.renew(claim).await? {
                Renew::Renewed(lease) => Answer::Granted(lease),
                Renew::NotHeld => Answer::NotHeld,
            },
            Verb::Release => match backend.release(claim).await? {
                Release::Released { token } => Answer::Released(token),
                Release::NotHeld => Answer::NotHeld,
            },
        })
    };
    let answer = timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(BackendError::ambiguous(format!("no answer within {limit:?}"))));
    answer.unwrap_or_else(Answer::Failed)
}
