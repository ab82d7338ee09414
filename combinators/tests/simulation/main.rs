//! Random runs on the paused clock: several processes, stores that fail, and a look at what
//! happened afterwards. A run that fails prints its seed.

#[expect(dead_code, reason = "the tests of single promises use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod history;
mod quorum;
mod switchover;
mod votes;

use std::time::Duration;

/// Runs a scenario with so many seeds, each on a clock of its own; with more or with one where the
/// environment says so: `LOCKCORE_SEEDS=10000`, `LOCKCORE_SEED=17`.
fn simulate(seeds: u64, scenario: impl AsyncFn(u64) -> Result<(), String>) {
    let wished = |name| std::env::var(name).ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let seeds = match wished("LOCKCORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..wished("LOCKCORE_SEEDS").unwrap_or(seeds),
    };
    for seed in seeds {
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let outcome = runtime.block_on(async {
            let hour = Duration::from_secs(3600);
            tokio::time::timeout(hour, scenario(seed)).await.unwrap_or(Err("it hung".to_owned()))
        });
        if let Err(failure) = outcome {
            panic!("seed {seed}: {failure}");
        }
    }
}
