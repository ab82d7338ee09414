//! Getting into a phase.
//!
//! Who finds a confirmed run of its phase joins it, and need not reach the other store. Else it
//! begins one: it registers, looks for the opposite phase, finds the floor and confirms, in this
//! order. Of two that come at once, at least one sees the other and is refused, without taking back
//! what it has said: others may have joined since.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockcore::{BackendError, LeaseInfo};
use tokio::time::Instant;

use super::ceiling::floor_above;
use super::keys::{Desk, GLANCE, Key};
use super::phase::Phase;
use super::survey::foreign;

/// How long it is remembered in the old store that somebody ran in `New`.
pub(super) const MARK: Duration = Duration::from_secs(24 * 60 * 60);

/// How an exclusive phase is entered.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) phase: Phase,
    pub(super) own: Desk,
    pub(super) other: Desk,
    /// How long a registration lives.
    pub(super) ttl: Duration,
    /// What all processes must have alike.
    pub(super) settings: Arc<str>,
    pub(super) floor: u64,
    /// The other store is gone.
    pub(super) gone: bool,
    /// No process without a switch runs on the store being left.
    pub(super) alone: bool,
}

/// A run of the phase that this process is part of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) token: u64,
    pub(super) floor: u64,
    /// The phase stands until then at least.
    pub(super) until: Instant,
}

/// What came of renewing.
pub(super) enum Kept {
    Until(Instant),
    Lost,
}

impl Entrance {
    /// Joins the run of the phase, or begins one. `anew`: this process was in it before.
    pub(super) async fn enter(&self, anew: bool) -> Result<Run, BackendError> {
        match self.join().await? {
            Some(run) => Ok(run),
            None => self.begin(anew).await,
        }
    }

    async fn join(&self) -> Result<Option<Run>, BackendError> {
        let Some(phase) = self.own.look(&Key::phase(self.phase)).await? else { return Ok(None) };
        same(&self.settings, &phase)?;
        let within = Key::within(self.phase, phase.token);
        let Some(confirmed) = self.own.look(&within).await? else { return Ok(None) };
        let run = Run {
            token: phase.token,
            floor: confirmed.token.max(self.floor),
            until: Instant::now(),
        };
        Ok(match self.renew(run).await? {
            Kept::Until(until) => Some(Run { until, ..run }),
            Kept::Lost => None,
        })
    }

    /// Renewed is only what has the same token: another run may have come between.
    pub(super) async fn renew(&self, run: Run) -> Result<Kept, BackendError> {
        let began = Instant::now();
        let phase = self.own.renew(&Key::phase(self.phase), self.ttl, 0).await?;
        if phase != Some(run.token) {
            return Ok(Kept::Lost);
        }
        let within = Key::within(self.phase, run.token);
        // A phase that stands proves nothing without it.
        Ok(match self.own.renew(&within, self.ttl, 0).await? {
            Some(_) => Kept::Until(began + self.ttl),
            None => Kept::Lost,
        })
    }

    async fn begin(&self, anew: bool) -> Result<Run, BackendError> {
        // Who cannot enter leaves no trace, where that is known in time.
        if self.look().await? && !anew && !self.alone {
            self.nobody_else().await?;
        }
        let began = Instant::now();
        let label = format!("{} since={}", self.settings, unix_time()).into();
        let taken = self.own.take(&Key::phase(self.phase), self.ttl, 0, &label).await?;
        let token = taken.ok_or_else(|| stranger(&self.own))?;
        self.mark().await?;
        let reached = self.look().await?;
        let floor = if reached { floor_above(&self.other).await? } else { 0 }.max(self.floor);
        let most = self.own.store.limits().max_token;
        if floor > most {
            return Err(BackendError::rejected(format!(
                "the store being left has tokens up to {floor}, and the other takes none above {most}"
            )));
        }
        let until = began + self.ttl;
        if Instant::now() >= until {
            return Err(BackendError::unavailable("entering the phase took too long"));
        }
        let within = Key::within(self.phase, token);
        let confirmed = self.own.take(&within, self.ttl, floor, &label).await?;
        let confirmed = confirmed.ok_or_else(|| stranger(&self.own))?;
        Ok(Run { token, floor: confirmed.max(self.floor), until })
    }

