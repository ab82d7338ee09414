//! The messages between parent and child process: a job and its outcome, a line of JSON each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stores::Store;

/// A job of one child process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) store: Store,
    /// In the order in which they are measured.
    pub(crate) contenders: Vec<String>,
    pub(crate) urls: Vec<String>,
    /// Threads of the runtime; none: tokio's current-thread runtime.
    pub(crate) workers: usize,
    /// The beginning of all keys, so that no two measurements share one.
    pub(crate) key: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// One task acquires and releases, with the contenders in turns of a few cycles.
    Pair { seconds: f64 },
    /// Tasks acquire and release, each a key of its own.
    Tasks { tasks: usize, seconds: f64 },
    /// Tasks want one key, each once.
    OneKey { tasks: usize },
    /// Tasks want one key again and again.
    Turns(Turns),
    /// Locks are held and renewed.
    Hold { locks: usize, ttl: f64, seconds: f64 },
    /// Tasks wait for a key that another process holds.
    Wait { waiters: usize, seconds: f64 },
    /// Tasks acquire a free key each, all at once, while the cores are busy.
    Free { tasks: usize },
    /// The memory store: the backend alone and the library.
    Memory { tasks: usize, seconds: f64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Turns {
    pub(crate) tasks: usize,
    /// How long the key is held, in seconds.
    pub(crate) hold: f64,
    pub(crate) seconds: f64,
    /// This process makes the key ready for all.
    pub(crate) first: bool,
}

/// The figures of one job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Figures by contender and name.
    pub(crate) figures: BTreeMap<String, BTreeMap<String, f64>>,
    /// Each turn: when the key was wanted, granted and about to be released, in nanoseconds of the
    /// machine's monotonic clock. A turn without a grant has zeros.
    pub(crate) turns: Vec<[u64; 3]>,
    /// Why a contender has no figures.
    pub(crate) failed: BTreeMap<String, String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, contender: &str, name: &str, figure: f64) {
        self.figures.entry(contender.to_owned()).or_default().insert(name.to_owned(), figure);
    }
}
