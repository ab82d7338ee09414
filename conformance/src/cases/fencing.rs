//! Tokens: they rise, whatever happens.

use std::time::Duration;

use lockcore::{Claim, FenceRegister, Incarnation, Lease, MAX_TOKEN, Release, Renew};

use super::cases;
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::harness::Fault;

cases! { "fencing";
    rises_over_release: "L5";
    rises_over_expiry: "L5";
    rises_over_reconnect: "L5";
    rises_over_raise: "L5 L9";
    same_when_asked_again: "L2";
    same_when_asked_again_with_a_floor: "L2";
    same_when_renewed: "L4";
    a_floor_is_met_exactly: "L9";
    a_low_floor_changes_nothing: "L9";
    renew_raises_exactly: "L9";
    renew_never_lowers: "L9";
    the_largest_floor_is_exact: "L5 L9";
    a_release_tells_its_token: "L6";
    a_stale_holder_is_fenced_off: "L5";
    memory_is_one_and_grows: "L5", Needs::Memory;
    renewals_tell_the_memory: "L5", Needs::Memory;
    memory_is_told_on_request: "L5", Needs::Memory;
    rises_over_wipe: "L5", Needs::Faults(&[Fault::Wipe]);
    memory_is_another_after_a_wipe: "L5", Needs::MemoryAndFaults(&[Fault::Wipe]);
    renewals_tell_of_a_wipe: "L5", Needs::MemoryAndFaults(&[Fault::Wipe]);
    rises_over_restart: "L5", Needs::Faults(&[Fault::Kill, Fault::Restart]);
}

async fn rises_over_release(cx: &Cx) -> Outcome {
    let mut last = 0;
    for n in 0..20 {
        let client = if n % 2 == 0 { &cx.a } else { &cx.b };
        let claim = cx.claim();
        let lease = cx.acquire(client, &claim).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        cx.release(client, &claim).await?;
    }
    Ok(())
}

async fn rises_over_expiry(cx: &Cx) -> Outcome {
    let first = cx.acquire(&cx.a, &cx.claim()).await?;
    let (_, second) = cx.until_acquired(&cx.b, cx.ttl * 2 + cx.slack()).await?;
    ensure!(second.token > first.token, "{} after {}", second.token, first.token);
    Ok(())
}

async fn rises_over_reconnect(cx: &Cx) -> Outcome {
    let mut last = 0;
    for _ in 0..5 {
        let client = cx.connect().await?;
        let claim = cx.claim();
        let lease = cx.acquire(&client, &claim).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        cx.release(&client, &claim).await?;
    }
    Ok(())
}

/// A raise is remembered even when the raised lease is gone.
async fn rises_over_raise(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let floor = lease.token + 3_600_000_000;
    cx.renew(&cx.a, &claim.clone().with_min_token(floor)).await?;
    cx.release(&cx.a, &claim).await?;
    // A combination answers when most of its stores have released it.
    let limit = if cx.store.combined() { cx.slack() } else { Duration::ZERO };
    let (_, next) = cx.until_acquired(&cx.b, limit).await?;
    ensure!(next.token > floor, "{} after a raise to {floor}", next.token);
    Ok(())
}

async fn same_when_asked_again(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    for client in [&cx.a, &cx.b, &cx.a] {
        let again = cx.acquire(client, &claim).await?;
        ensure!(cx.same_token(again.token, lease.token), "{} then {}", lease.token, again.token);
    }
    cx.stands(&claim, &lease).await
}

async fn same_when_asked_again_with_a_floor(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let again = cx.acquire(&cx.a, &claim.clone().with_min_token(lease.token + 5)).await?;
    ensure!(cx.same_token(again.token, lease.token), "{} then {}", lease.token, again.token);
    cx.stands(&claim, &lease).await
}

async fn same_when_renewed(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    for _ in 0..3 {
        let renewed = cx.renew(&cx.a, &claim).await?;
        ensure!(
            cx.same_token(renewed.token, lease.token),
            "{} then {}",
            lease.token,
            renewed.token
        );
    }
    cx.stands(&claim, &lease).await
}

async fn a_floor_is_met_exactly(cx: &Cx) -> Outcome {
    let first = cx.claim();
    let lease = cx.acquire(&cx.a, &first).await?;
    cx.release(&cx.a, &first).await?;
    let floor = lease.token + 3_600_000_000;
    let second = cx.claim().with_min_token(floor);
    let lease = cx.acquire(&cx.a, &second).await?;
    ensure!(cx.same_token(lease.token, floor), "a floor of {floor} gave {}", lease.token);
    cx.stands(&second, &lease).await?;
    cx.release(&cx.a, &second).await?;
    let next = cx.acquire(&cx.b, &cx.claim()).await?;
    ensure!(next.token > floor, "{} after {floor}", next.token);
    Ok(())
}

async fn a_low_floor_changes_nothing(cx: &Cx) -> Outcome {
    let first = cx.claim();
    let before = cx.acquire(&cx.a, &first).await?;
    cx.release(&cx.a, &first).await?;
    let lease = cx.acquire(&cx.b, &cx.claim().with_min_token(7)).await?;
    ensure!(lease.token > before.token, "a floor of 7 gave {} after {}", lease.token, before.token);
    Ok(())
}

