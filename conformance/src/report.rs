//! What came out, for machines (JSON) and for people (Markdown).

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use lockcore::Limits;
use serde_json::{Value, json};

/// A run of the suite on one store.
#[derive(Debug)]
pub(crate) struct Report {
    /// The store and its version.
    pub(crate) store: String,
    /// Unknown where no client could be connected.
    pub(crate) limits: Option<Limits>,
    pub(crate) signals: bool,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) cases: Vec<Record>,
}

/// How one case ended.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) name: &'static str,
    pub(crate) law: &'static str,
    pub(crate) result: CaseResult,
    pub(crate) time: Duration,
    /// What it has measured, if it passed.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CaseResult {
    Passed,
    Failed(String),
    NotApplicable(String),
}

impl CaseResult {
    fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::NotApplicable(_) => "not applicable",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Failed(why) | Self::NotApplicable(why) => Some(why),
        }
    }
}

impl Report {
    fn count(&self, name: &str) -> usize {
        self.cases.iter().filter(|case| case.result.name() == name).count()
    }

    /// The line that ends a run.
    pub(crate) fn summary(&self) -> String {
        let [passed, failed, other] = ["passed", "failed", "not applicable"].map(|n| self.count(n));
        let Self { store, seed, .. } = self;
        format!(
            "conformance of {store}: {passed} passed, {failed} failed, {other} not applicable \
             (seed {seed})"
        )
    }

    /// Writes what the command line and the environment ask for.
    pub(crate) fn write(&self, file: Option<&Path>) -> io::Result<()> {
        if let Some(path) = env::var_os("LOCKCORE_TEST_SUMMARY") {
            let [passed, failed, other] =
                ["passed", "failed", "not applicable"].map(|n| self.count(n));
            let line = format!("{}\t{passed}\t{failed}\t{other}\n", self.store);
            let mut summary = fs::OpenOptions::new().create(true).append(true).open(path)?;
            summary.write_all(line.as_bytes())?;
        }
        let folder = env::var_os("LOCKCORE_TEST_REPORT").filter(|folder| !folder.is_empty());
        let folder = folder.map(PathBuf::from);
        if let Some(folder) = &folder {
            fs::create_dir_all(folder)?;
        }
        let named = folder.map(|folder| folder.join(self.file_name()));
        for file in file.into_iter().chain(named.as_deref()) {
            let mut json = format!("{:#}", self.json());
            json.push('\n');
            fs::write(file, json)?;
            fs::write(file.with_extension("md"), self.markdown())?;
        }
        Ok(())
    }

    /// `conformance-redis-7-0-15-redis-server-on-this-machine.json`: the test, and the store.
    fn file_name(&self) -> String {
        let program = env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // Without the hash that cargo puts behind it.
        let stem = match stem.rsplit_once('-') {
            Some((stem, hash)) if hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => stem,
            _ => &stem,
        };
        let words = self.store.split(|c: char| !c.is_ascii_alphanumeric());
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        format!("{stem}-{}.json", words.join("-").to_lowercase())
    }

    fn json(&self) -> Value {
        let cases = self.cases.iter().map(|case| {
            json!({
                "name": case.name,
                "law": case.law,
                "result": case.result.name(),
                "why": case.result.why(),
                "seconds": case.time.as_secs_f64(),
                "notes": case.notes,
            })
        });
        json!({
            "suite": env!("CARGO_PKG_VERSION"),
            "store": self.store,
            "limits": self.limits.map(|limits| json!({
                "min_ttl_seconds": limits.min_ttl.as_secs_f64(),
                "max_ttl_seconds": limits.max_ttl.as_secs_f64(),
                "expiry_lag_seconds": limits.expiry_lag.as_secs_f64(),
                "max_token": limits.max_token,
            })),
            "signals": self.signals,
            "seed": self.seed,
            "seconds": self.seconds,
            "passed": self.count("passed"),
            "failed": self.count("failed"),
            "not_applicable": self.count("not applicable"),
            "cases": cases.collect::<Vec<_>>(),
        })
    }

