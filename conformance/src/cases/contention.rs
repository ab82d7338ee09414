//! Many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lockcore::{Acquire, Claim, FenceRegister, LockKey, LockManager};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cases;
use crate::case::{Cx, Failure, Outcome, ensure};
use crate::faulty::{Faulty, Storm, Verb};

cases! { "contention";
    one_winner_of_many: "L1";
    a_counter_counts: "L1";
    histories_hold: "L1 L5";
    histories_hold_under_faults: "L1 L2 L5 L7";
    one_of_a_process_asks: "L1";
    a_process_is_served_in_order: "L1";
    keys_do_not_wait_for_each_other: "L1";
    others_get_their_turn: "L1";
}

async fn one_winner_of_many(cx: &Cx) -> Outcome {
    for round in 0..10 {
        let key = cx.key_with(&format!("/{round}"));
        let mut tasks = JoinSet::new();
        for n in 0..16 {
            let client = if n % 2 == 0 { cx.a.clone() } else { cx.b.clone() };
            let mut claim = cx.claim_on(&key);
            // So that no lease ends while a busy store still answers the last of them.
            claim.ttl = cx.long();
            tasks.spawn(async move { client.acquire(&claim).await });
        }
        let mut winners = 0;
        while let Some(answer) = tasks.join_next().await {
            winners += usize::from(matches!(answer??, Acquire::Acquired(_)));
        }
        if winners == 0 && cx.store.combined() {
            // Each had the votes of some. They come again; here it is one.
            cx.until_acquired_of(&cx.a, &key, cx.hold_ttl()).await?;
            winners = 1;
        }
        ensure!(winners == 1, "round {round}: {winners} winners");
    }
    Ok(())
}

