//! Requests that arrive twice: at once, or after what came next. A connection delivers nothing
//! twice, but drivers, proxies and people do.

use std::time::Duration;

use lockcore::{Acquire, Claim, LockBackend};

use super::cases;
use crate::case::{Cx, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "retry";
    a_repeated_acquire_is_one: "L2";
    a_repeated_acquire_takes_nothing_from_another: "L1 L4";
    a_repeated_acquire_ends_with_its_ttl: "L2 L3";
    a_repeated_renew_shortens_nothing: "L3 L9";
    a_repeated_renew_revives_nothing: "L4";
    a_repeated_release_leaves_the_next_alone: "L4 L6";
}

/// A client whose next call of `verb` arrives once more, this much later.
fn repeating(cx: &Cx, verb: Verb, later: Duration) -> Faulty<impl LockBackend + use<>> {
    let store = Faulty::new(cx.a.clone());
    store.next(verb, Mishap::Repeat(later));
    store
}

/// Until the repeated call has been made.
async fn repeated(cx: &Cx, later: Duration) {
    let time = Duration::from_millis(if cx.exact() { 1 } else { 300 });
    tokio::time::sleep(later + time).await;
}

async fn a_repeated_acquire_is_one(cx: &Cx) -> Outcome {
    for later in [Duration::ZERO, cx.ttl / 10] {
        let (store, claim) = (repeating(cx, Verb::Acquire, later), cx.claim());
        let lease = cx.acquire(&store, &claim).await?;
        repeated(cx, later).await;
        cx.stands(&claim, &lease).await?;
        cx.contend(&cx.b, &cx.claim()).await?;
        cx.release(&cx.b, &claim).await?;
    }
    Ok(())
}

async fn a_repeated_acquire_takes_nothing_from_another(cx: &Cx) -> Outcome {
    let later = cx.ttl / 4;
    let (store, claim) = (repeating(cx, Verb::Acquire, later), cx.claim());
    cx.acquire(&store, &claim).await?;
    cx.release(&store, &claim).await?;
    let mut other: Claim = cx.claim();
    other.ttl = cx.long();
    let lease = cx.acquire(&cx.b, &other).await?;
    repeated(cx, later).await;
    cx.stands(&other, &lease).await?;
    cx.release(&cx.b, &other).await
}

async fn a_repeated_acquire_ends_with_its_ttl(cx: &Cx) -> Outcome {
    let later = cx.ttl / 4;
    let (store, claim) = (repeating(cx, Verb::Acquire, later), cx.claim());
    let lease = cx.acquire(&store, &claim).await?;
    cx.release(&store, &claim).await?;
    repeated(cx, later).await;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    let next = cx.acquire(&cx.b, &cx.claim()).await?;
    ensure!(next.token > lease.token, "{next:?} after {lease:?}");
    Ok(())
}

async fn a_repeated_renew_shortens_nothing(cx: &Cx) -> Outcome {
    let later = cx.ttl / 4;
    let (store, claim) = (repeating(cx, Verb::Renew, later), cx.claim());
    let lease = cx.acquire(&store, &claim).await?;
    cx.renew(&store, &claim).await?;
    let mut newer = claim.clone().with_min_token(lease.token + 10);
    newer.ttl = cx.long();
    let raised = cx.renew(&store, &newer).await?;
    repeated(cx, later).await;
    cx.stands(&claim, &raised).await?;
    let left = cx.sight().await?.map(|info| info.remaining);
    ensure!(left.is_some_and(|left| left > cx.long() / 2), "renewed for {:?}: {left:?}", newer.ttl);
    cx.release(&cx.b, &claim).await
}

async fn a_repeated_renew_revives_nothing(cx: &Cx) -> Outcome {
    let later = cx.ttl / 4;
    let (store, claim) = (repeating(cx, Verb::Renew, later), cx.claim());
    cx.acquire(&store, &claim).await?;
    cx.renew(&store, &claim).await?;
    cx.release(&store, &claim).await?;
    repeated(cx, later).await;
    let seen = cx.sight().await?;
    ensure!(seen.is_none(), "released, and back: {seen:?}");
    let answer = cx.b.acquire(&cx.claim()).await?;
    ensure_matches!(answer, Acquire::Acquired(_), "a free key");
    Ok(())
}

async fn a_repeated_release_leaves_the_next_alone(cx: &Cx) -> Outcome {
    for later in [Duration::ZERO, cx.ttl / 4] {
        let (store, claim) = (repeating(cx, Verb::Release, later), cx.claim());
        cx.acquire(&store, &claim).await?;
        cx.release(&store, &claim).await?;
        let mut other = cx.claim();
        other.ttl = cx.long();
        let lease = cx.acquire(&cx.b, &other).await?;
        repeated(cx, later).await;
        cx.stands(&other, &lease).await?;
        cx.release(&cx.b, &other).await?;
    }
    Ok(())
}
