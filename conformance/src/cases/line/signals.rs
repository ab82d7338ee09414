//! Who is told that it may be its turn.

use std::time::Duration;

use lockcore::{Claim, HandOver, LockBackend, ReleaseSignal};

use super::super::cases;
use super::{contention, gets_in, held, waiter, waits_behind};
use crate::case::{Cx, Failure, Needs, Outcome, ensure, ensure_matches};

cases! { "line";
    only_the_first_is_signalled: "W6", Needs::LineAndSignals;
    a_turn_signal_is_armed_when_returned: "W6 watch", Needs::LineAndSignals;
    leaving_signals_the_next: "W6", Needs::LineAndSignals;
    a_hand_over_that_yields_signals_the_first: "W9", Needs::LineAndSignals;
    announcements_reach_watchers: "watch", Needs::LineAndSignals;
    a_gone_listener_is_passed_over_and_comes_back: "W8", Needs::LineAndSignals;
    a_poller_is_not_taken_for_gone: "W8", Needs::LineAndSignals;
}

/// How long a signal may take to come.
const SOON: Duration = Duration::from_secs(10);

/// How long to listen for a signal that should not come.
const QUIET: Duration = Duration::from_millis(300);

/// Joins the line and listens, as the core does: it asks, arms its signal, and asks again.
async fn listens(
    backend: &impl LockBackend,
    claim: &Claim,
    ahead: u32,
    what: &str,
) -> Result<ReleaseSignal, Failure> {
    waits_behind(backend, claim, ahead, what).await?;
    let signal = backend.watch(claim).await?;
    waits_behind(backend, claim, ahead, what).await?;
    Ok(signal)
}

async fn is_told(signal: ReleaseSignal, what: &str) -> Outcome {
    let told = tokio::time::timeout(SOON, signal).await.is_ok();
    ensure!(told, "{what} was not signalled");
    Ok(())
}

/// A crowd that waits costs no more than one that waits.
async fn only_the_first_is_signalled(cx: &Cx) -> Outcome {
    const ROUNDS: usize = 4;
    let mut for_nothing = 0;
    for round in 0..ROUNDS {
        let holder = held(cx).await?;
        let (first, second) = (waiter(cx), waiter(cx));
        let told = listens(&cx.b, &first, 0, "the first").await?;
        let mut not_told = listens(&cx.a, &second, 1, "the second").await?;
        cx.release(&cx.a, &holder).await?;
        is_told(told, "the first in line").await?;
        if tokio::time::timeout(QUIET, &mut not_told).await.is_ok() {
            for_nothing += 1;
            not_told = cx.a.watch(&second).await?;
            waits_behind(&cx.a, &second, 1, "the second, signalled for nothing").await?;
        }
        gets_in(&cx.b, &first, "the first").await?;
        // Its own turn comes with the next release.
        cx.release(&cx.b, &first).await?;
        is_told(not_told, &format!("round {round}: the second, when it was first,")).await?;
        gets_in(&cx.a, &second, "the second").await?;
        cx.release(&cx.a, &second).await?;
    }
    // It may be signalled for nothing now and then.
    let most = if cx.exact() { 0 } else { ROUNDS / 2 };
    ensure!(for_nothing <= most, "the second was signalled {for_nothing} times of {ROUNDS}");
    Ok(())
}

/// Nothing falls between arming the signal and the answer.
async fn a_turn_signal_is_armed_when_returned(cx: &Cx) -> Outcome {
    for round in 0..10 {
        let (holder, first) = (held(cx).await?, waiter(cx));
        // Armed before the first ask in every other round.
        let signal = if round % 2 == 0 {
            let signal = cx.b.watch(&first).await?;
            waits_behind(&cx.b, &first, 0, "the first").await?;
            signal
        } else {
            listens(&cx.b, &first, 0, "the first").await?
        };
        cx.release(&cx.a, &holder).await?;
        is_told(signal, &format!("round {round}: the first in line")).await?;
        gets_in(&cx.b, &first, "the first").await?;
        cx.release(&cx.b, &first).await?;
    }
    Ok(())
}

