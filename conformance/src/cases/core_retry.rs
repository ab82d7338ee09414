//! How the core takes lost requests and answers, and a store that is down.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Acquire, ErrorKind, LockBackend};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "retry";
    core_recognises_its_own_lease: "L2";
    core_takes_what_is_free: "L2";
    core_waits_for_another: "L2 L4";
    core_counts_a_lost_release_as_done: "L6";
    core_sends_a_lost_release_again: "L6";
    core_releases_before_it_gives_up: "L2 L7";
    core_retries_an_outage: "L7";
    core_gives_up_in_time: "L7";
    core_retries_after_a_long_wait: "L7";
    core_doubts_when_time_runs_out: "L7";
    core_asks_once_when_there_is_no_time: "L7";
    core_tries_once: "L7";
    core_tells_an_outage_to_all: "L7";
    a_revived_lease_is_not_released: "L4 L6";
}

fn faulty(cx: &Cx) -> Faulty<Arc<dyn LockBackend>> {
    Faulty::new(cx.a.clone())
}

async fn core_recognises_its_own_lease(cx: &Cx) -> Outcome {
    for mishap in [Mishap::Reset, Mishap::LoseReply] {
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).build()?;
        store.next(Verb::Acquire, mishap);
        let guard = locks.lock(&cx.key)?.acquire().await?;
        let sight = cx.sight().await?;
        let mine = sight.as_ref().is_some_and(|info| {
            info.holder == guard.holder() && cx.same_token(info.token, guard.fencing_token())
        });
        ensure!(mine, "{mishap:?}: {guard:?} shows as {sight:?}");
        ensure!(
            store.calls(Verb::Acquire) == 2,
            "{mishap:?}: asked {} times",
            store.calls(Verb::Acquire)
        );
        guard.release().await?;
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: released, and in sight");
    }
    Ok(())
}

async fn core_takes_what_is_free(cx: &Cx) -> Outcome {
    for mishap in [Mishap::LoseRequest, Mishap::Refuse] {
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).build()?;
        store.next(Verb::Acquire, mishap);
        let guard = locks.lock(&cx.key)?.acquire_timeout(cx.hold_ttl()).await?;
        ensure!(store.calls(Verb::Acquire) == 2, "{mishap:?}: not asked again");
        guard.release().await?;
    }
    Ok(())
}

async fn core_waits_for_another(cx: &Cx) -> Outcome {
    let mut other = cx.claim();
    other.ttl = cx.long();
    let store = faulty(cx);
    let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
    store.next(Verb::Acquire, Mishap::LoseRequest);
    let lease = cx.acquire(&cx.b, &other).await?;
    let error = lock.acquire_timeout(cx.hold_ttl()).await.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Contended), "another's key: {error:?}");
    cx.stands(&other, &lease).await?;
    cx.release(&cx.b, &other).await?;
    let guard = lock.acquire().await?;
    ensure!(guard.fencing_token() > lease.token, "{guard:?} after {lease:?}");
    guard.release().await?;
    Ok(())
}

async fn core_counts_a_lost_release_as_done(cx: &Cx) -> Outcome {
    for mishap in [Mishap::Reset, Mishap::LoseReply] {
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).build()?;
        let guard = locks.lock(&cx.key)?.acquire().await?;
        store.next(Verb::Release, mishap);
        // The second answer is "not held", and it is no loss.
        guard.release().await?;
        ensure!(store.calls(Verb::Release) == 2, "{mishap:?}: not sent again");
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: released, and in sight");
    }
    Ok(())
}

async fn core_sends_a_lost_release_again(cx: &Cx) -> Outcome {
    for mishap in [Mishap::LoseRequest, Mishap::Refuse] {
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).build()?;
        let guard = locks.lock(&cx.key)?.acquire().await?;
        store.next(Verb::Release, mishap);
        guard.release().await?;
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: released, and in sight");
    }
    Ok(())
}

/// What may have been granted is not left to its ttl.
async fn core_releases_before_it_gives_up(cx: &Cx) -> Outcome {
    let store = faulty(cx);
    let locks = cx
        .manager(store.clone())
        .ttl(cx.long())
        .request_timeout(cx.hold_ttl() / 10)
        .retry_for(cx.hold_ttl() / 10)
        .build()?;
    store.next(Verb::Acquire, Mishap::LoseReply);
    let error = locks.lock(&cx.key)?.acquire().await.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Ambiguous), "an acquire without an answer: {error:?}");
    locks.drain().await;
    ensure!(cx.sight().await?.is_none(), "given up, and left behind");
    Ok(())
}

