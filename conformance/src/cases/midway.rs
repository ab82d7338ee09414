//! Faults of the server while it has a request: it stands still with it, dies over it, or comes
//! back without it.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, LockBackend, LockGuard, LockManager, LostReason};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::cases;
use super::faults::{KILL, PAUSE, until_granted, until_seen};
use super::over::told;
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::faulty::{Faulty, Verb};
use crate::harness::Fault;

const PAUSE_AND_KILL: Needs = Needs::Faults(&[Fault::Pause, Fault::Kill]);

cases! { "faults";
    paused_mid_acquire: "L2 L8", PAUSE;
    paused_mid_renew: "L3 L4", PAUSE;
    paused_mid_release: "L6 L8", PAUSE;
    killed_mid_call: "L2 L3 L6 L7", PAUSE_AND_KILL;
    restarted_mid_call: "L2 L4 L6 L7", PAUSE_AND_KILL;
    killed_between_calls: "L4 L7 L8", KILL;
}

/// Longer than anything takes once the server is back.
const LONG: Duration = Duration::from_secs(20);

/// The request is with a server that stands still; its caller goes, and then the server.
async fn paused_mid_acquire(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    locks.lock(&cx.key)?.acquire().await?.release().await?;
    cx.inflict(Fault::Pause).await?;
    let lock = locks.lock(&cx.key)?;
    let gone = timeout(cx.hold_ttl() / 20, lock.acquire()).await;
    ensure!(gone.is_err(), "a paused server answered: {gone:?}");
    cx.inflict(Fault::Resume).await?;
    timeout(cx.hold_ttl() / 6 + Duration::from_secs(1), locks.drain())
        .await
        .map_err(|_| Failure::new("not undone within a request timeout and a second"))?;
    ensure!(cx.sight().await?.is_none(), "dropped and drained, and in sight");
    lock.acquire().await?.release().await?;
    Ok(())
}

/// A renewal is with a server that stands still, and is answered when it goes on.
async fn paused_mid_renew(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let guard = cx.manager(store.clone()).build()?.lock(&cx.key)?.acquire().await?;
    let token = guard.fencing_token();
    cx.inflict(Fault::Pause).await?;
    in_flight(cx, &store, Verb::Renew).await?;
    cx.inflict(Fault::Resume).await?;
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(guard.is_valid(), "a pause shorter than the lease cost the lock");
    ensure!(cx.same_token(guard.fencing_token(), token), "{token}, then {guard:?}");
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    Ok(())
}

async fn paused_mid_release(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    cx.inflict(Fault::Pause).await?;
    let release = tokio::spawn(guard.release());
    // Longer than a request may take: it is sent again.
    tokio::time::sleep(cx.hold_ttl() / 4).await;
    ensure!(!release.is_finished(), "a paused server answered: {:?}", release.await);
    cx.inflict(Fault::Resume).await?;
    release.await??;
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}

