//! What the store does, in its own order.

use lockcore::{Acquire, Claim, HolderId, LockBackend, Renew};
use tokio::time::Instant;

use crate::checks::Check;
use crate::link::{at_once, index};
use crate::requests::Answer;
use crate::sometimes::Sometimes;
use crate::state::{State, short};

impl State {
    /// Notes what the store did; whether a lease began.
    pub(crate) fn executed(&mut self, claim: &Claim, answer: Answer, given_up: bool) -> bool {
        let (key, now) = (index(&claim.key), Instant::now());
        self.note(|| {
            let late = if given_up { " late" } else { "" };
            format!("store{late} {} {} {answer:?}", claim.key, short(claim.holder))
        });
        if given_up {
            self.hit(Sometimes::Straggled);
        }
        match answer {
            Answer::Acquire(Acquire::Acquired(lease)) => {
                let fresh = self.granted(claim.holder, key, lease.token, given_up);
                let client = self.holder(claim.holder).client;
                self.keys[key].owner = Some((client, now));
                if fresh {
                    self.counts_passers(client, key);
                }
                return fresh;
            }
            Answer::Release(answer) => {
                let holder = self.holder(claim.holder);
                holder.release_executed = true;
                let undone = answer.is_released() && !holder.guarded;
                if undone {
                    self.hit(Sometimes::UndoneAcquire);
                }
            }
            // It may stand for a ttl after its holder has given up the release.
            Answer::Renew(Renew::Renewed(_)) if given_up => self.holder(claim.holder).stray = true,
            Answer::Acquire(Acquire::Contended(contention)) => {
                self.queues(claim, contention.ahead.is_some());
            }
            Answer::Renew(_) | Answer::HandOver(_) => {}
        }
        false
    }

    /// The store has granted a lease, or granted it again; whether it began.
    pub(crate) fn granted(&mut self, id: HolderId, key: usize, token: u64, given_up: bool) -> bool {
        let (now, last) = (Instant::now(), self.keys[key].last_token);
        if token == last {
            if given_up {
                self.hit(Sometimes::DuplicateHarmless);
                self.holder(id).stray = true;
            }
            return false;
        }
        if token < last {
            self.broken(Check::TokensRise, || format!("{token} after {last}"));
        }
        self.keys[key].last_token = token;
        self.keys[key].grants.push((now, id));
        let wipes = self.wipes;
        let holder = self.holder(id);
        holder.queued = None;
        // Nobody uses it, and nobody is bound to end it.
        holder.stray = holder.release_executed
            || holder.contended
            || holder.guarded
            || (given_up && holder.release_sent);
        if !holder.guarded {
            holder.granted = Some((now, wipes));
        }
        if holder.stray {
            self.hit(Sometimes::StayedForNobody);
        }
        true
    }

    /// The store has lost its data.
    pub(crate) fn wiped(&mut self) {
        self.note(|| "the store loses its data".to_owned());
        self.store.wipe();
        self.wipes += 1;
    }

    /// Whose lease stands on a key.
    pub(crate) fn standing(&self, key: usize) -> Option<HolderId> {
        let lease =
            at_once(self.store.inspect(&self.names[key])).expect("the memory store is there");
        lease.map(|lease| lease.holder)
    }
}
