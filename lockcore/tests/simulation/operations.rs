//! What tasks do with locks, checked for its outcome and the time that it takes.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, HolderId, LockGuard};
use tokio::time::Instant;

use crate::checks::Check;
use crate::plan::{KEYS, REQUEST_TIMEOUT, RETRY_FOR};
use crate::sometimes::Sometimes;
use crate::state::{Kind, Operation, State, short};
use crate::world::World;

const TICK: Duration = Duration::from_millis(10);
/// Timers do not count the time spent suspended: a limit is looked at again within a second.
const SLICE: Duration = Duration::from_millis(1_010);

/// A task that acquires; dropped, it has stopped.
#[derive(Debug)]
pub(crate) struct Acquiring {
    world: Arc<World>,
    client: usize,
    key: usize,
    number: u64,
}

impl Acquiring {
    pub(crate) fn begin(
        world: &Arc<World>,
        client: usize,
        key: usize,
        kind: Kind,
        main: bool,
    ) -> Self {
        let number = world.state().operation_begins(client, key, kind, main);
        Self { world: world.clone(), client, key, number }
    }

    /// Notes the outcome.
    pub(crate) fn end(self, outcome: &Result<Option<LockGuard>, Error>) {
        self.world.state().operation_ends(self.client, self.key, self.number, outcome);
    }
}

/// A release that was called: when, on which runtime, which had stood still for so long, and whether
/// the guard was valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called {
    pub(crate) at: Instant,
    pub(crate) main: bool,
    pub(crate) stood: Duration,
    pub(crate) valid: bool,
}

impl Drop for Acquiring {
    fn drop(&mut self) {
        let mut state = self.world.state();
        let slot = state.slot(self.client, self.key);
        slot.operations.retain(|operation| operation.number != self.number);
        slot.last_active = Instant::now();
        if slot.operations.is_empty() {
            (slot.waited, slot.signalled) = (false, false);
        }
    }
}

impl State {
    fn operation_begins(&mut self, client: usize, key: usize, kind: Kind, main: bool) -> u64 {
        let now = Instant::now();
        self.note(|| format!("client {client} begins {kind:?} {}", KEYS[key]));
        self.operations += 1;
        let number = self.operations;
        let held = self
            .guards
            .iter()
            .any(|held| (held.client, held.key) == (client, key) && held.guard.strong_count() > 0);
        // Tasks that were woken together run in any order.
        let there = &self.clients[client];
        let resumed = there.resumed() == now;
        let stood_before = there.runtime(main).stood_for(now);
        let token_before = self.keys[key].given_token;
        let slot = self.slot(client, key);
        let neighbours = !slot.operations.is_empty() || slot.calls > 0;
        slot.operations.push(Operation {
            number,
            kind,
            started: now,
            stood_before,
            contended_before: slot.contended,
            passed: 0,
            main,
            busy: held || resumed || neighbours || slot.last_active == now,
            token_before,
        });
        number
    }

    fn operation_ends(
        &mut self,
        client: usize,
        key: usize,
        number: u64,
        outcome: &Result<Option<LockGuard>, Error>,
    ) {
        let now = Instant::now();
        self.note(|| {
            let outcome = outcome.as_ref().map(|guard| guard.is_some()).map_err(Error::kind);
            format!("client {client} ends acquiring {}: {outcome:?}", KEYS[key])
        });
        let slot = self.slot(client, key);
        let Some(place) = slot.operations.iter().position(|one| one.number == number) else {
            return;
        };
        let operation = slot.operations.remove(place);
        let answered = slot.contended > operation.contended_before;
        let ahead = slot.operations.iter().filter(|one| one.number < number);
        let overtaken =
            ahead.filter(|one| one.kind != Kind::Try).map(|one| (one.kind, one.started));
        let overtaken: Vec<_> = overtaken.collect();
        let others = !slot.operations.is_empty();
        self.within_bound(client, &operation, now);
        match outcome {
            Ok(Some(guard)) => {
                // The turn of a task that did not run may have been taken over: it queues again.
                let there = &self.clients[client];
                let mut ran = overtaken
                    .into_iter()
                    .filter(|(_, since)| there.runs() && *since >= there.side.resumed);
                if let Some((kind, _)) = ran.next() {
                    self.broken(Check::Order, || format!("{kind:?} waits since earlier"));
                }
                if others {
                    self.hit(Sometimes::LocalQueue);
                }
                let (token, before) = (guard.fencing_token(), operation.token_before);
                if token <= before {
                    self.broken(Check::TokensRise, || format!("{token} given after {before}"));
                }
            }
            Ok(None) => {
                self.hit(if answered {
                    Sometimes::TryHeldElsewhere
                } else {
                    Sometimes::TryHeldHere
                });
                if !answered && !operation.busy {
                    self.broken(Check::ContendedHasCause, || format!("{operation:?}"));
                }
            }
            Err(error) => {
                if error.kind() == ErrorKind::Unavailable && !self.may_be_told(client, &operation) {
                    self.broken(Check::UnavailableHasCause, || format!("{operation:?}"));
                }
                self.hit(match error.kind() {
                    ErrorKind::Contended => Sometimes::TimeLimit,
                    ErrorKind::Unavailable => Sometimes::AcquireUnavailable,
                    _ => Sometimes::AcquireAmbiguous,
                });
            }
        }
    }

