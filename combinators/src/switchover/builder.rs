//! Settings of a switch, and its start.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lockcore::{Error, HolderId, InvalidInput, Limits, LockBackend};

use super::ceiling::Ceiling;
use super::check::Check;
use super::entrance::Entrance;
use super::keys::{Desk, Key};
use super::neighbours::Neighbours;
use super::phase::Phase;
use super::registration::{Process, Registration, Way};
use super::turns::Turns;
use super::{Inner, Switchover};
use crate::both::Both;
use crate::calls::Node;
use crate::quorum::limits;

const MAX_TTL: Duration = Duration::from_secs(60);

/// How much longer than a lease a registration lives: renewed every third of its ttl, it is never
/// shorter than a lease.
const REGISTRATION: u32 = 3;

/// How long one call for a registration may take.
const CALL: Duration = Duration::from_secs(5);

/// Room in a label for the time of a phase's beginning.
const SETTINGS: usize = 220;

/// Settings of a [`Switchover`].
#[must_use = "settings do nothing until `start`"]
pub struct SwitchoverBuilder {
    old: Arc<dyn LockBackend>,
    new: Arc<dyn LockBackend>,
    phase: Phase,
    floor: Option<u64>,
    gone: bool,
    alone: bool,
    max_ttl: Duration,
    away: Duration,
    label: Option<String>,
    settings: String,
}

impl SwitchoverBuilder {
    pub(super) fn new(old: Arc<dyn LockBackend>, new: Arc<dyn LockBackend>, phase: Phase) -> Self {
        let (max_ttl, away) = (MAX_TTL, Duration::from_secs(60 * 60));
        let (floor, gone, alone, label, settings) = (None, false, false, None, String::new());
        Self { old, new, phase, floor, gone, alone, max_ttl, away, label, settings }
    }

    /// The least token of phase `Old` or `New`: what [`Switchover::floor`] said before.
    ///
    /// It is not needed while both stores are reached: who begins a phase asks the store being left
    /// how far its tokens are.
    pub fn floor(mut self, floor: u64) -> Self {
        self.floor = Some(floor);
        self
    }

    /// The other store is gone for good, and everybody with it who took locks there: a phase of one
    /// store is begun without it. Stop all processes of the opposite phase, and wait for three times
    /// [`max_ttl`](Self::max_ttl) before. It needs a [`floor`](Self::floor). A store that does answer,
    /// and shows the opposite phase, keeps this process out all the same.
    pub fn gone(mut self) -> Self {
        self.gone = true;
        self
    }

