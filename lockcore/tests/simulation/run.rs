//! Running plans: one, or many on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lockcore::simulation::Simulation;

use crate::checks::Violation;
use crate::plan::Plan;
use crate::sometimes::Counts;
use crate::world;

/// What came out of one run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<Violation>,
    pub(crate) counts: Counts,
    pub(crate) trace: String,
}

/// Runs a plan on this thread.
pub(crate) fn one(plan: Plan) -> Outcome {
    let _simulation = Simulation::begin(plan.seed, plan.flaw);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let world = runtime.block_on(world::run(plan));
    // Tasks that are left end here, and the world with them.
    drop(runtime);
    let mut state = world.state();
    for (place, times) in lockcore::simulation::places() {
        state.counts.reached(place, times);
    }
    Outcome {
        violations: std::mem::take(&mut state.violations),
        counts: std::mem::take(&mut state.counts),
        trace: state.take_trace(),
    }
}

/// Runs `work` for each seed, on all cores, until it says no for one.
pub(crate) fn each(seeds: Range<u64>, work: impl Fn(u64) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !work(seed) {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// What came out of many runs.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Each broken promise, with its seed.
    pub(crate) failures: Vec<(u64, Violation)>,
    pub(crate) counts: Counts,
    seeds: u64,
}

/// Runs many seeds of the core as it is: all of them, since a failure may hide another.
pub(crate) fn many(seeds: Range<u64>, plan: impl Fn(u64) -> Plan + Sync) -> Outcomes {
    let all = Mutex::new(Outcomes::default());
    let (began, total) = (Instant::now(), seeds.end - seeds.start);
    each(seeds, |seed| {
        let outcome = one(plan(seed));
        let mut all = all.lock().expect("no panic while it is locked");
        all.seeds += 1;
        all.counts.add(&outcome.counts);
        all.failures.extend(outcome.violations.into_iter().map(|violation| (seed, violation)));
        if all.seeds.is_multiple_of(1_000) {
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("{} of {total} seeds in {seconds:.1} s", all.seeds);
        }
        true
    });
    let mut all = all.into_inner().expect("no panic while it is locked");
    all.failures.sort_by_key(|(seed, _)| *seed);
    all
}
