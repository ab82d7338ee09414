//! Calls over a wire that fails them now and then.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HolderId, LockBackend, LockGuard, LockKey, LostReason, Release,
};
use tokio::time::{Instant, timeout};

use crate::case::{Cx, Failure, Outcome, ensure};
use crate::proxy::{Direction, Proxy, Then};

async fn until_the_same(bytes: impl Fn() -> u64, quiet: Duration) -> Outcome {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let before = bytes();
        tokio::time::sleep(quiet).await;
        if bytes() == before {
            return Ok(());
        }
        ensure!(Instant::now() < end, "a client that does nothing is never quiet");
    }
}

/// A client behind a proxy for each endpoint.
pub(super) struct Wire {
    pub(super) proxies: Vec<Proxy>,
    pub(super) client: Arc<dyn LockBackend>,
}

impl Wire {
    pub(super) async fn new(cx: &Cx) -> Result<Self, Failure> {
        let mut proxies = Vec::new();
        for endpoint in cx.store.endpoints() {
            proxies.push(Proxy::start(endpoint).await?);
        }
        let at: Vec<_> = proxies.iter().map(Proxy::addr).collect();
        let client = cx.connect_at(&at).await?;
        let wire = Self { proxies, client };
        // Whatever is only done once, at first use, has been done.
        let mut claim = cx.claim();
        claim.key = cx.key_with(&format!("/warm-up/{}", claim.holder));
        cx.acquire(&wire.client, &claim).await?;
        cx.renew(&wire.client, &claim).await?;
        cx.release(&wire.client, &claim).await?;
        wire.until_quiet(Duration::from_millis(30)).await?;
        Ok(wire)
    }

    /// Waits until nothing has gone over the wire for that long: some stores tidy up after a call
    /// was answered, and a fault must meet the next call and not that.
    pub(super) async fn until_quiet(&self, quiet: Duration) -> Outcome {
        let all = || self.delivered(Direction::ToServer) + self.delivered(Direction::ToClient);
        until_the_same(all, quiet).await
    }

    /// Waits until the client has asked nothing for that long.
    pub(super) async fn until_nothing_is_asked(&self, quiet: Duration) -> Outcome {
        until_the_same(|| self.delivered(Direction::ToServer), quiet).await
    }

    pub(super) fn each(&self, fault: impl Fn(&Proxy)) {
        self.proxies.iter().for_each(fault);
    }

    pub(super) fn heal(&self) {
        self.each(Proxy::heal);
    }

    pub(super) fn delivered(&self, direction: Direction) -> u64 {
        self.proxies.iter().map(|proxy| proxy.delivered(direction)).sum()
    }

    pub(super) fn swallowed(&self, direction: Direction) -> u64 {
        self.proxies.iter().map(|proxy| proxy.swallowed(direction)).sum()
    }

    /// How many connections were cut at the place that was asked for.
    pub(super) fn cuts(&self) -> u64 {
        self.proxies.iter().map(Proxy::cuts).sum()
    }

    /// Fails the case unless a chunk was swallowed.
    pub(super) fn has_lost(&self, direction: Direction, then: Then) -> Outcome {
        ensure!(self.swallowed(direction) > 0, "{then:?}: nothing was lost");
        Ok(())
    }
}

/// Why a lock was lost, within what its lease can last and some more.
pub(super) async fn told(guard: &LockGuard) -> Result<LostReason, Failure> {
    let limit = guard.remaining() + Duration::from_secs(5);
    let lost = timeout(limit, guard.lost()).await;
    lost.map_err(|_| Failure::new(format!("{limit:?} later it is not told: {guard:?}")))
}

/// Makes a call until it is answered; it may fail in between, but only honestly.
pub(super) async fn until_answered<T, F, Fut>(cx: &Cx, mut call: F) -> Result<T, Failure>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, BackendError>>,
{
    for _ in 0..50 {
        match timeout(Duration::from_millis(1500), call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error @ (BackendError::Ambiguous(_) | BackendError::Unavailable(_)))) => {
                cx.note(format!("tried again: {error}"));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => cx.note("tried again: no answer"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::new("no answer over a whole wire after 50 tries"))
}

/// Acquires until that is answered. A combination that has given an attempt up may not be asked
/// again as the same holder: the claim is another's then.
pub(super) async fn until_acquire_answered(
    cx: &Cx,
    client: &Arc<dyn LockBackend>,
    claim: &mut Claim,
) -> Result<Acquire, Failure> {
    let asked = Mutex::new(claim.clone());
    let answer = until_answered(cx, || async {
        let now = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = client.acquire(&now).await;
        if cx.is_given_up(&answer) {
            let next = Claim::new(now.key, HolderId::random(), now.ttl);
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = next;
        }
        answer
    });
    let answer = answer.await;
    *claim = asked.into_inner().unwrap_or_else(PoisonError::into_inner);
    answer
}

/// Releases a lease that stands and is not about to end, and fails the case unless it is gone then.
/// After an attempt whose outcome is not known, "not held" says that it had worked.
pub(super) async fn until_released(
    cx: &Cx,
    client: &Arc<dyn LockBackend>,
    claim: &Claim,
) -> Outcome {
    let doubt = AtomicBool::new(false);
    let answer = until_answered(cx, || async {
        // Unless there is a definite answer.
        let before = doubt.swap(true, Relaxed);
        let answer = client.release(claim).await;
        doubt.store(before || matches!(answer, Err(BackendError::Ambiguous(_))), Relaxed);
        answer
    });
    let answer = answer.await?;
    let had_worked = doubt.load(Relaxed) && matches!(answer, Release::NotHeld);
    ensure!(had_worked || answer.is_released(), "release: {answer:?}");
    nothing_left(cx, &claim.key).await
}

/// Fails the case unless the key is free. Enough stores of a combination have answered, and the
/// rest does behind it.
pub(super) async fn nothing_left(cx: &Cx, key: &LockKey) -> Outcome {
    let end = Instant::now() + cx.slack();
    let mut left = cx.b.inspect(key).await?;
    while cx.store.combined() && left.is_some() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
        left = cx.b.inspect(key).await?;
    }
    ensure!(left.is_none(), "{left:?} is left behind");
    Ok(())
}