    /// No process without a switch runs on the store being left. `New` is refused otherwise while
    /// nobody is registered in `Both`, and either phase of one store while leases stand in the other
    /// that no process in `Both` holds.
    pub fn assume_alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The longest ttl that is taken; 60 s unless set. The opposite phase can be entered three times
    /// that after the last process has left, or crashed.
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.max_ttl = max_ttl;
        self
    }

    /// A process that was out of its phase for longer stays out until it is started anew, for the fleet
    /// may have moved on; an hour unless set.
    pub fn max_absence(mut self, away: Duration) -> Self {
        self.away = away;
        self
    }

    /// Words about this process for people who look at the [status](Switchover::status); host
    /// and process id unless set.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What all processes must have alike besides `max_ttl`: the names of both stores, prefixes, tables.
    /// A process that differs from those that run is refused. They are shown to everybody, so no
    /// passwords.
    pub fn settings(mut self, settings: impl Into<String>) -> Self {
        self.settings = settings.into();
        self
    }

    /// Enters the phase.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Rejected`](lockcore::ErrorKind::Rejected) while the opposite phase stands, for
    /// settings that differ from those of others, and where processes may run that no switch knows of;
    /// those of the stores. The phase's own must be reached, and the other where nobody is in the phase.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may leave its phase standing for three times `max_ttl`.
    pub async fn start(self) -> Result<Switchover, Error> {
        let Ready { limits, ttl, desks, settings } = self.ready()?;
        let Self { old, new, phase, floor, gone, alone, away, label, .. } = self;
        let process = HolderId::random();
        let new_first = Arc::new(AtomicBool::new(false));
        let neighbours = Arc::new(AtomicBool::new(phase == Phase::Both));
        let [in_old, in_new] = desks.clone();
        let way = match phase {
            Phase::Both => Way::Both(Neighbours {
                desks,
                ttl,
                settings,
                process,
                new_first: new_first.clone(),
            }),
            Phase::Old | Phase::New => {
                let (own, other) =
                    if phase == Phase::Old { (in_old, in_new) } else { (in_new, in_old) };
                let ceiling = Ceiling::of(own.clone());
                let floor = floor.unwrap_or(0);
                let entrance = Entrance { phase, own, other, ttl, settings, floor, gone, alone };
                Way::Alone { entrance, ceiling, away, neighbours: neighbours.clone() }
            }
        };
        let ceiling = match &way {
            Way::Alone { ceiling, .. } => Some(ceiling.clone()),
            Way::Both(_) => None,
        };
        let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| "pid".to_owned());
        let label = label.unwrap_or_else(|| format!("{}:{}", host(), std::process::id()));
        let process = Process { key: Key::process(phase, process), label: label.into() };
        let registration = Registration::begin(way, process).await?;
        let both = [("the old store", old.clone()), ("the new store", new.clone())];
        let both = Both::of(both, new_first);
        let turns = Turns::among(neighbours);
        let inner = Inner { phase, old, new, both, limits, registration, ceiling, turns };
        Ok(Switchover { inner: Arc::new(inner) })
    }

    /// What speaks against entering the phase now, where so many processes are expected in others.
    /// It takes and releases a key of the switch's own in each store, and changes nothing else.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`] for settings that do not fit together.
    pub async fn check(self, expected: &[(Phase, usize)]) -> Result<Check, InvalidInput> {
        let Ready { desks, settings, .. } = self.ready()?;
        Ok(Check::of(self.phase, &desks, &settings, expected).await)
    }

    fn ready(&self) -> Result<Ready, InvalidInput> {
        let stores = [("the old store", &self.old), ("the new store", &self.new)];
        let nodes = stores.map(|(name, store)| Node { name: name.into(), backend: store.clone() });
        let limits = limits(&nodes, self.max_ttl)?;
        if self.gone && self.floor.is_none() {
            return Err(InvalidInput::new("a store that is gone leaves no floor: give one"));
        }
        let ttl = (limits.max_ttl * REGISTRATION).max(limits.min_ttl);
        let limit = CALL.min(ttl / 6).max(Duration::from_secs(1));
        let desks = stores.map(|(name, store)| Desk { name, store: store.clone(), limit });
        let own = match self.phase {
            Phase::Old => &desks[..1],
            Phase::Both => &desks[..],
            Phase::New => &desks[1..],
        };
        if let Some(desk) = own.iter().find(|desk| desk.store.limits().max_ttl < ttl) {
            return Err(InvalidInput::new(format!(
                "a registration lives for {ttl:?}, longer than {} takes: set a smaller `max_ttl`",
                desk.name
            )));
        }
        let settings = fingerprint(&self.settings, &limits);
        Ok(Ready { limits, ttl, desks, settings })
    }
}

/// What follows from the settings.
struct Ready {
    limits: Limits,
    /// How long a registration lives.
    ttl: Duration,
    desks: [Desk; 2],
    settings: Arc<str>,
}

/// What others compare with theirs, and then the words that it is made of.
fn fingerprint(settings: &str, limits: &Limits) -> Arc<str> {
    let mut words = format!("max_ttl={:?} {settings}", limits.max_ttl);
    let print = Key::hash(&words);
    let end = (0..=SETTINGS).rev().find(|end| words.is_char_boundary(*end));
    words.truncate(end.unwrap_or(0));
    format!("{:016x} {}", print >> 64, words.trim_end().replace('\0', " ")).into()
}

impl std::fmt::Debug for SwitchoverBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchoverBuilder")
            .field("old", &self.old)
            .field("new", &self.new)
            .field("phase", &self.phase)
            .field("floor", &self.floor)
            .field("max_ttl", &self.max_ttl)
            .finish_non_exhaustive()
    }
}
