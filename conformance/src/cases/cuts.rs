//! Connections cut in the middle of a call: behind each of its messages, and within them.

use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, HandOver, LockBackend, Renew};
use tokio::time::{Instant, timeout};

use super::cases;
use super::over::{Wire, nothing_left, until_acquire_answered, until_answered, until_released};
use super::places::{Plan, QUIET};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};
use crate::faulty::Verb;
use crate::proxy::{Direction, Proxy};

cases! { "wire";
    acquire_cut_anywhere: "L2 L7", Needs::Wire;
    renew_cut_anywhere: "L4 L7", Needs::Wire;
    release_cut_anywhere: "L6 L7", Needs::Wire;
    watch_cut_anywhere: "L7 watch", Needs::WireAndSignals;
    inspect_cut_anywhere: "L7 L10", Needs::Wire;
    list_cut_anywhere: "L7 L10", Needs::Wire;
}

/// For how long the places within messages are tried, for each direction: every cut costs a
/// connection, which costs some stores much. The ends of messages are tried in any case.
const BUDGET: Duration = Duration::from_secs(5);

/// Cuts the connection within a call, in both directions, and demands that what is done next puts
/// everything right.
async fn cut_anywhere(
    cx: &Cx,
    verb: Verb,
    round: impl AsyncFn(&Wire, &Claim) -> Outcome,
) -> Outcome {
    let wire = Wire::new(cx).await?;
    let mut claims = (0..).map(|n| {
        let mut claim = cx.claim_on(&cx.key_with(&format!("/{n}")));
        // So that its end cannot be taken for a release that had worked.
        claim.ttl = cx.long();
        // A store with lines tells those who watch without a place as well.
        claim.with_announcement()
    });
    let mut next = move || claims.next().unwrap_or_else(|| cx.claim());
    let mut random = cx.random(0);
    for direction in [Direction::ToServer, Direction::ToClient] {
        // The first of its kind on a connection may be worth more than those that are cut.
        let claim = prepare(cx, verb, next()).await?;
        call(cx, &wire, verb, &claim).await?;
        cx.a.release(&claim).await?;
        let claim = prepare(cx, verb, next()).await?;
        let whole = async { Ok(call(cx, &wire, verb, &claim).await?) };
        let mut plan = Plan::new(&wire, direction, &mut random, whole).await?;
        cx.a.release(&claim).await?;
        let bytes: u64 = plan.bytes.iter().sum();
        if bytes == 0 {
            // Watching may take no bytes of its own, where one subscription serves all keys: what
            // is cut then is that, behind the call.
            ensure!(verb == Verb::Watch, "a call of no bytes");
            let claim = prepare(cx, verb, next()).await?;
            let _signal = wire.client.watch(&cx.claim_on(&claim.key)).await?;
            wire.each(Proxy::cut);
            round(&wire, &claim).await?;
            cx.note(format!("{direction:?}: no bytes of its own, cut behind it"));
            continue;
        }
        // Every cut costs a combination a connection to each of its stores, and those were cut
        // alone.
        let budget = if cx.store.combined() { BUDGET / 5 } else { BUDGET };
        let (first, more) = (std::mem::take(&mut plan.first), std::mem::take(&mut plan.more));
        let (all, end) = (first.len() + more.len(), Instant::now() + budget);
        let within = more.into_iter().take_while(|_| Instant::now() < end);
        let (mut tried, mut hit) = (0, 0);
        for cuts in first.into_iter().chain(within) {
            tried += 1;
            let before = wire.cuts();
            let cut = one_cut(cx, verb, &wire, next(), || plan.set(&wire, &cuts), &round).await;
            cut.map_err(|failure| Failure::new(format!("{}: {failure}", plan.at(&cuts))))?;
            hit += usize::from(wire.cuts() > before);
        }
        ensure!(
            hit > 0,
            "{direction:?}: {bytes} bytes, and none of {tried} cuts came to its place"
        );
        cx.note(format!("{direction:?}: {bytes} bytes, cut at {hit} of {tried} places, of {all}"));
    }
    wire.each(Proxy::heal);
    Ok(())
}

/// Makes a call that is cut, and what is done next.
async fn one_cut(
    cx: &Cx,
    verb: Verb,
    wire: &Wire,
    claim: Claim,
    cut: impl FnOnce(),
    round: impl AsyncFn(&Wire, &Claim) -> Outcome,
) -> Outcome {
    let claim = prepare(cx, verb, claim).await?;
    let mut given_up = false;
    wire.until_quiet(QUIET).await?;
    cut();
    match timeout(Duration::from_secs(5), call(cx, wire, verb, &claim)).await {
        Ok(Ok(()) | Err(BackendError::Ambiguous(_))) => {}
        // Given up, which is definite: nobody asks again as this holder. What was granted ends with
        // its ttl, or here.
        Ok(Err(BackendError::Unavailable(_))) if verb == Verb::Acquire && cx.store.combined() => {
            given_up = true;
        }
        Ok(Err(BackendError::Unavailable(error))) => {
            let seen = nothing_happened(cx, verb, &claim).await?;
            ensure!(seen, "\"{error}\", and it happened");
        }
        other => return Err(Failure::new(format!("{other:?}"))),
    }
    if cx.store.combined() {
        // Enough stores have answered, and the cut may still meet the rest.
        wire.until_quiet(QUIET).await?;
    }
    wire.heal();
    if given_up {
        until_answered(cx, || wire.client.release(&claim)).await?;
    } else {
        round(wire, &claim).await?;
    }
    nothing_left(cx, &claim.key).await
}

