//! What those see who do not hold.

use lockcore::{Claim, ErrorKind, LockKey};
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Outcome, ensure};
use crate::faulty::Faulty;

cases! { "sight";
    inspect_shows_the_lease: "L10";
    inspect_shows_a_label_as_it_is: "L10";
    inspect_shows_nothing_when_free: "L10";
    inspect_ends_with_the_lease: "L10";
    inspect_shows_a_renewal: "L10";
    list_shows_what_stands: "L10";
    list_goes_page_by_page: "L10";
    list_takes_a_prefix_as_it_is: "L10";
    a_look_into_a_black_hole_ends: "L7";
}

async fn inspect_shows_the_lease(cx: &Cx) -> Outcome {
    let claim = cx.claim().with_label("host:42");
    let lease = cx.acquire(&cx.a, &claim).await?;
    for client in [&cx.a, &cx.b] {
        let info = client.inspect(&cx.key).await?;
        let right = info.as_ref().is_some_and(|info| {
            info.key == cx.key
                && info.holder == claim.holder
                && cx.same_token(info.token, lease.token)
                && info.label == "host:42"
                && !info.remaining.is_zero()
                && info.remaining <= lease.ttl
        });
        ensure!(right, "{lease:?} shows as {info:?}");
    }
    Ok(())
}

async fn inspect_shows_a_label_as_it_is(cx: &Cx) -> Outcome {
    let longest = "x".repeat(Claim::MAX_LABEL);
    let labels = ["", " ", "a|b|c", "|", "1|2", "{\"a\":1}", "'; --", "\u{1f512}\n\t%s", &longest];
    for (n, label) in labels.into_iter().enumerate() {
        let claim = cx.claim_on(&cx.key_with(&format!("/{n}"))).with_label(label);
        cx.acquire(&cx.a, &claim).await?;
        // A renewal must not touch it.
        cx.renew(&cx.a, &claim).await?;
        let seen = cx.b.inspect(&claim.key).await?.map(|info| info.label);
        ensure!(seen.as_deref() == Some(label), "{label:?} shows as {seen:?}");
    }
    Ok(())
}

async fn inspect_shows_nothing_when_free(cx: &Cx) -> Outcome {
    ensure!(cx.sight().await?.is_none(), "never taken, and in sight");
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    ensure!(cx.sight().await?.is_some(), "held, and out of sight");
    cx.release(&cx.a, &claim).await?;
    ensure!(cx.sight().await?.is_none(), "released, and in sight");
    Ok(())
}

async fn inspect_ends_with_the_lease(cx: &Cx) -> Outcome {
    let lease = cx.acquire(&cx.a, &cx.claim()).await?;
    tokio::time::sleep(lease.ttl + cx.a.limits().expiry_lag + cx.slack()).await;
    let sight = cx.sight().await?;
    ensure!(sight.is_none(), "expired, and in sight: {sight:?}");
    let list = cx.b.list(cx.key.as_str(), None, 10).await?;
    ensure!(list.is_empty(), "expired, and in the list: {list:?}");
    Ok(())
}

async fn inspect_shows_a_renewal(cx: &Cx) -> Outcome {
    let claim = cx.claim();
    cx.acquire(&cx.a, &claim).await?;
    let mut longer = claim.clone();
    longer.ttl = cx.long();
    cx.renew(&cx.a, &longer).await?;
    let left = cx.sight().await?.map(|info| info.remaining);
    ensure!(
        left.is_some_and(|left| left > cx.ttl && left <= longer.ttl + cx.ttl),
        "renewed for {:?}, {left:?} are left",
        longer.ttl
    );
    Ok(())
}

