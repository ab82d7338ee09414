//! What clients believe, checked against what the store has granted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use lockcore::{HolderId, LockGuard, LostReason};
use tokio::time::Instant;

use crate::checks::Check;
use crate::holder::Holder;
use crate::plan::{KEYS, RENEW_EVERY};
use crate::sometimes::Sometimes;
use crate::state::{Held, State, short};

/// A process that was suspended looks at the clock again within a second.
const LATE_BY: Duration = Duration::from_millis(1_050);

impl State {
    /// A client was given a guard.
    pub(crate) fn given(&mut self, client: usize, key: usize, guard: &Arc<LockGuard>) {
        let (now, id) = (Instant::now(), guard.holder());
        self.note(|| format!("client {client} has {} {}", KEYS[key], short(id)));
        self.slot(client, key).doubtful.retain(|other| *other != id);
        self.keys[key].given_token = self.keys[key].given_token.max(guard.fencing_token());
        let max_hold = self.clients[client].settings.max_hold;
        let holder = self.holders.entry(id).or_insert_with(|| Holder::new(client, key));
        holder.guarded = true;
        holder.hold_end = max_hold.map(|max| now + max);
        self.guards.push(Held {
            guard: Arc::downgrade(guard),
            holder: id,
            client,
            key,
            given: now,
            seen_lost: false,
            told: false,
        });
        if !self.clients[client].main.process.look(|| guard.is_valid()) {
            self.broken(Check::ValidWhenGiven, || short(id));
        }
        self.look_at_key(key, now);
    }

    /// A client is about to let go of a guard: its process has to do with the key.
    pub(crate) fn parts(&mut self, id: HolderId) {
        let Some(held) = self.guards.iter().find(|held| held.holder == id) else { return };
        let (client, key, now) = (held.client, held.key, Instant::now());
        let guard = held.guard.upgrade();
        self.slot(client, key).last_active = now;
        let valid =
            guard.is_some_and(|it| self.clients[client].main.process.look(|| it.is_valid()));
        self.holder(id).releasing = valid.then_some(now);
    }

    /// Looks whether what is released stands without a release on its way.
    pub(crate) fn look_at_releases(&mut self) {
        let now = Instant::now();
        for key in 0..KEYS.len() {
            let Some(id) = self.standing(key) else { continue };
            let holder = &self.holders[&id];
            let client = &self.clients[holder.client];
            let Some(since) = holder.releasing else { continue };
            let since = since.max(client.resumed()).max(client.well);
            let idle = holder.in_flight == [0; 4] && client.runs() && client.failing.is_none();
            let stands = !holder.release_answered && holder.deadline.is_some_and(|end| now < end);
            if idle && stands && now > since + LATE_BY {
                self.broken(Check::ReleaseGoesOn, || short(id));
            }
        }
    }

    /// `lost()` has resolved.
    pub(crate) fn told(&mut self, id: HolderId, reason: LostReason) {
        let now = Instant::now();
        self.note(|| format!("{} is lost: {reason}", short(id)));
        self.hit(match reason {
            LostReason::Expired => Sometimes::LostExpired,
            LostReason::MaxHold => Sometimes::LostMaxHold,
            LostReason::NotHeld => Sometimes::LostNotHeld,
            _ => Sometimes::LostReleased,
        });
        let alive = self.guards.iter_mut().find(|held| held.holder == id);
        let mut alive = alive.filter(|held| held.guard.strong_count() > 0);
        if let Some(held) = &mut alive {
            held.told = true;
        }
        let alive = alive.is_some();
        let holder = &self.holders[&id];
        let come = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        let caused = match reason {
            LostReason::Expired => come(holder.deadline),
            LostReason::MaxHold => come(holder.hold_end),
            LostReason::NotHeld => holder.not_held,
            _ => !alive,
        };
        if !caused {
            self.broken(Check::LossHasCause, || format!("{}: {reason}", short(id)));
        }
    }

