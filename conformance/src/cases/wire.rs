//! Faults on the wire, by a proxy in front of each of the store's endpoints.

use std::time::Duration;

use lockcore::{Acquire, BackendError, ErrorKind, LockBackend, LostReason, Release};
use tokio::time::{Instant, timeout};

use super::cases;
use super::over::{Wire, told, until_acquire_answered, until_answered, until_released};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};
use crate::proxy::{Direction, Mode, Proxy, Then};

cases! { "wire";
    a_refused_connection_is_unavailable: "L7", Needs::Wire;
    a_cut_connection_heals: "L7 L8", Needs::Wire;
    a_lost_acquire_answer_is_recognised: "L2 L7", Needs::Wire;
    a_lost_acquire_request_is_taken: "L2 L7", Needs::Wire;
    a_lost_acquire_meets_another: "L2 L4", Needs::Wire;
    a_lost_renew_answer_is_recognised: "L4 L7", Needs::Wire;
    a_lost_release_answer_is_recognised: "L6 L7", Needs::Wire;
    a_black_hole_is_told_by_the_deadline: "L3 L7", Needs::Wire;
    a_black_hole_that_ends_is_survived: "L3 L7", Needs::Wire;
    a_black_hole_is_left_behind: "L7 L8", Needs::Wire;
    a_slow_wire_works: "L3", Needs::Wire;
    a_cut_while_waiting_is_survived: "L7 watch", Needs::Wire;
    a_deaf_wire_delays_and_no_more: "watch", Needs::Wire;
    bad_input_sends_nothing: "L9", Needs::Wire;
}

async fn a_refused_connection_is_unavailable(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    wire.each(Proxy::refuse);
    let mut told = false;
    for _ in 0..5 {
        match timeout(Duration::from_secs(5), wire.client.acquire(&cx.claim())).await {
            // The first may find out only by sending.
            Ok(Err(BackendError::Ambiguous(_))) => {}
            Ok(Err(BackendError::Unavailable(_))) => told = true,
            other => return Err(Failure::new(format!("nobody listens: {other:?}"))),
        }
    }
    ensure!(told, "never told that the store is unavailable");
    ensure!(cx.sight().await?.is_none(), "unavailable, and in sight");
    wire.heal();
    until_acquire_answered(cx, &wire.client, &mut cx.claim()).await?;
    Ok(())
}

async fn a_cut_connection_heals(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    for _ in 0..5 {
        wire.each(Proxy::cut);
        let mut claim = cx.claim();
        // So that its end cannot be taken for a release that had worked.
        claim.ttl = cx.long();
        let answer = until_acquire_answered(cx, &wire.client, &mut claim).await?;
        ensure_matches!(answer, Acquire::Acquired(_), "a free key");
        until_released(cx, &wire.client, &claim).await?;
    }
    Ok(())
}

/// The store grants, and its answer vanishes on the way.
async fn a_lost_acquire_answer_is_recognised(cx: &Cx) -> Outcome {
    for then in [Then::Cut, Then::Go] {
        let wire = Wire::new(cx).await?;
        let ttl = cx.long();
        let soon = (cx.hold_ttl() * 3).min(ttl / 2);
        let locks = cx.manager(wire.client.clone()).ttl(ttl).request_timeout(cx.hold_ttl() / 6);
        let locks = locks.build()?;
        wire.each(|proxy| proxy.swallow_next(Direction::ToClient, then));
        let guard = timeout(soon, locks.lock(&cx.key)?.acquire()).await;
        let guard = guard.map_err(|_| Failure::new("it waits for its own lease to end"))??;
        wire.has_lost(Direction::ToClient, then)?;
        let sight = cx.sight().await?;
        let mine = sight.as_ref().is_some_and(|info| {
            info.holder == guard.holder() && cx.same_token(info.token, guard.fencing_token())
        });
        ensure!(mine, "{then:?}: {guard:?} shows as {sight:?}");
        guard.release().await?;
        locks.drain().await;
        ensure!(cx.sight().await?.is_none(), "{then:?}: released, and in sight");
    }
    Ok(())
}

