//! Eight processes, each in a phase.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use integration::history::Held;
use integration::program::Program;
use leaselock::Phase;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::history::read;

const PROCESSES: usize = 8;

/// In each process.
const WORKERS: usize = 3;

/// So many keys are taken in every phase, and so many in `Old` and `New` alone.
const BUSY: usize = 24;
const IDLE: usize = 8;

const MAX_TTL: Duration = Duration::from_secs(2);

const PHASES: [Phase; 3] = [Phase::Old, Phase::Both, Phase::New];

pub(crate) struct Fleet {
    old: String,
    new: String,
    random: Rng,
    members: Vec<Member>,
    /// Where they are on their way to.
    forward: bool,
    ways: usize,
    taken: Arc<AtomicUsize>,
    all: All,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct All {
    pub(crate) held: Vec<Held>,
    killed: usize,
    left: usize,
    refused: usize,
    entered: [usize; 3],
    errors: usize,
}

/// A process in a phase.
struct Member {
    phase: usize,
    name: String,
    attended: JoinHandle<Vec<String>>,
    end: oneshot::Sender<End>,
}

enum End {
    Leave,
    Kill,
}

impl Fleet {
    pub(crate) async fn new(old: String, new: String, seed: u64) -> Self {
        let mut fleet = Self {
            old,
            new,
            random: Rng::with_seed(seed),
            members: Vec::new(),
            forward: true,
            ways: 0,
            taken: Arc::default(),
            all: All::default(),
        };
        for number in 0..PROCESSES {
            let member = fleet.begin(number, 0).await.expect("nobody in the way");
            fleet.members.push(member);
        }
        fleet
    }

    /// How often all have come to the other end.
    pub(crate) fn ways(&self) -> usize {
        self.ways
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// All go to the neighbouring phase on their way, one by one, in any order; some go back once
    /// more, and some are deployed anew where they are.
    pub(crate) async fn step(&mut self) {
        let from = self.members[0].phase;
        let to = if self.forward { from + 1 } else { from - 1 };
        let mut left: Vec<_> = (0..PROCESSES).collect();
        self.random.shuffle(&mut left);
        while let Some(number) = left.pop() {
            sleep(Duration::from_millis(self.random.u64(..150))).await;
            let stays = self.random.usize(..12) == 0;
            self.redeploy(number, if stays { from } else { to }).await;
            if stays {
                left.insert(0, number);
            }
            let other = self.random.usize(..PROCESSES);
            if self.random.usize(..12) == 0 && !left.contains(&other) {
                self.redeploy(other, from).await;
                left.insert(0, other);
            }
        }
        if to != 1 {
            self.forward = !self.forward;
            self.ways += 1;
        }
    }

    /// Ends a process and starts another in its place, as soon as that is let in: those who were
    /// killed in the opposite phase are waited for.
    async fn redeploy(&mut self, number: usize, phase: usize) {
        let last = self.members.remove(number);
        self.stop(last).await;
        let member = loop {
            match self.begin(number, phase).await {
                Some(member) => break member,
                None => self.all.refused += 1,
            }
            sleep(Duration::from_millis(500)).await;
        };
        self.members.insert(number, member);
    }

    async fn begin(&mut self, number: usize, phase: usize) -> Option<Member> {
        let mut program = Program::start(env!("CARGO_BIN_EXE_mover"));
        let (old, new, max_ttl) = (&self.old, &self.new, MAX_TTL.as_millis());
        let start = format!("start {old} {new} {} {max_ttl}", PHASES[phase]);
        if program.ask(&start).await != "started" {
            return None;
        }
        self.all.entered[phase] += 1;
        program.tell(&format!("work {WORKERS} {BUSY} {IDLE}")).await;
        let (end, ended) = oneshot::channel();
        let attended = tokio::spawn(attend(program, ended, self.taken.clone()));
        Some(Member { phase, name: format!("{number} in {}", PHASES[phase]), attended, end })
    }

    async fn stop(&mut self, member: Member) {
        let kill = self.random.usize(..4) == 0;
        *(if kill { &mut self.all.killed } else { &mut self.all.left }) += 1;
        let _ = member.end.send(if kill { End::Kill } else { End::Leave });
        let lines = member.attended.await.expect("no panic");
        let left = lines.iter().find_map(|line| line.strip_prefix("left ")?.parse::<usize>().ok());
        assert!(kill || left.is_some(), "{} has not left", member.name);
        self.all.errors += left.unwrap_or(0);
        read(&member.name, &lines, &mut self.all.held);
    }

    /// Everybody leaves.
    pub(crate) async fn end(mut self) -> All {
        for member in std::mem::take(&mut self.members) {
            self.stop(member).await;
        }
        self.all
    }
}

/// Hears what a process says, until it is told to end.
async fn attend(
    mut program: Program,
    mut end: oneshot::Receiver<End>,
    taken: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let end = loop {
        tokio::select! {
            end = &mut end => break end,
            line = program.hear() => {
                taken.fetch_add(usize::from(line.starts_with("got")), Ordering::Relaxed);
                lines.push(line);
            }
        }
    };
    if let Ok(End::Leave) = end {
        program.tell("leave").await;
        while lines.last().is_none_or(|line| !line.starts_with("left")) {
            lines.push(program.hear().await);
        }
    } else {
        lines.extend(program.kill_and_hear().await);
    }
    lines
}

impl All {
    pub(crate) fn summary(&self) -> String {
        let Self { held, killed, left, refused, entered, errors } = self;
        format!(
            "{} locks, {errors} not got; entered {entered:?}, left {left}, killed {killed}, refused \
             {refused}",
            held.len()
        )
    }

    /// A run in which little happened says little.
    pub(crate) fn has_seen_everything(&self) {
        assert!(self.killed > 0 && self.left > 0, "{}", self.summary());
        for phase in PHASES {
            let there = |held: &&Held| held.who.ends_with(&format!(" in {phase}"));
            let held = self.held.iter().filter(there).count();
            assert!(held > 50, "{held} locks in {phase}: {}", self.summary());
        }
        let moved = |key: &str| {
            let of_key = || self.held.iter().filter(|held| held.key == key);
            of_key().any(|held| held.who.ends_with("old"))
                && of_key().any(|held| held.who.ends_with("new"))
        };
        let idle = (0..IDLE).filter(|n| moved(&format!("idle/{n}"))).count();
        assert!(idle > 0, "no idle key was taken in both stores: {}", self.summary());
    }
}
