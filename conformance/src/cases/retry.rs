//! The timed-out attempt, and its three outcomes when it is tried again: the key is free (take
//! it), mine (it had worked), or another's (it is taken, and stays untouched).

use lockcore::{Acquire, BackendError, Claim, HolderId, Lease, LockBackend, Release, Renew};

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "retry";
    acquire_had_worked: "L2";
    acquire_had_not_arrived: "L2";
    acquire_lost_to_another: "L2 L4";
    acquire_after_contention: "L2";
    acquire_arrives_after_its_release: "L2 L3";
    renew_had_worked: "L4";
    renew_had_not_arrived: "L4";
    renew_lost_to_another: "L4";
    renew_arrives_late: "L3";
    release_had_worked: "L6";
    release_had_not_arrived: "L6";
    release_lost_to_another: "L4 L6";
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

/// What a store still does about an attempt that it has refused must not end the lease that the same
/// holder is granted later.
async fn acquire_after_contention(cx: &Cx) -> Outcome {
    let mut mine = cx.claim();
    mine.ttl = cx.long();
    for _ in 0..3 {
        let other = cx.claim();
        cx.acquire(&cx.b, &other).await?;
        cx.contend(&cx.a, &mine).await?;
        cx.release(&cx.b, &other).await?;
        let answer = cx.a.acquire(&mine).await;
        if cx.is_given_up(&answer) {
            cx.note("the holder may not ask again");
            return Ok(());
        }
        let Acquire::Acquired(lease) = answer? else {
            return Err(Failure::new("contended, and the key is free"));
        };
        tokio::time::sleep(cx.ttl / 4).await;
        cx.stands(&mine, &lease).await?;
        cx.release(&cx.a, &mine).await?;
        mine.holder = HolderId::random();
    }
    Ok(())
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
