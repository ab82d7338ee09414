//! How long a lease stands.

use std::time::Duration;

use lockcore::{Acquire, Release, Renew};
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Outcome, ensure, ensure_matches};

cases! { "expiry";
    stands_for_its_ttl: "L3";
    gone_after_its_ttl: "L3";
    grants_what_was_claimed: "L3";
    renew_extends: "L3";
    asking_again_extends: "L2 L3";
    renew_never_shortens: "L3";
    asking_again_never_shortens: "L3";
    expired_is_not_renewed: "L4";
    expired_is_not_released: "L6";
    retry_after_is_true: "L3";
    fractions_are_not_lost: "L3";
    a_lease_is_not_its_neighbours: "L3";
}

/// When the key became free for another, from the start of `since`.
async fn freed_after(cx: &Cx, since: Instant, limit: Duration) -> Result<Duration, crate::Failure> {
    let (at, _) = cx.until_acquired(&cx.b, limit).await?;
    let after = at - since;
    cx.note(format!("free for another after {after:?}"));
    Ok(after)
}

async fn stands_for_its_ttl(cx: &Cx) -> Outcome {
    // From the start of the call: everything that a holder may believe in.
    let start = Instant::now();
    let lease = cx.acquire(&cx.a, &cx.claim()).await?;
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= lease.ttl, "granted for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

async fn gone_after_its_ttl(cx: &Cx) -> Outcome {
    let lease = cx.acquire(&cx.a, &cx.claim()).await?;
    let answered = Instant::now();
    let most = lease.ttl + cx.a.limits().expiry_lag + cx.slack();
    let after = freed_after(cx, answered, most).await?;
    ensure!(after <= most, "granted for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

async fn grants_what_was_claimed(cx: &Cx) -> Outcome {
    for factor in [1.0, 1.5, 3.7] {
        let mut claim = cx.claim_on(&cx.key_with(&factor.to_string()));
        claim.ttl = cx.ttl.mul_f64(factor).min(cx.long());
        let lease = cx.acquire(&cx.a, &claim).await?;
        ensure!(lease.ttl >= claim.ttl, "claimed {:?}, granted {:?}", claim.ttl, lease.ttl);
        let remaining = cx.b.inspect(&claim.key).await?.map(|info| info.remaining);
        ensure!(
            remaining.is_some_and(|left| left <= lease.ttl),
            "granted {:?}, the store keeps {remaining:?}",
            lease.ttl
        );
        let again = cx.renew(&cx.a, &claim).await?;
        ensure!(again.ttl >= claim.ttl, "claimed {:?}, renewed for {:?}", claim.ttl, again.ttl);
    }
    Ok(())
}

async fn renew_extends(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    tokio::time::sleep(cx.ttl / 2).await;
    let start = Instant::now();
    let lease = cx.renew(&cx.a, &claim).await?;
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= lease.ttl, "renewed for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

async fn asking_again_extends(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    tokio::time::sleep(cx.ttl / 2).await;
    let start = Instant::now();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= lease.ttl, "granted for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

/// A late request with a shorter ttl, from before the holder asked for more.
async fn renew_never_shortens(cx: &Cx) -> Outcome {
    let short = cx.claim();
    let mut long = short.clone();
    long.ttl = cx.ttl * 3;
    let start = Instant::now();
    let lease = cx.acquire(&cx.a, &long).await?;
    cx.renew(&cx.b, &short).await?;
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= lease.ttl, "granted for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

async fn asking_again_never_shortens(cx: &Cx) -> Outcome {
    let short = cx.claim();
    let mut long = short.clone();
    long.ttl = cx.ttl * 3;
    let start = Instant::now();
    let lease = cx.acquire(&cx.a, &long).await?;
    cx.acquire(&cx.b, &short).await?;
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= lease.ttl, "granted for {:?}, free for another after {after:?}", lease.ttl);
    Ok(())
}

async fn expired_is_not_renewed(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    ensure_matches!(cx.a.renew(&claim).await?, Renew::NotHeld, "renew of an expired lease");
    ensure!(cx.sight().await?.is_none(), "renew revived an expired lease");
    Ok(())
}

async fn expired_is_not_released(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    ensure_matches!(cx.a.release(&claim).await?, Release::NotHeld, "release of an expired lease");
    Ok(())
}

/// Whoever comes back when it was told to gets the key, unless it was renewed.
async fn retry_after_is_true(cx: &Cx) -> Outcome {
    let lease = cx.acquire(&cx.a, &cx.claim()).await?;
    let answer = cx.b.acquire(&cx.claim()).await?;
    let Acquire::Contended(contention) = answer else {
        return Err(crate::Failure::new(format!("acquire of a held key: {answer:?}")));
    };
    // A store may not know. If it says something, it is no longer than the lease can stand.
    let Some(left) = contention.retry_after else {
        cx.note("the store does not say");
        return Ok(());
    };
    let most = lease.ttl + cx.a.limits().expiry_lag;
    ensure!(left <= most, "granted for {:?}, and {left:?} are left", lease.ttl);
    tokio::time::sleep(left + cx.a.limits().expiry_lag + cx.slack()).await;
    cx.acquire(&cx.b, &cx.claim()).await?;
    Ok(())
}

/// Stores count in steps: a ttl between two of them is rounded up, never down.
async fn fractions_are_not_lost(cx: &Cx) -> Outcome {
    let mut claim = cx.claim();
    claim.ttl = cx.ttl + Duration::new(0, 999_999);
    let start = Instant::now();
    let lease = cx.acquire(&cx.a, &claim).await?;
    ensure!(lease.ttl >= claim.ttl, "claimed {:?}, granted {:?}", claim.ttl, lease.ttl);
    let after = freed_after(cx, start, lease.ttl + cx.slack() * 2).await?;
    ensure!(after >= claim.ttl, "claimed {:?}, free for another after {after:?}", claim.ttl);
    Ok(())
}

async fn a_lease_is_not_its_neighbours(cx: &Cx) -> Outcome {
    let (short, mut long) = (cx.claim(), cx.claim_on(&cx.key_with("/long")));
    long.ttl = cx.long();
    let lease = cx.acquire(&cx.a, &long).await?;
    cx.acquire(&cx.a, &short).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    let info = cx.b.inspect(&long.key).await?;
    ensure!(
        info.as_ref().is_some_and(|info| cx.same_token(info.token, lease.token)),
        "the longer lease went with its neighbour's: {info:?}"
    );
    Ok(())
}
