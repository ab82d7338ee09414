//! Handing a lock over: the lease of one holder ends, and another holder has the key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{
    Acquire, BackendError, Claim, HandOver, Lease, LockBackend, LockKey, Release, Renew,
};
use tokio::task::JoinSet;

use super::cases;
use super::line::{gets_in, held, waiter, waits_behind};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};
use crate::faulty::{Faulty, Mishap, Verb};

cases! { "hand_over";
    has_a_greater_token: "W9 L5";
    needs_a_lease: "W9 L4";
    of_an_expired_lease: "W9 L4";
    arrives_after_the_release: "W9 L6";
    is_one_step: "W9 L1", Needs::Line;
    repeated_is_one: "W9 L2", Needs::Line;
    carries_the_other_claim: "W9 L9", Needs::Line;
    a_lost_reply_is_settled: "W10", Needs::Line;
    yields_when_over: "W9", Needs::Line;
    keeps_within_the_burst: "W9", Needs::Line;
    joins_the_tail: "W9 W7", Needs::Line;
    leaves_no_place: "W4", Needs::Line;
    a_burst_costs_a_call_each: "W9", Needs::Line;
}

/// Hands over, and fails the case unless that worked. A store without lines has no step for it,
/// and a combination may find that its release is not everywhere yet.
async fn granted(cx: &Cx, from: &Claim, to: &Claim, over: bool) -> Result<Lease, Failure> {
    match cx.a.hand_over(from, to, over).await? {
        HandOver::Granted(lease) => Ok(lease),
        HandOver::Yielded(_) if !cx.a.limits().has_line() => {
            cx.until_acquired(&cx.a, cx.slack()).await.map(|(_, lease)| lease)
        }
        other => Err(Failure::new(format!("a hand-over of a lease that stands: {other:?}"))),
    }
}

async fn has_a_greater_token(cx: &Cx) -> Outcome {
    let mut from = held(cx).await?;
    let mut last = cx.sight().await?.map_or(0, |info| info.token);
    for _ in 0..5 {
        let mut to = cx.claim();
        to.ttl = cx.long();
        let lease = granted(cx, &from, &to, false).await?;
        ensure!(lease.token > last, "{} after {last}", lease.token);
        if cx.a.limits().has_line() {
            cx.stands(&to, &lease).await?;
        }
        ensure_matches!(cx.b.renew(&from).await?, Renew::NotHeld, "renew by who handed over");
        ensure_matches!(cx.b.release(&from).await?, Release::NotHeld, "release by who handed over");
        if cx.sight().await?.is_none_or(|info| info.holder != to.holder) {
            // It was granted to another holder of this case.
            return Ok(());
        }
        (from, last) = (to, lease.token);
    }
    Ok(())
}

/// Who has nothing hands nothing over, and changes nothing.
async fn needs_a_lease(cx: &Cx) -> Outcome {
    let answer = cx.a.hand_over(&cx.claim(), &cx.claim(), false).await?;
    ensure_matches!(answer, HandOver::NotHeld, "a hand-over of a free key");
    ensure!(cx.sight().await?.is_none(), "a hand-over took a free key");
    let holder = held(cx).await?;
    let sight = cx.sight().await?;
    let lease = Lease::new(sight.as_ref().map_or(0, |info| info.token), cx.long());
    for over in [false, true] {
        let answer = cx.b.hand_over(&cx.claim(), &cx.claim(), over).await?;
        ensure_matches!(answer, HandOver::NotHeld, "a hand-over of another's key");
        cx.stands_as_long(&holder, &lease).await?;
    }
    Ok(())
}

async fn of_an_expired_lease(cx: &Cx) -> Outcome {
    let from = cx.claim();
    cx.acquire(&cx.a, &from).await?;
    cx.until_free(cx.ttl + cx.a.limits().expiry_lag + cx.slack()).await?;
    let answer = cx.a.hand_over(&from, &cx.claim(), false).await?;
    ensure_matches!(answer, HandOver::NotHeld, "a hand-over of a lease that has ended");
    ensure!(cx.sight().await?.is_none(), "a lease that had ended was handed over");
    Ok(())
}

/// A late copy would otherwise leave a lease to nobody.
async fn arrives_after_the_release(cx: &Cx) -> Outcome {
    let from = held(cx).await?;
    cx.release(&cx.a, &from).await?;
    let answer = cx.a.hand_over(&from, &cx.claim(), false).await?;
    ensure_matches!(answer, HandOver::NotHeld, "a hand-over after the release");
    ensure!(cx.sight().await?.is_none(), "a hand-over after the release took the key");
    let other = held(cx).await?;
    let answer = cx.a.hand_over(&from, &cx.claim(), true).await?;
    ensure_matches!(answer, HandOver::NotHeld, "a hand-over after the release");
    let seen = cx.sight().await?.map(|info| info.holder);
    ensure!(seen == Some(other.holder), "{:?} held the key, and now {seen:?}", other.holder);
    Ok(())
}

