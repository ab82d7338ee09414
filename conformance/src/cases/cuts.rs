//! Connections cut after every byte of a call.

use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, LockBackend, Release, Renew};
use tokio::time::timeout;

use super::cases;
use super::wire::{Wire, until_answered};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};
use crate::proxy::Direction;

cases! { "wire";
    acquire_cut_at_every_byte: "L2 L7", Needs::Wire;
    renew_cut_at_every_byte: "L4 L7", Needs::Wire;
    release_cut_at_every_byte: "L6 L7", Needs::Wire;
}

/// Cuts the connection after every byte of a call, in both directions, and demands
/// that what is done next puts everything right.
async fn cut_everywhere<F, Fut>(cx: &Cx, wire: &Wire, verb: Verb, mut round: F) -> Outcome
where
    F: FnMut(Claim) -> Fut,
    Fut: Future<Output = Outcome>,
{
    for direction in [Direction::ToServer, Direction::ToClient] {
        // What a whole call is worth in bytes.
        let claim = cx.claim();
        prepare(cx, verb, &claim).await?;
        let before = wire.delivered(direction);
        call(wire, verb, &claim).await?;
        let bytes = wire.delivered(direction) - before;
        ensure!(bytes > 0, "a call of no bytes");
        cx.a.release(&claim).await?;
        for after in places(bytes) {
            let claim = cx.claim();
            prepare(cx, verb, &claim).await?;
            wire.each(|proxy| proxy.cut_after(direction, after));
            match timeout(Duration::from_secs(5), call(wire, verb, &claim)).await {
                Ok(Ok(())) => {}
                Ok(Err(BackendError::Ambiguous(_) | BackendError::Unavailable(_))) => {}
                other => {
                    return Err(Failure::new(format!("{direction:?} cut at {after}: {other:?}")));
                }
            }
            wire.heal();
            let outcome = round(claim).await;
            outcome.map_err(|failure| {
                Failure::new(format!("{direction:?} cut at {after} of {bytes}: {failure}"))
            })?;
            ensure!(cx.sight().await?.is_none(), "{direction:?} cut at {after}: left behind");
        }
    }
    Ok(())
}

/// Where to cut a call of so many bytes: after every one, also behind the last, where all has
/// arrived and the next call finds the wire cut. A store that sends a long text with each call
/// would take minutes: there, after every byte at both ends and at even distances in between.
fn places(bytes: u64) -> impl Iterator<Item = u64> {
    const ALL: u64 = 512;
    const ENDS: u64 = 32;
    let step = if bytes <= ALL { 1 } else { bytes.div_ceil(ALL / 8) };
    (0..=bytes).filter(move |at| at % step == 0 || *at < ENDS || bytes - *at < ENDS)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Acquire,
    Renew,
    Release,
}

/// What has to be so before a verb makes sense, by a client on a whole wire.
async fn prepare(cx: &Cx, verb: Verb, claim: &Claim) -> Outcome {
    if verb != Verb::Acquire {
        let mut long = claim.clone();
        long.ttl = cx.ttl * 30;
        cx.acquire(&cx.a, &long).await?;
    }
    Ok(())
}

async fn call(wire: &Wire, verb: Verb, claim: &Claim) -> Result<(), BackendError> {
    match verb {
        Verb::Acquire => wire.client.acquire(claim).await.map(|_| ()),
        Verb::Renew => wire.client.renew(claim).await.map(|_| ()),
        Verb::Release => wire.client.release(claim).await.map(|_| ()),
    }
}

async fn acquire_cut_at_every_byte(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    cut_everywhere(cx, &wire, Verb::Acquire, async |claim| {
        let answer = until_answered(cx, || wire.client.acquire(&claim)).await?;
        let Acquire::Acquired(lease) = answer else {
            return Err(Failure::new(format!("asked again: {answer:?}")));
        };
        cx.stands(&claim, &lease).await?;
        let answer = until_answered(cx, || wire.client.release(&claim)).await?;
        ensure_matches!(answer, Release::Released, "release");
        Ok(())
    })
    .await
}

async fn renew_cut_at_every_byte(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    cut_everywhere(cx, &wire, Verb::Renew, async |claim| {
        let answer = until_answered(cx, || wire.client.renew(&claim)).await?;
        ensure_matches!(answer, Renew::Renewed(_), "renewed again");
        let answer = until_answered(cx, || wire.client.release(&claim)).await?;
        ensure_matches!(answer, Release::Released, "release");
        Ok(())
    })
    .await
}

async fn release_cut_at_every_byte(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    cut_everywhere(cx, &wire, Verb::Release, async |claim| {
        // Either the first had worked or this one does.
        until_answered(cx, || wire.client.release(&claim)).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn short_calls_are_cut_everywhere_and_long_ones_at_both_ends() {
        assert!(places(0).eq(0..=0));
        assert!(places(512).eq(0..=512));
        let of_many: Vec<_> = places(10_000).collect();
        assert!(of_many.len() < 150, "{}", of_many.len());
        assert!(of_many.starts_with(&[0, 1, 2]) && of_many.ends_with(&[9_998, 9_999, 10_000]));
        assert!(of_many.windows(2).all(|pair| pair[1] - pair[0] <= 10_000 / 64 + 1));
    }
}