/// Waits until a call has been made, and a moment longer.
async fn in_flight<B: LockBackend>(cx: &Cx, store: &Faulty<B>, verb: Verb) -> Outcome {
    let end = Instant::now() + cx.hold_ttl();
    while store.calls(verb) == 0 {
        ensure!(Instant::now() < end, "no {verb:?} in {:?}", cx.hold_ttl());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// An acquire, a renewal and a release that are with the server when it dies.
struct Midway {
    locks: LockManager,
    acquiring: JoinHandle<Result<LockGuard, Error>>,
    renewing: LockGuard,
    releasing: JoinHandle<Result<(), Error>>,
    token: u64,
    killed: Instant,
    /// Of the lease that is being released.
    deadline: Instant,
}

impl Midway {
    async fn new(cx: &Cx, retry_for: Duration) -> Result<Self, Failure> {
        let store: Faulty<Arc<dyn LockBackend>> = Faulty::new(cx.a.clone());
        let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
        let renewing = locks.lock(cx.key_with("/renewing"))?.acquire().await?;
        let releasing = locks.lock(cx.key_with("/releasing"))?.acquire().await?;
        let token = releasing.fencing_token();
        tokio::time::sleep(cx.hold_ttl() / 4).await;
        cx.inflict(Fault::Pause).await?;
        in_flight(cx, &store, Verb::Renew).await?;
        let lock = locks.lock(&cx.key)?;
        let acquiring = tokio::spawn(async move { lock.acquire().await });
        let deadline = Instant::now() + releasing.remaining();
        let releasing = tokio::spawn(releasing.release());
        in_flight(cx, &store, Verb::Release).await?;
        cx.inflict(Fault::Kill).await?;
        let killed = Instant::now();
        Ok(Self { locks, acquiring, renewing, releasing, token, killed, deadline })
    }
}

/// Each call ends in time, honestly, and when the server is back nothing is left of them.
async fn killed_mid_call(cx: &Cx) -> Outcome {
    let retry_for = cx.hold_ttl() / 3;
    let midway = Midway::new(cx, retry_for).await?;
    let left = midway.renewing.remaining();
    let most = retry_for + cx.hold_ttl() / 6 + cx.slack();
    let doubtful = |kind: Option<ErrorKind>| {
        matches!(kind, Some(ErrorKind::Ambiguous | ErrorKind::Unavailable))
    };
    let acquired = timeout(most, midway.acquiring).await;
    let acquired = acquired.map_err(|_| Failure::new("the acquire hangs"))??;
    ensure!(doubtful(acquired.as_ref().err().map(Error::kind)), "the acquire: {acquired:?}");
    let released = timeout(most, midway.releasing).await;
    let released = released.map_err(|_| Failure::new("the release hangs"))??;
    ensure!(doubtful(released.as_ref().err().map(Error::kind)), "the release: {released:?}");
    let reason = told(&midway.renewing).await?;
    let after = midway.killed.elapsed();
    ensure!(reason == LostReason::Expired, "{reason:?}");
    ensure!(after <= left + Duration::from_secs(1), "{left:?} were left, lost after {after:?}");
    cx.inflict(Fault::Restart).await?;
    timeout(LONG, midway.locks.drain()).await.map_err(|_| Failure::new("drain hangs"))?;
    // What was granted unheard ends with its ttl, which may count from the restart.
    let limit = cx.hold_ttl() * 2 + cx.slack();
    until_granted(cx, &cx.b, limit).await?;
    for key in ["/renewing", "/releasing"] {
        let lock = midway.locks.lock(cx.key_with(key))?;
        let guard = lock.acquire_timeout(limit).await?;
        ensure!(key == "/renewing" || guard.fencing_token() > midway.token, "{guard:?}");
        guard.release().await?;
    }
    Ok(())
}

/// Each call goes on with the server that came back, whether that remembers it or not.
async fn restarted_mid_call(cx: &Cx) -> Outcome {
    let midway = Midway::new(cx, LONG).await?;
    cx.inflict(Fault::Restart).await?;
    // Of a lease that has ended nobody can tell whether it was released before. One request takes
    // a sixth of the ttl at most, and must have gone out before the deadline.
    let ended = Instant::now() + cx.hold_ttl() / 6 >= midway.deadline;
    let acquired = timeout(LONG, midway.acquiring).await;
    let acquired = acquired.map_err(|_| Failure::new("the acquire hangs"))???;
    ensure!(acquired.is_valid(), "a dead guard: {acquired:?}");
    let seen = until_seen(cx, &cx.b).await?;
    ensure!(
        seen.as_ref().is_some_and(|info| info.holder == acquired.holder()),
        "{acquired:?} shows as {seen:?}"
    );
    acquired.release().await?;
    let released = timeout(LONG, midway.releasing).await;
    let released = released.map_err(|_| Failure::new("the release hangs"))??;
    let kind = released.err().map(|error| error.kind());
    let honest = match kind {
        None | Some(ErrorKind::Lost) => true,
        Some(ErrorKind::Ambiguous | ErrorKind::Unavailable) => ended,
        Some(_) => false,
    };
    ensure!(honest, "the release: {kind:?}");
    // What nobody knows to be released ends with its ttl, which may count from the restart.
    let doubtful = matches!(kind, Some(ErrorKind::Ambiguous | ErrorKind::Unavailable));
    let rest = cx.hold_ttl() + cx.a.limits().expiry_lag + cx.slack();
    let end = Instant::now() + if doubtful { rest } else { Duration::ZERO };
    while let Some(seen) = cx.b.inspect(&cx.key_with("/releasing")).await? {
        ensure!(Instant::now() < end, "released ({kind:?}), and in sight: {seen:?}");
        cx.look_again(Duration::from_millis(20)).await;
    }
    // Lost, or still there: it and the store must be of one mind by the next renewal.
    let guard = midway.renewing;
    let lost = timeout(cx.hold_ttl() + Duration::from_secs(1), guard.lost()).await;
    let seen = cx.b.inspect(guard.key()).await?;
    let mine = seen.as_ref().is_some_and(|info| info.holder == guard.holder());
    cx.note(format!("the renewed one: {lost:?}"));
    ensure!(lost.is_ok() != guard.is_valid(), "{lost:?}, and {guard:?}");
    ensure!(mine || lost.is_ok(), "valid, and the store has {seen:?}");
    Ok(())
}

/// Nothing was under way: whoever comes next finds a dead connection, and makes another.
async fn killed_between_calls(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    for _ in 0..2 {
        locks.lock(&cx.key)?.acquire().await?.release().await?;
        cx.inflict(Fault::Kill).await?;
        cx.inflict(Fault::Restart).await?;
    }
    let guard = timeout(LONG, locks.lock(&cx.key)?.acquire()).await;
    guard.map_err(|_| Failure::new("the acquire hangs"))??.release().await?;
    Ok(())
}
