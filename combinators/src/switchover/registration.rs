//! A process's part in a phase, kept until it is dropped.
//!
//! Locks are granted only while the phase stands for longer than they live. Who has lost it grants
//! nothing, and enters anew. Who was refused, or out of it for long, stays out: the fleet may have moved
//! on, and finished.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, Claim, HolderId};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ceiling::Ceiling;
use super::entrance::{Entrance, Kept, MARK, Run};
use super::keys::Key;
use super::neighbours::Neighbours;
use super::phase::Phase;

/// How long to wait before asking again after that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// How long entering may take.
const START: Duration = Duration::from_secs(30);

/// So many promises are no burden.
const FEW: usize = 64;

/// How a process stands in its phase.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It is registered, and grants locks.
    In,
    /// It was not able to renew its registration, and tries to enter anew.
    Lost,
    /// It was refused, or out of its phase for too long, and stays out until it is started anew.
    Out(String),
    /// It has [left](crate::Switchover::leave).
    Left,
}

/// What a process does to stay in its phase.
pub(super) enum Way {
    /// In one store alone, whose ceiling is kept.
    Alone {
        entrance: Entrance,
        ceiling: Ceiling,
        away: Duration,
        /// Whether there are processes in both stores.
        neighbours: Arc<AtomicBool>,
    },
    /// In both: nothing depends on it but what others see.
    Both(Neighbours),
}

/// A process's part in a phase.
pub(super) struct Registration {
    state: Arc<State>,
    keeper: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
    /// A promise was taken back.
    released: Notify,
}

struct State {
    now: Mutex<Now>,
    standing: watch::Sender<Standing>,
}

#[derive(Default)]
struct Now {
    /// `None` in both stores.
    run: Option<Run>,
    exclusive: bool,
    /// Until when a holder of this process may believe to hold a lock.
    promised: HashMap<HolderId, Instant>,
    /// Forget promises that have ended when there are this many.
    sweep_at: usize,
}

impl Registration {
    /// Enters, or says why this process may not be in its phase now.
    pub(super) async fn begin(way: Way, process: Process) -> Result<Self, BackendError> {
        let began = Instant::now();
        let entering = async {
            let run = match &way {
                Way::Alone { entrance, .. } => {
                    entrance.not_swapped().await?;
                    Some(entrance.enter(false).await?)
                }
                Way::Both(neighbours) => {
                    neighbours.begin().await?;
                    None
                }
            };
            process.show(&way).await;
            Ok(run)
        };
        let run = timeout(START, entering).await.unwrap_or_else(|_| {
            Err(BackendError::unavailable(format!("the phase was not entered within {START:?}")))
        })?;
        let now = Mutex::new(Now { run, exclusive: run.is_some(), ..Now::default() });
        let state = Arc::new(State { now, standing: watch::Sender::new(Standing::In) });
        let (end, ended) = oneshot::channel();
        let keeper = tokio::spawn({
            let state = state.clone();
            async move {
                tokio::select! {
                    // Dropped is ended as well.
                    _ = ended => {}
                    () = keep(&way, &process, &state, began) => {}
                }
                process.hide(&way).await;
            }
        });
        Ok(Self { state, keeper: Mutex::new(Some((end, keeper))), released: Notify::new() })
    }

    /// The floor of a lease for this claim, if the phase is sure to outlive it. From now on the holder
    /// may believe to have it, until it [takes that back](Self::released).
    pub(super) fn promise(&self, claim: &Claim) -> Result<u64, BackendError> {
        // In this order: who leaves looks at what was promised after it has said so.
        let (mut state, now) = (self.state.now(), Instant::now());
        match &*self.state.standing.borrow() {
            Standing::Left => {
                return Err(BackendError::rejected("this process has left its phase"));
            }
            Standing::Out(why) => return Err(BackendError::rejected(why.clone())),
            Standing::In | Standing::Lost => {}
        }
        let floor = match state.run {
            Some(run) if run.until >= now + claim.ttl => run.floor,
            None if !state.exclusive => 0,
            _ => {
                return Err(BackendError::unavailable(
                    "this process is not registered in its phase: its registration was not renewed",
                ));
            }
        };
        if state.promised.len() >= state.sweep_at.max(FEW) {
            state.promised.retain(|_, end| *end > now);
            state.sweep_at = 2 * state.promised.len();
        }
        let end = state.promised.entry(claim.holder).or_insert(now);
        *end = (*end).max(now + claim.ttl);
        Ok(floor)
    }

    /// The holder does not believe to hold anything.
    pub(super) fn released(&self, holder: HolderId) {
        self.state.now().promised.remove(&holder);
        self.released.notify_waiters();
    }

    pub(super) fn floor(&self) -> u64 {
        self.state.now().run.map_or(0, |run| run.floor)
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.state.standing.subscribe()
    }

