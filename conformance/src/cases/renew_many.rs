//! Many renewals at once: each is answered for itself.

use lockcore::{Claim, Lease, Release, Renew};

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Verb};

cases! { "renew_many";
    answers_each_claim_in_order: "L4";
    extends_each_lease: "L3";
    raises_each_token: "L9";
    checks_each_claim: "L9";
    of_none_is_none: "L4";
    many_are_renewed_at_once: "L3";
}

/// A claim on a key of its own.
fn on(cx: &Cx, suffix: &str) -> Claim {
    cx.claim_on(&cx.key_with(suffix))
}

/// The answers to renewals, none of which may fail.
async fn renewed(cx: &Cx, claims: &[Claim]) -> Result<Vec<Renew>, Failure> {
    let answers = cx.a.renew_many(claims).await;
    let (got, asked) = (answers.len(), claims.len());
    ensure!(got == asked, "{got} answers to {asked} claims");
    Ok(answers.into_iter().collect::<Result<_, _>>()?)
}

fn lease(answer: &Renew) -> Result<Lease, Failure> {
    match answer {
        Renew::Renewed(lease) => Ok(*lease),
        Renew::NotHeld => Err(Failure::new("a lease that stands was not renewed")),
    }
}

/// Held, never held, held by another, held, released, and held again.
async fn answers_each_claim_in_order(cx: &Cx) -> Outcome {
    let claims = ["/f", "/e", "/d", "/c", "/b", "/a"].map(|suffix| on(cx, suffix));
    let mut tokens = Vec::new();
    for at in [0, 3, 4, 5] {
        tokens.push(cx.acquire(&cx.a, &claims[at]).await?.token);
    }
    let mut other = cx.claim_on(&claims[2].key);
    other.ttl = cx.long();
    let others = cx.acquire(&cx.b, &other).await?;
    cx.release(&cx.b, &claims[4]).await?;
    let answers = renewed(cx, &claims).await?;
    for (at, token) in [(0, tokens[0]), (3, tokens[1]), (5, tokens[3])] {
        let lease = lease(&answers[at])?;
        ensure!(cx.same_token(lease.token, token), "claim {at}: {token}, renewed to {lease:?}");
    }
    for (at, what) in [(1, "a free key"), (2, "another's key"), (4, "a released key")] {
        ensure_matches!(answers[at], Renew::NotHeld, "{what}");
    }
    // Nothing was changed where nothing was held.
    let seen = cx.b.inspect(&claims[2].key).await?;
    let stands = seen
        .as_ref()
        .is_some_and(|info| info.holder == other.holder && cx.same_token(info.token, others.token));
    ensure!(stands, "another's lease {others:?} shows as {seen:?}");
    for at in [1, 4] {
        let seen = cx.b.inspect(&claims[at].key).await?;
        ensure!(seen.is_none(), "a renewal took a free key: {seen:?}");
    }
    Ok(())
}

async fn extends_each_lease(cx: &Cx) -> Outcome {
    let mut claims = ["/a", "/b", "/c"].map(|suffix| on(cx, suffix));
    for claim in &claims {
        cx.acquire(&cx.a, claim).await?;
    }
    // Each by its own ttl.
    claims[1].ttl = cx.ttl * 3;
    claims[2].ttl = cx.long();
    renewed(cx, &claims).await?;
    for claim in &claims {
        let left = cx.b.inspect(&claim.key).await?.map(|info| info.remaining);
        let right = left.is_some_and(|left| left <= claim.ttl && left + cx.slack() >= claim.ttl);
        ensure!(right, "renewed for {:?}, {left:?} are left", claim.ttl);
    }
    Ok(())
}

async fn raises_each_token(cx: &Cx) -> Outcome {
    let (plain, raised) = (on(cx, "/plain"), on(cx, "/raised"));
    let before = [cx.acquire(&cx.a, &plain).await?, cx.acquire(&cx.a, &raised).await?];
    let floor = before[1].token + 3_600_000_000;
    let claims = [plain, raised.with_min_token(floor)];
    let answers = renewed(cx, &claims).await?;
    for (n, token) in [before[0].token, floor].into_iter().enumerate() {
        let lease = lease(&answers[n])?;
        ensure!(cx.same_token(lease.token, token), "expected {token}, renewed to {lease:?}");
        let seen = cx.b.inspect(&claims[n].key).await?.map(|info| info.token);
        let stored = seen.is_some_and(|seen| cx.same_token(seen, token));
        ensure!(stored, "expected {token}, in sight {seen:?}");
    }
    Ok(())
}

/// A claim that no store can serve is refused, and its neighbours are renewed.
async fn checks_each_claim(cx: &Cx) -> Outcome {
    let (good, bad) = (on(cx, "/good"), on(cx, "/bad"));
    cx.acquire(&cx.a, &good).await?;
    cx.acquire(&cx.a, &bad).await?;
    let wrong = bad.clone().with_min_token(cx.a.limits().max_token + 1);
    let answers = cx.a.renew_many(&[wrong, good]).await;
    ensure!(answers.len() == 2, "{} answers to 2 claims", answers.len());
    let mut answers = answers.into_iter();
    crate::case::refused(answers.next().unwrap_or(Ok(Renew::NotHeld)), "too large a floor")?;
    ensure_matches!(answers.next(), Some(Ok(Renew::Renewed(_))), "its neighbour");
    Ok(())
}

async fn of_none_is_none(cx: &Cx) -> Outcome {
    let answers = cx.a.renew_many(&[]).await;
    ensure!(answers.is_empty(), "{} answers to no claim", answers.len());
    Ok(())
}

/// A process that holds many locks keeps them by few requests.
async fn many_are_renewed_at_once(cx: &Cx) -> Outcome {
    const LOCKS: usize = 12;
    let store = Faulty::new(cx.a.clone());
    // A store that does one thing at a time needs as long for them as there are locks.
    let locks = cx.manager(store.clone()).request_timeout(cx.hold_ttl() / 3).build()?;
    let mut guards = Vec::new();
    for n in 0..LOCKS {
        guards.push(locks.lock(cx.key_with(&format!("/{n}")))?.acquire().await?);
    }
    tokio::time::sleep(cx.hold_ttl() + cx.hold_ttl() / 4).await;
    let lost = guards.iter().filter(|guard| !guard.is_valid()).count();
    ensure!(lost == 0, "{lost} of {LOCKS} healthy locks were lost");
    let (one, many) = (store.calls(Verb::Renew), store.calls(Verb::RenewMany));
    cx.note(format!("{one} renewals of one lock, {many} of many"));
    ensure!(many > 0, "no renewal of many locks, {one} of one");
    let last = guards.pop().ok_or_else(|| Failure::new("no guard"))?;
    let seen = cx.b.inspect(last.key()).await?.map(|info| info.holder);
    ensure!(seen == Some(last.holder()), "a lock that was renewed shows as {seen:?}");
    last.release().await?;
    for guard in guards {
        guard.release().await?;
    }
    ensure_matches!(cx.a.release(&cx.claim()).await?, Release::NotHeld, "nothing is left");
    Ok(())
}
