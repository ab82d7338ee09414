//! What one connection knows of the store's memory: for how long all data was kept.
//!
//! To ask for it in full takes the server longer than a lock does. The server process ends with
//! the connection: while that stands, the record of the incarnation alone tells whether the data is
//! still the same.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lockcore::{HolderId, Incarnation};
use redis::{Cmd, RedisError, Value};

use crate::answers;
use crate::call::Call;
use crate::scripts::INCARNATION;

/// The memory, as it was told last.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Option<Known>>);

#[derive(Clone, Debug)]
struct Known {
    /// What the record says.
    record: Vec<u8>,
    incarnation: Incarnation,
    at: Instant,
}

/// The question that follows a call which grants a lease.
pub(crate) enum Question {
    /// Whether the record is still this one.
    Same,
    InFull,
}

impl Memory {
    /// What to ask, as a command for the record of this name.
    pub(crate) fn question(&self, name: &str) -> (Question, Cmd) {
        if self.known().is_none() {
            return (Question::InFull, in_full(name));
        }
        let mut get = redis::cmd("GET");
        get.arg(name);
        (Question::Same, get)
    }

    /// The incarnation, if the record is the one that is known.
    pub(crate) fn same(&self, answer: &Result<Value, RedisError>) -> Option<Incarnation> {
        let known = self.known()?;
        let Ok(Value::BulkString(record)) = answer else { return None };
        // A clock here that is fast makes nobody older.
        let age = known.incarnation.age + known.at.elapsed().mul_f64(0.99);
        (*record == known.record).then(|| Incarnation::new(known.incarnation.id, age))
    }

    /// Learns what the script answered on a server that has run for `uptime` at least.
    pub(crate) fn learn(
        &self,
        answer: Result<Value, RedisError>,
        uptime: Duration,
    ) -> Option<Incarnation> {
        let record = answer.as_ref().ok().and_then(answers::incarnation_record);
        let incarnation = answers::incarnation(answer, uptime);
        let known = record.zip(incarnation).map(|(record, incarnation)| Known {
            record,
            incarnation,
            at: Instant::now(),
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
        incarnation
    }

    fn known(&self) -> Option<Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The question in full.
pub(crate) fn in_full(name: &str) -> Cmd {
    {
        let mut call = Call::new(&INCARNATION, 1, 1);
        call.text(name).text(&HolderId::random().to_string());
        call.done()
    }
}
