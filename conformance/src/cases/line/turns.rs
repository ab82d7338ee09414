//! Whose turn it is.

use std::time::Duration;

use super::super::cases;
use super::{contention, gets_in, gets_in_within, held, long, short, waiter, waits_behind};
use crate::case::{Cx, Needs, Outcome, ensure};
use crate::harness::Fault;

cases! { "line";
    first_come_first_served: "W1 W3", Needs::Line;
    a_newcomer_waits_its_turn: "W3", Needs::Line;
    an_expiry_keeps_the_order: "W3", Needs::Line;
    a_grant_leaves_no_place: "W4", Needs::Line;
    a_grant_has_a_token_of_its_own: "W4 L5 L9", Needs::Line;
    renew_ignores_the_line: "L3 L4", Needs::Line;
    inspect_shows_no_place: "L10", Needs::Line;
    several_dead_cost_one_wait: "W2 W3", Needs::Line;
    a_late_ask_costs_one_wait: "W2 W6", Needs::Line;
    a_wiped_line_is_joined_again: "W1", Needs::LineAndFaults(&[Fault::Wipe]);
}

async fn first_come_first_served(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let [first, second, third] = [waiter(cx), waiter(cx), waiter(cx)];
    waits_behind(&cx.b, &first, 0, "the first").await?;
    waits_behind(&cx.a, &second, 1, "the second").await?;
    waits_behind(&cx.b, &third, 2, "the third").await?;
    cx.release(&cx.a, &holder).await?;
    // Whoever asks first after the release.
    waits_behind(&cx.b, &third, 2, "the third after the release").await?;
    waits_behind(&cx.a, &second, 1, "the second after the release").await?;
    let one = gets_in(&cx.b, &first, "the first").await?;
    cx.release(&cx.b, &first).await?;
    waits_behind(&cx.b, &third, 1, "the third after the first").await?;
    let two = gets_in(&cx.a, &second, "the second").await?;
    cx.release(&cx.a, &second).await?;
    let three = gets_in(&cx.b, &third, "the third").await?;
    let tokens = [one.token, two.token, three.token];
    ensure!(tokens.is_sorted() && tokens[0] < tokens[2], "tokens in the order {tokens:?}");
    Ok(())
}

