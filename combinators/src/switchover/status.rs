//! Which phases stand, who runs in them, and what is held where.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use lockcore::{BackendError, LeaseInfo, LockBackend, LockKey};
use tokio::time::{sleep, timeout};

use super::keys::{PREFIX, refuse};
use super::phase::Phase;

/// How many leases are looked at in one call, and how long that may take.
const PAGE: usize = 500;
const LIMIT: Duration = Duration::from_secs(10);

/// How long a lock that is just being taken or released in both stores may be seen in one.
const PASSING: Duration = Duration::from_millis(250);

/// A switch as its stores show it.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Why the old store and the new one were not reached.
    pub(super) unreached: [Option<String>; 2],
    pub(super) stands: BTreeMap<Phase, Stands>,
    processes: BTreeMap<(Phase, String), Process>,
    held: BTreeMap<LockKey, Held>,
    /// What was seen in one store alone before, and is so still.
    alone: Vec<LockKey>,
    /// Somebody ran in `New` within the last day.
    marked: bool,
}

/// A phase that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stands {
    /// Names this run of the phase.
    pub token: u64,
    /// For how long it stands unless a process renews it.
    pub remaining: Duration,
    /// The settings of its processes, and for a phase of one store the time of its beginning.
    pub settings: String,
    /// The least token of its leases, once it is confirmed.
    pub floor: Option<u64>,
}

