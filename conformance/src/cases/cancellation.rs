//! Futures dropped at every point where they can be.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use lockcore::{LockBackend, LockManager};

use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "cancellation";
    any_call_of_the_backend: "L8";
    acquire: "L8";
    acquire_while_contended: "L8";
    try_acquire: "L8";
    acquire_timeout: "L8";
    release: "L8";
    run_and_lost: "L8";
    looks: "L8";
    drain: "L8";
    a_request_in_flight_is_undone: "L2 L8";
    a_straggler_is_undone: "L2 L8";
    a_dropped_guard_releases: "L8";
    a_dropped_waiter_leaves_the_queue: "L8";
}

/// More points than any call has.
const MANY: usize = 300;

/// Polls a future up to `polls` times, then drops it: its output, if it came to that.
async fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // Polled for the last time: nobody would wake it.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A backend with a point to be dropped at before and after each call, beside its own.
fn paced(client: &Arc<dyn LockBackend>) -> Faulty<Arc<dyn LockBackend>> {
    let store = Faulty::new(client.clone());
    store.pace();
    store
}

/// One request timeout and a second.
fn most(cx: &Cx) -> Duration {
    cx.hold_ttl() / 6 + Duration::from_secs(1)
}

/// Drops `call` at every point, and demands that the key is free again each time.
async fn at_every_point<F, Fut, T>(cx: &Cx, locks: &LockManager, mut call: F) -> Outcome
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Failure>>,
{
    for polls in 1..MANY {
        let output = polled(polls, call()).await;
        let done = output.is_some();
        drop(output.transpose()?);
        undone(cx, locks, &format!("dropped after {polls} polls")).await?;
        if done {
            ensure!(polls > 1, "there was no point to be dropped at");
            cx.note(format!("{polls} polls"));
            return Ok(());
        }
    }
    Err(Failure::new(format!("no end after {MANY} polls")))
}

/// Fails the case unless everything is undone within one request timeout and a second.
async fn undone(cx: &Cx, locks: &LockManager, what: &str) -> Outcome {
    let drained = tokio::time::timeout(most(cx), locks.drain()).await;
    ensure!(drained.is_ok(), "{what}: not undone within {:?}", most(cx));
    let sight = cx.sight().await?;
    ensure!(sight.is_none(), "{what}: undone, and in sight: {sight:?}");
    Ok(())
}

