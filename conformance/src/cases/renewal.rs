//! Guards over this backend: the renewal that keeps them, and what ends it.

use std::time::Duration;

use lockcore::{Claim, ErrorKind, LockBackend, LockGuard, LostReason, Renew};
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "renewal";
    keeps_the_lock: "L3";
    keeps_the_token: "L4";
    stops_at_release: "L4";
    stops_at_drop: "L4";
    off_means_off: "L3";
    survives_lost_answers: "L3 L7";
    survives_a_short_outage: "L3 L7";
    tells_a_lost_lease_at_once: "L4";
    does_not_revive: "L4";
    ends_with_max_hold: "L3";
    late_answers_do_not_revive: "L3";
    renews_beyond_the_largest_floor: "L9";
}

async fn hold(cx: &Cx, store: &Faulty<impl LockBackend>) -> Result<LockGuard, Failure> {
    let locks = cx.manager(store.clone()).label("renewal").build()?;
    Ok(locks.lock(&cx.key)?.acquire().await?)
}

/// How often leases were renewed, one by one or many at once.
fn renewals(store: &Faulty<impl LockBackend>) -> usize {
    store.calls(Verb::Renew) + store.calls(Verb::RenewMany)
}

/// The claim of a guard, for what only an intruder with its identity could do.
fn claim_of(guard: &LockGuard, ttl: Duration) -> Claim {
    Claim::new(guard.key().clone(), guard.holder(), ttl)
}

async fn keeps_the_lock(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    let end = Instant::now() + cx.hold_ttl() * 2 + cx.hold_ttl() / 2;
    while Instant::now() < end {
        ensure!(guard.is_valid(), "lost a healthy lock");
        cx.contend(&cx.b, &cx.claim()).await?;
        tokio::time::sleep(cx.hold_ttl() / 10).await;
    }
    ensure!(renewals(&store) >= 5, "{} renewals", renewals(&store));
    guard.release().await?;
    cx.acquire(&cx.b, &cx.claim()).await?;
    Ok(())
}

async fn keeps_the_token(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    let token = guard.fencing_token();
    while renewals(&store) < 3 {
        tokio::time::sleep(cx.hold_ttl() / 10).await;
    }
    let seen = cx.sight().await?;
    ensure!(cx.same_token(guard.fencing_token(), token), "{token} then {}", guard.fencing_token());
    ensure!(
        seen.as_ref().is_some_and(|info| cx.same_token(info.token, token)),
        "{token} shows as {seen:?}"
    );
    Ok(())
}

/// No renewal comes after the release: it would be the last thing to touch the key.
async fn stops_at_release(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    while renewals(&store) == 0 {
        tokio::time::sleep(cx.hold_ttl() / 20).await;
    }
    guard.release().await?;
    let before = renewals(&store);
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(renewals(&store) == before, "renewed after the release");
    ensure!(cx.sight().await?.is_none(), "released, and back");
    Ok(())
}

async fn stops_at_drop(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    // The drop meets a renewal whose answer is on its way.
    store.next(Verb::Renew, Mishap::Late(cx.hold_ttl() / 10));
    while renewals(&store) == 0 {
        tokio::time::sleep(cx.hold_ttl() / 40).await;
    }
    drop(guard);
    locks.drain().await;
    let before = renewals(&store);
    ensure!(cx.sight().await?.is_none(), "dropped and drained, and in sight");
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(renewals(&store) == before, "renewed after the drop");
    ensure!(cx.sight().await?.is_none(), "dropped, and back");
    Ok(())
}

async fn off_means_off(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).no_renewal().build()?;
    let asked = Instant::now();
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let reason = guard.lost().await;
    let after = asked.elapsed();
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(renewals(&store) == 0, "renewed all the same");
    // 1 % and 2 ms before the store may give the key away.
    let useful = cx.hold_ttl() - cx.hold_ttl() / 100 - Duration::from_millis(2);
    cx.note(format!("lost after {after:?} of {:?}", cx.hold_ttl()));
    if cx.exact() {
        ensure!(after == useful, "lost after {after:?}, not {useful:?}");
    }
    ensure!(after + cx.slack() >= useful, "lost after {after:?}, before {useful:?}");
    ensure!(!guard.is_valid() && guard.remaining().is_zero(), "lost, and valid");
    ensure!(after <= useful + cx.slack(), "lost after {after:?}, late");
    Ok(())
}

