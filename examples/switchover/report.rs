//! What the run came to.

use std::fmt;
use std::time::Duration;

use leaselock::Phase;
use serde_json::{Value, json};

use crate::register::Tally;

pub(crate) struct Report {
    processes: usize,
    /// The phases, in order.
    way: Vec<Phase>,
    tally: Tally,
    wall: Duration,
}

impl Report {
    pub(crate) fn new(processes: usize, way: &[Phase], tally: &Tally, wall: Duration) -> Self {
        Self { processes, way: way.to_vec(), tally: tally.clone(), wall }
    }

    /// Nothing happened that must not, and what should be seen was seen.
    pub(crate) fn is_good(&self) -> bool {
        let acquired = |phase: &Phase| self.tally.acquired.get(phase) > Some(&0);
        // In between nobody took the idle key. In its phases somebody did, and tokens rose.
        let idle = self.tally.idle.iter().map(|(phase, _)| phase);
        let idle_was_seen = idle.eq(self.way.iter().filter(|phase| **phase != Phase::Both));
        self.tally.overlaps == 0
            && self.tally.fallen == 0
            && self.way.iter().all(acquired)
            && idle_was_seen
    }

    fn fields(&self) -> [(&'static str, Value); 11] {
        let acquired = |phase| json!(self.tally.acquired.get(&phase).unwrap_or(&0));
        let idle = self.tally.idle.iter().map(|(_, token)| token);
        let way: Vec<_> = self.way.iter().map(Phase::to_string).collect();
        [
            ("processes", json!(self.processes)),
            ("phases", json!(way)),
            ("acquired_in_old", acquired(Phase::Old)),
            ("acquired_in_both", acquired(Phase::Both)),
            ("acquired_in_new", acquired(Phase::New)),
            ("idle_key_tokens", json!(idle.collect::<Vec<_>>())),
            ("overlaps", json!(self.tally.overlaps)),
            ("tokens_fallen", json!(self.tally.fallen)),
            ("late_writes_refused", json!(self.tally.late)),
            ("failed_calls", json!(self.tally.failed)),
            ("wall_ms", json!(u64::try_from(self.wall.as_millis()).unwrap_or(u64::MAX))),
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
                Value::Array(values) => {
                    let values = values.iter().map(|value| match value {
                        Value::String(text) => text.clone(),
                        value => value.to_string(),
                    });
                    values.collect::<Vec<_>>().join(", ")
                }
                value => value.to_string(),
            };
            writeln!(f, "{name:<22}{value}")?;
        }
        Ok(())
    }
}
