//! What the conformance suite must have run on, and all of it.

use crate::report::{NO_FIXTURE, NO_LINE, NO_MEMORY, NO_SIGNALS, Report};
use crate::stores::{COMBINATIONS, Combination, PGBOUNCER, STORES};
use crate::summary::Run;

/// How many combinations the whole suite runs on by turns.
const TURNS: usize = 2;

/// What the suite should have run on and has not, said in a line each. With `full`, all of the
/// suite on every combination.
pub(crate) fn missing(runs: &[Run], full: bool) -> Vec<String> {
    let has_run = |names: &[&str]| runs.iter().any(|run| names.contains(&run.name.as_str()));
    let stores = ours().filter(|names| !has_run(names)).map(|names| names[0].to_owned());
    let combinations =
        COMBINATIONS.iter().filter(|combination| !runs.iter().any(|run| combination.is(run)));
    let not_run = stores.chain(combinations.map(Combination::to_string));
    let mut missing: Vec<_> =
        not_run.map(|name| format!("{name}: the conformance suite has not run on it")).collect();
    let cases = |run: &Run| run.passed + run.failed + run.not_applicable;
    let all = runs.iter().map(cases).max().unwrap_or(0);
    let whole = runs.iter().filter(|run| is_combination(run) && cases(run) == all).count();
    let wanted = if full { COMBINATIONS.iter().filter(|it| !it.in_part).count() } else { TURNS };
    if whole < wanted {
        missing.push(format!(
            "the whole conformance suite has run on {whole} combinations of stores, not on {wanted}"
        ));
    }
    missing
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
/// records of their own, and so no client that writes them by hand, no memory but their stores', and
/// no lines.
fn is_excused(run: &Run, reports: &[Report]) -> bool {
    let excuses: &[&str] = match &*run.name {
        PGBOUNCER => &[NO_SIGNALS],
        _ if is_combination(run) => &[NO_FIXTURE, NO_LINE, NO_MEMORY],
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
        let all = missing(&[], false);
        let names: Vec<_> = all.iter().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names[..4], ["Redis", "etcd", "Postgres", "PgBouncer"]);
        assert_eq!(all.len(), 4 + COMBINATIONS.len() + 1);
        let all = "Valkey 8.1 (x)\t1\t0\t0\netcd 3.4 (x)\t1\t0\t0\nPostgres 15 (x)\t1\t0\t0\n";
        assert!(missing(&runs(all).unwrap(), false)[0].starts_with("PgBouncer:"));
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
        assert_eq!(missing(&runs(&all).unwrap(), true), [""; 0]);
        let rest: Vec<_> = all.lines().filter(|line| !line.contains("phase new")).collect();
        let rest = rest.join("\n");
        let [missed] = &*missing(&runs(&rest).unwrap(), true) else {
            panic!("one phase is missing")
        };
        assert!(missed.starts_with("Switchover from Redis to Postgres (phase new): "));
    }

    #[test]
    fn two_whole_suites_on_combinations_are_missed() {
        let stores = "Valkey 8.1 (x)\t65\t0\t0\netcd 3.4 (x)\t1\t0\t0\n\
                      Postgres 15 (x)\t1\t0\t0\nPgBouncer 1.18 before Postgres 15 (x)\t1\t0\t0\n";
        let missed = |whole: usize, full| {
            let part = combined().replace("\t60\t", "\t7\t");
            let lines = combined();
            let lines = lines.lines().take(whole).chain(part.lines().skip(whole));
            let lines: String = lines.map(|line| format!("{line}\n")).collect();
            missing(&runs(&format!("{stores}{lines}")).unwrap(), full)
        };
        assert_eq!(missed(2, false), [""; 0]);
        assert!(missed(1, false)[0].ends_with("has run on 1 combinations of stores, not on 2"));
        assert_eq!(missed(8, true), [""; 0]);
        assert!(missed(2, true)[0].ends_with("has run on 2 combinations of stores, not on 8"));
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