    fn markdown(&self) -> String {
        let mut page = format!("# Conformance of {}\n\n", cell(&self.store));
        let [passed, failed, other] = ["passed", "failed", "not applicable"].map(|n| self.count(n));
        let _ = writeln!(
            page,
            "{passed} passed, {failed} failed, {other} not applicable, in {:.1} s; seed {}; suite {}.\n",
            self.seconds,
            self.seed,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(limits) = &self.limits {
            let _ = writeln!(
                page,
                "| Limit | |\n|---|---|\n| shortest ttl | {:?} |\n| longest ttl | {:?} |\n\
                 | a lease is gone after its end within | {:?} |\n| largest floor | {} |\n\
                 | a release | {} |\n",
                limits.min_ttl,
                limits.max_ttl,
                limits.expiry_lag,
                limits.max_token,
                if self.signals { "wakes those who wait" } else { "is noticed by polling" },
            );
        }
        page += "| Case | Law | Result | Seconds |\n|---|---|---|---|\n";
        for case in &self.cases {
            let why = case.result.why().map(|why| format!(": {}", cell(first_line(why))));
            let (name, law, result) = (case.name, case.law, case.result.name());
            let (why, seconds) = (why.unwrap_or_default(), case.time.as_secs_f64());
            let _ = writeln!(page, "| `{name}` | {law} | {result}{why} | {seconds:.2} |");
        }
        let noted: Vec<_> = self.cases.iter().filter(|case| !case.notes.is_empty()).collect();
        if !noted.is_empty() {
            page += "\n## Notes\n\nWhat the cases that passed have measured.\n\n";
        }
        for Record { name, notes, .. } in noted {
            let _ = writeln!(page, "- `{name}`");
            for note in notes {
                let _ = writeln!(page, "  - {}", cell(first_line(note)));
            }
        }
        page
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Text that cannot end a cell of a table, or be taken for markup.
fn cell(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '|' | '<' | '&' => {
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            '`' | '*' | '_' | '[' | '\\' => safe.extend(['\\', c]),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let case = |name, result| Record {
            name,
            law: "L1",
            result,
            time: Duration::from_millis(1500),
            notes: vec!["1 of 2".to_owned()],
        };
        Report {
            store: "Some|store 1.0 (here)".to_owned(),
            limits: Some(Limits::new(Duration::from_secs(2), Duration::from_secs(60))),
            signals: false,
            seed: 7,
            seconds: 3.25,
            cases: vec![
                case("a::b", CaseResult::Passed),
                case("a::c", CaseResult::Failed("law L1: a | b\n    more".to_owned())),
                case("a::d", CaseResult::NotApplicable("no \"wire\"".to_owned())),
            ],
        }
    }

    #[test]
    fn machines_can_read_it() {
        let text = report().json().to_string();
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["limits"]["min_ttl_seconds"], 2.0);
        assert_eq!((&read["seed"], &read["passed"]), (&json!(7), &json!(1)));
        assert_eq!(read["cases"][0]["why"], Value::Null);
        assert_eq!(read["cases"][1]["why"], "law L1: a | b\n    more");
        assert_eq!(read["cases"][2]["result"], "not applicable");
        assert_eq!(read["cases"][2]["seconds"], 1.5);
        assert_eq!(read["cases"][2]["notes"][0], "1 of 2");
    }

    #[test]
    fn people_can_read_it() {
        let page = report().markdown();
        assert!(page.starts_with("# Conformance of Some&#124;store 1.0 (here)\n"), "{page}");
        assert!(page.contains("\n| `a::c` | L1 | failed: law L1: a &#124; b | 1.50 |\n"), "{page}");
        assert!(page.contains("\n| shortest ttl | 2s |\n"), "{page}");
        assert!(page.contains("polling"), "{page}");
        assert!(page.contains("\n- `a::b`\n  - 1 of 2\n"), "{page}");
    }

    #[test]
    fn a_report_is_named_after_its_store() {
        let name = report().file_name();
        assert!(name.ends_with("-some-store-1-0-here.json"), "{name}");
    }
}
