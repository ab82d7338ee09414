//! How a process waits in a line: its place belongs to its queue, and not to a task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lockcore::{ErrorKind, LockBackend};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::cases;
use super::super::wrapped::Wrapped;
use super::{contention, gets_in, gets_in_within, held, waiter, waits_behind};
use crate::case::{Cx, Failure, Needs, Outcome, ensure};
use crate::faulty::{Faulty, Verb};

cases! { "line";
    a_timed_out_task_passes_its_place_on: "W1 W6", Needs::Line;
    the_last_task_leaves: "W6", Needs::Line;
    a_waiting_task_keeps_its_place: "W2", Needs::Line;
    a_poller_at_the_front_asks_sooner: "W3", Needs::Line;
    a_farther_process_gets_its_turns: "W3", Needs::Line;
}

/// Waits until the process behind `store` is in line: its first acquire was answered.
async fn joined(store: &Faulty<impl LockBackend>) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while store.answers(Verb::Acquire) == 0 {
        ensure!(Instant::now() < end, "nobody joins the line");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The next task of the process has the place, and not the tail of the line.
async fn a_timed_out_task_passes_its_place_on(cx: &Cx) -> Outcome {
    let (holder, other) = (held(cx).await?, waiter(cx));
    let store = Faulty::new(cx.b.clone());
    let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
    let (first, second) = (lock.clone(), lock);
    let impatient = cx.hold_ttl() / 3;
    let first = tokio::spawn(async move { first.acquire_timeout(impatient).await });
    joined(&store).await?;
    let second = tokio::spawn(async move { second.acquire().await });
    waits_behind(&cx.a, &other, 1, "another process").await?;
    let error = first.await?.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Contended), "the first task: {error:?}");
    tokio::time::sleep(cx.ttl / 20).await;
    waits_behind(&cx.a, &other, 1, "another process, behind the second task").await?;
    cx.release(&cx.a, &holder).await?;
    let limit = Duration::from_secs(1) + cx.slack();
    let guard = tokio::time::timeout(limit, second).await;
    let guard = guard.map_err(|_| Failure::new("the second task did not get in"))???;
    waits_behind(&cx.a, &other, 0, "another process, after the second task").await?;
    guard.release().await?;
    gets_in(&cx.a, &other, "another process").await?;
    Ok(())
}

/// Nobody waits for a process none of whose tasks waits any more.
async fn the_last_task_leaves(cx: &Cx) -> Outcome {
    let (holder, other) = (held(cx).await?, waiter(cx));
    let store = Faulty::new(cx.b.clone());
    let locks = cx.manager(store.clone()).build()?;
    let lock = locks.lock(&cx.key)?;
    let impatient = cx.hold_ttl() / 3;
    let first = tokio::spawn(async move { lock.acquire_timeout(impatient).await });
    joined(&store).await?;
    waits_behind(&cx.a, &other, 1, "another process").await?;
    let error = first.await?.err().map(|error| error.kind());
    ensure!(error == Some(ErrorKind::Contended), "the only task: {error:?}");
    locks.drain().await;
    waits_behind(&cx.a, &other, 0, "another process, after the task has left").await?;
    cx.release(&cx.a, &holder).await?;
    gets_in(&cx.a, &other, "another process").await?;
    Ok(())
}

/// It sleeps for no longer than its place lasts.
async fn a_waiting_task_keeps_its_place(cx: &Cx) -> Outcome {
    let (holder, other) = (held(cx).await?, waiter(cx));
    let store = Faulty::new(cx.b.clone());
    let lock = cx.manager(store.clone()).build()?.lock(&cx.key)?;
    let task = tokio::spawn(async move { lock.acquire().await });
    joined(&store).await?;
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        waits_behind(&cx.a, &other, 1, "another process").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = store.calls(Verb::Acquire);
    cx.note(format!("asked {asked} times in 6 s"));
    cx.release(&cx.a, &holder).await?;
    contention(&cx.a, &other, "another process").await?;
    task.await??.release().await?;
    let limit = Duration::from_secs(1) + cx.slack();
    gets_in_within(cx, &cx.a, &other, limit, "another process").await?;
    Ok(())
}

/// Who is not signalled asks by itself: every 20 to 50 ms while it is first in line.
async fn a_poller_at_the_front_asks_sooner(cx: &Cx) -> Outcome {
    let holder = held(cx).await?;
    let [first, second] = [Faulty::new(Wrapped::deaf(&cx.b)), Faulty::new(Wrapped::deaf(&cx.a))];
    let mut tasks = Vec::new();
    for store in [&first, &second] {
        let lock = cx.manager(store.clone()).poll_every(Duration::from_secs(5)).build()?;
        let lock = lock.lock(&cx.key)?;
        tasks.push(tokio::spawn(async move { lock.acquire().await?.release().await }));
        joined(store).await?;
    }
    let before = [first.calls(Verb::Acquire), second.calls(Verb::Acquire)];
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = first.calls(Verb::Acquire) - before[0];
    let behind = second.calls(Verb::Acquire) - before[1];
    cx.note(format!("asked {asked} times in 2 s as the first, {behind} times as the second"));
    // A quarter of them on a busy machine.
    ensure!((10..=110).contains(&asked), "the first asked {asked} times in 2 s");
    ensure!(behind <= 60, "the second asked {behind} times in 2 s");
    if cx.exact() {
        ensure!(asked >= 38 && behind >= 19, "asked {asked} and {behind} times in 2 s");
    }
    cx.release(&cx.a, &holder).await?;
    let freed = Instant::now();
    for task in tasks {
        task.await??;
    }
    let after = freed.elapsed();
    ensure!(after <= Duration::from_millis(200) + cx.slack(), "both were in after {after:?}");
    Ok(())
}

/// Four tasks of one process, and one of a process that is 3 ms farther from the store: each
/// process has half of the turns, and the farther one at least half of its half.
async fn a_farther_process_gets_its_turns(cx: &Cx) -> Outcome {
    const TURNS: usize = 40;
    let near = cx.manager(cx.a.clone()).build()?;
    let far = cx.manager(Wrapped::farther(&cx.b, Duration::from_millis(3))).build()?;
    let turns = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let mut tasks = JoinSet::new();
    for n in 0..5 {
        let (manager, turns) = if n < 4 { (&near, &turns[0]) } else { (&far, &turns[1]) };
        let (lock, turns) = (manager.lock(&cx.key)?, turns.clone());
        tasks.spawn(async move {
            loop {
                let guard = lock.acquire().await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                turns.fetch_add(1, Ordering::Relaxed);
                guard.release().await?;
            }
            #[expect(unreachable_code, reason = "names the type of the loop's errors")]
            Ok::<(), lockcore::Error>(())
        });
    }
    let end = Instant::now() + Duration::from_secs(20);
    let count = || [0, 1].map(|n: usize| turns[n].load(Ordering::Relaxed));
    while count().iter().sum::<usize>() < TURNS && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [of_near, of_far] = count();
    tasks.shutdown().await;
    cx.note(format!("{of_near} turns of the nearer process, {of_far} of the farther one"));
    ensure!(of_near + of_far >= TURNS / 2, "{of_near} and {of_far} turns in 20 s");
    ensure!(of_far * 4 >= of_near + of_far, "{of_near} turns near, {of_far} turns far");
    ensure!(of_near * 4 >= of_near + of_far, "{of_near} turns near, {of_far} turns far");
    near.drain().await;
    far.drain().await;
    Ok(())
}
