//! Waiting for a key that someone else holds.

use std::time::Duration;

use lockcore::{Claim, ErrorKind, LockBackend, ReleaseSignal};
use tokio::time::Instant;

use super::cases;
use super::wrapped::Wrapped;
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "waiting";
    a_release_wakes: "watch", Needs::Signals;
    a_signal_is_armed_when_returned: "watch", Needs::Signals;
    one_release_wakes_all: "watch", Needs::Signals;
    a_signal_can_be_armed_again: "watch", Needs::Signals;
    an_expiry_lets_in: "L3";
    a_lost_signal_delays_and_no_more: "watch";
    without_signals_it_polls: "watch";
    a_signal_is_not_believed: "L1 W5";
    a_failing_watch_delays_and_no_more: "L7 watch";
    a_hanging_watch_delays_nothing: "L7 watch";
    an_idle_waiter_is_quiet: "watch";
    a_limit_is_kept: "L1";
    try_does_not_wait: "L1";
    a_drop_is_followed_by_a_try: "L1";
    waiters_of_two_clients_get_in: "L1";
}

/// A waiter's task; resolves with when it got in.
async fn wait(
    cx: &Cx,
    client: impl LockBackend,
    floor: Duration,
) -> Result<tokio::task::JoinHandle<Result<Instant, lockcore::Error>>, Failure> {
    let lock = cx.manager(client).poll_every(floor).build()?.lock(&cx.key)?;
    Ok(tokio::spawn(async move {
        let guard = lock.acquire().await?;
        let at = Instant::now();
        guard.release().await?;
        Ok(at)
    }))
}

/// A long lease on the case's key, so that nobody gets in by its end. Its release is announced, so
/// that a store with lines tells those who watch without a place too.
async fn hold(cx: &Cx) -> Result<Claim, Failure> {
    let mut claim = cx.claim().with_announcement();
    claim.ttl = cx.long();
    cx.acquire(&cx.a, &claim).await?;
    Ok(claim)
}

/// Waits until a store has been asked twice and watched: its caller is waiting then.
async fn settled<B: LockBackend>(store: &Faulty<B>) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while store.calls(Verb::Watch) == 0 || store.calls(Verb::Acquire) < 2 {
        ensure!(Instant::now() < end, "nobody waits for the held key");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

async fn a_release_wakes(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(cx.b.clone());
    let waiter = wait(cx, store.clone(), Duration::from_secs(3600)).await?;
    settled(&store).await?;
    let freed = Instant::now();
    cx.release(&cx.a, &claim).await?;
    let after = waiter.await?? - freed;
    cx.note(format!("in after {after:?}"));
    ensure!(after <= cx.slack(), "woken after {after:?}");
    Ok(())
}

async fn a_signal_is_armed_when_returned(cx: &Cx) -> Outcome {
    for _ in 0..20 {
        let claim = hold(cx).await?;
        let signal = cx.b.watch(&cx.claim()).await?;
        cx.release(&cx.a, &claim).await?;
        ensure!(
            tokio::time::timeout(Duration::from_secs(10), signal).await.is_ok(),
            "a release right after the watch was armed did not resolve it"
        );
    }
    Ok(())
}

async fn one_release_wakes_all(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let mut signals = Vec::new();
    for client in [&cx.a, &cx.b, &cx.b, &cx.a] {
        signals.push(client.watch(&cx.claim()).await?);
    }
    // One of them stops waiting; the others still wait.
    drop(signals.pop());
    drop(cx.b.watch(&cx.claim()).await?);
    cx.release(&cx.a, &claim).await?;
    for signal in signals {
        ensure!(
            tokio::time::timeout(Duration::from_secs(10), signal).await.is_ok(),
            "one of several watchers was not woken"
        );
    }
    Ok(())
}

/// Over and over, as a waiter does that comes second each time.
async fn a_signal_can_be_armed_again(cx: &Cx) -> Outcome {
    let mut before = cx.b.watch(&cx.claim()).await?;
    for round in 0..20 {
        let claim = hold(cx).await?;
        let signal = cx.b.watch(&cx.claim()).await?;
        if round % 2 == 0 {
            // Dropped after the next is armed, and every other time before.
            drop(std::mem::replace(&mut before, ReleaseSignal::never()));
        }
        cx.release(&cx.a, &claim).await?;
        ensure!(
            tokio::time::timeout(Duration::from_secs(10), signal).await.is_ok(),
            "round {round}: not woken"
        );
        before = cx.b.watch(&cx.claim()).await?;
    }
    Ok(())
}

/// A holder that died says nothing: its lease ends, and the waiter comes.
async fn an_expiry_lets_in(cx: &Cx) -> Outcome {
    let lease = cx.acquire(&cx.a, &cx.claim()).await?;
    let held = Instant::now();
    let waiter = wait(cx, cx.b.clone(), Duration::from_secs(1)).await?;
    let after = waiter.await?? - held;
    cx.note(format!("in after {after:?} of {:?}", lease.ttl));
    let most = lease.ttl + cx.a.limits().expiry_lag + Duration::from_secs(1) + cx.slack();
    ensure!(after <= most, "granted for {:?}, in after {after:?}", lease.ttl);
    Ok(())
}

/// Signals are hints: where one is lost, the polling interval gets a waiter in.
async fn a_lost_signal_delays_and_no_more(cx: &Cx) -> Outcome {
    polls(cx, Wrapped::unheard(&cx.b)).await
}

async fn without_signals_it_polls(cx: &Cx) -> Outcome {
    polls(cx, Wrapped::deaf(&cx.b)).await
}

/// A waiter that hears of no release gets in within its polling interval.
async fn polls(cx: &Cx, client: Wrapped) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(client);
    let waiter = wait(cx, store.clone(), Duration::from_secs(1)).await?;
    settled(&store).await?;
    let freed = Instant::now();
    cx.release(&cx.a, &claim).await?;
    let after = waiter.await?? - freed;
    cx.note(format!("in after {after:?}"));
    ensure!(after <= Duration::from_secs(1) + cx.slack(), "polled after {after:?}");
    Ok(())
}

