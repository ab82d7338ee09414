//! Faults of the server itself, each case on a server of its own.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, LockBackend, LostReason};
use tokio::time::{Instant, timeout};

use super::cases;
use super::over::told;
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::harness::Fault;

pub(super) const PAUSE: Needs = Needs::Faults(&[Fault::Pause]);
pub(super) const KILL: Needs = Needs::Faults(&[Fault::Kill]);
const WIPE: Needs = Needs::Faults(&[Fault::Wipe]);

cases! { "faults";
    paused_while_held: "L1 L3 L5", PAUSE;
    paused_for_less_than_the_lease: "L3", PAUSE;
    paused_while_waiting: "L1 L7", PAUSE;
    killed_while_held: "L1 L3 L5 L7", KILL;
    killed_while_waiting: "L1 L7", KILL;
    restarted_while_held: "L1 L5 L7", KILL;
    restarted_while_waiting: "L1 L7", KILL;
    down_is_told: "L7", KILL;
    wiped_while_held: "L4 L5", WIPE;
    wiped_while_waiting: "L1", WIPE;
}

/// Asks until the key is granted, over whatever the store does meanwhile.
pub(super) async fn until_granted(
    cx: &Cx,
    client: &Arc<dyn LockBackend>,
    limit: Duration,
) -> Result<(Claim, lockcore::Lease), Failure> {
    let end = Instant::now() + limit;
    let mut claim = cx.claim();
    while Instant::now() < end {
        match timeout(Duration::from_millis(500), client.acquire(&claim)).await {
            Ok(Ok(Acquire::Acquired(lease))) => return Ok((claim, lease)),
            Ok(Ok(Acquire::Contended(_))) => claim = cx.claim(),
            Err(_) | Ok(Err(BackendError::Ambiguous(_) | BackendError::Unavailable(_))) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::new(format!("not granted within {limit:?}")))
}

/// Paused for longer than the ttl: the guard is lost by its deadline, and when the server goes on the
/// key is free, with a greater token, and nothing of the old holder comes back.
async fn paused_while_held(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    cx.inflict(Fault::Pause).await?;
    let (paused, left) = (Instant::now(), guard.remaining());
    let reason = told(&guard).await?;
    let after = paused.elapsed();
    cx.note(format!("{left:?} were left, lost after {after:?}"));
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(after <= left + Duration::from_secs(1), "{left:?} were left, lost after {after:?}");
    tokio::time::sleep_until(paused + cx.hold_ttl() + cx.hold_ttl() / 3).await;
    cx.inflict(Fault::Resume).await?;
    let (claim, lease) = until_granted(cx, &cx.b, cx.hold_ttl() + cx.slack()).await?;
    ensure!(!guard.is_valid(), "two valid holders");
    ensure!(lease.token > guard.fencing_token(), "{lease:?} after {guard:?}");
    drop(guard);
    locks.drain().await;
    cx.stands(&claim, &lease).await
}

async fn paused_for_less_than_the_lease(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    cx.inflict(Fault::Pause).await?;
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    cx.inflict(Fault::Resume).await?;
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(guard.is_valid(), "a pause shorter than the lease cost the lock");
    guard.release().await?;
    Ok(())
}

async fn paused_while_waiting(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    let first = cx.acquire(&cx.b, &holder).await?;
    // Patient for longer than the pause, which a store with long ttls makes long.
    let patient = cx.manager(cx.a.clone()).retry_for(cx.ttl * 4).build()?;
    let lock = patient.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cx.inflict(Fault::Pause).await?;
    tokio::time::sleep(cx.ttl * 2).await;
    cx.inflict(Fault::Resume).await?;
    let guard = timeout(cx.ttl + Duration::from_secs(5), waiting).await;
    let guard = guard.map_err(|_| Failure::new("the waiter hangs"))???;
    ensure!(guard.fencing_token() > first.token, "{guard:?} after {first:?}");
    guard.release().await?;
    Ok(())
}

/// Killed and started again while held. Whether the lease survives depends on the store; what
/// must not happen is two valid guards beyond that, a falling token, or a client that does not
/// come back.
async fn restarted_while_held(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    let token = guard.fencing_token();
    cx.inflict(Fault::Kill).await?;
    let killed = Instant::now();
    tokio::time::sleep(cx.hold_ttl() / 10).await;
    cx.inflict(Fault::Restart).await?;
    // The same clients go on, without being told.
    let lost = timeout(cx.hold_ttl() + Duration::from_secs(1), guard.lost()).await;
    cx.note(format!("the guard: {lost:?} after {:?}", killed.elapsed()));
    match lost {
        Ok(reason) => {
            let (_, lease) = until_granted(cx, &cx.b, cx.hold_ttl() + cx.slack()).await?;
            ensure!(!guard.is_valid(), "two valid holders");
            ensure!(lease.token > token, "{lease:?} after {token}, {reason}");
        }
        // The store kept it.
        Err(_) => {
            ensure!(guard.is_valid(), "not valid, and not told");
            let sight = until_seen(cx, &cx.b).await?;
            ensure!(
                sight.as_ref().is_some_and(|info| info.holder == guard.holder()),
                "valid, and the store has {sight:?}"
            );
            guard.release().await?;
            let (_, lease) = until_granted(cx, &cx.b, cx.hold_ttl() + cx.slack()).await?;
            ensure!(lease.token > token, "{lease:?} after {token}");
        }
    }
    Ok(())
}

/// Down for longer than the lease: the guard is lost by its deadline, as if the store hung.
async fn killed_while_held(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    cx.inflict(Fault::Kill).await?;
    let (killed, left) = (Instant::now(), guard.remaining());
    let reason = told(&guard).await?;
    let after = killed.elapsed();
    cx.note(format!("{left:?} were left, lost after {after:?}"));
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(after <= left + Duration::from_secs(1), "{left:?} were left, lost after {after:?}");
    cx.inflict(Fault::Restart).await?;
    // A store that kept the lease may count its ttl from the restart.
    let (_, lease) = until_granted(cx, &cx.b, cx.hold_ttl() * 2 + cx.slack()).await?;
    ensure!(!guard.is_valid(), "two valid holders");
    ensure!(lease.token > guard.fencing_token(), "{lease:?} after {guard:?}");
    Ok(())
}

/// A look over a connection that may have to be made anew.
pub(super) async fn until_seen(
    cx: &Cx,
    client: &Arc<dyn LockBackend>,
) -> Result<Option<lockcore::LeaseInfo>, Failure> {
    for _ in 0..50 {
        if let Ok(Ok(sight)) = timeout(Duration::from_secs(1), client.inspect(&cx.key)).await {
            return Ok(sight);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::new("no answer after 50 tries"))
}

async fn killed_while_waiting(cx: &Cx) -> Outcome {
    waiting_while_down(cx, cx.ttl + cx.ttl / 2).await
}

async fn restarted_while_waiting(cx: &Cx) -> Outcome {
    waiting_while_down(cx, Duration::ZERO).await
}

async fn waiting_while_down(cx: &Cx, down: Duration) -> Outcome {
    let mut holder = cx.claim();
    holder.ttl = cx.ttl * 2;
    let first = cx.acquire(&cx.b, &holder).await?;
    // It does not give up while the server is down, nor while that comes back.
    let locks = cx.manager(cx.a.clone()).retry_for(down + Duration::from_secs(20)).build()?;
    let lock = locks.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cx.inflict(Fault::Kill).await?;
    tokio::time::sleep(down).await;
    cx.inflict(Fault::Restart).await?;
    let guard = timeout(holder.ttl * 2 + Duration::from_secs(5), waiting).await;
    let guard = guard.map_err(|_| Failure::new("the waiter hangs"))???;
    ensure!(guard.fencing_token() > first.token, "{guard:?} after {first:?}");
    guard.release().await?;
    Ok(())
}

/// A store that is down is told within `retry_for`, and nothing is left when it comes back.
async fn down_is_told(cx: &Cx) -> Outcome {
    let retry_for = cx.hold_ttl() / 3;
    let locks = cx.manager(cx.a.clone()).retry_for(retry_for).build()?;
    cx.inflict(Fault::Kill).await?;
    let asked = Instant::now();
    let error = locks.lock(&cx.key)?.acquire().await.err();
    let after = asked.elapsed();
    let kind = error.as_ref().map(lockcore::Error::kind);
    cx.note(format!("{error:?} after {after:?}"));
    use lockcore::ErrorKind::{Ambiguous, Unavailable};
    ensure!(matches!(kind, Some(Unavailable | Ambiguous)), "a dead store: {kind:?}");
    let most = retry_for + cx.hold_ttl() / 6 + cx.slack();
    ensure!(after <= most, "told after {after:?}");
    cx.inflict(Fault::Restart).await?;
    locks.drain().await;
    ensure!(until_seen(cx, &cx.b).await?.is_none(), "given up, and in sight");
    locks.lock(&cx.key)?.acquire().await?.release().await?;
    Ok(())
}

async fn wiped_while_held(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cx.inflict(Fault::Wipe).await?;
    let wiped = Instant::now();
    let told = async { (guard.lost().await, wiped.elapsed()) };
    let (lease, (reason, after)) = tokio::join!(cx.acquire_after_loss(&cx.b, &cx.key), told);
    let lease = lease?;
    // This is what a store that forgets costs; the token tells the two apart.
    ensure!(lease.token > guard.fencing_token(), "{lease:?} after {guard:?}");
    cx.note(format!("told after {after:?}"));
    ensure!(reason == LostReason::NotHeld, "{reason:?}");
    ensure!(after <= cx.hold_ttl() / 3 + cx.slack(), "told after {after:?}");
    drop(guard);
    locks.drain().await;
    Ok(())
}

async fn wiped_while_waiting(cx: &Cx) -> Outcome {
    let mut holder = cx.claim();
    holder.ttl = cx.long();
    let first = cx.acquire(&cx.b, &holder).await?;
    let locks = cx.manager(cx.a.clone()).retry_for(cx.a.limits().max_ttl * 2).build()?;
    let lock = locks.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cx.inflict(Fault::Wipe).await?;
    cx.acquire_after_loss(&cx.b, &cx.key_with("/other")).await?;
    let guard = timeout(Duration::from_secs(1) + cx.slack(), waiting).await;
    let guard = guard.map_err(|_| Failure::new("no signal came, and nobody polled"))???;
    ensure!(guard.fencing_token() > first.token, "{guard:?} after {first:?}");
    guard.release().await?;
    Ok(())
}
