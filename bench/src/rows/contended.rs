//! Rows in which several want one key.

use std::time::Duration;

use crate::bench::{Bench, job, job_of, plural};
use crate::children::{Child, together};
use crate::counters::{Counter, Counts};
use crate::job::{Job, Outcome, Turns, Work};
use crate::results::at;
use crate::stores::{DIRECT, DISTRIBUTED_LOCK, OURS, POLLING, RSLOCK, SERVERS, SWAP, Store};
use crate::{Result, proxy};

const TASKS: usize = 500;

pub(super) async fn one_key(bench: &mut Bench) -> Result<()> {
    for store in SERVERS {
        for repeat in 0..bench.repeats() {
            let mut contenders = [&[SWAP, OURS], store.peers()].concat();
            let places = repeat % contenders.len();
            contenders.rotate_left(places);
            for name in contenders {
                bench.progress.step(&format!("one-key, {}, {name}", store.name()));
                let (urls, counter) = bench.site.fresh(store).await?;
                let job = job_of(Work::OneKey { tasks: TASKS }, store, name, &urls)?;
                match counted(&[job], counter, name).await {
                    Ok((mut outcomes, counts)) => {
                        outcomes[0].add(name, "commands", counts.commands / TASKS as f64);
                        bench.keep("one-key", store, "500 tasks", repeat, &outcomes[0]);
                    }
                    Err(error) => bench.failed("one-key", store, "500 tasks", name, error),
                }
            }
        }
    }
    Ok(())
}

/// Has children work, and counts what the store did meanwhile.
async fn counted(jobs: &[Job], counter: &Counter, name: &str) -> Result<(Vec<Outcome>, Counts)> {
    let running = together(jobs).await?;
    let before = counter.read(name).await?;
    let outcomes = running.work().await?;
    Ok((outcomes, counter.read(name).await? - before))
}

/// The same key for several processes, of which the first makes it ready.
fn share_key(jobs: &mut [Job]) {
    let Some(key) = jobs.first().map(|job| job.key.clone()) else { return };
    for (n, job) in jobs.iter_mut().enumerate() {
        job.key.clone_from(&key);
        if let Work::Turns(turns) = &mut job.work {
            turns.first = n == 0;
        }
    }
}

fn turns(tasks: usize, hold: f64, seconds: f64) -> Work {
    Work::Turns(Turns { tasks, hold, seconds, first: false })
}

pub(super) async fn hand_over(bench: &mut Bench) -> Result<()> {
    let seconds = bench.seconds(2.0);
    for store in SERVERS {
        for waiting in [2, 16, 64] {
            // With many processes those that poll keep the machine busy, and nothing is learned.
            let peers = if waiting > 16 && store == Store::Redis { &[][..] } else { store.peers() };
            let setup = format!("{waiting} waiting");
            for repeat in 0..bench.repeats() {
                let mut contenders = [&[DIRECT, OURS], peers].concat();
                let places = repeat % contenders.len();
                contenders.rotate_left(places);
                for name in contenders {
                    bench.progress.step(&format!("hand-over, {}, {setup}, {name}", store.name()));
                    let (urls, counter) = bench.site.fresh(store).await?;
                    let one = job_of(turns(1, 0.002, seconds), store, name, &urls)?;
                    let mut jobs = vec![one; waiting + 1];
                    share_key(&mut jobs);
                    match counted(&jobs, counter, name).await {
                        Ok((outcomes, counts)) => {
                            let outcome = hand_overs(name, &outcomes, counts);
                            bench.keep("hand-over", store, &setup, repeat, &outcome);
                        }
                        Err(error) => bench.failed("hand-over", store, &setup, name, error),
                    }
                }
            }
        }
    }
    Ok(())
}

/// The first moments, in which the queue forms, in nanoseconds.
const START: u64 = 300_000_000;

fn hand_overs(name: &str, outcomes: &[Outcome], counts: Counts) -> Outcome {
    let mut all: Vec<(usize, [u64; 3])> = Vec::new();
    for (process, outcome) in outcomes.iter().enumerate() {
        let granted = outcome.turns.iter().filter(|turn| turn[1] > 0);
        all.extend(granted.map(|turn| (process, *turn)));
    }
    all.sort_by_key(|(_, turn)| turn[1]);
    let start = all.first().map_or(0, |(_, turn)| turn[1]) + START;
    let later: Vec<_> = all.windows(2).filter(|pair| pair[0].1[1] > start).collect();
    let pairs = later.iter().filter(|pair| pair[0].0 != pair[1].0);
    let mut times: Vec<_> =
        pairs.map(|pair| (pair[1].1[1] as f64 - pair[0].1[2] as f64) / 1e6).collect();
    let mut outcome = Outcome::default();
    if times.is_empty() {
        outcome.failed.insert(name.to_owned(), "no hand-over".to_owned());
        return outcome;
    }
    let each = all.len() as f64;
    outcome.add(name, "p50", at(&mut times, 0.5));
    outcome.add(name, "p99", at(&mut times, 0.99));
    outcome.add(name, "others", 100.0 * times.len() as f64 / later.len() as f64);
    outcome.add(name, "commands", counts.commands / each);
    if counts.messages > 0.0 {
        outcome.add(name, "messages", (counts.commands + counts.messages) / each);
    }
    outcome
}

/// How much farther the farther process is, one way.
const FARTHER: Duration = Duration::from_millis(3);

