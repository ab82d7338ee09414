//! One client: takes locks, gives them back, or does not.

use std::error::Error as _;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use leaselock::redis::redis::aio::MultiplexedConnection;
use leaselock::{
    Acquire, Claim, Error, ErrorKind, HolderId, LockBackend, LockGuard, LockKey, LockManager,
    Quorum,
};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Note, Pulse};
use crate::history::Held;
use crate::monotonic;
use crate::nodes::{lease, quorum};
use crate::store::redis::connection;

/// How many tasks a client has, which share a manager.
const TASKS: u64 = 3;

/// What is locked.
pub const KEYS: [&str; 4] = ["orders", "users", "stock", "mail"];

/// The time between two looks at a guard, and at the records of its lease.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_AT_RECORDS: Duration = Duration::from_millis(250);

/// What a client is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its number.
    pub who: u64,
    /// Where its random choices come from.
    pub seed: u64,
    /// For how long.
    pub time: Duration,
    /// Of its leases.
    pub ttl: Duration,
    /// Of the quorum.
    pub max_ttl: Duration,
    /// The nodes as it reaches them.
    pub nodes: Vec<String>,
    /// The nodes that do not fail, a majority, as nothing but a look at them goes.
    pub well: Vec<String>,
}

/// What the tasks of a client share.
struct Client {
    plan: Plan,
    quorum: Quorum,
    locks: LockManager,
    pulse: Pulse,
    well: Vec<MultiplexedConnection>,
    notes: Mutex<Vec<Note>>,
}

/// Takes and gives back locks for as long as the plan says; what came of it.
///
/// # Panics
///
/// If a node that is well does not answer, or settings are wrong.
pub async fn contend(plan: Plan) -> Vec<Note> {
    let quorum = quorum(&plan.nodes, plan.max_ttl);
    let builder = LockManager::builder(quorum.clone()).ttl(plan.ttl);
    let mut well = Vec::new();
    for url in &plan.well {
        well.push(connection(url).await);
    }
    let client = Arc::new(Client {
        locks: builder.build().expect("settings"),
        pulse: Pulse::start(&plan.well).await,
        quorum,
        well,
        notes: Mutex::default(),
        plan,
    });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn(client.clone().work(task));
    }
    tasks.join_all().await;
    client.locks.drain().await;
    let mut notes = client.notes.lock().expect("no panic");
    std::mem::take(&mut notes)
}

impl Client {
    fn note(&self, note: Note) {
        self.notes.lock().expect("no panic").push(note);
    }

    async fn work(self: Arc<Self>, task: u64) {
        let mut random = fastrand::Rng::with_seed(self.plan.seed ^ (self.plan.who << 8 | task));
        let (began, who) = (Instant::now(), format!("{}.{task}", self.plan.who));
        while began.elapsed() < self.plan.time {
            sleep(Duration::from_millis(random.u64(..20))).await;
            let key = KEYS[random.usize(..KEYS.len())];
            let lock = self.locks.lock(key).expect("a key");
            let asked = Instant::now();
            let guard = match random.u32(..40) {
                // A process that dies: its lease ends with its ttl.
                0 => {
                    self.die(&who, key).await;
                    continue;
                }
                // A caller that stops waiting at any moment.
                1..6 => {
                    let limit = Duration::from_micros(random.u64(..40_000));
                    match timeout(limit, lock.acquire()).await {
                        Ok(guard) => guard.map(Some),
                        Err(_) => {
                            self.note(Note::GaveUp);
                            continue;
                        }
                    }
                }
                6..9 => lock.try_acquire().await,
                _ => match lock.acquire_timeout(Duration::from_secs(3)).await {
                    // A blow may have come right before the end of its time, while others held
                    // the key until then: with all of its time after the blow it gets in.
                    Err(error) if is_doubtful(&error) => {
                        lock.acquire_timeout(Duration::from_secs(3)).await.map(Some)
                    }
                    guard => guard.map(Some),
                },
            };
            match guard {
                Ok(Some(guard)) => self.hold(&who, key, guard, &mut random).await,
                Ok(None) => self.note(Note::Contended),
                Err(error) => self.failed(key, asked, &error),
            }
        }
    }

