//! Wires that carry in one direction only, too slowly, now and then, or not at all and say so.

use std::time::Duration;

use lockcore::{ErrorKind, LockKey, LostReason};
use tokio::time::{Instant, timeout};

use super::cases;
use super::over::{Wire, told};
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::proxy::{Direction, Mode, Proxy};

cases! { "wire";
    a_one_way_partition_is_told_by_the_deadline: "L3 L7", Needs::Wire;
    a_one_way_partition_while_acquiring: "L2 L7", Needs::Wire;
    a_one_way_partition_while_releasing: "L6 L7", Needs::Wire;
    a_stall_that_ends_is_survived: "L3 L7", Needs::Wire;
    a_refusal_that_ends_is_survived: "L7", Needs::Wire;
    a_flapping_wire_is_survived: "L3 L7", Needs::Wire;
    a_slow_drip_works: "L3", Needs::Wire;
    a_drip_too_slow_is_given_up: "L7", Needs::Wire;
    a_stranded_connection_is_left_behind: "L7 L8", Needs::Wire;
    a_stranded_wake_up_path_delays_and_no_more: "watch", Needs::Wire;
}

/// Longer than anything takes once the wire is whole.
const LONG: Duration = Duration::from_secs(20);

/// The same with requests that do not arrive and with answers that do not, side by side.
async fn each_way(cx: &Cx, case: impl AsyncFn(Direction, LockKey) -> Outcome) -> Outcome {
    let (requests, answers) = tokio::join!(
        case(Direction::ToServer, cx.key_with("/requests")),
        case(Direction::ToClient, cx.key_with("/answers")),
    );
    requests.map_err(|failure| Failure::new(format!("requests lost: {failure}")))?;
    answers.map_err(|failure| Failure::new(format!("answers lost: {failure}")))
}

async fn free(cx: &Cx, key: &LockKey) -> Outcome {
    let seen = cx.b.inspect(key).await?;
    ensure!(seen.is_none(), "released, and in sight: {seen:?}");
    Ok(())
}

async fn a_one_way_partition_is_told_by_the_deadline(cx: &Cx) -> Outcome {
    each_way(cx, async |direction, key| {
        let wire = Wire::new(cx).await?;
        let guard = cx.manager(wire.client.clone()).build()?.lock(&key)?.acquire().await?;
        tokio::time::sleep(cx.hold_ttl() / 2).await;
        wire.each(|proxy| proxy.set(direction, Mode::Swallow));
        let (cut, left) = (Instant::now(), guard.remaining());
        let reason = told(&guard).await?;
        let after = cut.elapsed();
        cx.note(format!("{direction:?}: {left:?} were left, lost after {after:?}"));
        ensure!(reason == LostReason::Expired, "{reason:?}");
        ensure!(after <= left + Duration::from_secs(1), "{left:?} were left, lost after {after:?}");
        Ok(())
    })
    .await
}

async fn a_one_way_partition_while_acquiring(cx: &Cx) -> Outcome {
    each_way(cx, async |direction, key| {
        let wire = Wire::new(cx).await?;
        let locks = cx.manager(wire.client.clone()).retry_for(LONG).build()?;
        wire.each(|proxy| proxy.set(direction, Mode::Swallow));
        let lock = locks.lock(&key)?;
        let asking = tokio::spawn(async move { lock.acquire().await });
        tokio::time::sleep(cx.hold_ttl() / 3).await;
        ensure!(!asking.is_finished(), "granted without an answer");
        wire.heal();
        let guard = timeout(LONG, asking).await;
        let guard = guard.map_err(|_| Failure::new("the acquire hangs"))???;
        let seen = cx.b.inspect(&key).await?;
        let mine = seen.as_ref().is_some_and(|info| {
            info.holder == guard.holder() && cx.same_token(info.token, guard.fencing_token())
        });
        ensure!(mine && guard.is_valid(), "{guard:?} shows as {seen:?}");
        guard.release().await?;
        locks.drain().await;
        free(cx, &key).await
    })
    .await
}

async fn a_one_way_partition_while_releasing(cx: &Cx) -> Outcome {
    each_way(cx, async |direction, key| {
        let wire = Wire::new(cx).await?;
        let ttl = cx.hold_ttl() * 2;
        let locks = cx.manager(wire.client.clone()).ttl(ttl).build()?;
        let guard = locks.lock(&key)?.acquire().await?;
        wire.each(|proxy| proxy.set(direction, Mode::Swallow));
        let releasing = tokio::spawn(guard.release());
        tokio::time::sleep(cx.hold_ttl() / 4).await;
        ensure!(!releasing.is_finished(), "released without an answer");
        wire.heal();
        let released = timeout(LONG, releasing).await;
        released.map_err(|_| Failure::new("the release hangs"))???;
        free(cx, &key).await
    })
    .await
}

/// Nothing is lost, it only comes late.
async fn a_stall_that_ends_is_survived(cx: &Cx) -> Outcome {
    each_way(cx, async |direction, key| {
        let wire = Wire::new(cx).await?;
        let guard = cx.manager(wire.client.clone()).build()?.lock(&key)?.acquire().await?;
        wire.each(|proxy| proxy.set(direction, Mode::Stall));
        tokio::time::sleep(cx.hold_ttl() / 2).await;
        wire.heal();
        tokio::time::sleep(cx.hold_ttl()).await;
        ensure!(guard.is_valid(), "a stall shorter than the lease cost the lock");
        guard.release().await?;
        free(cx, &key).await
    })
    .await
}

