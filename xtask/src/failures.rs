//! What failed, said once more where it is looked for: at the end of a long output.

use std::fmt;

/// Lines of a reason that are shown again. The rest is a history or a backtrace, and stands above.
const LINES: usize = 12;

/// The tests that failed, and why, as their programs have said it.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    failures: Vec<Failure>,
    /// Whether what is read belongs to the last of them.
    reading: bool,
}

#[derive(Debug)]
struct Failure {
    name: String,
    reason: Vec<String>,
}

impl Failures {
    /// Reads a line of a test program's output: `---- NAME stdout ----` and what follows, to the
    /// next of its kind or the list of names behind all of them.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = name(line) {
            self.failures.push(Failure { name: name.to_owned(), reason: Vec::new() });
            self.reading = true;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.reading = false;
        } else if self.reading
            && !line.is_empty()
            && let Some(failure) = self.failures.last_mut()
        {
            failure.reason.push(line.to_owned());
        }
    }

    /// What is read from now on is another program's.
    pub(crate) fn end(&mut self) {
        self.reading = false;
    }
}

fn name(line: &str) -> Option<&str> {
    let name = line.strip_prefix("---- ")?.strip_suffix(" ----")?;
    Some(name.strip_suffix(" stdout").unwrap_or(name))
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failure { name, reason } in &self.failures {
            writeln!(f, "{name} FAILED")?;
            for line in reason.iter().take(LINES) {
                writeln!(f, "    {line}")?;
            }
            let more = reason.len().saturating_sub(LINES);
            if more > 0 {
                writeln!(f, "    ({more} more lines above)")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> String {
        let mut failures = Failures::default();
        output.split_inclusive('\n').for_each(|line| failures.read(line));
        failures.to_string()
    }

    #[test]
    fn reasons_are_said_again() {
        let output = "\
test a::one ... FAILED
test b ... ok

failures:

---- a::one stdout ----

thread 'a::one' panicked at src/lib.rs:3:
left of right
---- wire::cut ----
law L7: too late
    again with --seed 1


failures:
    a::one
    wire::cut

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out
something else
";
        assert_eq!(
            read(output),
            "a::one FAILED\n    thread 'a::one' panicked at src/lib.rs:3:\n    left of right\n\
             wire::cut FAILED\n    law L7: too late\n        again with --seed 1\n"
        );
    }

    #[test]
    fn long_reasons_are_cut() {
        let history: String = (0..LINES + 5).map(|n| format!("line {n}\n")).collect();
        let said = read(&format!("---- x ----\n{history}"));
        assert!(said.ends_with("    line 11\n    (5 more lines above)\n"), "{said}");
        assert_eq!(read("test b ... ok\n"), "");
    }
}