async fn renew_raises_exactly(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let floor = lease.token + 41;
    let raised = cx.renew(&cx.a, &claim.clone().with_min_token(floor)).await?;
    ensure!(cx.same_token(raised.token, floor), "raised to {floor}, got {}", raised.token);
    // In the store, not only in the answer.
    cx.stands(&claim, &raised).await?;
    let again = cx.acquire(&cx.b, &claim).await?;
    ensure!(cx.same_token(again.token, floor), "raised to {floor}, asked again: {}", again.token);
    Ok(())
}

async fn renew_never_lowers(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    let renewed = cx.renew(&cx.a, &claim.clone().with_min_token(lease.token - 1)).await?;
    ensure!(cx.same_token(renewed.token, lease.token), "{} then {}", lease.token, renewed.token);
    cx.stands(&claim, &lease).await
}

/// Nothing is rounded at the end of the range, and there is room behind it.
async fn the_largest_floor_is_exact(cx: &Cx) -> Outcome {
    let floor = cx.a.limits().max_token;
    ensure!(floor <= MAX_TOKEN, "a store that takes more than 2^52: {floor}");
    let claim = cx.claim().with_min_token(floor - 1);
    let lease = cx.acquire(&cx.a, &claim).await?;
    ensure!(cx.same_token(lease.token, floor - 1), "a floor of {} gave {}", floor - 1, lease.token);
    let raised = cx.renew(&cx.a, &claim.clone().with_min_token(floor)).await?;
    ensure!(cx.same_token(raised.token, floor), "raised to {floor}, got {}", raised.token);
    cx.stands(&claim, &raised).await?;
    cx.release(&cx.a, &claim).await?;
    let mut last = floor;
    for _ in 0..3 {
        let claim = cx.claim();
        let lease = cx.acquire(&cx.b, &claim).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        cx.release(&cx.b, &claim).await?;
    }
    Ok(())
}

/// Of the lease that it ended: a raised one as well, and not the one before.
async fn a_release_tells_its_token(cx: &Cx) -> Outcome {
    for raise in [0, 41] {
        let claim = cx.claim();
        let lease = cx.acquire(&cx.a, &claim).await?;
        let token = lease.token + raise;
        cx.renew(&cx.a, &claim.clone().with_min_token(token)).await?;
        let answer = cx.b.release(&claim).await?;
        let Release::Released { token: told } = answer else {
            return Err(Failure::new(format!("release by the holder: {answer:?}")));
        };
        ensure!(cx.same_token(told, token), "a lease with token {token}, released {told}");
    }
    Ok(())
}

async fn a_stale_holder_is_fenced_off(cx: &Cx) -> Outcome {
    let register = FenceRegister::new("nothing");
    let stale = cx.acquire(&cx.a, &cx.claim()).await?;
    register.write(stale.token, "the first holder's")?;
    // The first holder sleeps past its lease, and the next one has come.
    let (_, next) = cx.until_acquired(&cx.b, cx.ttl * 2 + cx.slack()).await?;
    register.read(next.token)?;
    ensure!(register.write(stale.token, "too late").is_err(), "a stale write got in");
    ensure!(register.read(next.token)? == "the first holder's", "the value changed");
    Ok(())
}

/// A claim that asks for the store's incarnation.
fn asking(cx: &Cx) -> Claim {
    cx.claim().with_incarnation()
}

/// The same on another key.
fn asking_on(cx: &Cx, suffix: &str) -> Claim {
    cx.claim_on(&cx.key_with(suffix)).with_incarnation()
}

/// The memory that a grant tells.
fn told_at_grant(lease: &Lease) -> Result<Incarnation, Failure> {
    lease.incarnation.ok_or_else(|| {
        let how = "a harness whose store tells none says so by `remembers`";
        Failure::new(format!("{lease:?} tells no memory; {how}"))
    })
}

/// How long the store has surely forgotten nothing: all clients of one store agree on which it
/// is, and it only grows.
async fn memory_is_one_and_grows(cx: &Cx) -> Outcome {
    let (first, second) = (asking(cx), asking_on(cx, "/other"));
    let third = asking_on(cx, "/third");
    let before = told_at_grant(&cx.acquire(&cx.a, &first).await?)?;
    tokio::time::sleep(cx.ttl / 10).await;
    // What a client knows of a store that counts in whole seconds is up to one behind what another
    // knows, so growth shows in the answers to one client.
    let others = cx.acquire(&cx.b, &second).await?.incarnation;
    let one = others.is_some_and(|others| others.id == before.id);
    ensure!(one, "{before:?}, and to another client {others:?}");
    let after = cx.acquire(&cx.a, &third).await?.incarnation;
    let grown = after.is_some_and(|after| after.id == before.id && after.age > before.age);
    ensure!(grown, "{before:?}, then {after:?}");
    Ok(())
}