async fn a_refusal_that_ends_is_survived(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let locks = cx.manager(wire.client.clone()).retry_for(LONG).build()?;
    let held = locks.lock(cx.key_with("/held"))?.acquire().await?;
    wire.each(Proxy::refuse);
    let lock = locks.lock(&cx.key)?;
    let asking = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    ensure!(!asking.is_finished(), "granted by nobody");
    wire.heal();
    let guard = timeout(LONG, asking).await;
    let guard = guard.map_err(|_| Failure::new("the acquire hangs"))???;
    guard.release().await?;
    tokio::time::sleep(cx.hold_ttl() / 2).await;
    ensure!(held.is_valid(), "an outage shorter than the lease cost the lock");
    held.release().await?;
    Ok(())
}

/// Connections are reset, ended in order, and refused, many times a second.
async fn a_flapping_wire_is_survived(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let locks = cx.manager(wire.client.clone()).retry_for(LONG).build()?;
    let held = locks.lock(cx.key_with("/held"))?.acquire().await?;
    let lock = locks.lock(&cx.key)?;
    let asking = tokio::spawn(async move { lock.acquire().await });
    let (end, mut random) = (Instant::now() + cx.hold_ttl() / 2, cx.random(0));
    while Instant::now() < end {
        match random.u8(..3) {
            0 => wire.each(Proxy::cut),
            1 => wire.each(Proxy::end),
            _ => wire.each(Proxy::refuse),
        }
        tokio::time::sleep(Duration::from_millis(random.u64(10..60))).await;
        wire.heal();
        tokio::time::sleep(Duration::from_millis(random.u64(0..60))).await;
    }
    let made: u64 = wire.proxies.iter().map(Proxy::connections).sum();
    cx.note(format!("{made} connections in {:?}", cx.hold_ttl() / 2));
    let guard = timeout(LONG, asking).await;
    let guard = guard.map_err(|_| Failure::new("the acquire hangs"))???;
    guard.release().await?;
    tokio::time::sleep(cx.hold_ttl()).await;
    ensure!(held.is_valid(), "an outage shorter than the lease cost the lock");
    held.release().await?;
    locks.drain().await;
    free(cx, &cx.key).await
}

/// Byte by byte, and soon enough.
async fn a_slow_drip_works(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    // A combination gives each store a second at most: there only the bytes come one by one.
    let slowly = Duration::from_millis(u64::from(!cx.store.combined()));
    wire.each(|proxy| proxy.set_both(Mode::Drip(slowly)));
    let limit = LONG.min(cx.long() / 2);
    let patient = cx.manager(wire.client.clone()).ttl(cx.long()).request_timeout(limit);
    let asked = Instant::now();
    let guard = patient.build()?.lock(&cx.key)?.acquire().await?;
    cx.note(format!("in after {:?}", asked.elapsed()));
    cx.contend(&cx.b, &cx.claim()).await?;
    guard.release().await?;
    free(cx, &cx.key).await
}

/// The limit is on the whole call, not on each read.
async fn a_drip_too_slow_is_given_up(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    wire.each(|proxy| proxy.set_both(Mode::Drip(Duration::from_millis(100))));
    let retry_for = cx.hold_ttl() / 3;
    let locks = cx.manager(wire.client.clone()).retry_for(retry_for).build()?;
    let asked = Instant::now();
    let error = locks.lock(&cx.key)?.acquire().await.err();
    let (after, kind) = (asked.elapsed(), error.as_ref().map(lockcore::Error::kind));
    cx.note(format!("{error:?} after {after:?}"));
    ensure!(matches!(kind, Some(ErrorKind::Ambiguous | ErrorKind::Unavailable)), "{error:?}");
    let most = retry_for + cx.hold_ttl() / 6 + cx.slack();
    ensure!(after <= most, "given up after {after:?}");
    wire.heal();
    locks.drain().await;
    // What was under way then may arrive now.
    cx.until_free(cx.hold_ttl() + cx.a.limits().expiry_lag + cx.slack()).await
}

/// The path has died and nobody says so; a new connection would work.
async fn a_stranded_connection_is_left_behind(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let ttl = cx.hold_ttl() * 2;
    let locks = cx.manager(wire.client.clone()).ttl(ttl).retry_for(LONG).build()?;
    let guard = locks.lock(cx.key_with("/held"))?.acquire().await?;
    wire.each(Proxy::strand);
    let asked = Instant::now();
    let other = timeout(LONG, locks.lock(&cx.key)?.acquire()).await;
    other.map_err(|_| Failure::new("the acquire hangs"))??.release().await?;
    cx.note(format!("another was granted after {:?}", asked.elapsed()));
    tokio::time::sleep_until(asked + ttl + cx.hold_ttl() / 3).await;
    ensure!(guard.is_valid(), "a path that could be left cost the lock");
    guard.release().await?;
    Ok(())
}

async fn a_stranded_wake_up_path_delays_and_no_more(cx: &Cx) -> Outcome {
    let wire = Wire::new(cx).await?;
    let mut holder = cx.claim();
    holder.ttl = cx.long();
    cx.acquire(&cx.a, &holder).await?;
    let floor = Duration::from_secs(1);
    let lock = cx.manager(wire.client.clone()).poll_every(floor).build()?.lock(&cx.key)?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    wire.each(Proxy::strand);
    cx.release(&cx.a, &holder).await?;
    let freed = Instant::now();
    let guard = timeout(LONG, waiting).await;
    let guard = guard.map_err(|_| Failure::new("no signal came, and nobody polled"))???;
    cx.note(format!("in after {:?}", freed.elapsed()));
    // The poll finds the other path dead as well.
    let most = floor + cx.hold_ttl() + cx.slack();
    ensure!(freed.elapsed() <= most, "in after {:?}", freed.elapsed());
    guard.release().await?;
    Ok(())
}
