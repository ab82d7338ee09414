//! What the runs of the conformance suite have left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::Result;
use crate::servers::Plan;
use crate::summary::{Run, runs};
use crate::workspace::scratch;

/// Why the cases about signals are not applicable, in the suite's words.
pub(crate) const NO_SIGNALS: &str = "the store does not signal releases";

/// Why the cases about memory are not applicable, in the suite's words.
pub(crate) const NO_MEMORY: &str = "the store does not tell its memory";

/// Why the cases about lines are not applicable, in the suite's words.
pub(crate) const NO_LINE: &str = "the store has no line";

/// Why the cases about formats are not applicable, in the suite's words.
pub(crate) const NO_FIXTURE: &str = "the harness has no fixture client";

/// Where the suite is told to write, for one run of this program.
#[derive(Debug)]
pub(crate) struct Records {
    /// Marks the containers of these tests.
    id: String,
    summary: PathBuf,
    reports: PathBuf,
}

/// One run of the suite, case by case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) store: String,
    /// The shortest ttl, and how long after its end a lease is gone at the latest; in seconds.
    pub(crate) limits: Option<(f64, f64)>,
    /// Why cases were not applicable, one reason for each.
    pub(crate) not_applicable: Vec<String>,
}

impl Records {
    /// Makes the places, and names them in the tests' environment.
    pub(crate) fn new(plan: &mut Plan) -> Result<Self> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let id = format!("{}-{}", since_1970.as_millis(), std::process::id());
        let summary = scratch()?.join(format!("summary-{id}.tsv"));
        let reports = scratch()?.join(format!("reports-{id}"));
        fs::write(&summary, "")?;
        fs::create_dir(&reports)?;
        plan.set("LOCKCORE_TEST_RUN", &id);
        plan.set("LOCKCORE_TEST_SUMMARY", &summary.to_string_lossy());
        plan.set("LOCKCORE_TEST_REPORT", &reports.to_string_lossy());
        Ok(Self { id, summary, reports })
    }

    /// What the suite has written, and nothing stays behind: neither files nor containers.
    pub(crate) fn take(self, plan: &Plan) -> Result<(Vec<Run>, Vec<Report>)> {
        if let Some(engine) = plan.engine {
            match engine.remove_containers(&format!("lockcore.test.run={}", self.id)) {
                Ok(0) => {}
                Ok(left) => println!("removed {left} containers that the tests have left behind"),
                Err(error) => println!("containers may be left behind: {error}"),
            }
        }
        let runs = runs(&fs::read_to_string(&self.summary)?)?;
        let reports = reports(&self.reports)?;
        fs::remove_file(&self.summary)?;
        fs::remove_dir_all(&self.reports)?;
        Ok((runs, reports))
    }
}

fn reports(folder: &Path) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let report = read(&fs::read_to_string(&path)?);
            reports.push(report.ok_or_else(|| format!("not a report: {}", path.display()))?);
        }
    }
    Ok(reports)
}

fn read(json: &str) -> Option<Report> {
    let report: Value = serde_json::from_str(json).ok()?;
    let limits = &report["limits"];
    let seconds = |name: &str| limits[name].as_f64();
    let limits = seconds("min_ttl_seconds").zip(seconds("expiry_lag_seconds"));
    let cases = report["cases"].as_array()?.iter();
    let not_applicable = cases
        .filter(|case| case["result"] == "not applicable")
        .map(|case| case["why"].as_str().unwrap_or_default().to_owned())
        .collect();
    Some(Report { store: report["store"].as_str()?.to_owned(), limits, not_applicable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let json = r#"{"store":"PgBouncer 1.18.0 before Postgres 15.20 (x)",
            "limits":{"min_ttl_seconds":0.001,"expiry_lag_seconds":0.0},
            "cases":[{"name":"a","result":"passed","why":null},
                     {"name":"b","result":"not applicable","why":"because"}]}"#;
        let report = read(json).unwrap();
        assert_eq!(report.store, "PgBouncer 1.18.0 before Postgres 15.20 (x)");
        assert_eq!(report.limits, Some((0.001, 0.0)));
        assert_eq!(report.not_applicable, ["because"]);
        assert_eq!(read("{\"store\":\"x\"}"), None);
        assert_eq!(read(r#"{"store":"x","limits":null,"cases":[]}"#).unwrap().limits, None);
    }
}
