//! Rows with many locks at once.

use crate::Result;
use crate::bench::{Bench, MT, job, job_of};
use crate::children::together;
use crate::counters::Counts;
use crate::job::{Job, Outcome, Work};
use crate::stores::{OURS, SERVERS, Store};

const TTL: f64 = 10.0;
const SECONDS: f64 = 20.0;

pub(super) async fn held(bench: &mut Bench) -> Result<()> {
    for store in SERVERS {
        let many = !bench.quick && store != Store::Etcd;
        for locks in [Some(1_000), Some(10_000), many.then_some(50_000)].into_iter().flatten() {
            let repeats = if locks == 10_000 { bench.few() } else { 1 };
            for repeat in 0..repeats {
                hold(bench, &[(store, locks)], &format!("{locks} locks"), repeat).await?;
            }
        }
    }
    let most = |store| if store == Store::Etcd { 10_000 } else { 50_000 };
    for repeat in 0..bench.few() {
        let all = SERVERS.map(|store| (store, 10_000));
        hold(bench, &all, "10000 locks, together", repeat).await?;
        if !bench.quick {
            let all = SERVERS.map(|store| (store, most(store)));
            hold(bench, &all, "50000 locks, together", repeat).await?;
        }
    }
    Ok(())
}

/// Holds locks on several stores at the same time, by a process for each.
async fn hold(
    bench: &mut Bench,
    stores: &[(Store, usize)],
    setup: &str,
    repeat: usize,
) -> Result<()> {
    let names: Vec<_> = stores.iter().map(|(store, _)| store.name()).collect();
    bench.progress.step(&format!("held, {}, {setup}", names.join(" and ")));
    let mut jobs = Vec::new();
    for &(store, locks) in stores {
        let (urls, _) = bench.site.fresh(store).await?;
        jobs.push(job_of(Work::Hold { locks, ttl: TTL, seconds: SECONDS }, store, OURS, &urls)?);
    }
    match counted(bench, &jobs).await {
        Ok(outcomes) => {
            for (job, (mut outcome, counts)) in jobs.iter().zip(outcomes) {
                outcome.add(OURS, "commands", counts.commands / SECONDS);
                if job.store == Store::Etcd {
                    outcome.add(OURS, "proposals", counts.proposals / SECONDS);
                }
                bench.keep("held", job.store, setup, repeat, &outcome);
            }
        }
        Err(error) => bench.failed("held", stores[0].0, setup, OURS, error),
    }
    Ok(())
}

async fn counted(bench: &Bench, jobs: &[Job]) -> Result<Vec<(Outcome, Counts)>> {
    let running = together(jobs).await?;
    let before = counts(bench, jobs).await?;
    let outcomes = running.work().await?;
    let after = counts(bench, jobs).await?;
    let counts = after.into_iter().zip(before).map(|(after, before)| after - before);
    Ok(outcomes.into_iter().zip(counts).collect())
}

async fn counts(bench: &Bench, jobs: &[Job]) -> Result<Vec<Counts>> {
    let mut counts = Vec::new();
    for job in jobs {
        counts.push(bench.site.counter(job.store)?.read(OURS).await?);
    }
    Ok(counts)
}

pub(super) async fn free(bench: &mut Bench) -> Result<()> {
    let store = Store::Etcd;
    for repeat in 0..bench.repeats() {
        let (urls, _) = bench.site.fresh(store).await?;
        let job = job(Work::Free { tasks: 6_000 }, store, &[OURS], repeat, &urls, MT.0);
        bench.run("free", "6000 tasks", repeat, &job).await;
    }
    Ok(())
}