async fn core_retries_an_outage(cx: &Cx) -> Outcome {
    let store = faulty(cx);
    let locks = cx.manager(store.clone()).build()?;
    for mishap in [Mishap::Refuse, Mishap::Reset, Mishap::Refuse, Mishap::LoseReply, Mishap::Refuse]
    {
        store.next(Verb::Acquire, mishap);
    }
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let sight = cx.sight().await?;
    let mine = sight.as_ref().is_some_and(|info| info.holder == guard.holder());
    ensure!(mine, "{guard:?} shows as {sight:?}");
    guard.release().await?;
    ensure_matches!(cx.a.acquire(&cx.claim()).await?, Acquire::Acquired(_), "after all that");
    Ok(())
}

async fn core_gives_up_in_time(cx: &Cx) -> Outcome {
    let retry_for = cx.hold_ttl();
    for (mishap, kind) in [
        (Mishap::Refuse, ErrorKind::Unavailable),
        (Mishap::LoseRequest, ErrorKind::Ambiguous),
        (Mishap::LoseReply, ErrorKind::Ambiguous),
    ] {
        // A manager remembers an outage until the store has answered.
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
        for _ in 0..100 {
            store.next(Verb::Acquire, mishap);
        }
        let asked = Instant::now();
        let error = locks.lock(&cx.key)?.acquire().await.err().map(|error| error.kind());
        let after = asked.elapsed();
        ensure!(error == Some(kind), "{mishap:?}: {error:?}");
        // One request may be under way when the time is over.
        let most = retry_for + cx.hold_ttl() / 6 + cx.slack();
        ensure!(after >= retry_for && after <= most, "{mishap:?}: gave up after {after:?}");
        store.calm();
        locks.drain().await;
        ensure!(cx.sight().await?.is_none(), "{mishap:?}: given up, and in sight");
    }
    Ok(())
}

/// The time that a waiter slept does not count as the store's failing.
async fn core_retries_after_a_long_wait(cx: &Cx) -> Outcome {
    let other = cx.claim();
    let store = faulty(cx);
    let lock = cx.manager(store.clone()).retry_for(cx.ttl / 4).build()?.lock(&cx.key)?;
    cx.acquire(&cx.b, &other).await?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    while store.calls(Verb::Acquire) < 2 {
        tokio::time::sleep(cx.ttl / 100).await;
    }
    tokio::time::sleep(cx.ttl / 50).await;
    // It wakes when the lease has ended, and the store is not reached once.
    store.next(Verb::Acquire, Mishap::Refuse);
    waiting.await??.release().await?;
    Ok(())
}

/// Whatever was told last: a request that was granted unheard leaves a doubt.
async fn core_doubts_when_time_runs_out(cx: &Cx) -> Outcome {
    let limit = cx.hold_ttl() / 4;
    // The doubt before the refusals, and the doubt under way after one.
    for (first, then) in [(Mishap::Reset, Mishap::Refuse), (Mishap::Refuse, Mishap::LoseReply)] {
        let store = faulty(cx);
        let locks = cx.manager(store.clone()).request_timeout(limit).build()?;
        store.next(Verb::Acquire, first);
        for _ in 0..100 {
            store.next(Verb::Acquire, then);
            store.next(Verb::Release, Mishap::Refuse);
        }
        let lock = locks.lock(&cx.key)?;
        let error = lock.acquire_timeout(limit).await.err().map(|error| error.kind());
        ensure!(error == Some(ErrorKind::Ambiguous), "{first:?}, then {then:?}: {error:?}");
        store.calm();
        locks.drain().await;
        ensure!(cx.sight().await?.is_none(), "{first:?}, then {then:?}: given up, and in sight");
    }
    Ok(())
}

/// No time means no second try either.
async fn core_asks_once_when_there_is_no_time(cx: &Cx) -> Outcome {
    for (mishap, kind) in
        [(Mishap::Refuse, ErrorKind::Unavailable), (Mishap::LoseRequest, ErrorKind::Ambiguous)]
    {
        let store = faulty(cx);
        let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
        store.next(Verb::Acquire, mishap);
        let error = lock.acquire_timeout(Duration::ZERO).await.err().map(|error| error.kind());
        ensure!(error == Some(kind), "{mishap:?}: {error:?}");
        let asked = store.calls(Verb::Acquire);
        ensure!(asked == 1, "{mishap:?}: asked {asked} times");
        cx.until_free(cx.slack()).await?;
    }
    let lock = cx.manager(cx.a.clone()).build()?.lock(&cx.key)?;
    let free = lock.acquire_timeout(Duration::from_secs(10)).await?;
    free.release().await?;
    lock.acquire_timeout(Duration::ZERO).await?.release().await?;
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}

