//! Counting tests and naming the stores that they ran on.

use std::fmt;

use crate::Result;

/// Tests, as their programs have counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tests {
    /// Adds what a line of a test program's output says: `test result: ok. 3 passed; 0 failed; …`.
    pub(crate) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        let count = |word: &str| {
            let before = counts.split_once(word)?.0.trim_end();
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        self.passed += count("passed").unwrap_or(0);
        self.failed += count("failed").unwrap_or(0);
    }
}

/// A store that the conformance suite ran on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) origin: String,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) not_applicable: u64,
}

impl Run {
    /// Whether it is a run on this store, as the suite names it: `NAME VERSION (ORIGIN)`.
    pub(crate) fn is_of(&self, store: &str) -> bool {
        parts(store) == (self.name.clone(), self.version.clone(), &*self.origin)
    }
}

/// Reads what the suite has written: a line per run, `ABOUT\tPASSED\tFAILED\tNOT APPLICABLE`.
pub(crate) fn runs(text: &str) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for line in text.lines() {
        let run = run(line).ok_or_else(|| format!("not a line of a summary: {line:?}"))?;
        let same = runs.iter_mut().find(|other| {
            (&other.name, &other.version, &other.origin) == (&run.name, &run.version, &run.origin)
        });
        match same {
            Some(same) => {
                same.passed += run.passed;
                same.failed += run.failed;
                same.not_applicable += run.not_applicable;
            }
            None => runs.push(run),
        }
    }
    Ok(runs)
}

/// A store's name and three numbers.
fn run(line: &str) -> Option<Run> {
    let mut fields = line.split('\t');
    let about = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (passed, failed, not_applicable) = (number()?, number()?, number()?);
    let (name, version, origin) = parts(about);
    Some(Run { name, version, origin: origin.to_owned(), passed, failed, not_applicable })
}

/// `NAME VERSION (ORIGIN)`, of which the last two may be missing.
fn parts(about: &str) -> (String, String, &str) {
    let (name, origin) = match about.split_once(" (") {
        Some((name, origin)) => (name, origin.strip_suffix(')').unwrap_or(origin)),
        None => (about, ""),
    };
    if ["Quorum ", "Switchover "].iter().any(|what| name.starts_with(what)) {
        let (names, versions) = combined(name);
        return (names, versions, origin);
    }
    // All from the first number on is the version: `1.18.0 before Postgres 15.20`.
    match name.match_indices(' ').find(|&(at, _)| is_number(&name[at + 1..])) {
        Some((at, _)) => (name[..at].to_owned(), name[at + 1..].to_owned(), origin),
        None => (name.to_owned(), String::new(), origin),
    }
}

fn is_number(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// The names and the versions of `Quorum of Redis 7.0.15, etcd 3.4.23, …`.
fn combined(stores: &str) -> (String, String) {
    let (mut names, mut versions) = (String::new(), Vec::new());
    for word in stores.split(' ') {
        let version = word.trim_end_matches(',');
        if is_number(word) {
            versions.push(version);
            names += &word[version.len()..];
        } else {
            names += if names.is_empty() { "" } else { " " };
            names += word;
        }
    }
    (names, versions.join(", "))
}

/// The runs as a table.
pub(crate) struct Table<'a>(pub(crate) &'a [Run]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = ["store", "version", "from", "passed", "failed", "not applicable"];
        let mut rows = vec![title.map(str::to_owned)];
        rows.extend(self.0.iter().map(|run| {
            let or_dash = |text: &String| {
                if text.is_empty() { "-".into() } else { text.clone() }
            };
            [
                run.name.clone(),
                or_dash(&run.version),
                or_dash(&run.origin),
                run.passed.to_string(),
                run.failed.to_string(),
                run.not_applicable.to_string(),
            ]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..title.len()).filter_map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).enumerate();
            for (column, (cell, &width)) in cells {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    1 | 2 => write!(f, "  {cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "test result_is_read ... ok",
        ] {
            tests.read(line);
        }
        assert_eq!(tests, Tests { passed: 13, failed: 2 });
    }

    #[test]
    fn runs_of_one_store_are_one_line() {
        let text = "Redis 7.0.15 (redis-server on this machine)\t60\t0\t1\n\
                    memory store\t50\t1\t11\n\
                    Redis 7.0.15 (redis-server on this machine)\t2\t0\t0\n";
        let runs = runs(text).unwrap();
        assert_eq!(runs.len(), 2);
        assert_eq!((runs[0].name.as_str(), runs[0].version.as_str()), ("Redis", "7.0.15"));
        assert_eq!((runs[0].passed, runs[0].not_applicable), (62, 1));
        assert_eq!((runs[1].name.as_str(), runs[1].version.as_str()), ("memory store", ""));
        assert!(runs[0].is_of("Redis 7.0.15 (redis-server on this machine)"));
        assert!(!runs[0].is_of("Redis 7.0.15 (elsewhere)"));
        let both = super::runs("PgBouncer 1.18.0 before Postgres 15.20 (x)\t1\t0\t0\n").unwrap();
        assert_eq!(both[0].name, "PgBouncer");
        assert_eq!(both[0].version, "1.18.0 before Postgres 15.20");
        assert!(super::runs("Redis\t1\t2\n").is_err());
    }

    #[test]
    fn a_combination_has_the_versions_of_its_stores() {
        let about = "Quorum of Redis 7.0.15, etcd 3.4.23, Postgres 15.20 (a; b)";
        let run = &runs(&format!("{about}\t1\t0\t0\n")).unwrap()[0];
        assert_eq!(run.name, "Quorum of Redis, etcd, Postgres");
        assert_eq!((&*run.version, &*run.origin), ("7.0.15, 3.4.23, 15.20", "a; b"));
        assert!(run.is_of(about) && !run.is_of("Quorum of Redis 7.0.15 (a; b)"));
        let run = &runs("Switchover from etcd 3.4.23 to Postgres 15.20\t1\t0\t0\n").unwrap()[0];
        assert_eq!(run.name, "Switchover from etcd to Postgres");
    }

    #[test]
    fn tables_have_straight_columns() {
        let runs = runs("Redis 7 (here)\t60\t0\t1\nm\t5\t10\t0\n").unwrap();
        assert_eq!(
            Table(&runs).to_string(),
            "store  version  from  passed  failed  not applicable\n\
             Redis  7        here      60       0               1\n\
             m      -        -          5      10               0\n"
        );
    }
}
