//! Guards over this backend: validity, loss, and the end.

use std::time::Duration;

use lockcore::{ErrorKind, LostReason};
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "guard";
    lost_by_the_deadline_in_a_black_hole: "L3 L7";
    never_valid_past_the_lease: "L3";
    a_grant_that_comes_too_late_is_none: "L3";
    all_hear_of_the_loss: "L3";
    run_stops_the_work: "L3";
    run_gives_the_result: "L3";
    released_is_told: "L6";
    release_in_a_black_hole_ends: "L7";
    release_tells_why_it_failed: "L7";
    drop_needs_no_runtime: "L8";
    a_lost_guard_frees_the_queue: "L3";
    a_release_that_hangs_frees_the_queue: "L7";
    the_label_is_shown: "L10";
}

/// A store that swallows everything: the loss comes by the clock alone.
async fn lost_by_the_deadline_in_a_black_hole(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    while store.calls(Verb::Renew) + store.calls(Verb::RenewMany) == 0 {
        tokio::time::sleep(cx.hold_ttl() / 100).await;
    }
    tokio::time::sleep(cx.hold_ttl() / 20).await;
    store.cut(true);
    let (cut, left) = (Instant::now(), guard.remaining());
    let reason = guard.lost().await;
    let after = cut.elapsed();
    cx.note(format!("{left:?} were left, lost after {after:?}"));
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(!guard.is_valid(), "lost, and valid");
    ensure!(after <= left + cx.slack(), "{left:?} were left, lost after {after:?}");
    if cx.exact() {
        ensure!(after >= left && after - left < Duration::from_millis(2), "{left:?}: {after:?}");
    }
    // The store has not given it away before.
    let seen = cx.sight().await?;
    if cx.exact() {
        ensure!(seen.is_some(), "the lease ended before the guard was lost");
    }
    Ok(())
}

/// Nobody else gets the key while a guard says that it is valid.
async fn never_valid_past_the_lease(cx: &Cx) -> Outcome {
    for round in 0..3 {
        let store = Faulty::new(cx.a.clone());
        let locks = cx.manager(store.clone()).build()?;
        let guard = locks.lock(&cx.key)?.acquire().await?;
        // It dies in another phase of its renewal each time.
        tokio::time::sleep(cx.hold_ttl().mul_f64(0.2) * round).await;
        store.cut(true);
        let end = Instant::now() + cx.hold_ttl() * 2 + cx.slack();
        loop {
            let answer = cx.b.acquire(&cx.claim()).await;
            if !cx.is_given_up(&answer) {
                ensure!(answer.is_ok(), "round {round}: {answer:?}");
            }
            let taken = matches!(answer, Ok(lockcore::Acquire::Acquired(_)));
            ensure!(!(taken && guard.is_valid()), "round {round}: given away under a valid guard");
            if taken {
                break;
            }
            ensure!(Instant::now() < end, "round {round}: never given away");
            cx.look_again(Duration::from_millis(3)).await;
        }
        cx.until_free(cx.ttl + cx.slack()).await?;
    }
    Ok(())
}

/// The answer was under way for longer than the lease: it is worth nothing.
async fn a_grant_that_comes_too_late_is_none(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let ttl = cx.hold_ttl();
    let locks = cx.manager(store.clone()).request_timeout(ttl - ttl / 100 - ttl / 50).build()?;
    store.next(Verb::Acquire, Mishap::Late(ttl - ttl / 40));
    let guard = locks.lock(&cx.key)?.acquire().await?;
    ensure!(guard.is_valid() && !guard.remaining().is_zero(), "a dead guard: {guard:?}");
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    Ok(())
}

async fn all_hear_of_the_loss(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).no_renewal().build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let mut listeners = Vec::new();
    for _ in 0..10 {
        listeners.push(tokio::spawn(guard.lost()));
    }
    for listener in listeners {
        let reason = listener.await?;
        ensure!(reason == LostReason::Expired, "{reason:?}");
    }
    // Once lost, always lost, for those who come later as well.
    ensure!(guard.lost().await == LostReason::Expired, "the reason changed");
    ensure!(!guard.is_valid(), "lost, and valid");
    let error = guard.release().await.err().map(|error| error.kind());
    // The store may still have had it, by the margin: then the release worked.
    ensure!(matches!(error, None | Some(ErrorKind::Lost)), "release of a lost lock: {error:?}");
    Ok(())
}

async fn run_stops_the_work(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).no_renewal().build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let started = Instant::now();
    let outcome = guard.run(std::future::pending::<()>()).await;
    let kind = outcome.err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::Lost), "work without end: {kind:?}");
    ensure!(started.elapsed() <= cx.hold_ttl() + cx.slack(), "after {:?}", started.elapsed());
    // Nothing is begun under a lost lock.
    let outcome = guard.run(async {}).await.err().map(|error| error.kind());
    ensure!(outcome == Some(ErrorKind::Lost), "work under a lost lock: {outcome:?}");
    Ok(())
}

async fn run_gives_the_result(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let answer = guard
        .run(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            6 * 7
        })
        .await?;
    ensure!(answer == 42, "{answer}");
    ensure!(guard.is_valid(), "the lock went with the work");
    guard.release().await?;
    Ok(())
}