async fn survives_lost_answers(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    store.next(Verb::Renew, Mishap::LoseReply);
    store.next(Verb::Renew, Mishap::Reset);
    store.next(Verb::Renew, Mishap::LoseRequest);
    store.next(Verb::Renew, Mishap::Refuse);
    tokio::time::sleep(cx.hold_ttl() * 2).await;
    ensure!(guard.is_valid(), "four lost answers cost the lock");
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    Ok(())
}

async fn survives_a_short_outage(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    store.cut(true);
    tokio::time::sleep(cx.hold_ttl().mul_f64(0.6)).await;
    store.cut(false);
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(guard.is_valid(), "an outage shorter than the lease cost the lock");
    guard.release().await?;
    Ok(())
}

/// The store's definite no is final, at once: someone else may have the key already.
async fn tells_a_lost_lease_at_once(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    let lost = guard.lost();
    cx.release(&cx.b, &claim_of(&guard, cx.hold_ttl())).await?;
    let taken = Instant::now();
    let reason = lost.await;
    let after = taken.elapsed();
    cx.note(format!("told after {after:?}"));
    ensure!(reason == LostReason::NotHeld, "{reason:?}");
    ensure!(!guard.is_valid(), "lost, and valid");
    // At the next renewal, and a request.
    ensure!(after <= cx.hold_ttl() / 3 + cx.slack(), "told after {after:?}");
    let error = guard.release().await.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Lost), "release of a lost lock: {error:?}");
    Ok(())
}

/// A renewal of a lease that is gone must not bring it back, over the head of the next holder.
async fn does_not_revive(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    let stale = claim_of(&guard, cx.hold_ttl());
    cx.release(&cx.b, &stale).await?;
    let next = cx.claim();
    let mut longer = next.clone();
    longer.ttl = cx.hold_ttl() * 2;
    let lease = cx.acquire(&cx.b, &longer).await?;
    guard.lost().await;
    cx.stands(&next, &lease).await?;
    ensure_matches!(cx.a.renew(&stale).await?, Renew::NotHeld, "renew by the lost holder");
    drop(guard);
    tokio::time::sleep(cx.ttl / 10).await;
    cx.stands(&next, &lease).await
}

async fn ends_with_max_hold(cx: &Cx) -> Outcome {
    let limit = cx.hold_ttl() * 2;
    let locks = cx.manager(cx.a.clone()).max_hold(limit).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let held = Instant::now();
    let reason = guard.lost().await;
    let after = held.elapsed();
    ensure!(reason == LostReason::MaxHold, "{reason:?} after {after:?}");
    ensure!(after <= limit + cx.slack(), "lost after {after:?}, not {limit:?}");
    if cx.exact() {
        ensure!(after == limit, "lost after {after:?}, not {limit:?}");
    }
    // Its lease is left to end, not taken away under work that is being stopped.
    cx.until_free(cx.hold_ttl() + cx.a.limits().expiry_lag + cx.slack()).await
}

/// An answer that comes after the deadline changes nothing: somebody may have seen the loss.
async fn late_answers_do_not_revive(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx
        .manager(store.clone())
        .request_timeout(cx.hold_ttl().mul_f64(0.9))
        .renew_every(cx.hold_ttl() / 2)
        .build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    store.next(Verb::Renew, Mishap::Late(cx.hold_ttl() * 2));
    let reason = guard.lost().await;
    ensure!(reason == LostReason::Expired, "{reason:?}");
    for _ in 0..50 {
        ensure!(!guard.is_valid(), "lost, and valid again");
        tokio::time::sleep(cx.hold_ttl() / 20).await;
    }
    Ok(())
}

/// Whoever comes after a lease with the largest floor has a token that no claim may demand.
async fn renews_beyond_the_largest_floor(cx: &Cx) -> Outcome {
    let largest = cx.a.limits().max_token;
    let raised = cx.claim().with_min_token(largest);
    cx.acquire(&cx.a, &raised).await?;
    cx.release(&cx.a, &raised).await?;
    let store = Faulty::new(cx.a.clone());
    let guard = hold(cx, &store).await?;
    ensure!(guard.fencing_token() > largest, "{guard:?} after {largest}");
    tokio::time::sleep(cx.hold_ttl() + cx.hold_ttl() / 4).await;
    ensure!(guard.is_valid(), "not renewed, after {} tries", renewals(&store));
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    Ok(())
}