/// A free key is not for whoever comes by, whether it waits or not.
async fn a_newcomer_waits_its_turn(cx: &Cx) -> Outcome {
    let (holder, first) = (held(cx).await?, waiter(cx));
    waits_behind(&cx.b, &first, 0, "the first").await?;
    cx.release(&cx.a, &holder).await?;
    let what = "a newcomer that does not wait";
    let answer = contention(&cx.a, &cx.claim(), what).await?;
    ensure!(answer.ahead.is_none(), "{what} has a place: {answer:?}");
    // What is left of the first one's place is when it is worth asking again.
    let left = answer.retry_after;
    ensure!(left.is_none_or(|left| left <= long(cx) + cx.slack()), "{what}: ask after {left:?}");
    waits_behind(&cx.a, &waiter(cx), 1, "a newcomer that waits").await?;
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

/// The same when the holder died: nobody runs when a lease ends, and the next to ask applies the
/// rule.
async fn an_expiry_keeps_the_order(cx: &Cx) -> Outcome {
    cx.acquire(&cx.a, &cx.claim()).await?;
    let (first, second) = (waiter(cx), waiter(cx));
    waits_behind(&cx.b, &first, 0, "the first").await?;
    waits_behind(&cx.b, &second, 1, "the second").await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    contention(&cx.a, &cx.claim(), "a newcomer after the expiry").await?;
    waits_behind(&cx.a, &second, 1, "the second after the expiry").await?;
    gets_in(&cx.b, &first, "the first").await?;
    cx.release(&cx.b, &first).await?;
    gets_in(&cx.b, &second, "the second").await?;
    Ok(())
}

async fn a_grant_leaves_no_place(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let [first, second, third] = [waiter(cx), waiter(cx), waiter(cx)];
    for _ in 0..3 {
        waits_behind(&cx.b, &first, 0, "the first").await?;
    }
    waits_behind(&cx.a, &second, 1, "the second").await?;
    cx.release(&cx.a, &holder).await?;
    let lease = gets_in(&cx.b, &first, "the first").await?;
    let again = gets_in(&cx.b, &first, "the first, asking again").await?;
    ensure!(again.token == lease.token, "granted {lease:?}, then {again:?}");
    waits_behind(&cx.a, &third, 1, "the third, behind the second alone").await?;
    cx.release(&cx.b, &first).await?;
    gets_in(&cx.a, &second, "the second").await?;
    Ok(())
}

/// Token and end are those of the grant, not those of when the place was taken.
async fn a_grant_has_a_token_of_its_own(cx: &Cx) -> Outcome {
    let (mut holder, first) = (cx.claim(), waiter(cx));
    holder.ttl = cx.long();
    let lease = cx.acquire(&cx.a, &holder).await?;
    waits_behind(&cx.b, &first, 0, "the first").await?;
    let raised = holder.clone().with_min_token(lease.token + 3_600_000_000);
    let raised = cx.renew(&cx.a, &raised).await?;
    tokio::time::sleep(cx.ttl / 4).await;
    cx.release(&cx.a, &holder).await?;
    let floor = raised.token + 5000;
    let lease = gets_in(&cx.b, &first.with_min_token(floor), "the first").await?;
    ensure!(lease.token == floor, "a floor of {floor} gave {} after {raised:?}", lease.token);
    let left = cx.sight().await?.map(|info| info.remaining).unwrap_or_default();
    ensure!(left + cx.slack() >= lease.ttl, "granted for {:?}, {left:?} are left", lease.ttl);
    Ok(())
}

/// Whoever waits has to wait for as long as the lease is renewed.
async fn renew_ignores_the_line(cx: &Cx) -> Outcome {
    let (holder, first) = (cx.claim(), waiter(cx));
    let lease = cx.acquire(&cx.a, &holder).await?;
    waits_behind(&cx.b, &first, 0, "the first").await?;
    for _ in 0..6 {
        tokio::time::sleep(cx.ttl / 4).await;
        let renewed = cx.renew(&cx.a, &holder).await?;
        ensure!(renewed.token == lease.token, "{lease:?} renewed to {renewed:?}");
        waits_behind(&cx.b, &first, 0, "the first").await?;
    }
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

async fn inspect_shows_no_place(cx: &Cx) -> Outcome {
    let (holder, first) = (held(cx).await?, waiter(cx));
    waits_behind(&cx.b, &first, 0, "the first").await?;
    let seen = cx.sight().await?.map(|info| info.holder);
    ensure!(seen == Some(holder.holder), "a held key with a line shows {seen:?}");
    cx.release(&cx.a, &holder).await?;
    let seen = cx.sight().await?;
    ensure!(seen.is_none(), "a free key with a line shows {seen:?}");
    let listed = cx.b.list(cx.key.as_str(), None, 10).await?;
    ensure!(listed.is_empty(), "a free key with a line is listed: {listed:?}");
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

/// Places end side by side, so a crowd that died holds the key up for no longer than one place.
async fn several_dead_cost_one_wait(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    for ahead in 0..5 {
        let dead = cx.claim().with_wait(Some(short(cx)));
        let contention = contention(&cx.a, &dead, "a holder that dies").await?;
        ensure!(contention.ahead.is_some(), "holder {ahead} has no place");
    }
    let last = waiter(cx);
    contention(&cx.b, &last, "the last").await?;
    cx.release(&cx.a, &holder).await?;
    let limit = short(cx) + cx.a.limits().expiry_lag + cx.slack();
    gets_in_within(cx, &cx.b, &last, limit, "behind five that died").await?;
    Ok(())
}

/// A copy of an ask that arrives after its holder's release takes a place that nobody uses.
async fn a_late_ask_costs_one_wait(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let late = cx.claim().with_wait(Some(short(cx)));
    waits_behind(&cx.a, &late, 0, "the one that gives up").await?;
    cx.release_place(&cx.a, &late).await?;
    contention(&cx.a, &late, "the late copy").await?;
    let next = waiter(cx);
    contention(&cx.b, &next, "the next").await?;
    cx.release(&cx.a, &holder).await?;
    let limit = short(cx) + cx.a.limits().expiry_lag + cx.slack();
    gets_in_within(cx, &cx.b, &next, limit, "behind a late copy").await?;
    Ok(())
}

/// A store that has lost its data has lost its lines: who asks again has a place again.
async fn a_wiped_line_is_joined_again(cx: &Cx) -> Outcome {
    held(cx).await?;
    let [first, second, third] = [waiter(cx), waiter(cx), cx.claim()];
    waits_behind(&cx.a, &first, 0, "the first").await?;
    waits_behind(&cx.b, &second, 1, "the second").await?;
    cx.inflict(Fault::Wipe).await?;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut longer = third.clone();
    longer.ttl = cx.long();
    gets_in(&cx.a, &longer, "a newcomer after the wipe").await?;
    waits_behind(&cx.a, &first, 0, "the first after the wipe").await?;
    waits_behind(&cx.b, &second, 1, "the second after the wipe").await?;
    cx.release(&cx.a, &third).await?;
    waits_behind(&cx.b, &second, 1, "the second after the release").await?;
    gets_in(&cx.a, &first, "the first").await?;
    Ok(())
}
