//! Connections cut in the middle of a call: behind each of its messages, and within them.
//!
//! A call of a few hundred bytes is cut behind every one of them. One of more, as HTTP/2 and
//! Postgres have, is cut at the ends of its messages and next to them, at places that are spread
//! evenly, and at some that the seed chooses.

use std::collections::BTreeSet;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, LockBackend, Release, Renew};
use tokio::time::{Instant, timeout};

use super::cases;
use super::wire::{Wire, until_acquire_answered, until_answered, until_released};
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

/// Calls of no more bytes are cut behind each.
const SMALL: u64 = 400;

/// Places in a call of more, besides the ends of messages.
const EVEN: u64 = 48;
const CHOSEN: u64 = 24;

/// Messages of one call at whose ends it is cut, at most.
const MESSAGES: usize = 12;

/// For how long the places within messages are tried, for each direction: every cut costs a
/// connection, which costs some stores much. The ends of messages are tried in any case.
const BUDGET: Duration = Duration::from_secs(5);

/// Where to cut a call of so many bytes: what must be tried, and what is tried besides.
fn places(bytes: u64, ends: &BTreeSet<u64>, random: &mut fastrand::Rng) -> (Vec<u64>, Vec<u64>) {
    let mut first = BTreeSet::from([0, bytes]);
    let step = ends.len().div_ceil(MESSAGES).max(1);
    for &end in ends.iter().step_by(step) {
        first.extend([end.saturating_sub(1), end.min(bytes), (end + 1).min(bytes)]);
    }
    let mut more: BTreeSet<u64> = if bytes <= SMALL {
        (0..=bytes).collect()
    } else {
        let even = (0..EVEN).map(|n| n * bytes / EVEN);
        even.chain((0..CHOSEN).map(|_| random.u64(..bytes))).collect()
    };
    more.retain(|place| !first.contains(place));
    let mut more: Vec<_> = more.into_iter().collect();
    random.shuffle(&mut more);
    (first.into_iter().collect(), more)
}

/// Cuts the connection within a call, in both directions, and demands that what is done next puts
/// everything right.
async fn cut_anywhere(
    cx: &Cx,
    verb: Verb,
    round: impl AsyncFn(&Wire, &Claim) -> Outcome,
) -> Outcome {
    let wire = Wire::new(cx).await?;
    let mut claims = (0..).map(|n| cx.claim_on(&cx.key_with(&format!("/{n}"))));
    let mut next = move || claims.next().unwrap_or_else(|| cx.claim());
    let mut random = cx.random(0);
    for direction in [Direction::ToServer, Direction::ToClient] {
        // What a whole call is worth in bytes, and of what messages it is made.
        let claim = next();
        prepare(cx, verb, &claim).await?;
        let before: Vec<_> = wire.proxies.iter().map(|proxy| proxy.delivered(direction)).collect();
        call(cx, &wire, verb, &claim).await.map_err(|error| Failure::new(error.to_string()))?;
        cx.a.release(&claim).await?;
        let (mut bytes, mut ends) = (0, BTreeSet::new());
        for (proxy, before) in wire.proxies.iter().zip(before) {
            bytes += proxy.delivered(direction) - before;
            ends.extend(
                proxy.chunk_ends(direction).iter().filter_map(|end| end.checked_sub(before)),
            );
        }
        // Watching may take no bytes of its own, where one subscription serves all keys.
        ensure!(bytes > 0 || verb == Verb::Watch, "a call of no bytes");
        let (first, more) = places(bytes, &ends, &mut random);
        // Every cut costs a combination a connection to each of its stores, and those were cut
        // alone.
        let budget = if cx.store.combined() { BUDGET / 5 } else { BUDGET };
        let (all, end) = (first.len() + more.len(), Instant::now() + budget);
        let within = more.into_iter().take_while(|_| Instant::now() < end);
        let mut tried = 0;
        for after in first.into_iter().chain(within) {
            tried += 1;
            let (claim, mut given_up) = (next(), false);
            prepare(cx, verb, &claim).await?;
            wire.each(|proxy| proxy.cut_after(direction, after));
            match timeout(Duration::from_secs(5), call(cx, &wire, verb, &claim)).await {
                Ok(Ok(())) | Ok(Err(BackendError::Ambiguous(_))) => {}
                // Given up, which is definite: nobody asks again as this holder. What was granted
                // ends with its ttl, or here.
                Ok(Err(BackendError::Unavailable(_)))
                    if verb == Verb::Acquire && cx.store.combined() =>
                {
                    given_up = true;
                }
                Ok(Err(BackendError::Unavailable(error))) => {
                    let seen = nothing_happened(cx, verb, &claim).await?;
                    ensure!(seen, "{direction:?} cut at {after}: \"{error}\", and it happened");
                }
                other => {
                    return Err(Failure::new(format!("{direction:?} cut at {after}: {other:?}")));
                }
            }
            wire.heal();
            let outcome = if given_up {
                until_answered(cx, || wire.client.release(&claim)).await.map(drop)
            } else {
                round(&wire, &claim).await
            };
            outcome.map_err(|failure| {
                Failure::new(format!("{direction:?} cut at {after} of {bytes}: {failure}"))
            })?;
            let mut left = cx.b.inspect(&claim.key).await?;
            let end = Instant::now() + cx.slack();
            while cx.store.combined() && left.is_some() && Instant::now() < end {
                // Enough have answered, and the rest does behind it.
                tokio::time::sleep(Duration::from_millis(5)).await;
                left = cx.b.inspect(&claim.key).await?;
            }
            ensure!(left.is_none(), "{direction:?} cut at {after}: {left:?} is left behind");
        }
        cx.note(format!("{direction:?}: {bytes} bytes, cut at {tried} of {all} places"));
    }
    wire.each(Proxy::heal);
    Ok(())
}