/// Read, yield, write: right only if nobody else does so meanwhile.
async fn a_counter_counts(cx: &Cx) -> Outcome {
    const WORKERS: u64 = 24;
    let counter = Arc::new(AtomicU64::new(0));
    let managers = [cx.manager(cx.a.clone()).build()?, cx.manager(cx.b.clone()).build()?];
    let mut tasks = JoinSet::new();
    for n in 0..WORKERS {
        let lock = managers[usize::from(n % 2 == 0)].lock(&cx.key)?;
        let counter = counter.clone();
        tasks.spawn(async move {
            let guard = lock.acquire().await?;
            let seen = counter.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            counter.store(seen + 1, Ordering::Relaxed);
            guard.release().await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let count = counter.load(Ordering::Relaxed);
    ensure!(count == WORKERS, "{WORKERS} workers counted to {count}");
    Ok(())
}

async fn histories_hold(cx: &Cx) -> Outcome {
    let managers = [cx.manager(cx.a.clone()).build()?, cx.manager(cx.b.clone()).build()?];
    work(cx, &cx.key, &managers, 8, 6).await?;
    let stretches = cx.history.stretches();
    ensure!(stretches == 48, "48 acquisitions, {stretches} in the history");
    Ok(())
}

/// Whatever is lost, late or refused: nobody relies on the lock while another does.
async fn histories_hold_under_faults(cx: &Cx) -> Outcome {
    let mut random = cx.random(0);
    for round in 0..if cx.exact() { 40 } else { 2 } {
        let delay = cx.hold_ttl() / 60;
        let storm = Storm {
            lose_request: 0.05,
            lose_reply: 0.05,
            refuse: 0.05,
            reset: 0.05,
            straggle: 0.05,
            repeat: 0.05,
            delay,
        };
        let mut managers = Vec::new();
        for client in [&cx.a, &cx.b, &cx.a] {
            let store = Faulty::new(client.clone());
            store.storm(random.u64(..), storm);
            managers.push(cx.manager(store).retry_for(cx.hold_ttl() * 20).build()?);
        }
        let before = cx.history.stretches();
        let key = cx.key_with(&format!("/{round}"));
        work(cx, &key, &managers, 6, 3).await?;
        ensure!(cx.history.stretches() > before, "nobody got the lock");
        for manager in &managers {
            manager.drain().await;
        }
    }
    Ok(())
}

/// Workers take turns: each relies on the lock for a while, then releases it. The history of it
/// is checked when the case ends.
async fn work(
    cx: &Cx,
    key: &LockKey,
    managers: &[LockManager],
    workers: usize,
    rounds: usize,
) -> Outcome {
    let register = Arc::new(FenceRegister::new(0_usize));
    let mut tasks = JoinSet::new();
    for who in 0..workers {
        let lock = managers[who % managers.len()].lock(key)?;
        let (history, register) = (cx.history.clone(), register.clone());
        tasks.spawn(async move {
            for _ in 0..rounds {
                let asked = Instant::now();
                let Ok(guard) = lock.acquire().await else {
                    continue;
                };
                let began = Instant::now();
                if !guard.is_valid() {
                    continue;
                }
                let (token, mut ended) = (guard.fencing_token(), began);
                if register.write(token, who).is_err() {
                    // A grant that took so long that the next holder was faster: seen below.
                    ended = began;
                }
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let now = Instant::now();
                    if guard.is_valid() {
                        ended = now;
                    }
                }
                history.relied(who, lock.key(), token, [asked, began, ended]);
                let _ = guard.release().await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(())
}

/// The tasks of one process queue among themselves: the store hears of the head alone.
async fn one_of_a_process_asks(cx: &Cx) -> Outcome {
    const WORKERS: usize = 50;
    let store = Faulty::new(cx.a.clone());
    let locks = cx.manager(store.clone()).build()?;
    let mut tasks = JoinSet::new();
    for _ in 0..WORKERS {
        let lock = locks.lock(&cx.key)?;
        tasks.spawn(async move { lock.acquire().await?.release().await });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let (asked, released) = (store.calls(Verb::Acquire), store.calls(Verb::Release));
    cx.note(format!("{WORKERS} workers: {asked} acquires, {released} releases"));
    ensure!(asked <= WORKERS + WORKERS / 10, "{asked} acquires for {WORKERS} workers");
    ensure!(released <= WORKERS + WORKERS / 10, "{released} releases for {WORKERS} workers");
    Ok(())
}

async fn a_process_is_served_in_order(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).build()?;
    let first = locks.lock(&cx.key)?.acquire().await?;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for n in 0..10 {
        let (lock, order) = (locks.lock(&cx.key)?, order.clone());
        tasks.spawn(async move {
            let guard = lock.acquire().await?;
            order.lock().map_err(|_| "poisoned")?.push(n);
            guard.release().await?;
            Ok::<(), lockcore::BoxError>(())
        });
        tokio::task::yield_now().await;
    }
    first.release().await?;
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let order = order.lock().map_err(|_| Failure::new("poisoned"))?.clone();
    ensure!(order == (0..10).collect::<Vec<_>>(), "served in the order {order:?}");
    Ok(())
}

async fn keys_do_not_wait_for_each_other(cx: &Cx) -> Outcome {
    let locks = cx.manager(cx.a.clone()).ttl(cx.long()).build()?;
    let mut guards = Vec::new();
    for n in 0..50 {
        let lock = locks.lock(cx.key_with(&format!("/{n}")))?;
        let Some(guard) = lock.try_acquire().await? else {
            return Err(Failure::new(format!("key {n} waits for another")));
        };
        guards.push(guard);
    }
    for guard in guards {
        guard.release().await?;
    }
    Ok(())
}

/// A process that always has somebody in its queue must let another process in.
async fn others_get_their_turn(cx: &Cx) -> Outcome {
    let (crowd, single) = (cx.manager(cx.a.clone()).build()?, cx.manager(cx.b.clone()).build()?);
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let lock = crowd.lock(&cx.key)?;
        tasks.spawn(async move {
            loop {
                let guard = lock.acquire().await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                guard.release().await?;
            }
            #[expect(unreachable_code, reason = "names the type of the loop's errors")]
            Ok::<(), lockcore::Error>(())
        });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let asked = Instant::now();
    for _ in 0..5 {
        let guard = single.lock(&cx.key)?.acquire_timeout(Duration::from_secs(10)).await?;
        cx.note(format!("got in after {:?}", asked.elapsed()));
        guard.release().await?;
    }
    tasks.shutdown().await;
    crowd.drain().await;
    // Whoever was dropped while it held or asked has left nothing behind.
    let claim: Claim = cx.claim();
    cx.until_free(cx.slack()).await?;
    cx.acquire(&cx.b, &claim).await?;
    Ok(())
}