/// As an acquire does, whoever renews and whether the token is raised or not.
async fn renewals_tell_the_memory(cx: &Cx) -> Outcome {
    let claim = asking(cx);
    let lease = cx.acquire(&cx.a, &claim).await?;
    let before = told_at_grant(&lease)?;
    let raising = claim.clone().with_min_token(lease.token + 1);
    let mut last = before;
    for claim in [&claim, &raising, &claim] {
        tokio::time::sleep(cx.ttl / 20).await;
        let renewed = cx.renew(&cx.a, claim).await?.incarnation;
        match renewed {
            Some(memory) if memory.id == last.id && memory.age > last.age => last = memory,
            _ => return Err(Failure::new(format!("{last:?}, then a renewal told {renewed:?}"))),
        }
    }
    // This client has asked nothing before, and what it knows may be a second behind: see above.
    let others = cx.renew(&cx.b, &claim).await?.incarnation;
    let least = before.age.saturating_sub(Duration::from_secs(1));
    let one = others.is_some_and(|others| others.id == before.id && others.age >= least);
    ensure!(one, "{before:?}, and a renewal by another client told {others:?}");
    Ok(())
}

/// It may cost the store a read, so those who do not ask for it are not told.
async fn memory_is_told_on_request(cx: &Cx) -> Outcome {
    let (plain, asks) = (cx.claim(), asking_on(cx, "/other"));
    let lease = cx.acquire(&cx.a, &plain).await?;
    ensure!(lease.incarnation.is_none(), "told without being asked: {lease:?}");
    told_at_grant(&cx.acquire(&cx.a, &asks).await?)?;
    let renewed = cx.renew(&cx.a, &plain).await?;
    ensure!(renewed.incarnation.is_none(), "told without being asked: {renewed:?}");
    told_at_grant(&cx.renew(&cx.a, &asks).await?)?;
    // Each of many for itself.
    let [Ok(Renew::Renewed(none)), Ok(Renew::Renewed(some))] =
        cx.a.renew_many(&[plain, asks]).await[..]
    else {
        return Err(Failure::new("two leases that stand were not renewed at once"));
    };
    ensure!(none.incarnation.is_none(), "told without being asked: {none:?}");
    told_at_grant(&some)?;
    Ok(())
}

async fn rises_over_wipe(cx: &Cx) -> Outcome {
    let mut last = 0;
    for _ in 0..3 {
        let lease = cx.acquire_after_loss(&cx.a, &cx.key).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        last = lease.token;
        // The clock is what is left of the tokens: it must have moved on, and it must not begin
        // anew with the data.
        tokio::time::sleep(Duration::from_millis(50)).await;
        cx.inflict(Fault::Wipe).await?;
        ensure!(cx.sight().await?.is_none(), "the wipe left the lease");
    }
    Ok(())
}

async fn memory_is_another_after_a_wipe(cx: &Cx) -> Outcome {
    let before = told_at_grant(&cx.acquire(&cx.a, &asking(cx)).await?)?;
    tokio::time::sleep(cx.ttl / 10).await;
    cx.inflict(Fault::Wipe).await?;
    let wiped = tokio::time::Instant::now();
    let Some(after) = cx.acquire(&cx.a, &asking(cx)).await?.incarnation else {
        return Err(Failure::new("the store knew its memory, and now it does not"));
    };
    let most = wiped.elapsed();
    ensure!(after.id != before.id, "the same memory before and after a wipe: {before:?} {after:?}");
    ensure!(after.age <= most, "wiped {most:?} ago, and it claims to remember {:?}", after.age);
    Ok(())
}

/// An acquire that comes late gives the holder a lease in a store that has forgotten the first. It
/// stands, and is no sign that nobody else had the key in between.
async fn renewals_tell_of_a_wipe(cx: &Cx) -> Outcome {
    let claim = asking(cx);
    let before = told_at_grant(&cx.acquire(&cx.a, &claim).await?)?;
    cx.renew(&cx.a, &claim).await?;
    tokio::time::sleep(cx.ttl / 10).await;
    cx.inflict(Fault::Wipe).await?;
    let wiped = tokio::time::Instant::now();
    // By another client, so that the one that renews has not heard of it.
    cx.acquire(&cx.b, &claim).await?;
    for renewal in ["the first", "the second"] {
        let Some(after) = cx.renew(&cx.a, &claim).await?.incarnation else {
            return Err(Failure::new(format!("{renewal} renewal after the wipe tells no memory")));
        };
        let most = wiped.elapsed();
        ensure!(after.id != before.id, "{renewal} renewal after the wipe still tells {after:?}");
        ensure!(after.age <= most, "wiped {most:?} ago, and {renewal} renewal tells {after:?}");
    }
    Ok(())
}

async fn rises_over_restart(cx: &Cx) -> Outcome {
    let mut last = 0;
    for restarts in 0..3 {
        let client = cx.connect().await?;
        // Whether the last lease survived is the store's business; the next token is ours.
        let (_, lease) = cx.until_acquired(&client, cx.ttl * 2 + cx.slack()).await?;
        ensure!(lease.token > last, "{} after {last}, over a restart", lease.token);
        last = lease.token;
        if restarts < 2 {
            cx.inflict(Fault::Kill).await?;
            cx.inflict(Fault::Restart).await?;
        }
    }
    Ok(())
}