/// What has to be so before a verb makes sense, by a client on a whole wire.
async fn prepare(cx: &Cx, verb: Verb, claim: &Claim) -> Outcome {
    if verb != Verb::Acquire {
        let mut long = claim.clone();
        long.ttl = cx.long();
        cx.acquire(&cx.a, &long).await?;
    }
    Ok(())
}

/// Whether the store is as before a call that is said to have been impossible.
async fn nothing_happened(cx: &Cx, verb: Verb, claim: &Claim) -> Result<bool, Failure> {
    // What was sent in spite of it has arrived by then.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let stands = cx.b.inspect(&claim.key).await?.is_some();
    Ok(stands == (verb != Verb::Acquire))
}

/// A call that may fail, but whose answer must be true if it has one.
async fn call(cx: &Cx, wire: &Wire, verb: Verb, claim: &Claim) -> Result<(), BackendError> {
    let client = &wire.client;
    let right = match verb {
        Verb::Acquire => matches!(client.acquire(claim).await?, Acquire::Acquired(_)),
        Verb::Renew => matches!(client.renew(claim).await?, Renew::Renewed(_)),
        Verb::Release => matches!(client.release(claim).await?, Release::Released),
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
        ensure_matches!(answer, Renew::Renewed(_), "renewed again");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_calls_are_cut_behind_every_byte() {
        let mut random = fastrand::Rng::with_seed(1);
        let (first, more) = places(40, &BTreeSet::from([30, 40]), &mut random);
        assert_eq!(first, [0, 29, 30, 31, 39, 40]);
        let all: BTreeSet<_> = first.into_iter().chain(more).collect();
        assert_eq!(all, (0..=40).collect());
    }

    #[test]
    fn large_calls_are_cut_here_and_there() {
        let places = |seed| {
            places(
                10_000,
                &(1..=100).map(|n| n * 100).collect(),
                &mut fastrand::Rng::with_seed(seed),
            )
        };
        let (first, more) = places(1);
        assert!(first.len() <= 2 + 3 * MESSAGES && first.contains(&10_000), "{first:?}");
        assert!((48..=72).contains(&more.len()), "{}", more.len());
        assert_eq!(places(1), (first, more.clone()));
        assert_ne!(places(2).1, more);
    }
}
