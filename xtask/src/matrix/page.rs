//! The page about compatibility.

use std::fmt::Write as _;

use crate::report::Report;
use crate::summary::Run;

const HEAD: &str = "\
<!-- Written by `cargo xtask matrix`. Changes by hand are lost. -->

# Compatibility

The conformance suite on real servers, each in a container of its own: how many of its cases
passed, failed, or were not applicable. The versions are the servers' own words.

| Store | Version | From | Passed | Failed | Not applicable | Shortest ttl | Gone after its end within |
|---|---|---|---:|---:|---:|---:|---:|
";

/// A run of the suite, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    /// Where the server came from.
    pub(super) from: String,
    pub(super) run: Option<Run>,
    pub(super) report: Option<Report>,
    pub(super) error: Option<String>,
}

/// Nothing in it is of the day: where it changes, a fact has changed.
pub(super) fn page(lines: &[Line]) -> String {
    let mut page = HEAD.to_owned();
    let mut notes = Vec::new();
    for line in lines {
        let Line { name, from, .. } = line;
        let Some(run) = &line.run else {
            let _ = writeln!(page, "| {name} | | {from} | not run | | | | |");
            let why = line.error.as_deref().unwrap_or_default();
            notes.push(format!("{name} was not run: {why}"));
            continue;
        };
        let Run { name, version, passed, failed, not_applicable, .. } = run;
        let limits = line.report.as_ref().and_then(|report| report.limits);
        let limit = |seconds: Option<f64>| seconds.map_or(String::new(), |s| format!("{s} s"));
        let (ttl, lag) = (limit(limits.map(|(ttl, _)| ttl)), limit(limits.map(|(_, lag)| lag)));
        let _ = writeln!(
            page,
            "| {name} | {version} | {from} | {passed} | {failed} | {not_applicable} | {ttl} | {lag} |"
        );
        let mut reasons = line.report.iter().flat_map(|report| &report.not_applicable).peekable();
        if reasons.peek().is_some() {
            let mut reasons: Vec<_> = reasons.map(String::as_str).collect();
            reasons.sort_unstable();
            reasons.dedup();
            let reasons = reasons.join("; ");
            notes.push(format!("{name} {version}: not applicable, as {reasons}"));
        }
    }
    if !notes.is_empty() {
        page.push('\n');
    }
    for note in notes {
        let _ = writeln!(page, "- {note}.");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::runs;

    #[test]
    fn each_run_is_a_line_and_what_is_not_green_is_explained() {
        let about = "PgBouncer 1.18.0 before Postgres 15.20 (container image x)";
        let run = runs(&format!("{about}\t60\t1\t2\n")).unwrap().remove(0);
        let why = "the store does not signal releases".to_owned();
        let report = Report {
            store: about.to_owned(),
            limits: Some((0.001, 0.0)),
            not_applicable: vec![why.clone(), why],
        };
        let from = "Debian bookworm: postgresql-15 15.20-0".to_owned();
        let name = "postgres-15";
        let ran = Line { name, from, run: Some(run), report: Some(report), error: None };
        let (run, report, error) = (None, None, Some("no package".to_owned()));
        let lost = Line { name: "x-1", from: "Debian sid".to_owned(), run, report, error };
        let page = page(&[ran, lost]);
        let (_, rows) = page.split_once("---:|\n").unwrap();
        assert_eq!(
            rows,
            "| PgBouncer | 1.18.0 before Postgres 15.20 | Debian bookworm: postgresql-15 15.20-0 \
             | 60 | 1 | 2 | 0.001 s | 0 s |\n\
             | x-1 | | Debian sid | not run | | | | |\n\n\
             - PgBouncer 1.18.0 before Postgres 15.20: not applicable, as the store does not \
             signal releases.\n\
             - x-1 was not run: no package.\n"
        );
    }
}
