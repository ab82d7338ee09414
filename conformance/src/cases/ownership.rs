//! Whose a key is.

use lockcore::{Acquire, LockKey, Release, Renew};

use super::cases;
use crate::case::{Cx, Outcome, ensure, ensure_matches};

cases! { "ownership";
    one_holder: "L1";
    one_holder_in_one_client: "L1";
    release_frees_the_key: "L1";
    release_needs_the_holder: "L4";
    release_matches_the_holder_not_the_token: "L4";
    release_twice: "L6";
    release_of_a_free_key: "L6";
    renew_needs_the_holder: "L4";
    renew_of_a_free_key: "L4";
    renew_after_release: "L4";
    stale_holder_leaves_the_next_alone: "L4";
    any_client_serves_the_holder: "L4";
    keys_do_not_meet: "L1";
}

async fn one_holder(cx: &Cx) -> Outcome {
    let first = cx.claim();
    let lease = cx.acquire(&cx.a, &first).await?;
    cx.contend(&cx.b, &cx.claim()).await?;
    cx.stands(&first, &lease).await
}

/// Who shares a client does not share a lock: a lock is not re-entrant.
async fn one_holder_in_one_client(cx: &Cx) -> Outcome {
    let first = cx.claim();
    let lease = cx.acquire(&cx.a, &first).await?;
    cx.contend(&cx.a, &cx.claim()).await?;
    cx.stands(&first, &lease).await
}

async fn release_frees_the_key(cx: &Cx) -> Outcome {
    let first = cx.claim();
    cx.acquire(&cx.a, &first).await?;
    cx.release(&cx.a, &first).await?;
    let second = cx.claim();
    let lease = cx.acquire(&cx.b, &second).await?;
    cx.stands(&second, &lease).await
}

async fn release_needs_the_holder(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    let lease = cx.acquire(&cx.a, &holder).await?;
    for client in [&cx.a, &cx.b] {
        let answer = client.release(&cx.claim()).await?;
        ensure_matches!(answer, Release::NotHeld, "release by another");
        cx.stands(&holder, &lease).await?;
    }
    Ok(())
}

async fn release_matches_the_holder_not_the_token(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    let lease = cx.acquire(&cx.a, &holder).await?;
    let raised = holder.clone().with_min_token(lease.token + 1000);
    cx.renew(&cx.a, &raised).await?;
    // The holder may not have heard of its new token: the answer can be lost.
    cx.renew(&cx.a, &holder).await?;
    cx.release(&cx.a, &holder).await?;
    ensure!(cx.sight().await?.is_none(), "released, and still in sight");
    Ok(())
}

async fn release_twice(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    cx.acquire(&cx.a, &holder).await?;
    cx.release(&cx.a, &holder).await?;
    for client in [&cx.a, &cx.b] {
        ensure_matches!(client.release(&holder).await?, Release::NotHeld, "the second release");
    }
    Ok(())
}

async fn release_of_a_free_key(cx: &Cx) -> Outcome {
    let nobody = cx.claim();
    ensure_matches!(cx.a.release(&nobody).await?, Release::NotHeld, "release of a free key");
    cx.acquire(&cx.b, &cx.claim()).await?;
    Ok(())
}

async fn renew_needs_the_holder(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    let lease = cx.acquire(&cx.a, &holder).await?;
    for client in [&cx.a, &cx.b] {
        let mut other = cx.claim().with_min_token(lease.token + 1000);
        other.ttl = cx.long();
        ensure_matches!(client.renew(&other).await?, Renew::NotHeld, "renew by another");
        cx.stands_as_long(&holder, &lease).await?;
    }
    Ok(())
}

async fn renew_of_a_free_key(cx: &Cx) -> Outcome {
    ensure_matches!(cx.a.renew(&cx.claim()).await?, Renew::NotHeld, "renew of a free key");
    ensure!(cx.sight().await?.is_none(), "renew created a lease");
    Ok(())
}