async fn any_call_of_the_backend(cx: &Cx) -> Outcome {
    let store = paced(&cx.a);
    for verb in [
        Verb::Acquire,
        Verb::Renew,
        Verb::RenewMany,
        Verb::Release,
        Verb::HandOver,
        Verb::Watch,
        Verb::Inspect,
        Verb::List,
    ] {
        for polls in 1..MANY {
            let claim = cx.claim_on(&cx.key_with(&format!("/{verb:?}/{polls}")));
            let to = cx.claim_on(&claim.key);
            if matches!(verb, Verb::Renew | Verb::RenewMany | Verb::Release | Verb::HandOver) {
                cx.acquire(&store, &claim).await?;
            }
            let done = match verb {
                Verb::Acquire => polled(polls, store.acquire(&claim)).await.is_some(),
                Verb::Renew => polled(polls, store.renew(&claim)).await.is_some(),
                Verb::RenewMany => {
                    let claims = std::slice::from_ref(&claim);
                    polled(polls, store.renew_many(claims)).await.is_some()
                }
                Verb::Release => polled(polls, store.release(&claim)).await.is_some(),
                Verb::HandOver => {
                    polled(polls, store.hand_over(&claim, &to, false)).await.is_some()
                }
                Verb::Watch => polled(polls, store.watch(&claim)).await.is_some(),
                Verb::Inspect => polled(polls, store.inspect(&claim.key)).await.is_some(),
                Verb::List => polled(polls, store.list(cx.key.as_str(), None, 5)).await.is_some(),
            };
            // The backend stays usable, for this key by its holder and for any other.
            if matches!(verb, Verb::Acquire) {
                cx.acquire(&store, &claim).await?;
            }
            store.release(&claim).await?;
            if matches!(verb, Verb::HandOver) {
                store.release(&to).await?;
            }
            // An acquire that was dropped may still be on its way, and arrive after this.
            let end = Instant::now() + cx.ttl + cx.a.limits().expiry_lag + cx.slack();
            while let Some(info) = cx.b.inspect(&claim.key).await? {
                ensure!(
                    Instant::now() < end,
                    "{verb:?} dropped after {polls} polls, then released, and {info:?} stays"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if done {
                break;
            }
            ensure!(polls + 1 < MANY, "{verb:?}: no end");
        }
    }
    Ok(())
}

async fn acquire(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let lock = locks.lock(&cx.key)?;
    at_every_point(cx, &locks, || async { Ok(lock.acquire().await?) }).await
}

async fn acquire_while_contended(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let lock = locks.lock(&cx.key)?;
    for polls in 1..MANY {
        let holder = cx.claim();
        cx.acquire(&cx.b, &holder).await?;
        let waiter = polled(polls, lock.acquire());
        // By then it waits, unless it was dropped before: later drops meet its waking.
        let release = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            cx.b.release(&holder).await
        };
        let (waited, released) = tokio::join!(waiter, release);
        released?;
        let done = waited.is_some();
        drop(waited.transpose()?);
        undone(cx, &locks, &format!("dropped after {polls} polls")).await?;
        if done {
            cx.note(format!("{polls} polls"));
            return Ok(());
        }
    }
    Err(Failure::new(format!("no end after {MANY} polls")))
}

async fn try_acquire(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let lock = locks.lock(&cx.key)?;
    at_every_point(cx, &locks, || async { Ok(lock.try_acquire().await?) }).await
}

async fn acquire_timeout(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let lock = locks.lock(&cx.key)?;
    let limit = Duration::from_secs(10);
    at_every_point(cx, &locks, || async { Ok(lock.acquire_timeout(limit).await?) }).await
}

async fn release(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let lock = locks.lock(&cx.key)?;
    for polls in 1..MANY {
        let guard = lock.acquire().await?;
        let done = polled(polls, guard.release()).await.transpose()?.is_some();
        undone(cx, &locks, &format!("dropped after {polls} polls")).await?;
        if done {
            return Ok(());
        }
    }
    Err(Failure::new(format!("no end after {MANY} polls")))
}

/// Dropping these changes nothing about the lock.
async fn run_and_lost(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    for polls in [1, 2, 5, 20] {
        let work = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        let done = polled(polls, guard.run(work)).await.transpose()?.is_some();
        // It wakes but once a second, so not as often.
        let lost = polled(polls.min(2), guard.lost()).await;
        ensure!(lost.is_none(), "a healthy lock was lost: {lost:?}");
        ensure!(guard.is_valid(), "dropped after {polls} polls, and lost");
        if done {
            break;
        }
    }
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    Ok(())
}

async fn looks(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    for polls in 1..MANY {
        let inspected = polled(polls, locks.inspect(&cx.key)).await.transpose()?;
        let listed = polled(polls, locks.list(cx.key.as_str(), None, 5)).await.transpose()?;
        if let (Some(info), Some(list)) = (inspected, listed) {
            ensure!(info.is_some() && list.len() == 1, "saw {info:?} and {list:?}");
            guard.release().await?;
            return Ok(());
        }
    }
    Err(Failure::new(format!("no end after {MANY} polls")))
}

async fn drain(cx: &Cx) -> Outcome {
    let locks = cx.manager(paced(&cx.a)).build()?;
    for polls in 1..MANY {
        drop(locks.lock(&cx.key)?.acquire().await?);
        let done = polled(polls, locks.drain()).await.is_some();
        if done {
            ensure!(cx.sight().await?.is_none(), "drained, and in sight");
            return Ok(());
        }
        cx.until_free(most(cx)).await?;
    }
    Err(Failure::new(format!("no end after {MANY} polls")))
}

/// The store has granted, and the caller has gone before it heard of it.
async fn a_request_in_flight_is_undone(cx: &Cx) -> Outcome {
    for mishap in [
        Mishap::Late(cx.hold_ttl() / 10),
        Mishap::Delay(cx.hold_ttl() / 10),
        Mishap::LoseReply,
        Mishap::LoseRequest,
        Mishap::Reset,
        Mishap::Refuse,
    ] {
        // A manager remembers an outage until the store has answered.
        let store = paced(&cx.a);
        let locks = cx.manager(store.clone()).build()?;
        store.next(Verb::Acquire, mishap);
        let lock = locks.lock(&cx.key)?;
        ensure!(polled(1, lock.acquire()).await.is_none(), "{mishap:?}: nothing to drop");
        tokio::time::timeout(most(cx), locks.drain()).await.map_err(|_| {
            Failure::new(format!("{mishap:?}: not undone within a request timeout and a second"))
        })?;
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: dropped and drained, and in sight");
    }
    Ok(())
}

/// A release that overtakes its acquire would leave a lease to nobody.
async fn a_straggler_is_undone(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    store.next(Verb::Acquire, Mishap::Straggle(cx.hold_ttl() / 20));
    let lock = locks.lock(&cx.key)?;
    ensure!(polled(1, lock.acquire()).await.is_none(), "nothing to drop");
    locks.drain().await;
    ensure!(cx.sight().await?.is_none(), "dropped and drained, and in sight");
    ensure!(store.calls(Verb::Release) >= 1, "nothing was released");
    Ok(())
}

async fn a_dropped_guard_releases(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    for mishap in [None, Some(Mishap::Reset), Some(Mishap::Refuse), Some(Mishap::LoseRequest)] {
        let guard = locks.lock(&cx.key)?.acquire().await?;
        if let Some(mishap) = mishap {
            store.next(Verb::Release, mishap);
        }
        drop(guard);
        locks.drain().await;
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: dropped and drained, and in sight");
    }
    Ok(())
}

async fn a_dropped_waiter_leaves_the_queue(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let lock = locks.lock(&cx.key)?;
    let guard = lock.acquire().await?;
    let (first, second, third) = {
        let spawn = || {
            let lock = lock.clone();
            tokio::spawn(async move { lock.acquire().await })
        };
        (spawn(), spawn(), spawn())
    };
    tokio::task::yield_now().await;
    second.abort();
    guard.release().await?;
    let guard = first.await??;
    third.abort();
    guard.release().await?;
    // Nobody is left in the queue, and nothing in the store.
    drop((second.await.ok().transpose()?, third.await.ok().transpose()?));
    locks.drain().await;
    cx.until_free(most(cx)).await?;
    lock.acquire_timeout(Duration::from_secs(10)).await?.release().await?;
    Ok(())
}