pub(super) async fn fairness(bench: &mut Bench) -> Result<()> {
    let far = SERVERS.map(|store| (store, OURS));
    let polling = [(Store::Redis, POLLING), (Store::Postgres, POLLING)];
    for (store, name) in far.into_iter().chain(polling) {
        let seconds = bench.seconds(if name == POLLING { 40.0 } else { 20.0 });
        for repeat in 0..bench.few() {
            bench.progress.step(&format!("fairness, {}, farther, {name}", store.name()));
            let (urls, _) = bench.site.fresh(store).await?;
            let farther = bench.site.behind(store, |at| Ok(proxy::start(at, FARTHER)?))?;
            let near = job_of(turns(4, 0.05, seconds), store, name, &urls)?;
            let far = job_of(turns(1, 0.05, seconds), store, name, &[farther])?;
            let mut jobs = [far, near];
            share_key(&mut jobs);
            match together(&jobs).await?.work().await {
                Ok(outcomes) => {
                    let outcome = shares(name, &outcomes, &outcomes[..1], 1.0 / 5.0);
                    bench.keep("fairness", store, "one farther", repeat, &outcome);
                }
                Err(error) => bench.failed("fairness", store, "one farther", name, error),
            }
        }
    }
    let seconds = bench.seconds(8.0);
    for store in SERVERS {
        for repeat in 0..bench.few() {
            bench.progress.step(&format!("fairness, {}, 8 processes", store.name()));
            let (urls, _) = bench.site.fresh(store).await?;
            let one = job_of(turns(50, 0.001, seconds), store, OURS, &urls)?;
            let mut jobs = vec![one; 8];
            share_key(&mut jobs);
            match together(&jobs).await?.work().await {
                Ok(outcomes) => {
                    let outcome = shares(OURS, &outcomes, &outcomes, 1.0 / 8.0);
                    bench.keep("fairness", store, "8 processes of 50", repeat, &outcome);
                }
                Err(error) => bench.failed("fairness", store, "8 processes of 50", OURS, error),
            }
        }
    }
    Ok(())
}

/// The least share among `of`, where `fair` is all that one of them can expect, and the longest
/// wait of all.
fn shares(name: &str, all: &[Outcome], of: &[Outcome], fair: f64) -> Outcome {
    let granted =
        |outcome: &Outcome| outcome.turns.iter().filter(|turn| turn[1] > 0).count() as f64;
    let total: f64 = all.iter().map(granted).sum();
    let least = of.iter().map(granted).fold(f64::INFINITY, f64::min);
    let turns = || all.iter().flat_map(|outcome| &outcome.turns);
    let end = turns().map(|turn| turn[2]).max().unwrap_or(0);
    // A task that was not served has waited until the end.
    let waits: Vec<f64> = turns()
        .map(|turn| if turn[1] > 0 { turn[1] } else { end.max(turn[0]) } - turn[0])
        .map(|nanos| nanos as f64)
        .collect();
    let mean = waits.iter().sum::<f64>() / waits.len() as f64;
    let longest = waits.iter().copied().fold(0.0, f64::max);
    let mut outcome = Outcome::default();
    outcome.add(name, "share", least / total / fair);
    outcome.add(name, "longest", longest / mean);
    outcome
}

pub(super) async fn idle(bench: &mut Bench) -> Result<()> {
    for store in SERVERS {
        let peers: &[&str] = if store == Store::Redis { &[RSLOCK, DISTRIBUTED_LOCK] } else { &[] };
        for name in [&[OURS], peers].concat() {
            for processes in [1, 10] {
                let setup = plural(processes, "process", "processes");
                for repeat in 0..bench.few() {
                    bench.progress.step(&format!("idle, {}, {setup}, {name}", store.name()));
                    match idle_once(bench, store, name, processes).await {
                        Ok(outcome) => bench.keep("idle", store, &setup, repeat, &outcome),
                        Err(error) => bench.failed("idle", store, &setup, name, error),
                    }
                }
            }
        }
    }
    Ok(())
}

const WAITERS: usize = 100;

async fn idle_once(
    bench: &mut Bench,
    store: Store,
    name: &str,
    processes: usize,
) -> Result<Outcome> {
    let seconds = bench.seconds(8.0);
    let (urls, counter) = bench.site.fresh(store).await?;
    // Ended below, long before it would release.
    let holder = job(turns(1, 60.0, 60.0), store, &[name], 0, &urls, 0);
    let mut holding = Child::start(&holder).await?;
    holding.ready().await?;
    holding.go().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let wait = Work::Wait { waiters: WAITERS / processes, seconds };
    let mut one = job_of(wait, store, name, &urls)?;
    one.key.clone_from(&holder.key);
    let (_, counts) = counted(&vec![one; processes], counter, name).await?;
    drop(holding);
    let mut outcome = Outcome::default();
    outcome.add(name, "commands", counts.commands / seconds);
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(turns: &[[u64; 3]]) -> Outcome {
        Outcome { turns: turns.to_vec(), ..Outcome::default() }
    }

    #[test]
    fn hand_overs_are_those_to_another_process() {
        let ms = 1_000_000;
        let first = of(&[[0, 1, ms], [ms, 400 * ms, 401 * ms], [401 * ms, 404 * ms, 405 * ms]]);
        let second = of(&[[0, 407 * ms, 408 * ms], [408 * ms, 0, 0]]);
        let counts = Counts { commands: 12.0, ..Counts::default() };
        let outcome = hand_overs("x", &[first, second], counts);
        let figures = &outcome.figures["x"];
        assert_eq!((figures["p50"], figures["others"], figures["commands"]), (2.0, 50.0, 3.0));
    }

    #[test]
    fn those_who_are_not_served_have_waited_to_the_end() {
        let near = of(&[[0, 1, 10], [10, 11, 20], [20, 21, 30]]);
        let far = of(&[[0, 5, 6], [10, 0, 0]]);
        let outcome = shares("x", &[far.clone(), near], &[far], 0.5);
        let figures = &outcome.figures["x"];
        assert_eq!((figures["share"], figures["longest"]), (0.5, 20.0 / (28.0 / 5.0)));
    }
}