    /// What a crashed process believes until its end.
    async fn die(&self, who: &str, key: &str) {
        let name = LockKey::new(key).expect("a key");
        let claim = Claim::new(name, HolderId::random(), self.plan.ttl);
        let asked = monotonic();
        match self.quorum.acquire(&claim).await {
            Ok(Acquire::Acquired(lease)) => {
                let useful = lease.ttl.mul_f64(0.99).saturating_sub(Duration::from_millis(2));
                let until = asked + u64::try_from(useful.as_nanos()).expect("a short time");
                self.held(who, key, (lease.token, lease.token), (monotonic(), until));
            }
            Ok(Acquire::Contended(_)) => self.note(Note::Contended),
            // A try of its own: nobody retries it.
            Err(_) => self.note(Note::GaveUp),
        }
    }

    fn held(&self, who: &str, key: &str, tokens: (u64, u64), (began, ended): (u64, u64)) {
        // Who has the answer after the end never believed.
        if began <= ended {
            let (who, key) = (who.to_owned(), key.to_owned());
            self.note(Note::Held(Held { who, key, tokens, time: (began, ended) }));
        }
    }

    /// Whether this machine was slower lately than a node may be.
    fn was_slow(&self, since: Instant) -> (bool, Duration) {
        let slowest = self.pulse.slowest(since);
        (slowest > self.plan.ttl / 24, slowest)
    }

    fn failed(&self, key: &str, asked: Instant, error: &Error) {
        if error.kind() == ErrorKind::Contended {
            return self.note(Note::Contended);
        }
        if error.kind() == ErrorKind::Ambiguous && error.source().is_none() {
            // The time limit struck in the first request, after a wait for its turn.
            return self.note(Note::GaveUp);
        }
        let (slow, slowest) = self.was_slow(asked);
        let took = asked.elapsed();
        let about = format!("{key} after {took:.1?}, machine {slowest:.1?}: {error:?}");
        self.note(Note::Failed { excused: slow && is_doubtful(error), about });
    }

    async fn hold(&self, who: &str, key: &str, guard: LockGuard, random: &mut fastrand::Rng) {
        let (granted, first) = (Instant::now(), guard.fencing_token());
        let began = monotonic();
        if !guard.is_valid() {
            let slow = self.was_slow(granted - self.plan.ttl);
            let about = format!("{key} was not valid any more when it came, machine {:?}", slow.1);
            return self.note(Note::Lost { excused: slow.0, about });
        }
        let long = Duration::from_millis(random.u64(..2 * self.plan.ttl.as_millis() as u64));
        let work = if random.u32(..12) == 0 { long } else { long / 100 };
        let (mut lost, mut ended) = (pin!(guard.lost()), began);
        let holder = guard.holder().to_string();
        let mut records = Records::new(&self.well);
        let reason = loop {
            // Looked at afterwards, so that it was valid then.
            let now = monotonic();
            if guard.is_valid() {
                ended = now;
            }
            if granted.elapsed() >= work {
                break None;
            }
            records.look(key, &holder).await;
            tokio::select! {
                biased;
                reason = &mut lost => break Some(reason),
                () = sleep(LOOK) => {}
            }
        };
        self.held(who, key, (first, guard.fencing_token()), (began, ended));
        let lost = match reason {
            Some(reason) => reason.to_string(),
            None if random.bool() => return drop(guard),
            None => match guard.release().await {
                Ok(()) => return,
                Err(error) if error.kind() == ErrorKind::Lost => error.to_string(),
                Err(error) => return self.failed(key, granted, &error),
            },
        };
        let (slow, slowest) = self.was_slow(Instant::now() - self.plan.ttl);
        let (most, of) = (records.most, self.well.len());
        let about = format!(
            "{who} {key} {first} after {:.1?}: {lost}; {most} of the {of} nodes that are well \
             were seen to have it, machine {slowest:.1?}",
            granted.elapsed()
        );
        // A majority that is well does not lose it. A majority of those who fail and one more may,
        // until the rest has been joined.
        self.note(Note::Lost { excused: most < of || slow, about });
    }
}

/// How many of the nodes that are well ever had the lease.
struct Records {
    nodes: Vec<MultiplexedConnection>,
    looked: Instant,
    most: usize,
}

impl Records {
    fn new(nodes: &[MultiplexedConnection]) -> Self {
        Self { nodes: nodes.to_vec(), looked: Instant::now(), most: 0 }
    }

    async fn look(&mut self, key: &str, holder: &str) {
        if self.most == self.nodes.len() || self.looked.elapsed() < LOOK_AT_RECORDS {
            return;
        }
        let mut having = 0;
        for node in &mut self.nodes {
            let record = lease(node, key).await;
            having += usize::from(record.is_some_and(|record| record.holder == holder));
        }
        self.most = self.most.max(having);
        self.looked = Instant::now();
    }
}

fn is_doubtful(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Ambiguous | ErrorKind::Unavailable)
}
