//! Bad input: the same typed answer on every backend, and nothing is sent.

use std::time::Duration;

use lockcore::{Claim, ErrorKind, LockKey, LockManager, MAX_TOKEN};
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Outcome, ensure, refused};
use crate::faulty::{Faulty, Verb};

cases! { "input";
    keys: "input";
    ttls: "input";
    ttls_at_the_limits_work: "L3";
    ttls_between_steps_work: "L3";
    floors: "L9";
    labels: "input";
    lists: "L10";
    settings: "input";
    nothing_is_sent: "L9";
    extreme_waits_do_no_harm: "input";
}

async fn keys(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    let long = "x".repeat(LockKey::MAX_LEN + 1);
    // 513 bytes in 171 characters: bytes count.
    let wide = "\u{20ac}".repeat(171);
    for key in ["", "\0", "a\0b", long.as_str(), wide.as_str()] {
        let kind = locks.lock(key).err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "{key:?}: {kind:?}");
        let kind = locks.inspect(key).await.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "inspect {key:?}: {kind:?}");
    }
    ensure!(store.calls(Verb::Inspect) == 0, "a bad key got to the backend");
    // The longest ones, of bytes that an encoding makes longer and of such as it does not.
    let room = LockKey::MAX_LEN - cx.key.as_str().len();
    for fill in ["x", "{", "%", "'", "\\", "\u{1f512}"] {
        let mut fill = fill.repeat(room / fill.len());
        fill += &"x".repeat(room - fill.len());
        let claim = cx.claim_on(&cx.key_with(&fill));
        ensure!(claim.key.as_str().len() == LockKey::MAX_LEN, "not the longest");
        let lease = cx.acquire(&cx.a, &claim).await?;
        let seen = cx.b.inspect(&claim.key).await?;
        ensure!(
            seen.as_ref().is_some_and(|info| cx.same_token(info.token, lease.token)),
            "{fill}: {seen:?}"
        );
        let listed = cx.b.list(claim.key.as_str(), None, 2).await?;
        ensure!(listed.len() == 1, "{fill}: {listed:?}");
        cx.release(&cx.a, &claim).await?;
    }
    Ok(())
}

/// Every verb that takes a claim refuses it.
async fn refuse(cx: &Cx, claim: &Claim, what: &str) -> Outcome {
    refused(cx.a.acquire(claim).await, &format!("acquire, {what}"))?;
    refused(cx.a.renew(claim).await, &format!("renew, {what}"))?;
    refused(cx.a.release(claim).await, &format!("release, {what}"))?;
    refused(cx.a.watch(claim).await, &format!("watch, {what}"))?;
    ensure!(cx.b.inspect(&claim.key).await?.is_none(), "{what}: refused, and in sight");
    Ok(())
}

/// Outside the limits, on either side.
fn bad_ttls(cx: &Cx) -> Vec<Duration> {
    let limits = cx.a.limits();
    let tick = Duration::from_nanos(1);
    vec![
        Duration::ZERO,
        tick,
        limits.min_ttl - tick,
        limits.max_ttl + tick,
        Duration::from_millis(i64::MAX.unsigned_abs()),
        Duration::MAX,
    ]
}

async fn ttls(cx: &Cx) -> Outcome {
    for ttl in bad_ttls(cx) {
        let mut claim = cx.claim();
        claim.ttl = ttl;
        refuse(cx, &claim, &format!("ttl {ttl:?}")).await?;
        let kind = LockManager::builder(cx.a.clone()).ttl(ttl).build().err();
        let kind = kind.map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "ttl {ttl:?}: {kind:?}");
    }
    Ok(())
}

async fn ttls_at_the_limits_work(cx: &Cx) -> Outcome {
    let limits = cx.a.limits();
    for (suffix, ttl) in [("/min", limits.min_ttl), ("/max", limits.max_ttl)] {
        let mut claim = cx.claim_on(&cx.key_with(suffix));
        claim.ttl = ttl;
        let lease = cx.acquire(&cx.a, &claim).await?;
        ensure!(lease.ttl >= ttl, "claimed {ttl:?}, granted {:?}", lease.ttl);
        // The shortest may be over by now.
        cx.a.renew(&claim).await?;
        cx.a.release(&claim).await?;
    }
    Ok(())
}

