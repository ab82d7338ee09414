//! All that is known about a run: who asked for what, what the store did, who believes what.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use lockcore::simulation::Process;
use lockcore::{HolderId, LockGuard, LockKey, MemoryBackend};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::checks::{Check, Violation};
use crate::holder::Holder;
use crate::plan::{CLIENTS, KEYS, Plan, Settings};
use crate::runtimes::Runtime;
use crate::sometimes::{Counts, Sometimes};
use crate::storm::Network;

/// A guard that a client has.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) guard: Weak<LockGuard>,
    pub(crate) holder: HolderId,
    pub(crate) client: usize,
    pub(crate) key: usize,
    pub(crate) given: Instant,
    pub(crate) seen_lost: bool,
    /// `lost()` has resolved.
    pub(crate) told: bool,
}

/// One client's business with one key.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) operations: Vec<Operation>,
    pub(crate) calls: usize,
    /// How often a store's answer said that another holds the key.
    pub(crate) contended: u64,
    pub(crate) last_active: Instant,
    /// When a request about the key was last sent or answered, or a guard of it was last valid.
    pub(crate) last_used: Instant,
    /// Holders that may hold without a guard, or have a place, and have not been released.
    pub(crate) doubtful: Vec<HolderId>,
    /// A waiter was told that another holds the key; then a signal came.
    pub(crate) waited: bool,
    pub(crate) signalled: bool,
}

/// How a task asks for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Wait,
    For(Duration),
    Try,
    /// Dropped after this long.
    Dropped(Duration),
}

/// A task that is acquiring.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) started: Instant,
    pub(crate) stood_before: Duration,
    pub(crate) contended_before: u64,
    /// How often other processes got the key from the store meanwhile, while all was well here.
    pub(crate) passed: u32,
    /// It runs on the runtime that does not stall.
    pub(crate) main: bool,
    /// Somebody of the same process had to do with the key when it began.
    pub(crate) busy: bool,
    /// The greatest token given out for the key before it began.
    pub(crate) token_before: u64,
}

/// What the store has granted of one key.
#[derive(Debug, Default)]
pub(crate) struct Key {
    pub(crate) grants: Vec<(Instant, HolderId)>,
    pub(crate) last_token: u64,
    /// Who had a place in its line within the last second, and maybe others.
    pub(crate) queue: Vec<HolderId>,
    pub(crate) given_token: u64,
    /// Whose process got it last otherwise than by a hand-over of its own, and when.
    pub(crate) owner: Option<(usize, Instant)>,
}

/// One client's process.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) main: Runtime,
    /// Another runtime of the process, which may stall while the first one runs.
    pub(crate) side: Runtime,
    pub(crate) stops: bool,
    pub(crate) stalls: bool,
    pub(crate) settings: Settings,
    /// Since when the requests of the client fail, as far as it has heard.
    pub(crate) failing: Option<Instant>,
    /// When it last sent a request.
    pub(crate) called: Instant,
    /// Since when they do not.
    pub(crate) well: Instant,
    pub(crate) failed: Instant,
    /// When it sent its last requests while the store failed.
    pub(crate) tries: VecDeque<Instant>,
    /// Tells when a renewal is sent.
    pub(crate) renewing: Arc<Notify>,
}

impl Client {
    pub(crate) fn runtime(&self, main: bool) -> &Runtime {
        if main { &self.main } else { &self.side }
    }

    /// Whether all of it runs.
    pub(crate) fn runs(&self) -> bool {
        self.main.runs() && self.side.runs()
    }

    /// Since when all of it runs, if it does.
    pub(crate) fn resumed(&self) -> Instant {
        self.main.resumed.max(self.side.resumed)
    }
}

/// Holders are random: their bits are as good as a hash of them.
#[derive(Debug, Default)]
pub(crate) struct ById(u64);

impl Hasher for ById {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("holders are written as one number")
    }

    fn write_u128(&mut self, bits: u128) {
        self.0 = u64::try_from(bits >> 64).expect("64 bits are left");
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) started: Instant,
    pub(crate) store: MemoryBackend,
    trace: Option<String>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) counts: Counts,
    pub(crate) network: Network,
    pub(crate) holders: HashMap<HolderId, Holder, BuildHasherDefault<ById>>,
    pub(crate) guards: Vec<Held>,
    pub(crate) slots: Vec<Slot>,
    /// Holders with a place in a line, as the last answer told them.
    pub(crate) placed: Vec<HolderId>,
    /// Holders that asked at an instant while another of their process might hold.
    pub(crate) beside: Vec<(Instant, HolderId, HolderId)>,
    pub(crate) names: [LockKey; KEYS.len()],
    pub(crate) keys: [Key; KEYS.len()],
    pub(crate) clients: Vec<Client>,
    pub(crate) operations: u64,
    pub(crate) wipes: usize,
    /// Requests on their way, duplicates included.
    pub(crate) under_way: usize,
    /// The run has ended: what is dropped now means nothing.
    pub(crate) over: bool,
}

impl State {
    pub(crate) fn new(plan: &Plan, network: Network, settings: Vec<Settings>) -> Self {
        let now = Instant::now();
        let slot = || Slot {
            operations: Vec::new(),
            calls: 0,
            contended: 0,
            last_active: now,
            last_used: now,
            doubtful: Vec::new(),
            waited: false,
            signalled: false,
        };
        let client = |(process, settings): (Process, Settings)| Client {
            side: Runtime::new(process.another_runtime()),
            main: Runtime::new(process),
            stops: false,
            stalls: false,
            settings,
            failing: None,
            called: now,
            well: now,
            failed: now,
            tries: VecDeque::new(),
            renewing: Arc::default(),
        };
        Self {
            started: now,
            store: plan.store(),
            trace: plan.trace.then(String::new),
            violations: Vec::new(),
            counts: Counts::default(),
            network,
            holders: HashMap::default(),
            guards: Vec::new(),
            placed: Vec::new(),
            beside: Vec::new(),
            names: KEYS.map(|name| LockKey::new(name).expect("valid")),
            slots: (0..CLIENTS * KEYS.len()).map(|_| slot()).collect(),
            keys: Default::default(),
            clients: settings.into_iter().map(|it| client((Process::new(), it))).collect(),
            operations: 0,
            wipes: 0,
            under_way: 0,
            over: false,
        }
    }

    pub(crate) fn slot(&mut self, client: usize, key: usize) -> &mut Slot {
        &mut self.slots[client * KEYS.len() + key]
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = (usize, usize, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.map(|(index, slot)| (index / KEYS.len(), index % KEYS.len(), slot))
    }

    pub(crate) fn hit(&mut self, event: Sometimes) {
        self.counts.hit(event);
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let millis = self.started.elapsed().as_millis();
            let _ = writeln!(trace, "{:>7}.{:03} {}", millis / 1000, millis % 1000, line());
        }
    }

    /// Notes a broken promise; the first of each kind counts.
    pub(crate) fn broken(&mut self, check: Check, text: impl FnOnce() -> String) {
        if self.over || self.violations.iter().any(|violation| violation.check == check) {
            return;
        }
        let violation = Violation { check, text: text() };
        self.note(|| format!("*** {violation}"));
        self.violations.push(violation);
    }

    pub(crate) fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }
}

/// The last digits tell holders apart in a trace.
pub(crate) fn short(holder: HolderId) -> String {
    format!("h{:04x}", holder.as_u128() & 0xffff)
}