/// A try waits for nobody: not for a store that is down either.
async fn core_tries_once(cx: &Cx) -> Outcome {
    for (mishap, kind) in
        [(Mishap::Refuse, ErrorKind::Unavailable), (Mishap::LoseRequest, ErrorKind::Ambiguous)]
    {
        let store = faulty(cx);
        let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
        store.next(Verb::Acquire, mishap);
        let asked = Instant::now();
        let error = lock.try_acquire().await.err().map(|error| error.kind());
        let after = asked.elapsed();
        ensure!(error == Some(kind), "{mishap:?}: {error:?}");
        ensure!(after <= cx.hold_ttl() / 6 + cx.slack(), "{mishap:?}: told after {after:?}");
        ensure!(store.calls(Verb::Acquire) == 1, "{mishap:?}: asked again");
        store.calm();
        cx.until_free(cx.hold_ttl() / 6 + cx.slack()).await?;
    }
    let lock = cx.manager(cx.a.clone()).build()?.lock(&cx.key)?;
    let Some(guard) = lock.try_acquire().await? else {
        return Err(Failure::new("contended, and nobody has it"));
    };
    let another = cx.manager(cx.b.clone()).build()?.lock(&cx.key)?;
    ensure!(another.try_acquire().await?.is_none(), "took a held key");
    guard.release().await?;
    Ok(())
}

/// One outage is one outage: those behind in the queue do not count theirs from when their turn
/// comes.
async fn core_tells_an_outage_to_all(cx: &Cx) -> Outcome {
    const TASKS: usize = 10;
    for mishap in [Mishap::Refuse, Mishap::LoseRequest] {
        let store = faulty(cx);
        let retry_for = cx.hold_ttl();
        let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
        for _ in 0..1000 {
            store.next(Verb::Acquire, mishap);
            store.next(Verb::Watch, mishap);
            store.next(Verb::Release, mishap);
        }
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let lock = locks.lock(&cx.key)?;
            let asked = Instant::now();
            tasks.spawn(async move {
                (lock.acquire().await.err().map(|error| error.kind()), asked.elapsed())
            });
        }
        let (mut last, mut doubts) = (Duration::ZERO, 0);
        while let Some(told) = tasks.join_next().await {
            let (kind, after) = told?;
            let right = matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Ambiguous));
            ensure!(right, "{mishap:?}: {kind:?} after {after:?}");
            doubts += usize::from(kind == Some(ErrorKind::Ambiguous));
            last = last.max(after);
        }
        cx.note(format!("{mishap:?}: all {TASKS} were told within {last:?}"));
        let most = retry_for + Duration::from_secs(1) + cx.slack();
        ensure!(last <= most, "{mishap:?}: the last of {TASKS} was told after {last:?}");
        // Only for a task whose own request has no answer it may have happened.
        let most = if mishap == Mishap::Refuse { 0 } else { 1 };
        ensure!(doubts <= most, "{mishap:?}: {doubts} of {TASKS} tasks were told a doubt");
        store.calm();
        locks.lock(&cx.key)?.acquire_timeout(retry_for).await?.release().await?;
        locks.drain().await;
        cx.until_free(cx.slack()).await?;
    }
    Ok(())
}

/// A late copy of the acquire is granted after the lease has ended and another has had the key. A
/// release of what it was granted is no release of the lease that the guard stood for.
async fn a_revived_lease_is_not_released(cx: &Cx) -> Outcome {
    let store = faulty(cx);
    let locks = cx.manager(store.clone()).no_renewal().build()?;
    let late = cx.hold_ttl() + cx.a.limits().expiry_lag + cx.slack() + cx.hold_ttl() / 2;
    store.next(Verb::Acquire, Mishap::Repeat(late));
    let granted = Instant::now();
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let limit = cx.hold_ttl() + cx.a.limits().expiry_lag + cx.slack();
    cx.until_free(limit).await?;
    let other = cx.claim();
    cx.acquire(&cx.b, &other).await?;
    cx.release(&cx.b, &other).await?;
    tokio::time::sleep_until(granted + late + cx.slack()).await;
    let revived = cx.sight().await?.is_some_and(|info| info.holder == guard.holder());
    cx.note(format!("the late copy was granted: {revived}"));
    let error = guard.release().await.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Lost), "release of a lease that had ended: {error:?}");
    Ok(())
}
