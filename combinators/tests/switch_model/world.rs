//! All processes, both stores and what is under way.

use crate::flaw::Flaw;
use crate::store::{Answer, Ask, Key, Side, Store, Verb};

/// How long a lock lives, and a phase that nobody renews, in ticks.
pub(crate) const LOCK: u8 = 1;
pub(crate) const PHASE: u8 = 3 * LOCK;

/// A process that was out for longer stays out; plain processes take over after as long.
pub(crate) const AWAY: u8 = 4 * PHASE;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// Time goes on.
    Tick,
    /// A process starts: in `Old` or `New`, or in both.
    Starts(usize, Option<Side>),
    Renews(usize),
    Locks(usize),
    Unlocks(usize),
    /// In order, or it just ends.
    Leaves(usize),
    Dies(usize),
    /// Its request comes to the store; a copy may come later.
    Arrives(usize),
    Doubles(usize),
    Hears(usize),
    /// The request, or its answer, is lost, or late.
    GivesUp(usize),
    /// A late request comes to the store.
    Late(usize),
    Wipes(Side),
    /// Plain processes take over on the new store, and lock.
    Finishes,
    Plain,
}

/// Where a process is in what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Idle,
    /// It was refused, or out for too long.
    Out,
    Running,
    FindsPhase,
    FindsRun,
    Joins,
    JoinsRun,
    LooksFirst,
    LooksForPlain,
    Registers,
    Marks,
    Looks,
    /// The other store is silent: whether somebody marked it.
    Unmarked {
        registered: bool,
    },
    Floor,
    Confirms,
    RenewsPhase,
    RenewsRun,
    Locks,
    /// Raised by a renewal, or taken.
    Raises {
        taken: bool,
    },
    LocksFirst,
    LocksSecond,
    RaisesFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) at: At,
    /// `None` in both.
    pub(crate) phase: Option<Side>,
    pub(crate) run: u8,
    pub(crate) floor: u8,
    /// Until when it knows its phase to stand.
    pub(crate) until: u8,
    /// The beginning of the last good renewal, while it was in its phase once.
    pub(crate) good: Option<u8>,
    pub(crate) ceiling: u8,
    /// The beginning of what it does now.
    pub(crate) began: u8,
    pub(crate) holder: u16,
    pub(crate) token: u8,
    /// The end of its lock.
    pub(crate) guard: Option<u8>,
    pub(crate) ask: Option<Ask>,
    pub(crate) answer: Option<Answer>,
}

/// What goes on in a walk or a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) processes: usize,
    pub(crate) late: usize,
    pub(crate) ticks: u8,
    pub(crate) starts: u8,
    pub(crate) both: bool,
    pub(crate) wipe: bool,
    pub(crate) finish: bool,
    /// A plain process holds the key in the old store until then.
    pub(crate) plain: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u8,
    pub(crate) stores: [Store; 2],
    pub(crate) processes: Vec<Process>,
    pub(crate) late: Vec<Ask>,
    pub(crate) starts: u8,
    pub(crate) holders: u16,
    pub(crate) wiped: Option<u8>,
    pub(crate) finished: bool,
    /// The run of `New` that stands, and since when.
    pub(crate) standing: Option<(u8, u8)>,
    /// The end of a plain process's lock.
    pub(crate) plain: Option<u8>,
    pub(crate) greatest: u8,
    pub(crate) wrong: Option<&'static str>,
    pub(crate) locked: u8,
}

pub(crate) const OVERLAP: &str = "two hold the key at once";
pub(crate) const FALLS: &str = "a token falls";

