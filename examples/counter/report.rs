//! What the run came to.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::workers::{Outcome, Tokens};

pub(crate) struct Report {
    workers: u64,
    last_value: u64,
    wall: Duration,
    wait_p50: Duration,
    wait_p99: Duration,
    backend_calls: u64,
    tokens: Option<Tokens>,
}

impl Report {
    pub(crate) fn new(workers: usize, last_value: u64, outcome: &Outcome) -> Self {
        let mut waits = outcome.waits.clone();
        waits.sort_unstable();
        Self {
            workers: workers as u64,
            last_value,
            wall: outcome.wall,
            wait_p50: percentile(&waits, 50),
            wait_p99: percentile(&waits, 99),
            backend_calls: outcome.backend_calls,
            tokens: outcome.tokens,
        }
    }

    /// How many additions are missing.
    pub(crate) fn lost(&self) -> u64 {
        self.workers.abs_diff(self.last_value)
    }

    fn fields(&self) -> [(&'static str, Value); 9] {
        [
            ("workers", json!(self.workers)),
            ("final", json!(self.last_value)),
            ("lost", json!(self.lost())),
            ("wall_ms", whole(self.wall.as_millis())),
            ("wait_p50_us", whole(self.wait_p50.as_micros())),
            ("wait_p99_us", whole(self.wait_p99.as_micros())),
            ("backend_calls", json!(self.backend_calls)),
            ("first_token", json!(self.tokens.map(|tokens| tokens.first))),
            ("last_token", json!(self.tokens.map(|tokens| tokens.last))),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        self.fields().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.fields() {
            let value = match value {
                Value::Null => "-".to_owned(),
                value => value.to_string(),
            };
            writeln!(f, "{name:<14}{value:>18}")?;
        }
        Ok(())
    }
}

fn whole(number: u128) -> Value {
    json!(u64::try_from(number).unwrap_or(u64::MAX))
}

/// The smallest value that `percent` of all are not above; zero of none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
