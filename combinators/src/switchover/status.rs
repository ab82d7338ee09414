//! Who runs in which phase, and what is held where.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lockcore::{BackendError, LeaseInfo, LockBackend, LockKey};
use tokio::time::{sleep, timeout};

use super::{Phase, reserved};

/// How many leases are looked at in one call, and how long that may take.
const PAGE: usize = 500;
const LIMIT: Duration = Duration::from_secs(10);

/// How long a lock that is just being taken or released in both stores may be seen in one.
const PASSING: Duration = Duration::from_millis(250);

/// A switch as its stores show it.
#[derive(Clone, Debug)]
pub struct Status {
    processes: Vec<Process>,
    held: Vec<Held>,
    /// What was seen in one store alone before, and is so still.
    alone: Vec<LockKey>,
}

/// A process that is registered in a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The phase that it is in.
    pub phase: Phase,
    /// Its name among the registrations.
    pub id: String,
    /// Its words about itself.
    pub label: String,
    /// How long its registration stands unless it is renewed.
    pub remaining: Duration,
}

/// A key that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The key.
    pub key: LockKey,
    /// The lease in the old store.
    pub old: Option<LeaseInfo>,
    /// The lease in the new store.
    pub new: Option<LeaseInfo>,
}

impl Status {
    /// Looks into both stores. They are not looked at in one instant: what changes meanwhile may
    /// be seen or not. It looks again a quarter of a second later where it sees a key in one store
    /// alone.
    ///
    /// # Errors
    ///
    /// Those of the stores, and [`Unavailable`](BackendError::Unavailable) for one that does not
    /// answer within 10 s.
    pub async fn of(old: &dyn LockBackend, new: &dyn LockBackend) -> Result<Self, BackendError> {
        let first = Self::look(old, new).await?;
        let before: BTreeMap<_, _> = first.held.iter().filter_map(Held::alone).collect();
        if before.is_empty() {
            return Ok(first);
        }
        sleep(PASSING).await;
        let mut second = Self::look(old, new).await?;
        let still = |held: &Held| {
            let (key, info) = held.alone()?;
            before.get(key).filter(|before| before.holder == info.holder).map(|_| key.clone())
        };
        second.alone = second.held.iter().filter_map(still).collect();
        Ok(second)
    }

    async fn look(old: &dyn LockBackend, new: &dyn LockBackend) -> Result<Self, BackendError> {
        let (in_old, in_new) = (all(old).await?, all(new).await?);
        let (mut processes, mut held) = (BTreeMap::new(), BTreeMap::<LockKey, Held>::new());
        for (info, is_old) in in_old
            .into_iter()
            .map(|info| (info, true))
            .chain(in_new.into_iter().map(|info| (info, false)))
        {
            if let Some((phase, id)) = reserved::registered(&info.key) {
                let process = Process {
                    phase,
                    id: id.to_owned(),
                    label: info.label.clone(),
                    remaining: info.remaining,
                };
                processes.entry((phase, id.to_owned())).or_insert(process);
            } else if reserved::refuse(&info.key).is_ok() {
                let entry = held.entry(info.key.clone()).or_insert_with(|| Held {
                    key: info.key.clone(),
                    old: None,
                    new: None,
                });
                *(if is_old { &mut entry.old } else { &mut entry.new }) = Some(info);
            }
        }
        let (processes, held) = (processes.into_values(), held.into_values());
        Ok(Self { processes: processes.collect(), held: held.collect(), alone: Vec::new() })
    }

    /// The processes, by phase.
    #[must_use]
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// What is held, by key.
    #[must_use]
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// The processes that keep others from entering a phase: none, and it is safe to enter.
    pub fn in_the_way_of(&self, phase: Phase) -> impl Iterator<Item = &Process> {
        let opposite = match phase {
            Phase::Old => Some(Phase::New),
            Phase::Both => None,
            Phase::New => Some(Phase::Old),
        };
        self.processes.iter().filter(move |process| Some(process.phase) == opposite)
    }
}

impl Status {
    /// What entering a phase rests on where keys are held in the store being left, and nobody is
    /// registered who would hold them there.
    fn unless(&self, phase: Phase) -> &'static str {
        let (left, opposite): (fn(&Held) -> bool, _) = match phase {
            Phase::New => (|held| held.new.is_none(), Phase::Old),
            _ => (|held| held.old.is_none(), Phase::New),
        };
        let registered = self.processes.iter().any(|process| process.phase == opposite);
        let alone = |held: &Held| left(held) && self.alone.contains(&held.key);
        match (self.held.iter().any(alone), registered, phase) {
            (true, false, Phase::New) => {
                ", unless what is held in the old store alone is held by processes without a switch"
            }
            (true, false, _) => {
                ", unless what is held in the new store alone is held by processes without a switch"
            }
            _ => "",
        }
    }
}

impl Held {
    /// The lease in the only store that has one.
    fn alone(&self) -> Option<(&LockKey, &LeaseInfo)> {
        match (&self.old, &self.new) {
            (Some(info), None) | (None, Some(info)) => Some((&self.key, info)),
            _ => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in [Phase::Old, Phase::Both, Phase::New] {
            let there: Vec<_> =
                self.processes.iter().filter(|process| process.phase == phase).collect();
            writeln!(f, "phase {phase}: {}", counted(there.len(), "process", "processes"))?;
            for process in there {
                writeln!(f, "  {} (registered for {:.0?})", process.label, process.remaining)?;
            }
        }
        let only = |of: fn(&Held) -> bool| self.held.iter().filter(|held| of(held)).count();
        writeln!(
            f,
            "held: {} in the old store alone, {} in both, {} in the new store alone",
            counted(only(|held| held.new.is_none()), "key", "keys"),
            only(|held| held.old.is_some() && held.new.is_some()),
            only(|held| held.old.is_none()),
        )?;
        for phase in [Phase::Old, Phase::New] {
            let in_the_way = self.in_the_way_of(phase).count();
            match in_the_way {
                0 => writeln!(f, "phase {phase} can be entered{}", self.unless(phase))?,
                count => writeln!(f, "phase {phase} cannot be entered: {count} in the way")?,
            }
        }
        Ok(())
    }
}

async fn all(store: &dyn LockBackend) -> Result<Vec<LeaseInfo>, BackendError> {
    let mut all: Vec<LeaseInfo> = Vec::new();
    loop {
        let last = all.last().map(|info| info.key.clone());
        let page = timeout(LIMIT, store.list("", last.as_ref(), PAGE)).await;
        let page = page.map_err(|_| {
            BackendError::unavailable(format!("{store:?} did not answer within {LIMIT:?}"))
        })??;
        let more = page.len() == PAGE;
        all.extend(page);
        if !more {
            return Ok(all);
        }
    }
}

fn counted(count: usize, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}
