//! The timed-out attempt, and its three outcomes when it is tried again: the key is free (take
//! it), mine (it had worked), or another's (it is taken, and stays untouched).

use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, ErrorKind, Lease, LockBackend, Release, Renew};

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "retry";
    acquire_had_worked: "L2";
    acquire_had_not_arrived: "L2";
    acquire_lost_to_another: "L2 L4";
    acquire_arrives_after_its_release: "L2 L3";
    renew_had_worked: "L4";
    renew_had_not_arrived: "L4";
    renew_lost_to_another: "L4";
    renew_arrives_late: "L3";
    release_had_worked: "L6";
    release_had_not_arrived: "L6";
    release_lost_to_another: "L4 L6";
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
}

fn faulty(cx: &Cx) -> Faulty<std::sync::Arc<dyn LockBackend>> {
    Faulty::new(cx.a.clone())
}

/// The attempt that times out: the connection breaks after (`had worked`) or before the store
/// has seen it.
async fn doubtful_acquire(cx: &Cx, store: &impl LockBackend, claim: &Claim) -> Outcome {
    let answer = store.acquire(claim).await;
    cx.note(format!("the doubtful attempt: {answer:?}"));
    ensure_matches!(answer, Err(BackendError::Ambiguous(_)), "the doubtful attempt");
    Ok(())
}

async fn acquire_had_worked(cx: &Cx) -> Outcome {
    let (store, claim) = (faulty(cx), cx.claim());
    store.next(Verb::Acquire, Mishap::Reset);
    doubtful_acquire(cx, &store, &claim).await?;
    let before = cx.sight().await?;
    let again = cx.acquire(&store, &claim).await?;
    ensure!(
        before.as_ref().is_some_and(|info| cx.same_token(info.token, again.token)),
        "granted again with another token: {before:?}, {again:?}"
    );
    cx.stands(&claim, &again).await
}

async fn acquire_had_not_arrived(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    // Nothing was sent: the key is missing, and asking again takes it.
    ensure!(cx.sight().await?.is_none(), "a fresh key is in sight");
    let lease = cx.acquire(&cx.a, &claim).await?;
    let again = cx.acquire(&cx.b, &claim).await?;
    ensure!(
        cx.same_token(again.token, lease.token),
        "taken, then granted again: {lease:?}, {again:?}"
    );
    Ok(())
}

async fn acquire_lost_to_another(cx: &Cx) -> Outcome {
    let (mut late, other) = (cx.claim(), cx.claim());
    // So long that it would show, had it moved the end of the other's.
    late.ttl = cx.long();
    let lease = cx.acquire(&cx.b, &other).await?;
    cx.contend(&cx.a, &late).await?;
    cx.stands_as_long(&other, &lease).await?;
    cx.release(&cx.b, &other).await
}

/// A straggler may be granted, to nobody; it must end with its ttl.
async fn acquire_arrives_after_its_release(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    ensure_matches!(cx.a.release(&claim).await?, Release::NotHeld, "release before the acquire");
    let answer = cx.a.acquire(&claim).await;
    cx.note(format!("the straggler: {answer:?}"));
    match answer {
        Ok(Acquire::Acquired(_)) => {}
        // It need not be granted: what the release does behind its answer may meet it. A
        // combination that gives it up may leave something for its ttl.
        Err(BackendError::Unavailable(_)) => {
            let seen = cx.sight().await?;
            ensure!(cx.store.combined() || seen.is_none(), "unavailable, and in sight: {seen:?}");
        }
        other => return Err(Failure::new(format!("the straggler: {other:?}"))),
    }
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await
}

async fn renew_had_worked(cx: &Cx) -> Outcome {
    let (store, claim) = (faulty(cx), cx.claim());
    let lease = cx.acquire(&store, &claim).await?;
    store.next(Verb::Renew, Mishap::Reset);
    ensure_matches!(store.renew(&claim).await, Err(BackendError::Ambiguous(_)), "the lost answer");
    let again = cx.renew(&store, &claim).await?;
    ensure!(cx.same_token(again.token, lease.token), "{lease:?}, renewed twice: {again:?}");
    cx.stands(&claim, &lease).await
}

async fn renew_had_not_arrived(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    // It was under way for longer than the lease stood.
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    ensure_matches!(cx.a.renew(&claim).await?, Renew::NotHeld, "renew again, the key missing");
    ensure!(cx.sight().await?.is_none(), "the renewal took the key");
    Ok(())
}

