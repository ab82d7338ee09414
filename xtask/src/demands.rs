//! What the conformance suite must have run on, and all of it.

use crate::report::{NO_FIXTURE, NO_MEMORY, NO_SIGNALS, Report};
use crate::stores::{COMBINATIONS, Combination, PGBOUNCER, STORES};
use crate::summary::Run;

/// The stores, and combinations of them, that the suite should have run on and has not.
pub(crate) fn missing(runs: &[Run]) -> Vec<String> {
    let has_run = |names: &[&str]| runs.iter().any(|run| names.contains(&run.name.as_str()));
    let stores = ours().filter(|names| !has_run(names)).map(|names| names[0].to_owned());
    let combinations =
        COMBINATIONS.iter().filter(|combination| !runs.iter().any(|run| combination.is(run)));
    stores.chain(combinations.map(Combination::to_string)).collect()
}

/// The names of each store of ours.
fn ours() -> impl Iterator<Item = &'static [&'static str]> {
    STORES.iter().map(|store| store.names).chain([&[PGBOUNCER][..]])
}

/// The stores of ours on which a case could not be run: something that the suite needs is broken.
/// But a server that was named by the environment is lent, and not to be broken for a test.
pub(crate) fn spared<'a>(runs: &'a [Run], reports: &[Report]) -> Vec<&'a str> {
    let store = |run: &Run| ours().any(|names| names.contains(&run.name.as_str()));
    let ours = |run: &&Run| store(run) || is_combination(run);
    let lent = |run: &Run| run.origin.contains("LOCKCORE_TEST_");
    let spared = runs.iter().filter(ours).filter(|run| run.not_applicable > 0 && !lent(run));
    let spared = spared.filter(|run| !is_excused(run, reports));
    spared.map(|run| run.name.as_str()).collect()
}

fn is_combination(run: &Run) -> bool {
    COMBINATIONS.iter().any(|combination| combination.is(run))
}

/// Whether nothing was left out but what cannot be. Through PgBouncer these are the cases about
/// signals, which belong to connections, and there is none of one's own. Combinations have no
/// records of their own, and so no client that writes them by hand, and no memory but their stores'.
fn is_excused(run: &Run, reports: &[Report]) -> bool {
    let excuses: &[&str] = match &*run.name {
        PGBOUNCER => &[NO_SIGNALS],
        _ if is_combination(run) => &[NO_FIXTURE, NO_MEMORY],
        _ => return false,
    };
    let reports = reports.iter().filter(|report| run.is_of(&report.store));
    let reasons: Vec<_> = reports.flat_map(|report| &report.not_applicable).collect();
    reasons.len() as u64 == run.not_applicable
        && reasons.iter().all(|reason| excuses.contains(&reason.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::runs;

    #[test]
    fn a_store_that_was_not_run_is_missed() {
        let all = missing(&[]);
        assert_eq!(all[..4], ["Redis", "etcd", "Postgres", "PgBouncer"]);
        assert_eq!(all.len(), 4 + COMBINATIONS.len());
        let all = "Valkey 8.1 (x)\t1\t0\t0\netcd 3.4 (x)\t1\t0\t0\nPostgres 15 (x)\t1\t0\t0\n";
        assert_eq!(missing(&runs(all).unwrap())[0], "PgBouncer");
    }

    #[test]
    fn a_case_that_was_not_applicable_to_a_store_of_ours_is_noticed() {
        let own = runs("Redis 8.0 (x)\t1\t0\t1\nmemory 1.0 (y)\t1\t0\t5\n").unwrap();
        assert_eq!(spared(&own, &[]), ["Redis"]);
        let lent = runs("Redis 8.0 (address from LOCKCORE_TEST_REDIS_URL)\t1\t0\t1\n").unwrap();
        assert_eq!(spared(&lent, &[]), [""; 0]);
    }

    #[test]
    fn behind_pgbouncer_signals_may_be_missing_and_nothing_else() {
        let about = "PgBouncer 1.18.0 before Postgres 15.20 (x)";
        let behind = runs(&format!("{about}\t60\t0\t2\n")).unwrap();
        let report = |store: &str, reasons: &[&str]| Report {
            store: store.to_owned(),
            limits: None,
            not_applicable: reasons.iter().map(|&reason| reason.to_owned()).collect(),
        };
        let signals = report(about, &[NO_SIGNALS, NO_SIGNALS]);
        assert_eq!(spared(&behind, &[signals]), [""; 0]);
        assert_eq!(spared(&behind, &[]), ["PgBouncer"]);
        assert_eq!(spared(&behind, &[report(about, &[NO_SIGNALS])]), ["PgBouncer"]);
        assert_eq!(spared(&behind, &[report(about, &[NO_SIGNALS, "no server"])]), ["PgBouncer"]);
        // In front of Postgres alone nothing may be missing.
        let alone = runs("Postgres 15.20 (x)\t60\t0\t2\n").unwrap();
        let signals = report("Postgres 15.20 (x)", &[NO_SIGNALS, NO_SIGNALS]);
        assert_eq!(spared(&alone, &[signals]), ["Postgres"]);
    }

    /// What the suite says of each combination.
    fn combined() -> String {
        let line = |combination: &Combination| {
            let stores =
                combination.stores.replace("Redis", "Valkey 8.1").replace("etcd", "etcd 3.4");
            format!("{stores} ({}; x)\t60\t0\t5\n", combination.how)
        };
        COMBINATIONS.iter().map(line).collect()
    }

    #[test]
    fn a_combination_that_was_not_run_is_missed() {
        let stores = "Valkey 8.1 (x)\t1\t0\t0\netcd 3.4 (x)\t1\t0\t0\n\
                      Postgres 15 (x)\t1\t0\t0\nPgBouncer 1.18 before Postgres 15 (x)\t1\t0\t0\n";
        let all = format!("{stores}{}", combined());
        assert_eq!(missing(&runs(&all).unwrap()), [""; 0]);
        let rest = all.replace("phase new", "phase both");
        let [missed] = &*missing(&runs(&rest).unwrap()) else { panic!("one phase is missing") };
        assert_eq!(missed, "Switchover from Redis to Postgres (phase new)");
    }

    #[test]
    fn combinations_have_no_records_and_no_memory_of_their_own_and_all_else() {
        let text = combined();
        let runs = runs(&text).unwrap();
        let report = |line: &str, reason: &str| Report {
            store: line.split('\t').next().unwrap().to_owned(),
            limits: None,
            not_applicable: vec![reason.to_owned(); 5],
        };
        let reports = |reason| text.lines().map(|line| report(line, reason)).collect::<Vec<_>>();
        assert_eq!(spared(&runs, &reports(NO_FIXTURE)), [""; 0]);
        assert_eq!(spared(&runs, &reports(NO_MEMORY)), [""; 0]);
        assert_eq!(spared(&runs, &[]).len(), COMBINATIONS.len());
        assert_eq!(spared(&runs, &reports("no server")).len(), COMBINATIONS.len());
    }
}