async fn released_is_told(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    for drops in [false, true] {
        let guard = locks.lock(&cx.key)?.acquire().await?;
        let lost = tokio::spawn(guard.lost());
        tokio::task::yield_now().await;
        if drops {
            drop(guard);
        } else {
            guard.release().await?;
        }
        let reason = tokio::time::timeout(cx.slack(), lost).await;
        let reason = reason.map_err(|_| Failure::new("whoever listens hangs"))??;
        ensure!(reason == LostReason::Released, "{reason:?}");
        locks.drain().await;
    }
    Ok(())
}

async fn release_in_a_black_hole_ends(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let retry_for = cx.hold_ttl() / 3;
    let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    store.cut(true);
    let started = Instant::now();
    let error = guard.release().await.err().map(|error| error.kind());
    let after = started.elapsed();
    ensure!(error == Some(ErrorKind::Ambiguous), "release into a black hole: {error:?}");
    ensure!(after <= retry_for.max(cx.hold_ttl() / 6) + cx.slack(), "after {after:?}");
    // It goes on behind the caller's back, for as long as the lease lives.
    store.cut(false);
    locks.drain().await;
    cx.until_free(cx.hold_ttl() + cx.slack()).await
}

async fn drop_needs_no_runtime(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let dropped = std::thread::spawn(move || drop(guard)).join();
    ensure!(dropped.is_ok(), "dropping a guard outside a runtime panicked");
    locks.drain().await;
    ensure!(cx.sight().await?.is_none(), "dropped and drained, and in sight");
    Ok(())
}

/// Whoever keeps a guard that is lost does not keep others of its process from the key.
async fn a_lost_guard_frees_the_queue(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).no_renewal().build()?;
    let lock = locks.lock(&cx.key)?;
    let kept = lock.acquire().await?;
    let next = lock.acquire_timeout(cx.hold_ttl() + cx.slack() + Duration::from_secs(2)).await?;
    ensure!(!kept.is_valid(), "two valid guards");
    ensure!(next.fencing_token() > kept.fencing_token(), "{next:?} after {kept:?}");
    drop(kept);
    tokio::time::sleep(Duration::from_millis(50)).await;
    ensure!(next.is_valid(), "the old guard took the new one's lease with it");
    let seen = cx.sight().await?;
    ensure!(seen.as_ref().is_some_and(|info| info.holder == next.holder()), "{seen:?}");
    Ok(())
}

async fn the_label_is_shown(cx: &Cx) -> Outcome {
    let named = cx.manager(cx.a.clone()).label("nightly report").build()?;
    let guard = named.lock(&cx.key)?.acquire().await?;
    let info = named.inspect(&cx.key).await?;
    ensure!(
        info.as_ref().is_some_and(|info| info.label == "nightly report"
            && info.holder == guard.holder()
            && cx.same_token(info.token, guard.fencing_token())),
        "{info:?}"
    );
    guard.release().await?;
    let unnamed = cx.manager(cx.a.clone()).build()?;
    let _guard = unnamed.lock(&cx.key)?.acquire().await?;
    let label = unnamed.inspect(&cx.key).await?.map(|info| info.label).unwrap_or_default();
    let pid = std::process::id().to_string();
    ensure!(label.ends_with(&format!(":{pid}")), "the default label is {label:?}");
    Ok(())
}

/// The next in line asks for itself, and is told that the store does not answer.
async fn a_release_that_hangs_frees_the_queue(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let retry_for = cx.hold_ttl() / 3;
    let ttl = cx.long();
    let locks = cx
        .manager(store.clone())
        .ttl(ttl)
        .request_timeout(cx.hold_ttl() / 6)
        .retry_for(retry_for)
        .build()?;
    let lock = locks.lock(&cx.key)?;
    let guard = lock.acquire().await?;
    store.cut(true);
    drop(guard);
    let asked = Instant::now();
    let waited = tokio::time::timeout(ttl / 2, lock.acquire()).await;
    let outcome = waited.map_err(|_| Failure::new("the next in line hangs"))?;
    let kind = outcome.err().map(|error| error.kind());
    let after = asked.elapsed();
    // Unavailable if the release was tried again instead, and nothing was sent for this one.
    let told = matches!(kind, Some(ErrorKind::Ambiguous | ErrorKind::Unavailable));
    ensure!(told, "an acquire in a black hole: {kind:?}");
    let most = retry_for + cx.hold_ttl() / 2 + cx.slack();
    ensure!(after <= most, "told after {after:?}");
    store.cut(false);
    locks.drain().await;
    ensure!(cx.sight().await?.is_none(), "dropped and drained, and in sight");
    Ok(())
}

/// A store that is down is told as that, with its own words.
async fn release_tells_why_it_failed(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).retry_for(cx.hold_ttl() / 3).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    for _ in 0..100 {
        store.next(Verb::Release, Mishap::Refuse);
    }
    let Err(error) = guard.release().await else {
        return Err(Failure::new("released by a store that was not reached"));
    };
    ensure!(error.kind() == ErrorKind::Unavailable, "a refused release: {error:?}");
    ensure!(error.to_string().contains("connection refused"), "not told why: {error}");
    store.calm();
    locks.drain().await;
    ensure!(cx.sight().await?.is_none(), "drained, and in sight");
    Ok(())
}
