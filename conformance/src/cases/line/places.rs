//! A place in the line: how one gets it, keeps it and loses it.

use std::time::Duration;

use lockcore::{Acquire, HandOver};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::cases;
use super::{contention, gets_in, held, long, short, waiter, waits_behind};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches, refused};

cases! { "line";
    asking_again_keeps_the_place: "W2", Needs::Line;
    an_older_ask_shortens_no_place: "W2", Needs::Line;
    a_place_ends: "W2", Needs::Line;
    a_release_leaves_the_line: "W6", Needs::Line;
    contended_without_wait_leaves_nothing: "W7", Needs::Line;
    asking_without_wait_leaves_the_line: "W7", Needs::Line;
    a_full_line_still_answers: "W11", Needs::Line;
    a_wait_beyond_the_limit_is_refused: "W11", Needs::Line;
}

/// More places than a line may have.
const MANY: usize = 1100;

/// The position stays, and the end moves.
async fn asking_again_keeps_the_place(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let place = cx.hold_ttl().min(cx.a.limits().max_wait);
    let (first, second) = (cx.claim().with_wait(Some(place)), waiter(cx));
    waits_behind(&cx.a, &first, 0, "the first").await?;
    waits_behind(&cx.b, &second, 1, "the second").await?;
    let asked = Instant::now();
    while asked.elapsed() < place * 2 {
        tokio::time::sleep(place / 3).await;
        waits_behind(&cx.b, &first, 0, "the first, asking again").await?;
    }
    waits_behind(&cx.b, &second, 1, "the second, after the first asked again").await?;
    waits_behind(&cx.b, &waiter(cx), 2, "a third").await?;
    cx.release(&cx.a, &holder).await?;
    waits_behind(&cx.b, &second, 1, "the second, after the release").await?;
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

/// A copy of an earlier ask may come late, and ask for less.
async fn an_older_ask_shortens_no_place(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let (first, second) = (waiter(cx), waiter(cx));
    waits_behind(&cx.a, &first, 0, "the first").await?;
    let older = first.clone().with_wait(Some(short(cx) / 4));
    waits_behind(&cx.b, &older, 0, "the older ask").await?;
    tokio::time::sleep(short(cx) / 4 + cx.a.limits().expiry_lag + cx.slack()).await;
    waits_behind(&cx.b, &second, 1, "the second, behind a place that was not shortened").await?;
    cx.release(&cx.a, &holder).await?;
    waits_behind(&cx.b, &second, 1, "the second, after the release").await?;
    gets_in(&cx.a, &first, "the first").await?;
    Ok(())
}

/// Who does not ask again loses its place, and joins the tail when it comes back.
async fn a_place_ends(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let (first, second) = (cx.claim().with_wait(Some(short(cx))), waiter(cx));
    let asked = Instant::now();
    waits_behind(&cx.a, &first, 0, "the first").await?;
    waits_behind(&cx.b, &second, 1, "the second").await?;
    let limit = short(cx) + cx.a.limits().expiry_lag + cx.slack();
    loop {
        let now = asked.elapsed();
        let ahead = contention(&cx.b, &second, "the second").await?.ahead;
        if ahead == Some(0) {
            ensure!(asked.elapsed() >= short(cx), "a place of {:?} ended after {now:?}", short(cx));
            break;
        }
        ensure!(ahead == Some(1), "the second: {ahead:?} places ahead");
        ensure!(now <= limit, "a place of {:?} stands after {now:?}", short(cx));
        cx.look_again(Duration::from_millis(5)).await;
    }
    waits_behind(&cx.a, &first.with_wait(Some(long(cx))), 1, "who comes back").await?;
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.b, &second, "the second").await?;
    Ok(())
}

/// One who gives up holds up nobody.
async fn a_release_leaves_the_line(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let (first, second) = (waiter(cx), waiter(cx));
    for _ in 0..3 {
        waits_behind(&cx.a, &first, 0, "the first").await?;
    }
    waits_behind(&cx.b, &second, 1, "the second").await?;
    cx.release_place(&cx.a, &first).await?;
    waits_behind(&cx.b, &second, 0, "the second, after the first has left").await?;
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.b, &second, "the second").await?;
    Ok(())
}

async fn contended_without_wait_leaves_nothing(cx: &Cx) -> Outcome {
    let (holder, passer) = (held(cx).await?, cx.claim());
    let answer = contention(&cx.a, &passer, "one that does not wait").await?;
    ensure!(answer.ahead.is_none(), "one that does not wait has a place: {answer:?}");
    let first = waiter(cx);
    waits_behind(&cx.b, &first, 0, "the first that waits").await?;
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.b, &first, "the first that waits").await?;
    Ok(())
}

/// A holder that has a place, and then asks without waiting, gives the place up.
async fn asking_without_wait_leaves_the_line(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let (first, second) = (waiter(cx), waiter(cx));
    waits_behind(&cx.a, &first, 0, "the first").await?;
    waits_behind(&cx.b, &second, 1, "the second").await?;
    let answer = contention(&cx.a, &first.with_wait(None), "the first, not waiting").await?;
    ensure!(answer.ahead.is_none(), "the first does not wait any more, and has {answer:?}");
    waits_behind(&cx.b, &second, 0, "the second, after the first has left").await?;
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.b, &second, "the second").await?;
    Ok(())
}

/// A line has an end, and beyond it the answer is contended without a place.
async fn a_full_line_still_answers(cx: &Cx) -> Outcome {
    let (holder, first) = (held(cx).await?, waiter(cx));
    waits_behind(&cx.b, &first, 0, "the first").await?;
    let mut tasks = JoinSet::new();
    let (mut places, mut without) = (1, 0);
    for n in 0..MANY {
        let client = if n % 2 == 0 { cx.a.clone() } else { cx.b.clone() };
        let claim = waiter(cx);
        tasks.spawn(async move { client.acquire(&claim).await });
        while tasks.len() >= 32 || n + 1 == MANY && !tasks.is_empty() {
            let Some(answer) = tasks.join_next().await else { break };
            match answer?? {
                Acquire::Contended(contention) if contention.ahead.is_some() => places += 1,
                Acquire::Contended(_) => without += 1,
                Acquire::Acquired(lease) => {
                    return Err(Failure::new(format!("a held key was granted: {lease:?}")));
                }
            }
        }
    }
    cx.note(format!("{places} places"));
    ensure!(without > 0, "a line of {places} places is not full");
    ensure!(places >= 64, "a line is full with {places} places");
    // Those that have a place keep it.
    waits_behind(&cx.b, &first, 0, "the first").await?;
    cx.release(&cx.a, &holder).await?;
    contention(&cx.a, &waiter(cx), "a newcomer at a full line").await?;
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

async fn a_wait_beyond_the_limit_is_refused(cx: &Cx) -> Outcome {
    let most = cx.a.limits().max_wait;
    let held = held(cx).await?;
    let longest = cx.claim().with_wait(Some(most));
    waits_behind(&cx.a, &longest, 0, "the longest wait").await?;
    cx.release_place(&cx.a, &longest).await?;
    let longer = cx.claim().with_wait(Some(most + Duration::from_millis(1)));
    refused(cx.a.acquire(&longer).await, "acquire with a longer wait")?;
    refused(cx.a.watch(&longer).await, "watch with a longer wait")?;
    refused(cx.a.hand_over(&held, &longer, true).await, "hand over with a longer wait")?;
    let to = cx.claim();
    ensure_matches!(cx.a.hand_over(&held, &to, true).await?, HandOver::Granted(_), "hand over");
    Ok(())
}
