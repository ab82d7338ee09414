//! What can be said on the command line, besides libtest's arguments.

use std::path::PathBuf;

use clap::Parser;
use libtest_mimic::{Arguments, Trial};

#[derive(Debug, Parser)]
#[command(
    help_template = "USAGE: [OPTIONS] [FILTER]...\n\n{all-args}\n",
    disable_version_flag = true
)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) libtest: Arguments,

    /// More filters: a case is run if any of them is in its name.
    #[arg(value_name = "MORE FILTERS")]
    more: Vec<String>,

    /// Writes what came out, as JSON to FILE and for people beside it, in Markdown.
    #[arg(long, value_name = "FILE", value_parser = json_file)]
    pub(crate) report: Option<PathBuf>,

    /// Where all random choices come from; each run without it has a new one, and says which.
    #[arg(long, value_name = "N", env = "LOCKCORE_TEST_SEED")]
    pub(crate) seed: Option<u64>,

    /// Runs nothing: checks a history that a failed case has printed.
    #[arg(long, value_name = "FILE")]
    pub(crate) check_history: Option<PathBuf>,
}

fn json_file(file: &str) -> Result<PathBuf, String> {
    let file = PathBuf::from(file);
    if file.extension().is_some_and(|extension| extension == "md") {
        return Err("the report for people is written beside it, with that ending".to_owned());
    }
    Ok(file)
}

impl Options {
    /// The cases that any of the filters wants; libtest knows one filter only.
    pub(crate) fn wanted(&mut self, trials: Vec<Trial>) -> Vec<Trial> {
        if self.more.is_empty() {
            return trials;
        }
        let exact = self.libtest.exact;
        let filters: Vec<_> =
            self.libtest.filter.take().into_iter().chain(self.more.drain(..)).collect();
        let wanted = |name: &str| {
            filters.iter().any(|filter| if exact { name == filter } else { name.contains(filter) })
        };
        trials.into_iter().filter(|trial| wanted(trial.name())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["conformance"].iter().chain(arguments))
    }

    fn left(arguments: &[&str]) -> Vec<String> {
        let trials = ["a::one", "a::two", "b::one"].map(|name| Trial::test(name, || Ok(())));
        let mut options = parsed(arguments).expect("arguments");
        options.wanted(trials.into()).iter().map(|trial| trial.name().to_owned()).collect()
    }

    #[test]
    fn any_filter_lets_a_case_in() {
        assert_eq!(left(&["b::", "two"]), ["a::two", "b::one"]);
        assert_eq!(left(&["--exact", "a::one", "b::one", "a"]), ["a::one", "b::one"]);
        // One filter is libtest's.
        assert_eq!(left(&["b::"]).len(), 3);
    }

    #[test]
    fn options_stand_anywhere_among_libtests() {
        let options = parsed(&["--report", "r.json", "x", "--seed=7", "--exact"]).expect("these");
        assert_eq!((options.seed, options.libtest.exact), (Some(7), true));
        assert_eq!(options.libtest.filter.as_deref(), Some("x"));
        assert_eq!(options.report, Some(PathBuf::from("r.json")));
        assert!(parsed(&["--report", "r.md"]).is_err());
    }
}
