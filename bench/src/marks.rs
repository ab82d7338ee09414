//! The pass marks: what each figure is compared with, and how it must come out. Data only.

use crate::results::{Id, Results};
use crate::stores::{
    DIRECT, DISTRIBUTED_LOCK, LOCK_SERVICE, OURS, POLLING, RAW, RSLOCK, SERVERS, SWAP, Store,
};

/// One pass mark.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) of: Id,
    /// The figure is divided by this one, repeat by repeat.
    pub(crate) over: Option<Id>,
    pub(crate) bound: Bound,
    /// Whether the worst repeat counts in place of the median.
    pub(crate) worst: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// How a mark came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Met(f64),
    NotMet(f64),
    NotMeasured,
}

impl Mark {
    fn new(of: Id, bound: Bound) -> Self {
        Self { of, over: None, bound, worst: false }
    }

    fn over(self, over: Id) -> Self {
        Self { over: Some(over), ..self }
    }

    /// Compared with another contender at the same work.
    fn over_contender(self, contender: &str) -> Self {
        let over = Id { contender: contender.to_owned(), ..self.of.clone() };
        self.over(over)
    }

    fn worst(self) -> Self {
        Self { worst: true, ..self }
    }

    pub(crate) fn verdict(&self, results: &Results) -> Verdict {
        let figure = match &self.over {
            Some(over) => results.ratio(&self.of, over).map(|[median, ..]| median),
            None if self.worst => results.worst(&self.of),
            None => results.median(&self.of),
        };
        let Some(figure) = figure else { return Verdict::NotMeasured };
        let met = match self.bound {
            AtMost(most) => figure <= most,
            AtLeast(least) => figure >= least,
        };
        if met { Verdict::Met(figure) } else { Verdict::NotMet(figure) }
    }
}

use Bound::{AtLeast, AtMost};

/// A figure of the library's.
fn ours(row: &'static str, store: Store, setup: &str, name: &str) -> Id {
    Id::new(row, store.name(), setup, OURS, name)
}

/// All marks.
pub(crate) fn marks() -> Vec<Mark> {
    let mut marks = Vec::new();
    for store in SERVERS {
        uncontended(store, &mut marks);
        contended(store, &mut marks);
        fairness(store, &mut marks);
        held(store, &mut marks);
    }
    records(&mut marks);
    marks
}

fn uncontended(store: Store, marks: &mut Vec<Mark>) {
    for (runtime, most) in [("ct", 1.05), ("mt", 1.10)] {
        let most = if store == Store::Etcd { 1.10 } else { most };
        let pair = ours("pair", store, runtime, "p50");
        marks.push(Mark::new(pair, AtMost(most)).over_contender(RAW));
        let tasks = ours("tasks", store, &format!("256 tasks, {runtime}"), "ops/s");
        marks.push(Mark::new(tasks.clone(), AtLeast(0.9)).over_contender(RAW));
        match store {
            Store::Redis => marks.push(Mark::new(tasks, AtLeast(0.6)).over_contender(RSLOCK)),
            Store::Postgres => {
                marks.push(Mark::new(tasks, AtLeast(1.0)).over_contender(DISTRIBUTED_LOCK));
            }
            _ => {}
        }
    }
}

fn contended(store: Store, marks: &mut Vec<Mark>) {
    let commands = if store == Store::Etcd { 2.2 } else { 1.1 };
    let one_key = |name| ours("one-key", store, "500 tasks", name);
    marks.push(Mark::new(one_key("commands"), AtMost(commands)));
    marks.push(Mark::new(one_key("wall"), AtMost(1.3)).over_contender(SWAP));
    if store == Store::Postgres {
        marks.push(Mark::new(one_key("wall"), AtMost(1.0)).over_contender(DISTRIBUTED_LOCK));
    }

    let hand_over = |waiting, name| ours("hand-over", store, &format!("{waiting} waiting"), name);
    let direct = if store == Store::Postgres { [2.0, 3.0, 4.0] } else { [2.0; 3] };
    for (waiting, most) in [2, 16, 64].into_iter().zip(direct) {
        marks.push(Mark::new(hand_over(waiting, "commands"), AtMost(4.0)));
        if store == Store::Etcd {
            marks.push(Mark::new(hand_over(waiting, "messages"), AtMost(7.0)));
        }
        marks.push(Mark::new(hand_over(waiting, "p50"), AtMost(most)).over_contender(DIRECT));
    }
    let growth = if store == Store::Postgres { 2.0 } else { 1.5 };
    marks.push(Mark::new(hand_over(64, "p50"), AtMost(growth)).over(hand_over(2, "p50")));
    let peers: &[_] = match store {
        Store::Postgres => &[("p50", 2.0, DISTRIBUTED_LOCK)],
        Store::Etcd => &[("p50", 1.15, LOCK_SERVICE), ("p99", 0.5, LOCK_SERVICE)],
        _ => &[],
    };
    for &(name, most, peer) in peers {
        marks.push(Mark::new(hand_over(16, name), AtMost(most)).over_contender(peer));
    }
}