/// Asks for a key without a pause, until it is told to stop; how often it was granted.
async fn asks_all_the_time(
    client: Arc<dyn LockBackend>,
    key: LockKey,
    ttl: Duration,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> Result<usize, BackendError> {
    let mut granted = 0;
    while !stop.load(Ordering::Relaxed) {
        let claim = Claim::new(key.clone(), lockcore::HolderId::random(), ttl);
        let answer = client.acquire(&claim).await?;
        asked.fetch_add(1, Ordering::Relaxed);
        granted += usize::from(matches!(answer, Acquire::Acquired(_)));
        tokio::task::yield_now().await;
    }
    Ok(granted)
}

/// Nobody gets in between.
async fn is_one_step(cx: &Cx) -> Outcome {
    let mut from = held(cx).await?;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut others = JoinSet::new();
    for client in [&cx.b, &cx.a, &cx.b] {
        let (client, key) = (client.clone(), cx.key.clone());
        others.spawn(asks_all_the_time(client, key, cx.ttl, stop.clone(), asked.clone()));
    }
    for _ in 0..50 {
        let mut to = cx.claim();
        to.ttl = cx.long();
        let answer = cx.a.hand_over(&from, &to, false).await?;
        ensure_matches!(answer, HandOver::Granted(_), "a hand-over among those that ask");
        tokio::task::yield_now().await;
        from = to;
    }
    stop.store(true, Ordering::Relaxed);
    let mut granted = 0;
    while let Some(ended) = others.join_next().await {
        granted += ended??;
    }
    ensure!(granted == 0, "others were granted the key {granted} times while it was handed over");
    ensure!(asked.load(Ordering::Relaxed) > 0, "nobody asked meanwhile");
    Ok(())
}

async fn repeated_is_one(cx: &Cx) -> Outcome {
    let (from, to) = (held(cx).await?, cx.claim());
    let first = granted(cx, &from, &to, false).await?;
    tokio::time::sleep(cx.ttl / 2).await;
    for over in [false, true] {
        let again = granted(cx, &from, &to, over).await?;
        ensure!(again.token == first.token, "{first:?}, and again {again:?}");
    }
    // It is granted again, so it lasts for the whole ttl from then on.
    tokio::time::sleep(cx.ttl.mul_f64(0.75)).await;
    if cx.exact() {
        cx.stands(&to, &first).await?;
    }
    cx.b.release(&to).await?;
    let answer = cx.a.hand_over(&from, &to, false).await?;
    ensure_matches!(answer, HandOver::NotHeld, "a copy that arrives after the release");
    ensure!(cx.sight().await?.is_none(), "a copy that arrived after the release took the key");
    Ok(())
}

/// What is granted is what the other holder has claimed.
async fn carries_the_other_claim(cx: &Cx) -> Outcome {
    let from = held(cx).await?;
    let before = cx.sight().await?.map_or(0, |info| info.token);
    let floor = before + 3_600_000_000;
    let mut to = cx.claim().with_min_token(floor).with_label("the other");
    to.ttl = cx.long() / 2;
    let lease = granted(cx, &from, &to, false).await?;
    ensure!(lease.token == floor, "a floor of {floor} gave {}", lease.token);
    let seen = cx.sight().await?;
    let right = seen.as_ref().is_some_and(|info| {
        info.label == "the other" && info.token == floor && info.remaining <= to.ttl + cx.slack()
    });
    ensure!(right, "handed over to {to:?}, and in sight {seen:?}");
    Ok(())
}

/// Whether it was done or not: release the one until that is answered, then ask for the other.
async fn a_lost_reply_is_settled(cx: &Cx) -> Outcome {
    for mishap in [Mishap::Reset, Mishap::LoseRequest] {
        for undo in [false, true] {
            let (from, to) = (held(cx).await?, waiter(cx));
            let before = cx.sight().await?.map_or(0, |info| info.token);
            let store = Faulty::new(cx.a.clone());
            store.next(Verb::HandOver, mishap);
            let limit = Duration::from_millis(300);
            let answer = tokio::time::timeout(limit, store.hand_over(&from, &to, true)).await;
            ensure_matches!(answer, Err(_) | Ok(Err(BackendError::Ambiguous(_))), "{mishap:?}");
            let released = cx.a.release(&from).await?;
            cx.note(format!("{mishap:?}: {released:?}"));
            if undo {
                cx.a.release(&to).await?;
            } else {
                let lease = gets_in(&cx.a, &to, "the other holder").await?;
                ensure!(lease.token > before, "{} after {before}", lease.token);
                cx.release(&cx.a, &to).await?;
            }
            ensure!(cx.sight().await?.is_none(), "{mishap:?}: settled, and in sight");
            let next = cx.claim();
            gets_in(&cx.b, &next, "a newcomer").await?;
            cx.release(&cx.b, &next).await?;
        }
    }
    Ok(())
}

/// Once the burst is over, whoever has a place goes first.
async fn yields_when_over(cx: &Cx) -> Outcome {
    // Nobody is in line, or only the holder that is to have it.
    let (mut from, mut to) = (held(cx).await?, waiter(cx));
    to.ttl = cx.long();
    granted(cx, &from, &to, true).await?;
    (from, to) = (to, waiter(cx));
    to.ttl = cx.long();
    waits_behind(&cx.a, &to, 0, "the holder that is to have it").await?;
    granted(cx, &from, &to, true).await?;
    (from, to) = (to, waiter(cx));
    // Somebody else is.
    let other = waiter(cx);
    waits_behind(&cx.b, &other, 0, "another process").await?;
    let answer = cx.a.hand_over(&from, &to, true).await?;
    let HandOver::Yielded(contention) = answer else {
        return Err(Failure::new(format!("a hand-over past somebody in line: {answer:?}")));
    };
    ensure!(contention.ahead == Some(1), "it is behind the other: {contention:?}");
    ensure!(cx.sight().await?.is_none(), "it yielded, and the key is held");
    let again = cx.b.release(&from).await?;
    ensure_matches!(again, Release::NotHeld, "release by the holder that yielded");
    waits_behind(&cx.a, &to, 1, "the holder that is to have it later").await?;
    gets_in(&cx.b, &other, "another process").await?;
    cx.release(&cx.b, &other).await?;
    gets_in(&cx.a, &to, "the holder that was to have it").await?;
    Ok(())
}

async fn keeps_within_the_burst(cx: &Cx) -> Outcome {
    let (mut from, other) = (held(cx).await?, waiter(cx));
    waits_behind(&cx.b, &other, 0, "another process").await?;
    for _ in 0..3 {
        let mut to = waiter(cx);
        to.ttl = cx.long();
        granted(cx, &from, &to, false).await?;
        waits_behind(&cx.b, &other, 0, "another process, during the burst").await?;
        from = to;
    }
    cx.release(&cx.a, &from).await?;
    gets_in(&cx.b, &other, "another process").await?;
    Ok(())
}

/// Who has had the key is behind all others; without waiting it is nowhere.
async fn joins_the_tail(cx: &Cx) -> Outcome {
    for waits in [true, false] {
        let from = held(cx).await?;
        let [first, second, third] = [waiter(cx), waiter(cx), waiter(cx)];
        let to = if waits { waiter(cx) } else { cx.claim() };
        waits_behind(&cx.b, &first, 0, "the first").await?;
        waits_behind(&cx.a, &second, 1, "the second").await?;
        let answer = cx.a.hand_over(&from, &to, true).await?;
        let HandOver::Yielded(contention) = answer else {
            return Err(Failure::new(format!("a hand-over past two in line: {answer:?}")));
        };
        let expected = waits.then_some(2);
        ensure!(contention.ahead == expected, "{contention:?}, expected {expected:?} ahead");
        let behind = if waits { 3 } else { 2 };
        waits_behind(&cx.b, &third, behind, "the third").await?;
        gets_in(&cx.b, &first, "the first").await?;
        cx.release(&cx.b, &first).await?;
        gets_in(&cx.a, &second, "the second").await?;
        cx.release(&cx.a, &second).await?;
        if waits {
            gets_in(&cx.a, &to, "who handed over").await?;
            cx.release(&cx.a, &to).await?;
        }
        gets_in(&cx.b, &third, "the third").await?;
        cx.release(&cx.b, &third).await?;
    }
    Ok(())
}

/// The place of the holder that has the key now is gone.
async fn leaves_no_place(cx: &Cx) -> Outcome {
    let (from, to, other) = (held(cx).await?, waiter(cx), waiter(cx));
    waits_behind(&cx.a, &to, 0, "the holder that is to have it").await?;
    waits_behind(&cx.b, &other, 1, "another process").await?;
    granted(cx, &from, &to, false).await?;
    waits_behind(&cx.b, &other, 0, "another process, after the hand-over").await?;
    cx.release(&cx.a, &to).await?;
    gets_in(&cx.b, &other, "another process").await?;
    Ok(())
}

/// Fifty tasks of a process have the key one after the other, at a call each.
async fn a_burst_costs_a_call_each(cx: &Cx) -> Outcome {
    const WORKERS: usize = 50;
    let store = Faulty::new(cx.a.clone());
    store.pace();
    let locks = cx.manager(store.clone()).build()?;
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let lock = locks.lock(&cx.key)?;
        tasks.spawn(async move { lock.acquire().await?.release().await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let verbs = [Verb::Acquire, Verb::Release, Verb::HandOver].map(|verb| store.calls(verb));
    let calls: usize = verbs.iter().sum();
    cx.note(format!("{WORKERS} workers: {calls} calls"));
    ensure!(calls <= WORKERS + WORKERS / 10, "{WORKERS} workers: {verbs:?} calls");
    Ok(())
}
