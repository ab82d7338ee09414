//! The rows of the report.

mod contended;
mod held;
mod records;
mod uncontended;

use std::pin::Pin;

use crate::Result;
use crate::bench::Bench;

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A group of measurements.
pub(crate) struct Row {
    /// For `--only`, and in figures.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// How it is measured.
    pub(crate) note: &'static str,
    /// Its figures, in the order of the table's columns: the name, and the column's heading.
    pub(crate) columns: &'static [(&'static str, &'static str)],
    pub(crate) run: for<'a> fn(&'a mut Bench) -> Running<'a>,
}

pub(crate) const ROWS: [Row; 12] = [
    Row {
        name: "pair",
        title: "Acquire and release, one task",
        note: "One task on one key. The contenders take turns of 20 cycles in one process, so that \
               other work on the machine slows all of them.",
        columns: &[("p50", "p50, µs"), ("p99", "p99, µs")],
        run: |bench| Box::pin(uncontended::pair(bench)),
    },
    Row {
        name: "server",
        title: "What the store does for it",
        note: "A hundred calls at once, each on a key that was never used. Redis and Postgres tell \
               the time themselves (`INFO commandstats`, `pg_stat_statements`), etcd its proposals.",
        columns: &[
            ("acquire us", "acquire, µs"),
            ("release us", "release, µs"),
            ("acquire commands", "commands an acquire"),
            ("release commands", "commands a release"),
            ("proposals", "proposals a cycle"),
        ],
        run: |bench| Box::pin(records::server(bench)),
    },
    Row {
        name: "tasks",
        title: "Many tasks, a key each",
        note: "Tasks of one process acquire and release, each its own key.",
        columns: &[("ops/s", "cycles/s"), ("p50", "p50, µs"), ("p99", "p99, µs")],
        run: |bench| Box::pin(uncontended::tasks(bench)),
    },
    Row {
        name: "one-key",
        title: "500 tasks, one key, one process",
        note: "Each task acquires the key once. `fused swap` is a queue in memory and one command \
               that puts the next holder in the place of the last. Commands are requests of \
               clients: those inside of scripts are not counted, nor what etcd sends on streams.",
        columns: &[("wall", "all, ms"), ("commands", "commands an acquire")],
        run: |bench| Box::pin(contended::one_key(bench)),
    },
    Row {
        name: "hand-over",
        title: "Hand-over between processes",
        note: "One process holds the key for 2 ms, the others wait: from the moment before its \
               release to the next process's grant, by the machine's clock. `direct grant` is the \
               least that a store can do: BLPOP and RPUSH, a blocking advisory lock, a queue of \
               keys each of which is watched by the next.",
        columns: &[
            ("p50", "p50, ms"),
            ("p99", "p99, ms"),
            ("others", "to another process, %"),
            ("commands", "commands"),
            ("messages", "with stream messages"),
        ],
        run: |bench| Box::pin(contended::hand_over(bench)),
    },
    Row {
        name: "fairness",
        title: "Fairness",
        note: "Farther: four tasks of one process and one task of another that is 3 ms farther from \
               the store, each way, holds of 50 ms; its share, where 1 is a fifth of all turns. Eight \
               processes: 50 tasks each, holds of 1 ms; the least share of a process, where 1 is \
               an eighth. The longest wait counts those that were not served as well.",
        columns: &[("share", "share"), ("longest", "longest wait, of the mean")],
        run: |bench| Box::pin(contended::fairness(bench)),
    },
    Row {
        name: "idle",
        title: "Idle waiters",
        note: "100 tasks wait for a key that another process holds and does not release.",
        columns: &[("commands", "commands/s")],
        run: |bench| Box::pin(contended::idle(bench)),
    },
    Row {
        name: "held",
        title: "Held locks",
        note: "Locks with a ttl of 10 s are held and renewed for 20 s. Together: at the same time as \
               the other two stores' locks, a process each.",
        columns: &[
            ("commands", "commands/s"),
            ("proposals", "proposals/s"),
            ("cpu", "client CPU, s"),
            ("bytes", "bytes a lock"),
            ("tasks", "tasks a lock"),
            ("lost", "lost or refused"),
        ],
        run: |bench| Box::pin(held::held(bench)),
    },
    Row {
        name: "free",
        title: "6,000 free keys at once",
        note: "6,000 tasks of one process want a free key each, all at once, while two threads for \
               each core compute.",
        columns: &[("ambiguous", "ambiguous"), ("failed", "failed"), ("longest", "longest, ms")],
        run: |bench| Box::pin(held::free(bench)),
    },
    Row {
        name: "keys",
        title: "Records",
        note: "Acquire and release once per key; then the cost of one task's cycles on those keys, \
               and what Redis keeps of each key: right after the release, and what is left an hour \
               later.",
        columns: &[
            ("p50", "p50, µs"),
            ("bytes", "bytes a key"),
            ("later", "bytes a key, an hour later"),
            ("used", "server memory a key, bytes"),
        ],
        run: |bench| Box::pin(records::keys(bench)),
    },
    Row {
        name: "quorum",
        title: "Quorum of five Redis",
        note: "`raw` sends our scripts to all five at once, and waits for all five.",
        columns: &[("ops/s", "cycles/s"), ("p50", "p50, µs"), ("p99", "p99, µs")],
        run: |bench| Box::pin(uncontended::quorum(bench)),
    },
    Row {
        name: "memory",
        title: "Memory store",
        note: "`raw` is the backend without the library's core. Eight tasks have a key each. Instructions are counted by valgrind's \
               callgrind, as the difference of two counts of cycles.",
        columns: &[("ns", "ns a cycle"), ("instructions", "instructions a cycle")],
        run: |bench| Box::pin(uncontended::memory(bench)),
    },
];