fn fairness(store: Store, marks: &mut Vec<Mark>) {
    let of = |setup, name| ours("fairness", store, setup, name);
    marks.push(Mark::new(of("one farther", "share"), AtLeast(0.5)));
    if store != Store::Etcd {
        let polling = Id { contender: POLLING.to_owned(), ..of("one farther", "share") };
        marks.push(Mark::new(polling, AtLeast(0.5)));
    }
    marks.push(Mark::new(of("8 processes of 50", "share"), AtLeast(0.8)));
    for setup in ["one farther", "8 processes of 50"] {
        marks.push(Mark::new(of(setup, "longest"), AtMost(20.0)).worst());
    }
}

fn held(store: Store, marks: &mut Vec<Mark>) {
    let of = |setup, name| ours("held", store, setup, name);
    let (name, most) = match store {
        Store::Postgres => ("commands", 10.0),
        Store::Etcd => ("proposals", 60.0),
        _ => ("commands", 60.0),
    };
    marks.push(Mark::new(of("10000 locks", name), AtMost(most)));
    let cpu = if store == Store::Etcd { 1.0 } else { 0.1 };
    marks.push(Mark::new(of("10000 locks", "cpu"), AtMost(cpu)));
    // A few tasks belong to the connection.
    marks.push(Mark::new(of("10000 locks", "tasks"), AtMost(0.01)));
    marks.push(Mark::new(of("10000 locks", "bytes"), AtMost(1_024.0)));
    marks.push(Mark::new(of("10000 locks, together", "lost"), AtMost(0.0)).worst());
    if store != Store::Etcd {
        marks.push(Mark::new(of("50000 locks", "tasks"), AtMost(0.01)));
        marks.push(Mark::new(of("50000 locks", "bytes"), AtMost(1_024.0)));
        marks.push(Mark::new(of("50000 locks, together", "lost"), AtMost(0.0)).worst());
    }
}

/// Marks about one store alone.
fn records(marks: &mut Vec<Mark>) {
    let server = |name| ours("server", Store::Redis, "100 calls", name);
    marks.push(Mark::new(server("acquire us"), AtMost(8.0)));
    marks.push(Mark::new(server("release us"), AtMost(5.0)));
    for name in ["ambiguous", "failed"] {
        let free = ours("free", Store::Etcd, "6000 tasks", name);
        marks.push(Mark::new(free, AtMost(0.0)).worst());
    }
    let keys = |name| ours("keys", Store::Redis, "1000 keys", name);
    marks.push(Mark::new(keys("bytes"), AtMost(140.0)));
    marks.push(Mark::new(keys("later"), AtMost(0.0)));
    for runtime in ["ct", "mt"] {
        let quorum = ours("quorum", Store::Quorum, &format!("256 tasks, {runtime}"), "ops/s");
        marks.push(Mark::new(quorum, AtLeast(0.8)).over_contender(RAW));
    }
    let memory = |setup, name| ours("memory", Store::Memory, setup, name);
    marks.push(Mark::new(memory("1 task, ct", "instructions"), AtMost(7_000.0)));
    marks.push(Mark::new(memory("1 task, ct", "ns"), AtMost(2_000.0)));
    marks.push(Mark::new(memory("1 task, mt", "ns"), AtMost(3_000.0)));
    let one = memory("8 tasks, 1 worker", "ns");
    let two = memory("8 tasks, 2 workers", "ns");
    marks.push(Mark::new(one, AtLeast(1.7)).over(two));
}