async fn a_lost_acquire_request_is_taken(cx: &Cx) -> Outcome {
    for then in [Then::Cut, Then::Go] {
        let wire = Wire::new(cx).await?;
        let locks = cx.manager(wire.client.clone()).build()?;
        wire.each(|proxy| proxy.swallow_next(Direction::ToServer, then));
        let guard = locks.lock(&cx.key)?.acquire().await?;
        wire.has_lost(Direction::ToServer, then)?;
        guard.release().await?;
        locks.drain().await;
        ensure!(cx.sight().await?.is_none(), "{then:?}: released, and in sight");
    }
    Ok(())
}

/// The request vanishes, another comes first, and stays untouched.
async fn a_lost_acquire_meets_another(cx: &Cx) -> Outcome {
    for then in [Then::Cut, Then::Go] {
        let wire = Wire::new(cx).await?;
        wire.each(|proxy| proxy.swallow_next(Direction::ToServer, then));
        let mut late = cx.claim();
        match timeout(Duration::from_millis(300), wire.client.acquire(&late)).await {
            Err(_) | Ok(Err(BackendError::Ambiguous(_))) => {}
            answer if answer.as_ref().is_ok_and(|answer| cx.is_given_up(answer)) => {
                late = cx.claim();
            }
            other => return Err(Failure::new(format!("{then:?}: a lost request: {other:?}"))),
        }
        wire.has_lost(Direction::ToServer, then)?;
        let mut other = cx.claim();
        other.ttl = cx.long();
        let lease = cx.acquire(&cx.b, &other).await?;
        wire.heal();
        let answer = until_acquire_answered(cx, &wire.client, &mut late).await?;
        ensure_matches!(answer, Acquire::Contended(_), "{then:?}: asking again");
        cx.stands(&other, &lease).await?;
        let answer = until_answered(cx, || wire.client.release(&late)).await?;
        ensure_matches!(answer, Release::NotHeld, "{then:?}: undoing");
        cx.stands(&other, &lease).await?;
        cx.release(&cx.b, &other).await?;
    }
    Ok(())
}

async fn a_lost_renew_answer_is_recognised(cx: &Cx) -> Outcome {
    for then in [Then::Cut, Then::Go] {
        let wire = Wire::new(cx).await?;
        let locks = cx.manager(wire.client.clone()).build()?;
        let guard = locks.lock(&cx.key)?.acquire().await?;
        let token = guard.fencing_token();
        wire.each(|proxy| proxy.swallow_next(Direction::ToClient, then));
        tokio::time::sleep(cx.hold_ttl() + cx.hold_ttl() / 2).await;
        wire.has_lost(Direction::ToClient, then)?;
        ensure!(guard.is_valid(), "{then:?}: a lost answer cost the lock");
        ensure!(cx.same_token(guard.fencing_token(), token), "{then:?}: the token changed");
        cx.contend(&cx.b, &cx.claim()).await?;
        guard.release().await?;
    }
    Ok(())
}

async fn a_lost_release_answer_is_recognised(cx: &Cx) -> Outcome {
    for then in [Then::Cut, Then::Go] {
        let wire = Wire::new(cx).await?;
        let locks = cx.manager(wire.client.clone()).build()?;
        let guard = locks.lock(&cx.key)?.acquire().await?;
        wire.each(|proxy| proxy.swallow_next(Direction::ToClient, then));
        guard.release().await?;
        wire.has_lost(Direction::ToClient, then)?;
        ensure!(cx.sight().await?.is_none(), "{then:?}: released, and in sight");
    }
    Ok(())
}