/// A process in a phase. There may be more: it is best effort that they are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The phase that it is in.
    pub phase: Phase,
    /// Its words about itself.
    pub label: String,
    /// How long it is seen unless it is renewed.
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
    /// Those of the stores, if neither is reached within 10 s.
    pub async fn of(old: &dyn LockBackend, new: &dyn LockBackend) -> Result<Self, BackendError> {
        let first = Self::look(old, new).await?;
        let before: BTreeMap<_, _> = first.held.values().filter_map(Held::alone).collect();
        if before.is_empty() || first.unreached != [None, None] {
            return Ok(first);
        }
        sleep(PASSING).await;
        let mut second = Self::look(old, new).await?;
        let still = |held: &Held| {
            let (key, info) = held.alone()?;
            before.get(key).filter(|before| before.holder == info.holder).map(|_| key.clone())
        };
        second.alone = second.held.values().filter_map(still).collect();
        Ok(second)
    }

    async fn look(old: &dyn LockBackend, new: &dyn LockBackend) -> Result<Self, BackendError> {
        let (in_old, in_new) = tokio::join!(all(old), all(new));
        let mut seen = Self::default();
        let (in_old, in_new) = match (in_old, in_new) {
            (Err(error), Err(_)) => return Err(error),
            (in_old, in_new) => (in_old, in_new),
        };
        seen.unreached = [in_old.as_ref().err(), in_new.as_ref().err()]
            .map(|error| error.map(ToString::to_string));
        let (in_old, in_new) = (in_old.unwrap_or_default(), in_new.unwrap_or_default());
        for (infos, is_old) in [(&in_old, true), (&in_new, false)] {
            // A floor belongs to a run that was seen.
            for floors in [false, true] {
                for info in infos {
                    seen.take(info, is_old, floors);
                }
            }
        }
        Ok(seen)
    }

    fn take(&mut self, info: &LeaseInfo, is_old: bool, floors: bool) {
        let words = info.key.as_str().strip_prefix(PREFIX).unwrap_or_default();
        let words: Vec<_> = words.split('/').collect();
        let (remaining, label) = (info.remaining, info.label.clone());
        match (&words[..], words.get(1).and_then(|phase| phase.parse::<Phase>().ok())) {
            (["in", _, run], Some(phase)) if floors => {
                let run = run.parse().ok();
                if let Some(stands) = self.stands.get_mut(&phase).filter(|it| run == Some(it.token))
                {
                    stands.floor = Some(info.token);
                }
            }
            _ if floors => {}
            (["phase", _], Some(phase)) => {
                let stands = Stands { token: info.token, remaining, settings: label, floor: None };
                self.stands.entry(phase).or_insert(stands);
            }
            (["at", _, id], Some(phase)) => {
                let process = Process { phase, label, remaining };
                self.processes.entry((phase, (*id).to_owned())).or_insert(process);
            }
            (["open", "new"], _) => self.marked |= is_old,
            _ if refuse(&info.key).is_ok() => {
                let key = info.key.clone();
                let held = Held { key: key.clone(), old: None, new: None };
                let held = self.held.entry(key).or_insert(held);
                *(if is_old { &mut held.old } else { &mut held.new }) = Some(info.clone());
            }
            _ => {}
        }
    }

    /// The processes, by phase.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// What is held, by key.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// The phase, if it stands.
    #[must_use]
    pub fn stands(&self, phase: Phase) -> Option<&Stands> {
        self.stands.get(&phase)
    }

    /// What speaks against entering a phase, with as many processes seen in phases as are expected:
    /// nothing, and it is safe.
    #[must_use]
    pub fn objections(&self, phase: Phase, expected: &[(Phase, usize)]) -> Vec<String> {
        let mut found = Vec::new();
        for (phase, count) in expected {
            let seen = self.processes().filter(|process| process.phase == *phase).count();
            if seen != *count {
                let seen = counted(seen, "process is", "processes are");
                found.push(format!("{seen} seen in phase {phase}, and {count} are expected"));
            }
        }
        let prints = self.stands.values().map(|stands| stands.settings.split(' ').next());
        if prints.clone().any(|print| print != prints.clone().next().flatten()) {
            found.push("the processes have different settings".to_owned());
        }
        let [in_old, in_new] = &self.unreached;
        let (own, other) = if phase == Phase::Old { (in_old, in_new) } else { (in_new, in_old) };
        let own = own.iter().chain(other.iter().filter(|_| phase == Phase::Both));
        found.extend(own.map(|why| format!("a store that it needs is not reached: {why}")));
        let Some(opposite) = phase.opposite() else { return found };
        if let Some(stands) = self.stands(opposite) {
            found.push(format!("phase {opposite} stands, for {:.0?} at least", stands.remaining));
        }
        if self.stands(phase).is_some_and(|stands| stands.floor.is_some()) {
            return found;
        }
        if let Some(why) = other.as_ref().filter(|_| phase == Phase::New || self.marked) {
            found.push(format!("without the other store it needs `gone` and `floor`: {why}"));
        }
        if phase == Phase::New && !self.marked && self.stands(Phase::Both).is_none() {
            found.push("nobody is registered in phase both".to_owned());
        }
        let left = |held: &&Held| {
            if phase == Phase::New { held.new.is_none() } else { held.old.is_none() }
        };
        let alone = |held: &&Held| left(held) && self.alone.contains(&held.key);
        if let Some(held) = self.held().find(alone) {
            let info = held.old.as_ref().or(held.new.as_ref());
            let label = info.map_or("", |info| &info.label);
            let key = &held.key;
            found.push(format!("`{key}` is held in the other store alone, by `{label}`"));
        }
        found
    }

    /// All of it as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let stands = Phase::ALL.into_iter().filter_map(|phase| {
            let Stands { token, remaining, settings, floor } = self.stands(phase)?;
            let floor = floor.map_or("null".to_owned(), |floor| floor.to_string());
            Some(format!(
                r#"{{"phase":"{phase}","token":{token},"remaining_ms":{},"floor":{floor},"settings":{}}}"#,
                remaining.as_millis(),
                text(settings)
            ))
        });
        let processes = self.processes().map(|Process { phase, label, remaining }| {
            let (label, left) = (text(label), remaining.as_millis());
            format!(r#"{{"phase":"{phase}","label":{label},"remaining_ms":{left}}}"#)
        });
        let held = |of: fn(&Held) -> bool| self.held().filter(|held| of(held)).count();
        let against = Phase::ALL.into_iter().map(|phase| {
            format!(
                r#""{phase}":{}"#,
                list(self.objections(phase, &[]).iter().map(|why| text(why)))
            )
        });
        format!(
            r#"{{"unreached":{},"stands":{},"processes":{},"held":{{"old":{},"both":{},"new":{}}},"objections":{{{}}}}}"#,
            list(self.unreached.iter().flatten().map(|why| text(why))),
            list(stands),
            list(processes),
            held(|held| held.new.is_none()),
            held(|held| held.old.is_some() && held.new.is_some()),
            held(|held| held.old.is_none()),
            against.collect::<Vec<_>>().join(","),
        )
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
        for phase in Phase::ALL {
            let there: Vec<_> = self.processes().filter(|process| process.phase == phase).collect();
            write!(f, "phase {phase}: {}", counted(there.len(), "process", "processes"))?;
            match self.stands(phase) {
                None => writeln!(f)?,
                Some(Stands { remaining, settings, .. }) => {
                    writeln!(f, ", stands for {remaining:.0?} ({settings})")?;
                }
            }
            for process in there {
                writeln!(f, "  {} (seen for {:.0?})", process.label, process.remaining)?;
            }
        }
        let only = |of: fn(&Held) -> bool| self.held().filter(|held| of(held)).count();
        writeln!(
            f,
            "held: {} in the old store alone, {} in both, {} in the new store alone",
            counted(only(|held| held.new.is_none()), "key", "keys"),
            only(|held| held.old.is_some() && held.new.is_some()),
            only(|held| held.old.is_none()),
        )?;
        for phase in Phase::ALL {
            match &self.objections(phase, &[])[..] {
                [] => writeln!(f, "phase {phase} can be entered")?,
                why => writeln!(f, "phase {phase} cannot be entered: {}", why.join("; "))?,
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

/// A JSON array of what is JSON.
pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

/// A JSON string.
pub(super) fn text(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        plain => plain.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