/// What has to be so before a verb makes sense, by a client on a whole wire; and the claim for it.
async fn prepare(cx: &Cx, verb: Verb, claim: Claim) -> Result<Claim, Failure> {
    if verb == Verb::Acquire {
        return Ok(claim);
    }
    let lease = cx.acquire(&cx.a, &claim).await?;
    // The token tells whether a renewal has arrived.
    let floor = if verb == Verb::Renew { lease.token + 1 } else { 0 };
    Ok(claim.with_min_token(floor))
}

/// Whether the store is as before a call that is said to have been impossible.
async fn nothing_happened(cx: &Cx, verb: Verb, claim: &Claim) -> Result<bool, Failure> {
    // What was sent in spite of it has arrived by then.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let seen = cx.b.inspect(&claim.key).await?;
    // A combination may have renewed in some of its stores, which counts for nothing.
    let raised = |token| token >= claim.min_token && !cx.store.combined();
    Ok(match verb {
        Verb::Acquire => seen.is_none(),
        Verb::Renew => seen.is_some_and(|info| !raised(info.token)),
        _ => seen.is_some(),
    })
}

/// A call that may fail, but whose answer must be true if it has one.
async fn call(cx: &Cx, wire: &Wire, verb: Verb, claim: &Claim) -> Result<(), BackendError> {
    let client = &wire.client;
    let right = match verb {
        Verb::Acquire => matches!(client.acquire(claim).await?, Acquire::Acquired(_)),
        Verb::Renew => matches!(client.renew(claim).await?, Renew::Renewed(_)),
        Verb::RenewMany => {
            let answers = client.renew_many(std::slice::from_ref(claim)).await;
            for answer in answers {
                answer?;
            }
            true
        }
        Verb::Release => client.release(claim).await?.is_released(),
        Verb::HandOver => {
            let to = cx.claim_on(&claim.key);
            matches!(client.hand_over(claim, &to, false).await?, HandOver::Granted(_))
        }
        Verb::Watch => client.watch(&cx.claim_on(&claim.key)).await.map(|_| true)?,
        Verb::Inspect => client.inspect(&claim.key).await?.is_some(),
        Verb::List => client.list(claim.key.as_str(), None, 5).await?.len() == 1,
    };
    // Not one of those that a cut excuses.
    if right { Ok(()) } else { Err(BackendError::rejected("an answer that is not true")) }
}

async fn acquire_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::Acquire, async |wire, claim| {
        let mut claim = claim.clone();
        let answer = until_acquire_answered(cx, &wire.client, &mut claim).await?;
        let Acquire::Acquired(lease) = answer else {
            return Err(Failure::new(format!("asked again: {answer:?}")));
        };
        let seen = cx.b.inspect(&claim.key).await?;
        let mine = seen.as_ref().is_some_and(|info| cx.same_token(info.token, lease.token));
        ensure!(mine, "{lease:?} shows as {seen:?}");
        until_released(cx, &wire.client, &claim).await
    })
    .await
}

async fn renew_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::Renew, async |wire, claim| {
        let answer = until_answered(cx, || wire.client.renew(claim)).await?;
        let right = |token| cx.same_token(token, claim.min_token);
        ensure_matches!(answer, Renew::Renewed(lease) if right(lease.token), "renewed again");
        until_released(cx, &wire.client, claim).await
    })
    .await
}

async fn release_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::Release, async |wire, claim| {
        // Either the first had worked or this one does.
        until_answered(cx, || wire.client.release(claim)).await.map(drop)
    })
    .await
}

/// After a cut a watch can be armed again, and then it is.
async fn watch_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::Watch, async |wire, claim| {
        let watcher = cx.claim_on(&claim.key);
        let signal = until_answered(cx, || wire.client.watch(&watcher)).await?;
        cx.release(&cx.a, claim).await?;
        let woken = timeout(Duration::from_secs(10), signal).await;
        ensure!(woken.is_ok(), "armed again, and not woken");
        Ok(())
    })
    .await
}

async fn inspect_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::Inspect, async |wire, claim| {
        let seen = until_answered(cx, || wire.client.inspect(&claim.key)).await?;
        let right = seen.as_ref().is_some_and(|info| info.holder == claim.holder);
        ensure!(right, "{claim:?} shows as {seen:?}");
        cx.release(&cx.a, claim).await
    })
    .await
}

async fn list_cut_anywhere(cx: &Cx) -> Outcome {
    cut_anywhere(cx, Verb::List, async |wire, claim| {
        let prefix = claim.key.as_str();
        let seen = until_answered(cx, || wire.client.list(prefix, None, 5)).await?;
        let right = matches!(&*seen, [info] if info.holder == claim.holder);
        ensure!(right, "{claim:?} is listed as {seen:?}");
        cx.release(&cx.a, claim).await
    })
    .await
}