/// A signal that comes for nothing makes nobody believe that it holds the lock.
async fn a_signal_is_not_believed(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(Wrapped::misled(&cx.b, Duration::from_millis(50)));
    let waiter = wait(cx, store.clone(), Duration::from_secs(1)).await?;
    settled(&store).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(!waiter.is_finished(), "signalled for nothing, and in while another holds the lock");
    let asked = store.calls(Verb::Acquire);
    cx.note(format!("asked {asked} times in 2 s"));
    ensure!(asked <= 100, "asked {asked} times in 2 s, for 40 signals");
    cx.release(&cx.a, &claim).await?;
    waiter.await??;
    Ok(())
}

async fn a_failing_watch_delays_and_no_more(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(cx.b.clone());
    for mishap in [Mishap::Refuse, Mishap::Reset, Mishap::LoseReply, Mishap::Refuse] {
        store.next(Verb::Watch, mishap);
    }
    let waiter = wait(cx, store.clone(), Duration::from_secs(1)).await?;
    settled(&store).await?;
    cx.release(&cx.a, &claim).await?;
    let freed = Instant::now();
    let after = waiter.await?? - freed;
    cx.note(format!("in after {after:?}"));
    // A watch without an answer costs a request timeout.
    let most = Duration::from_secs(1) + cx.hold_ttl() / 6 + cx.slack();
    ensure!(after <= most, "in after {after:?}");
    Ok(())
}

/// Where watching hangs and asking does not, the waiter polls as often as without a signal.
async fn a_hanging_watch_delays_nothing(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(cx.b.clone());
    for _ in 0..1000 {
        store.next(Verb::Watch, Mishap::LoseRequest);
    }
    let floor = cx.hold_ttl() / 20;
    let waiter = wait(cx, store.clone(), floor).await?;
    tokio::time::sleep(floor * 20).await;
    let asked = store.calls(Verb::Acquire);
    cx.note(format!("asked {asked} times in 20 floors"));
    // Half of them on a busy machine.
    ensure!(asked >= 10, "asked {asked} times in 20 floors");
    cx.release(&cx.a, &claim).await?;
    waiter.await??;
    Ok(())
}

/// Between the polls a waiter asks nothing.
async fn an_idle_waiter_is_quiet(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let store = Faulty::new(cx.b.clone());
    let waiter = wait(cx, store.clone(), Duration::from_secs(1)).await?;
    settled(&store).await?;
    let before = store.calls(Verb::Acquire) + store.calls(Verb::Watch);
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let asked = store.calls(Verb::Acquire) + store.calls(Verb::Watch) - before;
    cx.note(format!("{asked} requests in 4.5 s"));
    // A holder that is first in line and hears no signals asks every 20 ms at most.
    let most = if store.limits().has_line() && !cx.store.signals() { 4500 / 20 } else { 7 };
    ensure!((4..=most).contains(&asked), "asked {asked} times in 4.5 s at an interval of 1 s");
    cx.release(&cx.a, &claim).await?;
    waiter.await??;
    Ok(())
}

async fn a_limit_is_kept(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let lock = cx.manager(cx.b.clone()).build()?.lock(&cx.key)?;
    for limit in [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(1200)] {
        let asked = Instant::now();
        let error = lock.acquire_timeout(limit).await.err().map(|error| error.kind());
        let after = asked.elapsed();
        ensure!(error == Some(ErrorKind::Contended), "{limit:?}: {error:?}");
        ensure!(after >= limit && after <= limit + cx.slack(), "{limit:?} took {after:?}");
        if cx.exact() {
            ensure!(after == limit, "{limit:?} took {after:?}");
        }
    }
    cx.release(&cx.a, &claim).await?;
    lock.acquire_timeout(Duration::from_secs(10)).await?.release().await?;
    Ok(())
}

async fn try_does_not_wait(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let lock = cx.manager(cx.b.clone()).build()?.lock(&cx.key)?;
    let asked = Instant::now();
    ensure!(lock.try_acquire().await?.is_none(), "took a held key");
    ensure!(asked.elapsed() <= cx.slack(), "waited {:?}", asked.elapsed());
    cx.release(&cx.a, &claim).await?;
    let guard = lock.try_acquire().await?;
    ensure!(guard.is_some(), "did not take a free key");
    // In the same process as well.
    ensure!(lock.try_acquire().await?.is_none(), "took its own key twice");
    Ok(())
}

/// A lock that its own task has just dropped is free for this task: its release is awaited.
async fn a_drop_is_followed_by_a_try(cx: &Cx) -> Outcome {
    let lock = cx.manager(cx.a.clone()).build()?.lock(&cx.key)?;
    for round in 0..20 {
        let Some(guard) = lock.try_acquire().await? else {
            return Err(Failure::new(format!(
                "round {round}: taken by the guard that was dropped"
            )));
        };
        drop(guard);
    }
    Ok(())
}

async fn waiters_of_two_clients_get_in(cx: &Cx) -> Outcome {
    let claim = hold(cx).await?;
    let mut waiters = Vec::new();
    for n in 0..6 {
        let client = if n % 2 == 0 { cx.a.clone() } else { cx.b.clone() };
        waiters.push(wait(cx, client, Duration::from_secs(1)).await?);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    cx.release(&cx.a, &claim).await?;
    for waiter in waiters {
        waiter.await??;
    }
    Ok(())
}
