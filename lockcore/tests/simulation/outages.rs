//! What a client knows of the store's health, and what it does about an outage.

use std::time::Duration;

use lockcore::Claim;
use tokio::time::Instant;

use crate::calls::Verb;
use crate::checks::Check;
use crate::plan::RETRY_FOR;
use crate::sometimes::Sometimes;
use crate::state::{Kind, Operation, State};

/// So many requests a second may try a store that fails.
const TRIES: usize = 12;

/// A store that has failed for `retry_for` is tried once more within a second, and asked again at once
/// if the outcome is unknown. Each may take a request's time, and whoever waits looks around within
/// another second.
const TOLD: Duration = Duration::from_secs(8);

/// A task that waits for its place to come asks within a second, and the pause between two tries is
/// at most one more. A request takes its time.
const TRIED: Duration = Duration::from_millis(4_000);

impl State {
    /// A request has ended for the client: the store has answered, or it has not.
    pub(crate) fn heard(&mut self, number: usize, answered: bool) {
        if self.over {
            return;
        }
        let now = Instant::now();
        let client = &mut self.clients[number];
        if answered {
            if client.failing.take().is_some() {
                (client.well, client.tries) = (now, Default::default());
                self.hit(Sometimes::OutageEnded);
            }
        } else {
            client.failing.get_or_insert(now);
            client.failed = now;
        }
    }

    /// Counts a request to a store that fails.
    pub(crate) fn tries(&mut self, number: usize, verb: Verb, claim: &Claim) {
        let now = Instant::now();
        let client = &mut self.clients[number];
        if client.failing.is_none_or(|since| since == now) {
            return;
        }
        client.tries.push_back(now);
        while client.tries.front().is_some_and(|at| *at + Duration::from_secs(1) <= now) {
            client.tries.pop_front();
        }
        if client.tries.len() > TRIES {
            self.broken(Check::OutageRate, || {
                format!("client {number}: more than {TRIES} in a second: {verb:?} {}", claim.key)
            });
        }
    }

    /// Whether a task waits for a key that no guard of its process has, and the process does not try
    /// the store.
    pub(crate) fn untried(
        &self,
        number: usize,
        key: usize,
        one: &Operation,
        now: Instant,
    ) -> Option<(Check, String)> {
        let client = &self.clients[number];
        let could = client.failing?.max(client.called).max(one.started).max(client.resumed());
        let waits = matches!(one.kind, Kind::Wait | Kind::For(_) | Kind::Dropped(_));
        let late = waits && client.runs() && now > could + TRIED;
        let guarded = || {
            self.guards
                .iter()
                .any(|it| (it.client, it.key) == (number, key) && it.guard.strong_count() > 0)
        };
        if !late || guarded() {
            return None;
        }
        let text = format!("client {number}: {:?} of {:?}", one.kind, one.started);
        Some((Check::OutageTried, text))
    }

    /// Whether a task should have been told of an outage by now.
    pub(crate) fn untold(&self, number: usize, one: &Operation, now: Instant) -> bool {
        let client = &self.clients[number];
        let Some(since) = client.failing else { return false };
        let waits = matches!(one.kind, Kind::Wait | Kind::For(_) | Kind::Dropped(_));
        let could = (since + RETRY_FOR).max(one.started).max(client.resumed());
        waits && client.runs() && now > could + TOLD
    }

    /// Whether a task may be told that the store is unavailable.
    pub(crate) fn may_be_told(&self, number: usize, one: &Operation) -> bool {
        let client = &self.clients[number];
        client.failing.is_some() || client.failed >= one.started
    }
}