/// A store that counts in steps grants no less than was claimed, and keeps it.
async fn ttls_between_steps_work(cx: &Cx) -> Outcome {
    let limits = cx.a.limits();
    let (least, tick) = (limits.min_ttl, Duration::from_nanos(1));
    let odd = [least + tick, Duration::from_millis(1_900), cx.ttl + Duration::from_micros(1_001)];
    for (n, ttl) in odd.into_iter().enumerate() {
        let mut claim = cx.claim_on(&cx.key_with(&format!("/{n}")));
        claim.ttl = ttl.max(least);
        let asked = Instant::now();
        let lease = cx.acquire(&cx.a, &claim).await?;
        ensure!(lease.ttl >= claim.ttl, "claimed {:?}, granted {:?}", claim.ttl, lease.ttl);
        // For as long as it surely stands, the store shows what is left of it.
        let seen = cx.b.inspect(&claim.key).await?;
        if asked.elapsed() < claim.ttl {
            let left = seen.map(|info| info.remaining);
            ensure!(left.is_some(), "claimed {:?}, gone after {:?}", claim.ttl, asked.elapsed());
        }
        // Nor is the longest cut down.
        claim.ttl = limits.max_ttl - tick;
        claim.key = cx.key_with(&format!("/{n}/long"));
        let lease = cx.acquire(&cx.a, &claim).await?;
        let left = cx.b.inspect(&claim.key).await?.map(|info| info.remaining);
        ensure!(
            lease.ttl >= claim.ttl && left.is_some_and(|left| left > claim.ttl / 2),
            "claimed {:?}, granted {:?}, {left:?} left",
            claim.ttl,
            lease.ttl
        );
        cx.release(&cx.a, &claim).await?;
    }
    Ok(())
}

async fn floors(cx: &Cx) -> Outcome {
    let limit = cx.a.limits().max_token;
    for floor in [limit + 1, MAX_TOKEN + 1, 1 << 53, u64::MAX] {
        refuse(cx, &cx.claim().with_min_token(floor), &format!("a floor of {floor}")).await?;
    }
    // A refused raise leaves the lease alone.
    let claim = cx.claim();
    let lease = cx.acquire(&cx.a, &claim).await?;
    refused(cx.a.renew(&claim.clone().with_min_token(limit + 1)).await, "a raise")?;
    cx.stands(&claim, &lease).await
}

async fn labels(cx: &Cx) -> Outcome {
    // Bytes count, of whatever characters.
    let wide = "\u{e9}".repeat(Claim::MAX_LABEL / 2);
    for label in ["\0", "a\0b", &"x".repeat(Claim::MAX_LABEL + 1), &format!("{wide}x")] {
        refuse(cx, &cx.claim().with_label(label), &format!("label {label:?}")).await?;
        let kind = LockManager::builder(cx.a.clone()).label(label).build().err();
        let kind = kind.map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "label {label:?}: {kind:?}");
    }
    let claim = cx.claim().with_label(&*wide);
    cx.acquire(&cx.a, &claim).await?;
    let seen = cx.sight().await?.map(|info| info.label);
    ensure!(seen.as_ref() == Some(&wide), "{wide:?} shows as {seen:?}");
    cx.release(&cx.a, &claim).await
}

