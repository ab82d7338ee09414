//! A client's connection to the store.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};
use tokio::sync::oneshot;

use crate::calls::{Call, Outcome, Verb};
use crate::plan::KEYS;
use crate::requests::{Answer, Request, UnderWay};
use crate::watches::Watch;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    pub(crate) client: usize,
}

/// The index of a key.
pub(crate) fn index(key: &LockKey) -> usize {
    KEYS.iter().position(|name| *name == key.as_str()).expect("a key of the simulation")
}

/// The memory store answers at once.
pub(crate) fn at_once<F: Future>(call: F) -> F::Output {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => unreachable!("the memory store does not wait"),
    }
}

impl Link {
    async fn call(&self, verb: Verb, claim: &Claim) -> Result<Answer, BackendError> {
        let calls = vec![Call::begin(&self.world, self.client, verb, claim)];
        let mut answers = self.send(verb, calls, vec![claim.clone()], false).await;
        answers.pop().expect("an answer for each claim")
    }

    async fn send(
        &self,
        verb: Verb,
        calls: Vec<Call>,
        claims: Vec<Claim>,
        over: bool,
    ) -> Vec<Result<Answer, BackendError>> {
        let (reply, answer) = oneshot::channel();
        let fate = self.world.state().network.fate();
        let request = Request {
            world: self.world.clone(),
            client: self.client,
            verb,
            claims,
            over,
            _under_way: UnderWay::new(&self.world),
        };
        tokio::spawn(request.travel(fate, reply));
        let Ok(reply) = answer.await else {
            // Lost on the way: nobody says so.
            return std::future::pending().await;
        };
        let answered = reply.iter().any(Result::is_ok);
        self.world.state().batch_heard(&reply);
        let mut answers = Vec::new();
        for (call, reply) in calls.into_iter().zip(reply) {
            call.end(match &reply {
                Ok((answer, fresh)) => Outcome::Answered(*answer, *fresh),
                Err(BackendError::Ambiguous(_)) => Outcome::Ambiguous,
                Err(_) => Outcome::Unavailable,
            });
            answers.push(reply.map(|(answer, _)| answer));
        }
        self.world.state().heard(self.client, answered);
        answers
    }
}

#[async_trait]
impl LockBackend for Link {
    fn limits(&self) -> Limits {
        let state = self.world.state();
        let limits = state.store.limits();
        if state.network.lines { limits } else { limits.with_line(Duration::ZERO) }
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        match self.call(Verb::Acquire, claim).await? {
            Answer::Acquire(answer) => Ok(answer),
            other => unreachable!("{other:?}"),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        match self.call(Verb::Renew, claim).await? {
            Answer::Renew(answer) => Ok(answer),
            other => unreachable!("{other:?}"),
        }
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let begin = |claim| Call::begin(&self.world, self.client, Verb::Renew, claim);
        let calls = claims.iter().map(begin).collect();
        let answers = self.send(Verb::Renew, calls, claims.to_vec(), false).await;
        let renewed = |answer| match answer {
            Answer::Renew(answer) => answer,
            other => unreachable!("{other:?}"),
        };
        answers.into_iter().map(|answer| answer.map(renewed)).collect()
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        match self.call(Verb::Release, claim).await? {
            Answer::Release(answer) => Ok(answer),
            other => unreachable!("{other:?}"),
        }
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        let calls = vec![Call::hands_over(&self.world, self.client, from, to)];
        let claims = vec![from.clone(), to.clone()];
        let mut answers = self.send(Verb::HandOver, calls, claims, over).await;
        match answers.pop().expect("an answer for each claim")? {
            Answer::HandOver(answer) => Ok(answer),
            other => unreachable!("{other:?}"),
        }
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        let (world, client, key) = (self.world.clone(), self.client, index(&claim.key));
        let (armed, is_armed) = oneshot::channel();
        let (signal, signalled) = oneshot::channel();
        let watch = Watch { world: world.clone(), client, claim: claim.clone() };
        tokio::spawn(watch.travel(armed, signal));
        match is_armed.await {
            Ok(outcome) => outcome?,
            Err(_) => return std::future::pending().await,
        }
        Ok(ReleaseSignal::new(async move {
            if signalled.await.is_err() {
                return std::future::pending().await;
            }
            world.state().slot(client, key).signalled = true;
        }))
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        let store = self.world.state().store.clone();
        store.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let store = self.world.state().store.clone();
        store.list(prefix, after, limit).await
    }
}
