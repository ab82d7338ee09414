//! Requests that arrive late, after what their caller did next: the proxy holds them back.

use std::time::Duration;

use lockcore::{BackendError, Claim, Release};
use tokio::time::timeout;

use super::cases;
use super::over::Wire;
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};
use crate::proxy::{Direction, Mode};

cases! { "wire";
    an_acquire_arrives_after_its_release: "L2 L3", Needs::Wire;
    an_acquire_arrives_after_another_took_the_key: "L1 L4", Needs::Wire;
    an_older_renew_arrives_after_a_newer_one: "L3 L9", Needs::Wire;
    a_release_arrives_after_another_took_the_key: "L4", Needs::Wire;
}

/// How long a call on a wire that carries nothing is waited for. A combination gives up its stores
/// after a twelfth of the ttl, which must be longer.
const SHORT: Duration = Duration::from_millis(300);

/// A call whose request is held back, and whose caller goes.
async fn held_back<T: std::fmt::Debug>(
    wire: &Wire,
    call: impl Future<Output = Result<T, BackendError>>,
) -> Outcome {
    wire.each(|proxy| proxy.set(Direction::ToServer, Mode::Stall));
    match timeout(SHORT, call).await {
        Err(_) | Ok(Err(BackendError::Ambiguous(_))) => Ok(()),
        other => Err(Failure::new(format!("a request that was held back: {other:?}"))),
    }
}

/// Lets it go, and gives it time to arrive.
async fn arrive(cx: &Cx, wire: &Wire) -> Outcome {
    let before = wire.delivered(Direction::ToServer);
    wire.heal();
    tokio::time::sleep(SHORT).await;
    let bytes = wire.delivered(Direction::ToServer) - before;
    ensure!(bytes > 0, "nothing arrived late");
    cx.note(format!("{bytes} bytes arrived late"));
    Ok(())
}

/// A claim whose acquire is under way for longer than it is waited for.
fn patient(cx: &Cx) -> Claim {
    let mut claim = cx.claim();
    if cx.store.combined() {
        claim.ttl = cx.long().min(SHORT * 20);
    }
    claim
}

async fn an_acquire_arrives_after_its_release(cx: &Cx) -> Outcome {
    let (wire, claim) = (Wire::new(cx).await?, patient(cx));
    held_back(&wire, wire.client.acquire(&claim)).await?;
    ensure_matches!(cx.a.release(&claim).await?, Release::NotHeld, "the acquire is under way");
    arrive(cx, &wire).await?;
    // Granted, to nobody: it must end by itself.
    cx.until_free(claim.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    cx.acquire(&cx.b, &cx.claim()).await?;
    Ok(())
}

async fn an_acquire_arrives_after_another_took_the_key(cx: &Cx) -> Outcome {
    let (wire, claim) = (Wire::new(cx).await?, patient(cx));
    held_back(&wire, wire.client.acquire(&claim)).await?;
    ensure_matches!(cx.a.release(&claim).await?, Release::NotHeld, "the acquire is under way");
    let mut other = cx.claim();
    other.ttl = cx.long();
    let lease = cx.acquire(&cx.b, &other).await?;
    arrive(cx, &wire).await?;
    cx.stands(&other, &lease).await?;
    cx.release(&cx.b, &other).await
}

async fn an_older_renew_arrives_after_a_newer_one(cx: &Cx) -> Outcome {
    let (wire, older) = (Wire::new(cx).await?, patient(cx));
    let lease = cx.acquire(&wire.client, &older).await?;
    held_back(&wire, wire.client.renew(&older)).await?;
    let mut newer = older.clone().with_min_token(lease.token + 10);
    newer.ttl = cx.long();
    let raised = cx.renew(&cx.a, &newer).await?;
    arrive(cx, &wire).await?;
    cx.stands(&older, &raised).await?;
    let left = cx.sight().await?.map(|info| info.remaining);
    ensure!(left.is_some_and(|left| left > cx.long() / 2), "renewed for {:?}: {left:?}", newer.ttl);
    cx.release(&cx.a, &older).await
}

async fn a_release_arrives_after_another_took_the_key(cx: &Cx) -> Outcome {
    let (wire, mut claim) = (Wire::new(cx).await?, cx.claim());
    claim.ttl = cx.long();
    cx.acquire(&wire.client, &claim).await?;
    held_back(&wire, wire.client.release(&claim)).await?;
    cx.release(&cx.a, &claim).await?;
    let mut other = cx.claim();
    other.ttl = cx.long();
    let lease = cx.acquire(&cx.b, &other).await?;
    arrive(cx, &wire).await?;
    cx.stands(&other, &lease).await?;
    cx.release(&cx.b, &other).await
}