    /// Refuses while the opposite phase stands. Whether the other store was reached: where it need
    /// not be, `false`.
    async fn look(&self) -> Result<bool, BackendError> {
        let opposite = self.phase.opposite().unwrap_or(self.phase);
        match self.other.look(&Key::phase(opposite)).await {
            Ok(None) => Ok(true),
            Ok(Some(info)) => Err(BackendError::rejected(format!(
                "phase `{}` must not run while phase `{opposite}` stands, for {:.0?} at least ({}); \
                 move all processes of phase `{opposite}` to phase `both` first, and wait until \
                 it has ended",
                self.phase, info.remaining, info.label
            ))),
            Err(_) if self.gone => {
                tracing::warn!(phase = %self.phase, "the other store was not reached: it is said to be gone");
                Ok(false)
            }
            Err(error) if self.phase == Phase::Old => {
                // Who enters `New` leaves a mark here before it looks.
                if self.keeps_marks() && self.own.look(&Key::open()).await?.is_none() {
                    tracing::warn!(%error, "the new store was not reached: nobody ran in it alone");
                    return Ok(false);
                }
                Err(BackendError::unavailable(format!(
                    "{error}; somebody ran in phase `new` within the last day, so phase `old` \
                     needs the new store, or `gone` and `floor`"
                )))
            }
            Err(error) => Err(BackendError::unavailable(format!(
                "{error}; to enter phase `new` without the old store, `gone` and `floor` are needed"
            ))),
        }
    }

    fn keeps_marks(&self) -> bool {
        let old = if self.phase == Phase::Old { &self.own } else { &self.other };
        old.store.limits().max_ttl >= MARK
    }

    /// From `New`, leaves the mark in the old store.
    pub(super) async fn mark(&self) -> Result<(), BackendError> {
        if self.phase != Phase::New || !self.keeps_marks() {
            return Ok(());
        }
        match self.other.take(&Key::open(), MARK, 0, &self.settings).await {
            Err(error) if !self.gone => Err(error),
            _ => Ok(()),
        }
    }

    /// Refuses where processes may run on the store being left that no switch knows of.
    async fn nobody_else(&self) -> Result<(), BackendError> {
        let ran = self.phase == Phase::New && self.other.look(&Key::open()).await?.is_some();
        if self.phase == Phase::New && !ran {
            let there = match self.other.look(&Key::phase(Phase::Both)).await? {
                None => self.own.look(&Key::phase(Phase::Both)).await?,
                there => there,
            };
            let there = there.ok_or_else(|| {
                BackendError::rejected(
                    "nobody is registered in phase `both`: all processes must have moved there \
                     before phase `new`. Where that is so, say `assume_alone`",
                )
            })?;
            same(&self.settings, &there)?;
        }
        // Where those in `Both` have looked it is enough to see what is seen at once: a store with many
        // keys of others is long to look through.
        let clean = self.other.look(&Key::clean()).await?.is_some();
        let limit = self.other.limit.min(if clean { GLANCE } else { GLANCE * 20 });
        let other = Desk { limit, ..self.other.clone() };
        match foreign(&other, &self.own).await {
            Ok(Some(info)) => Err(BackendError::rejected(format!(
                "`{}` is held in {} alone, by `{}`, which no process in phase `both` holds: end all \
                 processes that use that store without a switch, and wait for {:.0?}; or say \
                 `assume_alone`",
                info.key, other.name, info.label, info.remaining
            ))),
            Err(error @ BackendError::Rejected(_)) => Err(unseen(other.name, &error)),
            Err(error) if !clean && !ran && self.phase == Phase::New => {
                Err(BackendError::rejected(format!(
                    "whether others hold locks in {} was not seen: {error}. Processes in phase \
                     `both` find out within {:.0?}; or say `assume_alone`",
                    other.name, self.ttl
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses stores that others use the other way round.
    pub(super) async fn not_swapped(&self) -> Result<(), BackendError> {
        let Some(opposite) = self.phase.opposite() else { return Ok(()) };
        match self.own.look(&Key::phase(opposite)).await? {
            None => Ok(()),
            Some(info) => Err(swapped(&self.own, opposite, &info)),
        }
    }
}

/// Others use the store for what it is not here.
pub(super) fn swapped(desk: &Desk, phase: Phase, info: &LeaseInfo) -> BackendError {
    BackendError::rejected(format!(
        "{} is the other one to the processes of phase `{phase}` ({}): the old and the new store \
         are swapped",
        desk.name, info.label
    ))
}

/// A store that does not show all of its locks.
pub(super) fn unseen(name: &str, error: &BackendError) -> BackendError {
    BackendError::rejected(format!(
        "whether others hold locks in {name} cannot be seen: {error}. A switch needs stores that list \
         all of their locks"
    ))
}

/// Refuses settings that differ from those of the others.
pub(super) fn same(ours: &str, theirs: &LeaseInfo) -> Result<(), BackendError> {
    if ours.split(' ').next() == theirs.label.split(' ').next() {
        return Ok(());
    }
    Err(BackendError::rejected(format!(
        "this process has the settings {ours}, and the others have {}: they must be alike",
        theirs.label
    )))
}

fn stranger(desk: &Desk) -> BackendError {
    BackendError::rejected(format!("{} has a key of the switch that is not its own", desk.name))
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
