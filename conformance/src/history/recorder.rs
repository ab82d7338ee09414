//! A client that writes down what it is asked and answers.

use std::sync::Arc;

use lockcore::{
    Acquire, BackendError, Claim, LeaseInfo, Limits, LockBackend, LockKey, Release, ReleaseSignal,
    Renew, async_trait,
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

    async fn release(&self, claim: &Claim) -> Result<Release, BackendError> {
        let call = self.history.begin(self.client, Verb::Release, claim);
        let answer = self.inner.release(claim).await;
        self.history.end(call, Answer::release(&answer));
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
