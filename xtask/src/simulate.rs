//! `cargo xtask simulate`: the simulation of lockcore with many seeds.

use std::time::Instant;

use crate::Result;
use crate::processes::{cargo, shown, succeeds};

const TEST: [&str; 7] =
    ["test", "--profile", "simulation", "--package", "lockcore", "--test", "simulation"];

/// What the caller asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    seeds: u64,
    seconds: u64,
    seed: Option<u64>,
    twice: bool,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self { seeds: 10_000, seconds: 300, seed: None, twice: false };
        let mut args = args.iter();
        while let Some(&arg) = args.next() {
            let mut number = || -> Result<u64> {
                let text = args.next().ok_or_else(|| format!("{arg}: how many?"))?;
                text.parse().map_err(|_| format!("{arg} {text}: not a number").into())
            };
            match arg {
                "--seeds" => options.seeds = number()?,
                "--seconds" => options.seconds = number()?,
                "--seed" => options.seed = Some(number()?),
                "--twice" => options.twice = true,
                other => return Err(format!("{other}: see cargo xtask help").into()),
            }
        }
        Ok(options)
    }

    /// The test that does it, and what it is told.
    fn plan(&self) -> (&'static str, Vec<(&'static str, u64)>) {
        let seconds = ("LOCKCORE_SECONDS", self.seconds);
        if let Some(seed) = self.seed {
            return ("promises_hold", vec![("LOCKCORE_SEED", seed), seconds]);
        }
        if self.twice {
            let test = "the_same_seed_gives_the_same_run";
            return (test, vec![("LOCKCORE_TWICE", self.seeds.min(2_000)), seconds]);
        }
        ("promises_hold", vec![("LOCKCORE_SEEDS", self.seeds), seconds])
    }
}

/// Runs it; whether all promises held.
pub(crate) fn run(args: &[&str]) -> Result<bool> {
    let options = Options::parse(args)?;
    let (test, wishes) = options.plan();
    let mut build = cargo()?;
    build.args(TEST).arg("--no-run");
    println!("{}", shown(&build));
    if !succeeds(&mut build)? {
        return Ok(false);
    }
    let start = Instant::now();
    let mut simulate = cargo()?;
    simulate.args(TEST).args(["--quiet", "--", "--exact", "--nocapture", test]);
    for name in ["LOCKCORE_SEED", "LOCKCORE_SEEDS", "LOCKCORE_SECONDS", "LOCKCORE_TWICE"] {
        simulate.env_remove(name);
    }
    simulate.envs(wishes.iter().map(|(name, value)| (name, value.to_string())));
    let passed = succeeds(&mut simulate)?;
    println!(
        "{} in {:.1} s",
        if passed { "passed" } else { "FAILED" },
        start.elapsed().as_secs_f64()
    );
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let options = Options::parse(&["--seeds", "50", "--seconds", "20"]).unwrap();
        assert_eq!(
            options.plan(),
            ("promises_hold", vec![("LOCKCORE_SEEDS", 50), ("LOCKCORE_SECONDS", 20)])
        );
        let one = Options::parse(&["--seed", "7"]).unwrap();
        assert_eq!(one.plan().1[0], ("LOCKCORE_SEED", 7));
        let twice = Options::parse(&["--twice"]).unwrap();
        assert_eq!(twice.plan().1[0], ("LOCKCORE_TWICE", 2_000));
        for wrong in [&["--seed"][..], &["--seeds", "x"], &["--fast"]] {
            assert!(Options::parse(wrong).is_err());
        }
    }
}
