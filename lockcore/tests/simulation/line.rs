//! The line in the store: places are kept, passed on, and let in.

use std::time::Duration;

use lockcore::{Claim, HandOver, HolderId};
use tokio::time::Instant;

use crate::checks::Check;
use crate::plan::{CLIENTS, KEYS};
use crate::sometimes::Sometimes;
use crate::state::{Kind, Operation, State, short};

/// A burst of hand-overs inside a process, and a little more.
const BURST: Duration = Duration::from_millis(60);

/// So often others may get a key from the store while a task waits for it.
const PASSERS: u32 = 60;

/// A turn lasts for a ttl and a second of sleep. The next in the queue may be a task of the same
/// runtime, which does not run either. Those who wait look around within another second, or three
/// where they come late.
const TURN: Duration = Duration::from_secs(26);

/// How late a task may be that is woken in time.
const LATE_BY: Duration = Duration::from_millis(60);

impl State {
    /// The store was asked to hand a lease over; whether a lease began.
    pub(crate) fn handed_over(
        &mut self,
        client: usize,
        from: &Claim,
        to: &Claim,
        answer: HandOver,
        given_up: bool,
    ) -> bool {
        let (key, now) = (crate::link::index(&from.key), Instant::now());
        self.note(|| {
            let (from, to) = (short(from.holder), short(to.holder));
            format!("store hands over {key} from {from} to {to}: {answer:?}; late: {given_up}")
        });
        if given_up {
            self.hit(Sometimes::Straggled);
        }
        match answer {
            HandOver::Granted(lease) => {
                let fresh = self.granted(to.holder, key, lease.token, given_up);
                if fresh {
                    self.holder(from.holder).release_executed = true;
                    self.passes_by(client, key, from, now);
                }
                fresh
            }
            HandOver::Yielded(contention) => {
                self.holder(from.holder).release_executed = true;
                self.queues(to, contention.ahead.is_some());
                false
            }
            HandOver::NotHeld => false,
        }
    }

    /// The store has given a holder a place, or kept it, or has not.
    pub(crate) fn queues(&mut self, claim: &Claim, in_line: bool) {
        self.holder(claim.holder).queued = in_line.then(Instant::now);
        if in_line {
            let queue = &mut self.keys[crate::link::index(&claim.key)].queue;
            if !queue.contains(&claim.holder) {
                queue.push(claim.holder);
            }
        }
    }

    /// A process has passed the key on to itself: not for longer than a burst while others wait.
    fn passes_by(&mut self, client: usize, key: usize, from: &Claim, now: Instant) {
        let Some((owner, since)) = self.keys[key].owner else { return };
        let holder = &self.holders[&from.holder];
        let sent = holder.released_at.unwrap_or(now);
        if owner != client || sent < since + BURST {
            return;
        }
        let (holders, queue) = (&self.holders, &mut self.keys[key].queue);
        let waits = |id: &HolderId| {
            let it = &holders[id];
            let asked = it.queued.is_some_and(|at| at + Duration::from_secs(1) > now);
            asked && !it.release_executed
        };
        queue.retain(waits);
        let passed = queue.iter().copied().find(|id| {
            let it = &holders[id];
            it.client != client && it.queued.is_some_and(|at| at > since)
        });
        if let Some(id) = passed {
            self.broken(Check::LetsOthersIn, || format!("client {client} passes by {}", short(id)));
        }
    }

    /// Looks whether places end while their processes wait.
    pub(crate) fn look_at_places(&mut self, now: Instant) {
        let mut left = Vec::new();
        let holders = &mut self.holders;
        self.placed.retain(|id| {
            let holder = holders.get_mut(id).expect("a holder that has asked");
            let Some(ends) = holder.place else { return false };
            let client = &self.clients[holder.client];
            let in_time = client.runs() && client.resumed() <= holder.asked;
            // In an outage one holder at a time asks, and others may come too late.
            if !in_time || client.failing.is_some() {
                holder.place = None;
            } else if holder.in_flight.iter().sum::<usize>() > 0 {
                // The answer says more.
            } else if ends + LATE_BY < now {
                holder.place = None;
                left.push(*id);
            }
            holder.place.is_some()
        });
        for id in left {
            self.broken(Check::PlaceKept, || short(id));
        }
    }

    /// Another process got the key from the store. Those who wait must not see that too often.
    pub(crate) fn counts_passers(&mut self, owner: usize, key: usize) {
        for client in (0..CLIENTS).filter(|client| *client != owner) {
            let there = &self.clients[client];
            let well = there.failing.is_none() && there.runs();
            let mut starved = None;
            for one in &mut self.slot(client, key).operations {
                one.passed = if well { one.passed + 1 } else { 0 };
                if one.passed > PASSERS && one.kind == Kind::Wait {
                    starved = Some(one.started);
                }
            }
            if let Some(since) = starved {
                self.broken(Check::Starves, || format!("client {client} waits since {since:?}"));
            }
        }
    }

    /// Where a runtime stalls, the turns of its tasks end with their leases.
    pub(crate) fn look_at_turns(&mut self) {
        let now = Instant::now();
        for held in &self.guards {
            let process = &self.clients[held.client].main.process;
            if held.guard.upgrade().is_some_and(|guard| process.look(|| guard.is_valid())) {
                self.slots[held.client * KEYS.len() + held.key].last_used = now;
            }
        }
        let late = self.slots().find(|(client, _, slot)| {
            let there = &self.clients[*client];
            let since = slot.last_used.max(there.main.resumed).max(there.well);
            let waits =
                |one: &Operation| one.main && one.kind != Kind::Try && now > one.started + TURN;
            now > since + TURN
                && slot.operations.iter().any(waits)
                && there.main.runs()
                && there.failing.is_none()
        });
        if let Some((client, key, _)) = late {
            self.broken(Check::TurnEnds, || format!("client {client} on {}", KEYS[key]));
        }
    }
}