    /// Looks at the operations that go on.
    pub(crate) fn look_at_operations(&mut self) {
        let now = Instant::now();
        let this = &*self;
        let late: Vec<(Check, String)> = this
            .slots()
            .flat_map(|(client, key, slot)| {
                slot.operations.iter().filter_map(move |one| {
                    let untried = || this.untried(client, key, one, now);
                    this.overdue(client, one, now).or_else(untried)
                })
            })
            .collect();
        for (check, text) in late {
            self.broken(check, || text);
        }
    }

    fn within_bound(&mut self, client: usize, operation: &Operation, now: Instant) {
        if let Some((check, text)) = self.overdue(client, operation, now) {
            self.broken(check, || text);
        }
    }

    fn overdue(&self, client: usize, one: &Operation, now: Instant) -> Option<(Check, String)> {
        let runtime = self.clients[client].runtime(one.main);
        if !runtime.runs() {
            return None;
        }
        let active = now - one.started - (runtime.stood_for(now) - one.stood_before);
        let (check, late) = match one.kind {
            Kind::Try => (Check::Bounded, active > REQUEST_TIMEOUT + TICK),
            Kind::For(limit) if limit.is_zero() => {
                (Check::TimeLimit, active > REQUEST_TIMEOUT + TICK)
            }
            Kind::For(limit) => {
                let resumed = runtime.resumed;
                let looks_again = if resumed > one.started { resumed + SLICE } else { one.started };
                (Check::TimeLimit, now > (one.started + limit).max(looks_again) + TICK)
            }
            Kind::Wait | Kind::Dropped(_) => (Check::OutageTold, false),
        };
        if self.untold(client, one, now) {
            let text = format!("client {client}: {:?} of {:?}", one.kind, one.started);
            return Some((Check::OutageTold, text));
        }
        late.then(|| (check, format!("client {client}: {:?} takes {active:?}", one.kind)))
    }

    /// A release has ended for its caller.
    pub(crate) fn released(
        &mut self,
        client: usize,
        id: HolderId,
        called: Called,
        outcome: &Result<(), Error>,
    ) {
        let Called { at, main, stood, valid } = called;
        let now = Instant::now();
        self.note(|| {
            let outcome = outcome.as_ref().map_err(Error::kind);
            format!("client {client} released {}: {outcome:?}", short(id))
        });
        let active = now - at - (self.clients[client].runtime(main).stood_for(now) - stood);
        if active > RETRY_FOR + TICK {
            self.broken(Check::Bounded, || format!("release of {} took {active:?}", short(id)));
        }
        match outcome {
            Ok(()) => {
                if !valid {
                    self.hit(Sometimes::OutlivedItsEnd);
                }
                // Without a loss of data between.
                if self.unforgotten(&self.holders[&id]) && self.another_held(id, at) {
                    self.broken(Check::ReleaseIsTrue, || short(id));
                }
            }
            Err(error) if error.kind() == ErrorKind::Lost => self.hit(Sometimes::ReleaseLost),
            Err(_) => self.hit(Sometimes::ReleaseAmbiguous),
        }
    }
}