async fn renew_after_release(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    cx.acquire(&cx.a, &holder).await?;
    cx.release(&cx.a, &holder).await?;
    ensure_matches!(cx.a.renew(&holder).await?, Renew::NotHeld, "renew after release");
    ensure!(cx.sight().await?.is_none(), "renew brought a released lease back");
    Ok(())
}

/// The classic accident: A is late, B has the key, and A's release or renewal must not touch it.
async fn stale_holder_leaves_the_next_alone(cx: &Cx) -> Outcome {
    let stale = cx.claim();
    cx.acquire(&cx.a, &stale).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    let next = cx.claim();
    let lease = cx.acquire(&cx.b, &next).await?;
    ensure_matches!(cx.a.renew(&stale).await?, Renew::NotHeld, "renew by a stale holder");
    ensure_matches!(cx.a.release(&stale).await?, Release::NotHeld, "release by a stale holder");
    let answer = cx.a.acquire(&stale).await;
    if !cx.is_given_up(&answer) {
        ensure_matches!(answer?, Acquire::Contended(_), "asking again by a stale holder");
    }
    cx.stands(&next, &lease).await
}

/// The holder is known by its identity, not by its connection.
async fn any_client_serves_the_holder(cx: &Cx) -> Outcome {
    let holder = cx.claim();
    let lease = cx.acquire(&cx.a, &holder).await?;
    let again = cx.acquire(&cx.b, &holder).await?;
    ensure!(
        cx.same_token(again.token, lease.token),
        "asked again through another client: {again:?}"
    );
    cx.renew(&cx.b, &holder).await?;
    cx.release(&cx.b, &holder).await
}

/// Keys are equal if all their bytes are, and only then.
async fn keys_do_not_meet(cx: &Cx) -> Outcome {
    let suffixes = [
        "",
        "/",
        "/a",
        "/A",
        "a",
        "a ",
        " a",
        ":lease",
        ":token",
        ":released",
        "{}",
        "{a}",
        "}",
        "{",
        "%7B",
        "%7D",
        "%",
        "%25",
        "\u{e9}",
        "e\u{301}",
        "\n",
        "*",
        "?",
        "[a]",
        "\\",
        "'",
        "\"",
        ";--",
        "|",
        "|1",
        "\u{1f512}",
        // A prefix of one is another, in both orders.
        "/a/b",
        "/ab",
        "//",
        // The names of a store's own records.
        ":released:lease",
        "/lease/",
        "/lease",
        "/token",
        ":born",
        "/base/0",
        // Control characters and such as are not seen.
        "\t",
        "\r\n",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{200b}",
        "\u{202e}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        // Of SQL, Lua, shells, globs, regular expressions and formats.
        "' OR '1'='1",
        "$1",
        "$$",
        "--",
        "/*",
        "]]",
        "${x}",
        "`id`",
        "#",
        "^.*$",
        "[a-z]",
        "_",
        "%s",
        "\\n",
        "\\\\",
        "\\%",
        "+",
        "?a=b&c",
        // In scripts that fold case in other ways.
        "\u{df}",
        "ss",
        "\u{130}",
        "i",
        "I",
    ];
    let mut held = Vec::new();
    let keys = suffixes.iter().map(|suffix| cx.key_with(suffix));
    // And what comes before it.
    let fronts = [" ", "/", "{a}", "%", "\\", "\u{feff}", "lease:"];
    let others = fronts.iter().map(|front| LockKey::new(format!("{front}{}", cx.key)));
    for key in keys.map(Ok).chain(others) {
        let mut claim = cx.claim_on(&key?);
        // None of them must end before all are looked at.
        claim.ttl = cx.long();
        let lease = cx.acquire(&cx.a, &claim).await?;
        held.push((claim, lease));
    }
    for (claim, lease) in &held {
        let info = cx.b.inspect(&claim.key).await?;
        let right = info.as_ref().is_some_and(|info| {
            info.key == claim.key
                && info.holder == claim.holder
                && cx.same_token(info.token, lease.token)
        });
        ensure!(right, "{:?} shows {info:?}", claim.key);
    }
    for (claim, _) in &held {
        cx.release(&cx.b, claim).await?;
    }
    Ok(())
}