async fn renew_lost_to_another(cx: &Cx) -> Outcome {
    let mut claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    let other = cx.claim();
    let lease = cx.acquire(&cx.b, &other).await?;
    claim.ttl = cx.long();
    ensure_matches!(cx.a.renew(&claim).await?, Renew::NotHeld, "renew again, another's key");
    cx.stands_as_long(&other, &lease).await
}

/// An older renewal that arrives after a newer one takes nothing away.
async fn renew_arrives_late(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let mut newer = claim.clone().with_min_token(lease.token + 10);
    newer.ttl = cx.long();
    let raised = cx.renew(&cx.a, &newer).await?;
    cx.renew(&cx.b, &claim).await?;
    cx.stands(&claim, &raised).await?;
    let remaining = cx.sight().await?.map(|info| info.remaining);
    ensure!(
        remaining.is_some_and(|left| left > cx.long() / 2),
        "renewed for {:?}, {remaining:?} are left after a late one",
        newer.ttl
    );
    Ok(())
}

async fn release_had_worked(cx: &Cx) -> Outcome {
    let (store, claim) = (faulty(cx), cx.claim());
    cx.acquire(&store, &claim).await?;
    store.next(Verb::Release, Mishap::Reset);
    let lost = store.release(&claim).await;
    ensure_matches!(lost, Err(BackendError::Ambiguous(_)), "the lost answer");
    ensure_matches!(store.release(&claim).await?, Release::NotHeld, "release again");
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}

async fn release_had_not_arrived(cx: &Cx) -> Outcome {
    let (store, claim) = (faulty(cx), cx.claim());
    let lease = cx.acquire(&store, &claim).await?;
    store.next(Verb::Release, Mishap::Refuse);
    ensure_matches!(store.release(&claim).await, Err(BackendError::Unavailable(_)), "refused");
    cx.stands(&claim, &lease).await?;
    cx.release(&store, &claim).await?;
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}

async fn release_lost_to_another(cx: &Cx) -> Outcome {
    let (store, claim) = (faulty(cx), cx.claim());
    cx.acquire(&store, &claim).await?;
    store.next(Verb::Release, Mishap::Reset);
    let lost = store.release(&claim).await;
    ensure_matches!(lost, Err(BackendError::Ambiguous(_)), "the lost answer");
    let other = cx.claim();
    let lease: Lease = cx.acquire(&cx.b, &other).await?;
    ensure_matches!(store.release(&claim).await?, Release::NotHeld, "release again");
    cx.stands(&other, &lease).await
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
        let guard = locks.lock(&cx.key)?.try_acquire().await?;
        let Some(guard) = guard else {
            return Err(Failure::new(format!("{mishap:?}: contended, and nobody has it")));
        };
        guard.release().await?;
    }
    Ok(())
}

async fn core_waits_for_another(cx: &Cx) -> Outcome {
    let other = cx.claim();
    let store = faulty(cx);
    let locks = cx.manager(store.clone()).build()?;
    store.next(Verb::Acquire, Mishap::LoseRequest);
    let lease = cx.acquire(&cx.b, &other).await?;
    ensure!(locks.lock(&cx.key)?.try_acquire().await?.is_none(), "took another's key");
    cx.stands(&other, &lease).await?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
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
    let store = faulty(cx);
    let retry_for = cx.hold_ttl();
    let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
    for (mishap, kind) in [
        (Mishap::Refuse, ErrorKind::Unavailable),
        (Mishap::LoseRequest, ErrorKind::Ambiguous),
        (Mishap::LoseReply, ErrorKind::Ambiguous),
    ] {
        for _ in 0..100 {
            store.next(Verb::Acquire, mishap);
        }
        let asked = tokio::time::Instant::now();
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
    let store = faulty(cx);
    let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
    for (mishap, kind) in
        [(Mishap::Refuse, ErrorKind::Unavailable), (Mishap::LoseRequest, ErrorKind::Ambiguous)]
    {
        let before = store.calls(Verb::Acquire);
        store.next(Verb::Acquire, mishap);
        let error = lock.acquire_timeout(Duration::ZERO).await.err().map(|error| error.kind());
        ensure!(error == Some(kind), "{mishap:?}: {error:?}");
        let asked = store.calls(Verb::Acquire) - before;
        ensure!(asked == 1, "{mishap:?}: asked {asked} times");
        cx.until_free(cx.slack()).await?;
    }
    let free = lock.acquire_timeout(Duration::from_secs(10)).await?;
    free.release().await?;
    lock.acquire_timeout(Duration::ZERO).await?.release().await?;
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}