impl World {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let idle = Process {
            at: At::Idle,
            phase: None,
            run: 0,
            floor: 0,
            until: 0,
            good: None,
            ceiling: 0,
            began: 0,
            holder: 0,
            token: 0,
            guard: None,
            ask: None,
            answer: None,
        };
        let mut old = Store::with_history(20);
        let plain = (bounds.plain > 0).then(|| {
            let ask =
                Ask { at: Side::Old, verb: Verb::Take, key: Key::Locked, holder: 1, least: 0 };
            for now in 0..bounds.plain {
                old.execute(ask, now);
            }
            bounds.plain
        });
        Self {
            now: 0,
            stores: [old, Store::with_history(0)],
            processes: vec![idle; bounds.processes],
            late: Vec::new(),
            starts: 0,
            holders: 1,
            wiped: None,
            finished: false,
            standing: None,
            plain,
            greatest: if plain.is_some() { 21 } else { 20 },
            wrong: None,
            locked: 0,
        }
    }

    pub(crate) fn store(&mut self, side: Side) -> &mut Store {
        &mut self.stores[usize::from(side == Side::New)]
    }

    pub(crate) fn acts(&self, bounds: &Bounds, acts: &mut Vec<Act>) {
        if self.now < bounds.ticks {
            acts.push(Act::Tick);
        }
        for (n, process) in self.processes.iter().enumerate() {
            match (process.ask, process.answer) {
                (Some(_), None) => {
                    acts.extend([Act::Arrives(n), Act::GivesUp(n)]);
                    if self.late.len() < bounds.late {
                        acts.push(Act::Doubles(n));
                    }
                }
                (Some(_), Some(_)) => acts.extend([Act::Hears(n), Act::GivesUp(n)]),
                _ => {}
            }
            match process.at {
                At::Idle if self.starts < bounds.starts && !self.finished => {
                    let both = bounds.both.then_some(Act::Starts(n, None));
                    let sides = [Side::Old, Side::New].map(|side| Act::Starts(n, Some(side)));
                    acts.extend(sides.into_iter().chain(both));
                }
                At::Running => {
                    if process.phase.is_some() && process.good < Some(self.now) {
                        acts.push(Act::Renews(n));
                    }
                    acts.push(if process.guard.is_some() {
                        Act::Unlocks(n)
                    } else {
                        Act::Locks(n)
                    });
                    acts.push(Act::Leaves(n));
                }
                _ => {}
            }
            if process.at != At::Idle {
                acts.push(Act::Dies(n));
            }
        }
        acts.extend((0..self.late.len()).map(Act::Late));
        if bounds.wipe && self.wiped.is_none() {
            acts.extend([Act::Wipes(Side::Old), Act::Wipes(Side::New)]);
        }
        if bounds.finish {
            match (self.finished, self.plain) {
                (false, _) => acts.push(Act::Finishes),
                (true, None) => acts.push(Act::Plain),
                (true, Some(_)) => {}
            }
        }
    }

    pub(crate) fn act(&mut self, act: Act, flaw: Option<Flaw>, bounds: &Bounds) {
        match act {
            Act::Tick => self.tick(),
            Act::Starts(n, phase) => {
                self.starts += 1;
                let process = &mut self.processes[n];
                *process = Process { phase, at: At::Running, until: self.now, ..*process };
                if phase.is_some() {
                    self.find_phase(n);
                }
            }
            Act::Renews(n) => self.renew(n),
            Act::Locks(n) => self.lock(n, flaw),
            Act::Unlocks(n) => self.unlock(n),
            Act::Leaves(n) => self.leave(n, flaw),
            Act::Dies(n) => self.end(n),
            Act::Arrives(n) | Act::Doubles(n) => {
                let Some(ask) = self.processes[n].ask else { return };
                if let Act::Doubles(_) = act {
                    self.late.push(ask);
                }
                let now = self.now;
                let blind = flaw == Some(Flaw::PartialSight)
                    && ask.verb == Verb::Look
                    && ask.key == Key::Phase(ask.at)
                    && ask.at != self.processes[n].phase.unwrap_or(ask.at)
                    && self.holders.is_multiple_of(2);
                let answer = self.store(ask.at).execute(ask, now);
                self.processes[n].answer = Some(answer.filter(|_| !blind));
            }
            Act::Hears(n) => {
                let process = &mut self.processes[n];
                if let (Some(ask), Some(answer)) = (process.ask.take(), process.answer.take()) {
                    self.heard(n, ask, Some(answer), flaw);
                }
            }
            Act::GivesUp(n) => {
                let process = &mut self.processes[n];
                let Some(ask) = process.ask.take() else { return };
                if process.answer.take().is_none() && self.late.len() < bounds.late {
                    self.late.push(ask);
                }
                self.heard(n, ask, None, flaw);
            }
            Act::Late(index) => {
                let ask = self.late.remove(index);
                let now = self.now;
                self.store(ask.at).execute(ask, now);
            }
            Act::Wipes(side) => {
                self.wiped = Some(self.now);
                self.store(side).wipe();
            }
            Act::Finishes => {
                let waited = self.standing.is_some_and(|(_, since)| self.now >= since + AWAY);
                let stands = self.standing.is_some() && flaw == Some(Flaw::FinishesAtOnce);
                // Nobody deploys and finishes at once.
                let starts = self.processes.iter().any(|process| {
                    process.good.is_none()
                        && !matches!(process.at, At::Idle | At::Out | At::Running)
                });
                self.finished = (waited || stands) && !starts;
            }
            Act::Plain => {
                self.holders += 1;
                let ask = self.of_lock(Side::New, Verb::Take, self.holders, 0);
                let now = self.now;
                if self.store(Side::New).execute(ask, now).is_some() {
                    self.plain = Some(now + LOCK);
                }
            }
        }
        self.look_at_new();
        self.check();
    }

    pub(crate) fn stands(&self, side: Side) -> bool {
        let store = &self.stores[usize::from(side == Side::New)];
        store.holder(Key::Phase(side), self.now).is_some()
    }

    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        for store in &mut self.stores {
            store.tidy(now);
        }
        for process in &mut self.processes {
            process.guard = process.guard.filter(|end| *end > now);
        }
        self.plain = self.plain.filter(|end| *end > now);
    }

    /// As an operator does who waits for the same run to stand.
    fn look_at_new(&mut self) {
        let now = self.now;
        let run = self.store(Side::New).holder(Key::Phase(Side::New), now).map(|(_, run)| run);
        let confirmed =
            run.filter(|run| self.stores[1].holder(Key::Within(Side::New, *run), now).is_some());
        self.standing = match (confirmed, self.standing) {
            (Some(run), Some((before, since))) if run == before => Some((run, since)),
            (Some(run), _) => Some((run, now)),
            (None, _) => None,
        };
    }

    fn check(&mut self) {
        let guards = self.processes.iter().filter(|process| process.guard.is_some()).count();
        // Until then processes may rely on what a store that lost its data has forgotten.
        let found_out = self.wiped.is_none_or(|wiped| self.now >= wiped + PHASE);
        if guards + usize::from(self.plain.is_some()) > 1 && found_out {
            self.wrong = Some(OVERLAP);
        }
    }

    /// A process has the lock from now on.
    pub(crate) fn hold(&mut self, n: usize) {
        let process = &mut self.processes[n];
        process.at = At::Running;
        let end = process.began + LOCK;
        if end <= self.now {
            return;
        }
        process.guard = Some(end);
        self.locked += 1;
        if process.token <= self.greatest && self.wiped.is_none() && !self.finished {
            self.wrong = Some(FALLS);
        }
        self.greatest = self.greatest.max(process.token);
    }

    pub(crate) fn of_lock(&self, at: Side, verb: Verb, holder: u16, least: u8) -> Ask {
        Ask { at, verb, key: Key::Locked, holder, least }
    }
}