async fn a_black_hole_is_told_by_the_deadline(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let locks = cx.manager(wire.client.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    wire.each(|proxy| proxy.set_both(Mode::Swallow));
    let (cut, left) = (Instant::now(), guard.remaining());
    let reason = told(&guard).await?;
    let after = cut.elapsed();
    cx.note(format!("{left:?} were left, lost after {after:?}"));
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(after <= left + Duration::from_secs(1), "{left:?} were left, lost after {after:?}");
    Ok(())
}

async fn a_black_hole_that_ends_is_survived(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let locks = cx.manager(wire.client.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    wire.each(|proxy| proxy.set_both(Mode::Swallow));
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    wire.heal();
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(guard.is_valid(), "an outage shorter than the lease cost the lock");
    guard.release().await?;
    Ok(())
}

/// Connections made before a black hole stay dead when it has gone, and nobody says so: the
/// backend must leave them behind by itself.
async fn a_black_hole_is_left_behind(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    wire.each(|proxy| proxy.set(Direction::ToClient, Mode::Stall));
    let locks = cx.manager(wire.client.clone()).build()?;
    let lock = locks.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    wire.each(|proxy| proxy.set_both(Mode::Swallow));
    tokio::time::sleep(cx.hold_ttl() / 3).await;
    wire.heal();
    let guard = waiting.await??;
    guard.release().await?;
    Ok(())
}

async fn a_slow_wire_works(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    wire.each(|proxy| proxy.set_both(Mode::Delay(Duration::from_millis(60))));
    // Of which a combination gives each store a twelfth.
    let ttl = cx.hold_ttl() * if cx.store.combined() { 2 } else { 1 };
    let locks = cx.manager(wire.client.clone()).ttl(ttl).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    tokio::time::sleep(ttl * 2).await;
    ensure!(guard.is_valid(), "a round trip of 120 ms cost the lock");
    guard.release().await?;
    Ok(())
}

async fn a_cut_while_waiting_is_survived(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let mut holder = cx.claim();
    holder.ttl = cx.long();
    cx.acquire(&cx.a, &holder).await?;
    let locks = cx.manager(wire.client.clone()).poll_every(Duration::from_secs(2)).build()?;
    let lock = locks.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        wire.each(Proxy::cut);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    cx.release(&cx.a, &holder).await?;
    let freed = Instant::now();
    let guard = waiting.await??;
    cx.note(format!("in after {:?}", freed.elapsed()));
    ensure!(freed.elapsed() <= Duration::from_secs(2) + cx.slack(), "{:?}", freed.elapsed());
    guard.release().await?;
    Ok(())
}

/// The signal vanishes on the wire, and nothing else does.
async fn a_deaf_wire_delays_and_no_more(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let mut holder = cx.claim();
    holder.ttl = cx.long();
    cx.acquire(&cx.a, &holder).await?;
    let locks = cx.manager(wire.client.clone()).poll_every(Duration::from_secs(1)).build()?;
    let lock = locks.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // A store without signals is polled all the time, and nothing is lost on it here.
    if cx.store.signals() {
        // It waits, and no answer of a call is lost. What comes may be about the keys of others.
        wire.until_nothing_is_asked(Duration::from_millis(100)).await?;
        wire.each(|proxy| proxy.set(Direction::ToClient, Mode::Swallow));
    }
    cx.release(&cx.a, &holder).await?;
    let freed = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lost = || wire.swallowed(Direction::ToClient) > 0;
    while cx.store.signals() && !lost() {
        ensure!(freed.elapsed() < cx.slack(), "no signal was lost");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    wire.heal();
    let guard = waiting.await??;
    cx.note(format!("in after {:?}", freed.elapsed()));
    let most = Duration::from_secs(1) + cx.hold_ttl() / 6 + cx.slack();
    ensure!(freed.elapsed() <= most, "in after {:?}", freed.elapsed());
    guard.release().await?;
    Ok(())
}

async fn bad_input_sends_nothing(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let quiet = wire.delivered(Direction::ToServer);
    let mut claims = vec![cx.claim().with_min_token(u64::MAX), cx.claim().with_label("\0")];
    for ttl in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        let mut claim = cx.claim();
        claim.ttl = ttl;
        claims.push(claim);
    }
    for claim in claims {
        ensure_matches!(
            wire.client.acquire(&claim).await,
            Err(BackendError::InvalidInput(_)),
            "acquire {claim:?}"
        );
        ensure_matches!(
            wire.client.renew(&claim).await,
            Err(BackendError::InvalidInput(_)),
            "renew {claim:?}"
        );
        ensure_matches!(
            wire.client.release(&claim).await,
            Err(BackendError::InvalidInput(_)),
            "release {claim:?}"
        );
    }
    let locks = cx.manager(wire.client.clone()).build()?;
    let kind = locks.lock("").err().map(|error| error.kind());
    ensure!(kind == Some(ErrorKind::InvalidInput), "an empty key: {kind:?}");
    let sent = wire.delivered(Direction::ToServer) - quiet;
    ensure!(sent == 0, "{sent} bytes were sent for input that is refused");
    Ok(())
}