    /// Grants no more, and waits until nobody believes to hold a lock. Nothing is said about the phase:
    /// it ends by itself.
    pub(super) async fn leave(&self) {
        self.state.standing.send_replace(Standing::Left);
        loop {
            let released = self.released.notified();
            let Some(end) = self.state.now().promised.values().max().copied() else { break };
            tokio::select! {
                () = sleep_until(end) => break,
                () = released => {}
            }
        }
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, keeper)) = keeper {
            let _ = end.send(());
            let _ = keeper.await;
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a change; who has left, or is out, stays so.
    fn tell(&self, next: Standing) {
        self.standing.send_if_modified(|standing| {
            let ended = matches!(standing, Standing::Left | Standing::Out(_));
            let changes = !ended && *standing != next;
            if changes {
                tracing::info!(standing = ?next, "the phase");
                *standing = next;
            }
            changes
        });
    }
}

async fn keep(way: &Way, process: &Process, state: &State, mut good: Instant) {
    let mut marked = good;
    match way {
        Way::Alone { entrance, ceiling, away, neighbours } => loop {
            let both = entrance.own.look(&Key::phase(Phase::Both)).await;
            neighbours.store(!matches!(both, Ok(None)), Ordering::Relaxed);
            let Some(run) = state.now().run else { return };
            sleep_until(good + entrance.ttl / 3).await;
            match renewed(entrance, run, &mut good).await {
                Some(until) => state.now().run = Some(Run { until, ..run }),
                None => {
                    state.now().run = None;
                    state.tell(Standing::Lost);
                    // The store may have lost all of its data.
                    ceiling.forget();
                    let Some((run, since)) = anew(entrance, good, *away, state).await else {
                        return;
                    };
                    good = since;
                    state.now().run = Some(run);
                    state.tell(Standing::In);
                }
            }
            process.show(way).await;
            if marked.elapsed() > MARK / 24 {
                marked = Instant::now();
                let entrance = entrance.clone();
                // Nobody must wait for the other store.
                tokio::spawn(async move { entrance.mark().await });
            }
        },
        Way::Both(neighbours) => {
            let renewing = async {
                loop {
                    sleep(neighbours.ttl / 3).await;
                    let seen = neighbours.renew().await;
                    state.tell(if seen { Standing::In } else { Standing::Lost });
                    process.show(way).await;
                }
            };
            let looking = async {
                loop {
                    sleep(neighbours.ttl / 3).await;
                    if let Err(error) = neighbours.survey().await {
                        tracing::debug!(%error, "the stores were not looked through");
                    }
                }
            };
            tokio::join!(renewing, looking);
        }
    }
}

/// Renews until it is answered; until when the phase stands, or `None`: it was lost.
async fn renewed(entrance: &Entrance, run: Run, good: &mut Instant) -> Option<Instant> {
    loop {
        let began = Instant::now();
        match entrance.renew(run).await {
            Ok(Kept::Until(until)) => {
                *good = began;
                return Some(until);
            }
            Ok(Kept::Lost) => return None,
            Err(error) => {
                tracing::warn!(phase = %entrance.phase, %error, "not renewed");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Enters anew; `None` for who stays out. How long it was out is looked at before, and when it is in:
/// the fleet may have moved on meanwhile.
async fn anew(
    entrance: &Entrance,
    good: Instant,
    away: Duration,
    state: &State,
) -> Option<(Run, Instant)> {
    loop {
        let began = Instant::now();
        let entered = if good.elapsed() > away {
            None
        } else {
            timeout(START, entrance.enter(true)).await.ok()
        };
        if good.elapsed() > away {
            state.tell(Standing::Out(format!(
                "this process was out of phase `{}` for more than {away:?}: start it anew",
                entrance.phase
            )));
            return None;
        }
        match entered {
            Some(Ok(run)) => return Some((run, began)),
            Some(Err(BackendError::Rejected(why))) => {
                state.tell(Standing::Out(format!("{why}; start this process anew")));
                return None;
            }
            Some(Err(error)) => {
                tracing::warn!(phase = %entrance.phase, %error, "not entered");
            }
            None => {}
        }
        sleep(AGAIN).await;
    }
}

/// A process, for people who look. Best effort: nothing depends on it.
pub(super) struct Process {
    pub(super) key: Key,
    pub(super) label: Arc<str>,
}

impl Process {
    async fn show(&self, way: &Way) {
        for (desk, ttl) in way.desks() {
            let _ = desk.take(&self.key, ttl, 0, &self.label).await;
        }
    }

    async fn hide(&self, way: &Way) {
        for (desk, _) in way.desks() {
            let _ = desk.give_back(&self.key).await;
        }
    }
}

impl Way {
    fn desks(&self) -> impl Iterator<Item = (&super::keys::Desk, Duration)> {
        let (desks, ttl) = match self {
            Self::Alone { entrance, .. } => (std::slice::from_ref(&entrance.own), entrance.ttl),
            Self::Both(neighbours) => (&neighbours.desks[..], neighbours.ttl),
        };
        desks.iter().map(move |desk| (desk, ttl))
    }
}