/// The first in line may give up while the key is free.
async fn leaving_signals_the_next(cx: &Cx) -> Outcome {
    for _ in 0..4 {
        let holder = held(cx).await?;
        let (first, second) = (waiter(cx), waiter(cx));
        waits_behind(&cx.a, &first, 0, "the first").await?;
        let signal = listens(&cx.b, &second, 1, "the second").await?;
        cx.release(&cx.a, &holder).await?;
        cx.release_place(&cx.a, &first).await?;
        is_told(signal, "the next, after the first has left a free key,").await?;
        gets_in(&cx.b, &second, "the second").await?;
        cx.release(&cx.b, &second).await?;
    }
    Ok(())
}

async fn a_hand_over_that_yields_signals_the_first(cx: &Cx) -> Outcome {
    let (from, first) = (held(cx).await?, waiter(cx));
    let signal = listens(&cx.b, &first, 0, "the first").await?;
    let answer = cx.a.hand_over(&from, &waiter(cx), true).await?;
    ensure_matches!(answer, HandOver::Yielded(_), "a hand-over past somebody in line");
    is_told(signal, "the first in line").await?;
    gets_in(&cx.b, &first, "the first").await?;
    Ok(())
}

/// A lease that is announced tells everyone who watches, whoever is in line.
async fn announcements_reach_watchers(cx: &Cx) -> Outcome {
    for round in 0..10 {
        let mut holder = cx.claim().with_announcement();
        holder.ttl = cx.long();
        cx.acquire(&cx.a, &holder).await?;
        let first = waiter(cx);
        let turn = listens(&cx.b, &first, 0, "the first").await?;
        let mut signals = Vec::new();
        for client in [&cx.a, &cx.b, &cx.b] {
            signals.push(client.watch(&cx.claim()).await?);
        }
        drop(signals.pop());
        cx.release(&cx.a, &holder).await?;
        for signal in signals {
            is_told(signal, &format!("round {round}: one that watches")).await?;
        }
        is_told(turn, "the first in line").await?;
        gets_in(&cx.b, &first, "the first").await?;
        cx.release(&cx.b, &first).await?;
    }
    Ok(())
}

/// Its client has gone. A store that knows lets the next in at once; it keeps the position of the
/// one that is gone, which may come back by another connection.
async fn a_gone_listener_is_passed_over_and_comes_back(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let [first, second, third] = [waiter(cx), waiter(cx), waiter(cx)];
    let gone = cx.connect().await?;
    let signal = listens(&gone, &first, 0, "the first").await?;
    let heard = listens(&cx.b, &second, 1, "the second").await?;
    waits_behind(&cx.a, &third, 2, "the third").await?;
    drop(signal);
    drop(gone);
    tokio::time::sleep(QUIET).await;
    cx.release(&cx.a, &holder).await?;
    let passed_over = tokio::time::timeout(QUIET, heard).await.is_ok();
    cx.note(format!("a listener that is gone is passed over: {passed_over}"));
    if passed_over {
        gets_in(&cx.b, &second, "the second, past one that is gone").await?;
        // The first comes back, and has its place.
        waits_behind(&cx.a, &first, 0, "the first, back again").await?;
        cx.release(&cx.b, &second).await?;
        contention(&cx.a, &third, "the third, behind the first").await?;
    } else {
        waits_behind(&cx.b, &second, 1, "the second").await?;
    }
    gets_in(&cx.a, &first, "the first, back again").await?;
    Ok(())
}

/// Who does not listen asks by itself, and keeps its turn until its place ends.
async fn a_poller_is_not_taken_for_gone(cx: &Cx) -> Outcome {
    let (holder, poller, second) = (held(cx).await?, waiter(cx), waiter(cx));
    waits_behind(&cx.a, &poller, 0, "the first, which polls").await?;
    let _signal = listens(&cx.b, &second, 1, "the second").await?;
    cx.release(&cx.a, &holder).await?;
    waits_behind(&cx.b, &second, 1, "the second, behind one that polls").await?;
    gets_in(&cx.a, &poller, "the first, which polls,").await?;
    Ok(())
}