async fn list_shows_what_stands(cx: &Cx) -> Outcome {
    let (held, released) = (cx.claim_on(&cx.key_with("/held")), cx.claim_on(&cx.key_with("/gone")));
    let lease = cx.acquire(&cx.a, &held.clone().with_label("me")).await?;
    cx.acquire(&cx.a, &released).await?;
    cx.release(&cx.a, &released).await?;
    // Before and behind them in the order of keys, and not theirs.
    for other in [format!("!{}", cx.key), format!("~{}", cx.key)] {
        cx.acquire(&cx.a, &cx.claim_on(&LockKey::new(other)?)).await?;
    }
    let list = cx.b.list(cx.key.as_str(), None, 10).await?;
    let [info] = list.as_slice() else {
        return Err(crate::Failure::new(format!("expected one lease, saw {list:?}")));
    };
    let right = info.key == held.key
        && info.holder == held.holder
        && cx.same_token(info.token, lease.token)
        && info.label == "me"
        && info.remaining <= lease.ttl;
    ensure!(right, "{lease:?} is listed as {info:?}");
    Ok(())
}

async fn list_goes_page_by_page(cx: &Cx) -> Outcome {
    // Taken in an order that is not theirs.
    let mut names: Vec<String> = (0..23).map(|n| format!("/{:02}", (n * 7) % 23)).collect();
    let mut long = cx.claim();
    long.ttl = cx.long();
    for name in &names {
        long.key = cx.key_with(name);
        cx.acquire(&cx.a, &long).await?;
    }
    names.sort();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = cx.b.list(cx.key.as_str(), after.as_ref(), 5).await?;
        ensure!(page.len() <= 5, "asked for 5, got {}", page.len());
        let Some(last) = page.last() else { break };
        ensure!(seen.len() <= names.len(), "pages without end");
        after = Some(last.key.clone());
        seen.extend(page.into_iter().map(|info| info.key));
    }
    let expected: Vec<_> = names.iter().map(|name| cx.key_with(name)).collect();
    ensure!(seen == expected, "expected {expected:?}, saw {seen:?}");
    let none = cx.b.list(cx.key.as_str(), None, 0).await?;
    ensure!(none.is_empty(), "asked for none, got {none:?}");
    Ok(())
}

/// A prefix is bytes, not a pattern.
async fn list_takes_a_prefix_as_it_is(cx: &Cx) -> Outcome {
    let names = ["/*", "/a*b", "/axb", "/?", "/[ab]", "/a", "/\\", "/%", "/_", "/{", "/}"];
    for name in names {
        let mut long = cx.claim_on(&cx.key_with(name));
        long.ttl = cx.long();
        cx.acquire(&cx.a, &long).await?;
    }
    for name in names {
        let prefix = cx.key_with(name);
        let list = cx.b.list(prefix.as_str(), None, 100).await?;
        let mut expected: Vec<_> = names
            .iter()
            .map(|other| cx.key_with(other))
            .filter(|key| key.as_str().starts_with(prefix.as_str()))
            .collect();
        expected.sort();
        let seen: Vec<_> = list.into_iter().map(|info| info.key).collect();
        ensure!(seen == expected, "{name}: expected {expected:?}, saw {seen:?}");
    }
    Ok(())
}

async fn a_look_into_a_black_hole_ends(cx: &Cx) -> Outcome {
    let store = Faulty::new(cx.a.clone());
    let retry_for = cx.hold_ttl() / 3;
    let locks = cx.manager(store.clone()).retry_for(retry_for).build()?;
    let guard = locks.lock(&cx.key)?.acquire().await?;
    store.cut(true);
    let asked = Instant::now();
    let inspected = locks.inspect(&cx.key).await.err().map(|error| error.kind());
    ensure!(inspected == Some(ErrorKind::Unavailable), "inspect: {inspected:?}");
    let listed = locks.list(cx.key.as_str(), None, 1).await.err().map(|error| error.kind());
    ensure!(listed == Some(ErrorKind::Unavailable), "list: {listed:?}");
    let after = asked.elapsed();
    ensure!(after <= cx.hold_ttl() / 6 + retry_for + cx.slack(), "after {after:?}");
    store.cut(false);
    let seen = locks.list(cx.key.as_str(), None, 1).await?;
    ensure!(seen.len() == 1 && seen[0].holder == guard.holder(), "afterwards: {seen:?}");
    guard.release().await?;
    Ok(())
}
