//! A client that writes down what it is asked and answers.

use std::sync::Arc;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, LeaseInfo, Limits, LockBackend, LockKey, Release,
    ReleaseSignal, Renew, async_trait,
};

use super::{Answer, History, Verb};

#[derive(Debug)]
pub(crate) struct Recorded {
    inner: Arc<dyn LockBackend>,
    history: History,
    client: usize,
}

impl Recorded {
    pub(crate) fn new(inner: Arc<dyn LockBackend>, history: &History) -> Self {
        Self { inner, client: history.client(), history: history.clone() }
    }
}

// A call that is dropped is left open, as it is.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LockBackend for Recorded {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let call = self.history.begin(self.client, Verb::Acquire, claim);
        let answer = self.inner.acquire(claim).await;
        self.history.end(call, Answer::acquire(&answer));
        answer
    }

    async fn renew(&self, claim: &Claim) -> Result<Renew, BackendError> {
        let call = self.history.begin(self.client, Verb::Renew, claim);
        let answer = self.inner.renew(claim).await;
        self.history.end(call, Answer::renew(&answer));
        answer
    }

    async fn renew_many(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let calls: Vec<_> = claims
            .iter()
            .map(|claim| self.history.begin(self.client, Verb::Renew, claim))
            .collect();
        let answers = self.inner.renew_many(claims).await;
        for (call, answer) in calls.into_iter().zip(&answers) {
            self.history.end(call, Answer::renew(answer));
        }
        answers
    }

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let call = self.history.begin(self.client, Verb::Release, claim);
        let answer = self.inner.release(claim).await;
        self.history.end(call, Answer::release(&answer));
        answer
    }

    async fn hand_over(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        let ended = self.history.begin(self.client, Verb::HandOver, from);
        let taken = self.history.begin(self.client, Verb::TakeOver, to);
        let answer = self.inner.hand_over(from, to, over).await;
        self.history.end(ended, Answer::hand_over(&answer));
        self.history.end(taken, Answer::take_over(&answer));
        answer
    }

    async fn watch(&self, claim: &Claim) -> Result<ReleaseSignal, BackendError> {
        self.inner.watch(claim).await
    }

    async fn inspect(&self, key: &LockKey) -> Result<Option<LeaseInfo>, BackendError> {
        self.inner.inspect(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.inner.list(prefix, after, limit).await
    }
}