    /// Looks at every guard.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        self.look_at_neighbours(now);
        self.look_at_places(now);
        for key in 0..KEYS.len() {
            self.look_at_guards(key, now);
        }
    }

    /// Looks at what a step of the store has to do with.
    pub(crate) fn look_at_key(&mut self, key: usize, now: Instant) {
        self.look_at_neighbours(now);
        self.look_at_places(now);
        self.look_at_guards(key, now);
    }

    /// Looks at the guards of a key.
    fn look_at_guards(&mut self, key: usize, now: Instant) {
        let mut guards = std::mem::take(&mut self.guards);
        guards.retain(|held| held.guard.strong_count() > 0);
        let mut valid: Vec<HolderId> = Vec::new();
        for held in guards.iter_mut().filter(|held| held.key == key) {
            let Some(guard) = held.guard.upgrade() else { continue };
            if self.clients[held.client].main.process.look(|| guard.is_valid()) {
                self.look_at_valid(held, guard.fencing_token(), now);
                valid.push(held.holder);
            } else {
                self.look_at_lost(held, now);
            }
        }
        self.guards = guards;
        let counts = |id: &&HolderId| self.unforgotten(&self.holders[*id]);
        if valid.iter().filter(counts).count() > 1 {
            self.broken(Check::Exclusion, || {
                valid.iter().copied().map(short).collect::<Vec<_>>().join(" and ")
            });
        } else if valid.len() > 1 {
            self.hit(Sometimes::TwoAfterWipe);
        }
    }

    /// The store has lost no data since it granted the lease (A2).
    pub(crate) fn unforgotten(&self, holder: &Holder) -> bool {
        holder.granted.is_some_and(|(_, wipes)| wipes == self.wipes)
    }

    fn look_at_valid(&mut self, held: &Held, token: u64, now: Instant) {
        let id = held.holder;
        let client = &self.clients[held.client];
        let holder = &self.holders[&id];
        let come = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        let since = holder
            .renewed_at
            .unwrap_or(held.given)
            .max(held.given)
            .max(client.resumed())
            .max(client.well);
        let renews = client.settings.renews
            && client.runs()
            && client.failing.is_none()
            && holder.hold_end.is_none_or(|end| holder.deadline < Some(end));
        let checks = [
            (held.seen_lost, Check::LossIsFinal),
            (come(holder.deadline), Check::Deadline),
            (come(holder.hold_end), Check::MaxHold),
            (holder.not_held, Check::NotHeldEnds),
            (self.unforgotten(holder) && token != holder.token, Check::TokenOfItsLease),
            (renews && now > since + RENEW_EVERY + LATE_BY, Check::RenewalsGoOn),
            (
                (holder.granted.is_none() || self.unforgotten(holder))
                    && self.standing(held.key) != Some(id),
                Check::LeaseBehindGuard,
            ),
        ];
        for (broken, check) in checks {
            if broken {
                self.broken(check, || short(id));
            }
        }
    }

    fn look_at_lost(&mut self, held: &mut Held, now: Instant) {
        held.seen_lost = true;
        let id = held.holder;
        let (holder, client) = (&self.holders[&id], &self.clients[held.client]);
        let Some(end) = holder.end() else { return };
        let early = now < end && !holder.not_held;
        let late = client.runs() && !held.told && now > end.max(client.resumed()) + LATE_BY;
        if early {
            self.broken(Check::LossHasCause, || format!("{} is not valid", short(id)));
        }
        if late {
            self.broken(Check::LossIsTold, || short(id));
        }
    }

    /// How many guards of a client are valid, and how many are not.
    pub(crate) fn beliefs(&self, client: usize) -> (usize, usize) {
        let process = &self.clients[client].main.process;
        let guards = self.guards.iter().filter(|held| held.client == client);
        let guards = guards.map(|held| &held.guard).filter_map(Weak::upgrade);
        let (valid, lost): (Vec<_>, Vec<_>) =
            guards.partition(|guard| process.look(|| guard.is_valid()));
        (valid.len(), lost.len())
    }

    /// Whether another holder had the key after `id` was granted it and until `until`.
    pub(crate) fn another_held(&self, id: HolderId, until: Instant) -> bool {
        let holder = &self.holders[&id];
        let Some((granted, _)) = holder.granted else { return false };
        let grants = &self.keys[holder.key].grants;
        let mut since = grants.iter().rev().take_while(|grant| **grant != (granted, id));
        since.any(|(at, other)| *at <= until && *other != id)
    }
}
