//! Two clients of one record format: this one, and another implementation of the frozen records.

use lockcore::{Release, Renew};

use super::cases;
use crate::case::{Cx, Needs, Outcome, ensure, ensure_matches};

cases! { "formats";
    each_excludes_the_other: "L1", Needs::Fixture;
    each_touches_its_own_alone: "L4 L6", Needs::Fixture;
    each_serves_the_others_holder: "L2 L4", Needs::Fixture;
    each_keeps_what_the_other_promised: "L3", Needs::Fixture;
    tokens_rise_across_both: "L5 L9", Needs::Fixture;
    each_sees_the_other: "L10", Needs::Fixture;
}

async fn each_excludes_the_other(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    for (holder, other) in [(&cx.a, &old), (&old, &cx.a)] {
        let claim = cx.claim();
        let lease = cx.acquire(holder, &claim).await?;
        cx.contend(other, &cx.claim()).await?;
        cx.stands(&claim, &lease).await?;
        cx.release(holder, &claim).await?;
        // And what one has released the other may take.
        let claim = cx.claim();
        cx.acquire(other, &claim).await?;
        cx.release(other, &claim).await?;
    }
    Ok(())
}

async fn each_touches_its_own_alone(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    for (holder, other) in [(&cx.a, &old), (&old, &cx.a)] {
        let claim = cx.claim();
        let lease = cx.acquire(holder, &claim).await?;
        ensure_matches!(other.renew(&cx.claim()).await?, Renew::NotHeld, "renew by another");
        ensure_matches!(other.release(&cx.claim()).await?, Release::NotHeld, "release by another");
        cx.stands(&claim, &lease).await?;
        let renewed = cx.renew(holder, &claim).await?;
        ensure!(renewed.token == lease.token, "{lease:?}, then {renewed:?}");
        cx.release(holder, &claim).await?;
        ensure_matches!(other.release(&claim).await?, Release::NotHeld, "released before");
    }
    Ok(())
}

/// A process that was replaced in the middle of its work.
async fn each_serves_the_others_holder(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    for (before, after) in [(&cx.a, &old), (&old, &cx.a)] {
        let claim = cx.claim();
        let lease = cx.acquire(before, &claim).await?;
        let again = cx.acquire(after, &claim).await?;
        let renewed = cx.renew(after, &claim).await?;
        ensure!(
            again.token == lease.token && renewed.token == lease.token,
            "{lease:?}, asked again: {again:?}, renewed: {renewed:?}"
        );
        cx.release(after, &claim).await?;
        ensure!(cx.sight().await?.is_none(), "released, and in sight");
    }
    Ok(())
}

async fn each_keeps_what_the_other_promised(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    for (long, short) in [(&cx.a, &old), (&old, &cx.a)] {
        let claim = cx.claim();
        let mut longer = claim.clone();
        longer.ttl = cx.long();
        cx.acquire(long, &longer).await?;
        cx.renew(short, &claim).await?;
        let left = cx.sight().await?.map(|info| info.remaining);
        ensure!(
            left.is_some_and(|left| left > cx.long() / 2),
            "granted for {:?}: {left:?} left",
            longer.ttl
        );
        cx.release(short, &claim).await?;
    }
    Ok(())
}

async fn tokens_rise_across_both(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    let mut last = 0;
    for n in 0..12 {
        let (client, next) = if n % 2 == 0 { (&cx.a, &old) } else { (&old, &cx.a) };
        let claim = cx.claim();
        let lease = cx.acquire(client, &claim).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        if n % 4 >= 2 {
            // Raised by one, remembered by the other.
            let raised = claim.clone().with_min_token(last + 1_000_000_000);
            last = cx.renew(client, &raised).await?.token;
            ensure!(last == raised.min_token, "raised to {}, got {last}", raised.min_token);
        }
        cx.release(next, &claim).await?;
    }
    Ok(())
}

async fn each_sees_the_other(cx: &Cx) -> Outcome {
    let old = cx.fixture().await?;
    for (holder, looker) in [(&cx.a, &old), (&old, &cx.a)] {
        let claim = cx.claim().with_label("a|label é");
        let lease = cx.acquire(holder, &claim).await?;
        let seen = looker.inspect(&cx.key).await?;
        let right = seen.as_ref().is_some_and(|info| {
            info.holder == claim.holder
                && info.token == lease.token
                && *info.label == *claim.label
                && info.remaining <= lease.ttl
                && !info.remaining.is_zero()
        });
        ensure!(right, "{lease:?} shows as {seen:?}");
        cx.release(holder, &claim).await?;
        let seen = looker.inspect(&cx.key).await?;
        ensure!(seen.is_none(), "released, and in sight: {seen:?}");
    }
    Ok(())
}
