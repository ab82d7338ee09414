//! The core under a network that delays, loses and repeats, a store that goes down and forgets,
//! and processes that are stopped: many seeded runs on tokio's paused clock.
//!
//! A run that fails prints its seed. `LOCKCORE_SEED=17` runs that one alone and prints its trace;
//! `LOCKCORE_SEEDS`, `LOCKCORE_SECONDS` (virtual, for each) and `LOCKCORE_TWICE` (seeds to run twice)
//! ask for more; `LOCKCORE_FLAW=NeverPolls` looks for that flaw alone. `cargo xtask simulate` does all this in a release build.

mod answers;
mod calls;
mod checks;
mod client;
mod ending;
mod executions;
mod flaws;
mod guards;
mod holder;
mod line;
mod link;
mod operations;
mod outages;
mod plan;
mod requests;
mod run;
mod runtimes;
mod sometimes;
mod state;
mod storm;
mod watches;
mod weather;
mod world;

use std::sync::Mutex;

use crate::plan::Plan;

/// Seeds in each run of the tests, and the seconds of each.
const SEEDS: u64 = 500;
const SECONDS: u64 = 90;
/// Seeds that are run twice.
const TWICE: u64 = 30;

fn wished(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().expect("a whole number"))
}

fn seconds() -> u64 {
    wished("LOCKCORE_SECONDS").unwrap_or(SECONDS)
}

/// The whole trace of a seed.
fn trace(seed: u64) -> String {
    run::one(Plan { trace: true, ..Plan::new(seed, seconds()) }).trace
}

#[test]
fn promises_hold() {
    if let Some(seed) = wished("LOCKCORE_SEED") {
        let outcome = run::one(Plan { trace: true, ..Plan::new(seed, seconds()) });
        print!("{}", outcome.trace);
        assert!(outcome.violations.is_empty(), "seed {seed}: {}", outcome.violations[0]);
        return;
    }
    let seeds = wished("LOCKCORE_SEEDS").unwrap_or(SEEDS);
    let outcomes = run::many(0..seeds, |seed| Plan::new(seed, seconds()));
    for (seed, violation) in &outcomes.failures {
        println!("seed {seed}: {violation}");
    }
    if let Some((seed, violation)) = outcomes.failures.first() {
        let trace = trace(*seed);
        let lines: Vec<_> = trace.lines().collect();
        let place = lines.iter().position(|line| line.contains("***")).unwrap_or(lines.len());
        let last = lines[place.saturating_sub(60)..lines.len().min(place + 1)].join("\n");
        panic!(
            "{last}\nseed {seed}: {violation}\n{} broken promises in {seeds} seeds\n\
             the whole trace: LOCKCORE_SEED={seed} LOCKCORE_SECONDS={} cargo test -p lockcore \
             --test simulation promises -- --nocapture",
            outcomes.failures.len(),
            seconds()
        );
    }
    let counts = outcomes.counts;
    for (text, count) in counts.rows() {
        println!("{count:>9} {text}");
    }
    if seeds >= SEEDS {
        let missing = counts.missing();
        assert!(missing.is_empty(), "never happened: {}", missing.join("; "));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let differs = Mutex::new(None);
    run::each(0..wished("LOCKCORE_TWICE").unwrap_or(TWICE), |seed| {
        let (first, second) = (trace(seed), trace(seed));
        if first == second {
            return true;
        }
        let mut lines = first.lines().zip(second.lines());
        let place = lines.find(|(one, two)| one != two);
        *differs.lock().expect("no panic while it is locked") = Some((seed, format!("{place:?}")));
        false
    });
    let differs = differs.into_inner().expect("no panic while it is locked");
    assert_eq!(differs, None);
}