/// A prefix is any text, and what no key can begin with lists nothing.
async fn lists(cx: &Cx) -> Outcome {
    let names = ["/a", "/a/b", "/ab", "/b"];
    let mut long = cx.claim();
    long.ttl = cx.long();
    for name in names {
        long.key = cx.key_with(name);
        cx.acquire(&cx.a, &long).await?;
    }
    let below = cx.key_with("/");
    let name_of = |key: &LockKey| key.as_str().strip_prefix(cx.key.as_str()).map(str::to_owned);
    let list = async |prefix: &str, after: Option<LockKey>, limit| {
        let list = cx.b.list(prefix, after.as_ref(), limit).await?;
        let names = list.iter().filter_map(|info| name_of(&info.key));
        Ok::<_, lockcore::BackendError>(names.collect::<Vec<_>>())
    };
    let all = below.as_str();
    for (what, prefix, after, limit, expected) in [
        ("all", all, None, usize::MAX, &names[..]),
        ("one", all, None, 1, &names[..1]),
        ("none", all, None, 0, &[]),
        ("a key is its own prefix", cx.key_with("/a").as_str(), None, 9, &names[..3]),
        ("behind one", all, Some(cx.key_with("/a")), 9, &names[1..]),
        ("behind what is not there", all, Some(cx.key_with("/aa")), 9, &names[2..]),
        ("behind the last", all, Some(cx.key_with("/b")), 9, &[]),
        ("behind all of them", all, Some(LockKey::new("\u{10ffff}")?), 9, &[]),
        ("before all of them", all, Some(LockKey::new("\u{1}")?), 9, &names[..]),
        ("longer than a key", &format!("{all}{}", "x".repeat(LockKey::MAX_LEN)), None, 9, &[]),
        ("with a NUL", &format!("{all}\0"), None, 9, &[]),
        ("a pattern", &format!("{all}*"), None, 9, &[]),
    ] {
        let seen = list(prefix, after, limit).await?;
        ensure!(seen == expected, "{what}: expected {expected:?}, saw {seen:?}");
    }
    // Without a prefix it is everybody's.
    let everything = cx.b.list("", Some(&below), usize::MAX).await?;
    let ours = everything.iter().filter(|info| info.key.as_str().starts_with(all)).count();
    ensure!(ours == names.len(), "{ours} of {} in the list of all", names.len());
    let sorted = everything.is_sorted_by(|one, next| one.key < next.key);
    ensure!(sorted, "the list of all is not in the order of its keys");
    Ok(())
}

async fn settings(cx: &Cx) -> Outcome {
    let builder = || cx.manager(cx.a.clone());
    let ttl = cx.hold_ttl();
    for (what, built) in [
        ("request_timeout 0", builder().request_timeout(Duration::ZERO).build()),
        ("request_timeout ttl", builder().request_timeout(ttl).build()),
        ("request_timeout MAX", builder().request_timeout(Duration::MAX).build()),
        ("renew_every 0", builder().renew_every(Duration::ZERO).build()),
        ("renew_every ttl", builder().renew_every(ttl).build()),
        ("renew_every MAX", builder().renew_every(Duration::MAX).build()),
        ("poll_every 0", builder().poll_every(Duration::ZERO).build()),
        ("max_hold 0", builder().max_hold(Duration::ZERO).build()),
    ] {
        let kind = built.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::InvalidInput), "{what}: {kind:?}");
    }
    // And with what is allowed the backend works.
    let locks = builder().retry_for(Duration::ZERO).max_hold(Duration::MAX).build()?;
    locks.lock(&cx.key)?.acquire().await?.release().await?;
    Ok(())
}

/// What is refused is refused here: over a dead wire it gets the same answer.
async fn nothing_is_sent(cx: &Cx) -> Outcome {
    // The key is taken: whatever got through would be answered "contended".
    let lease = cx.acquire(&cx.b, &cx.claim()).await?;
    let mut claim = cx.claim();
    for ttl in bad_ttls(cx) {
        claim.ttl = ttl;
        refused(cx.a.acquire(&claim).await, &format!("ttl {ttl:?} on a held key"))?;
    }
    let floor = cx.claim().with_min_token(u64::MAX);
    refused(cx.a.acquire(&floor).await, "a floor of u64::MAX on a held key")?;
    let seen = cx.sight().await?;
    ensure!(seen.as_ref().is_some_and(|info| cx.same_token(info.token, lease.token)), "{seen:?}");
    Ok(())
}

async fn extreme_waits_do_no_harm(cx: &Cx) -> Outcome {
    let locks = cx
        .manager(cx.a.clone())
        .poll_every(Duration::MAX)
        .retry_for(Duration::MAX)
        .max_hold(Duration::MAX)
        .build()?;
    let lock = locks.lock(&cx.key)?;
    lock.acquire_timeout(Duration::MAX).await?.release().await?;
    let holder = cx.claim();
    cx.acquire(&cx.b, &holder).await?;
    // Nothing but the lease's end can wake this waiter, if the store does not signal.
    let limit = Duration::MAX;
    lock.acquire_timeout(limit).await?.release().await?;
    let kind = lock.acquire_timeout(Duration::from_nanos(1)).await.err().map(|e| e.kind());
    ensure!(
        matches!(kind, None | Some(ErrorKind::Ambiguous | ErrorKind::Contended)),
        "a limit of a nanosecond: {kind:?}"
    );
    locks.drain().await;
    Ok(())
}
