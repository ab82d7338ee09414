//! The end of a run: the network is well, tasks finish, and nothing may be left behind.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::checks::Check;
use crate::client::Client;
use crate::plan::KEYS;
use crate::state::{Held, Kind, short};
use crate::world::{World, after_leases, bounded};

/// For this long the last tasks may hand the keys on among themselves.
const TASKS_END: Duration = Duration::from_secs(120);
/// A release goes on for as long as its lease lives, and a request timeout more.
const DRAINED: Duration = Duration::from_secs(15);
/// Leases of undone acquires that could not be released have ended by then.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// A late request may be granted to nobody, for a ttl.
const FREE: Duration = Duration::from_secs(60);

pub(crate) async fn end(world: &Arc<World>, clients: &[Client], mut tasks: JoinSet<()>) {
    let began = tokio::time::Instant::now();
    let left = || {
        let state = world.state();
        let slots = state.slots().filter(|(.., slot)| !slot.operations.is_empty());
        let waiting = slots.map(|(client, key, slot)| {
            format!("client {client} on {}: {:?}", KEYS[key], slot.operations)
        });
        waiting.collect::<Vec<_>>().join("; ")
    };
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                world.state().broken(Check::WorkFails, || error.to_string());
            }
        }
    };
    let finished = tokio::time::timeout(TASKS_END, finish).await.is_ok();
    if !finished {
        let text = left();
        world.state().broken(Check::Hang, || text);
        return;
    }
    drain(world, clients).await;
    tokio::time::sleep_until(began + GIVEN_UP).await;
    nothing_is_left_behind(world);
    for client in clients {
        queue_is_free(world, client).await;
    }
    for client in clients {
        let kept = std::mem::take(&mut *client.kept.lock().unwrap_or_else(PoisonError::into_inner));
        client.process.look(|| drop(kept));
    }
    drain(world, clients).await;
    while world.state().under_way > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep_until(after_leases(world)).await;
    let mut state = world.state();
    state.look();
    for (key, name) in KEYS.iter().enumerate() {
        if let Some(holder) = state.standing(key) {
            state.broken(Check::Stranded, || format!("{name} {}", short(holder)));
        }
    }
}

async fn drain(world: &World, clients: &[Client]) {
    for client in clients {
        let what = || format!("client {} drains", client.number);
        bounded(world, DRAINED, Check::Bounded, what, client.locks.drain()).await;
    }
}

/// What stands now has a guard, or came to the store after its holder had gone.
fn nothing_is_left_behind(world: &World) {
    let mut state = world.state();
    for (key, name) in KEYS.iter().enumerate() {
        let Some(id) = state.standing(key) else { continue };
        let alive = |held: &&Held| held.guard.strong_count() > 0;
        let guarded = state.guards.iter().filter(alive).any(|held| held.holder == id);
        let holder = &state.holders[&id];
        // A lock that was lost leaves its lease to end if its release fails once.
        let failed = holder.release_sent && !holder.release_answered;
        let left_to_end = failed && holder.releasing.is_none();
        if !guarded && !holder.stray && !left_to_end {
            state.broken(Check::LeftBehind, || format!("{name} {}", short(id)));
        }
    }
}

async fn queue_is_free(world: &World, client: &Client) {
    for (key, name) in KEYS.iter().enumerate() {
        let what = || format!("client {} waits for {name}", client.number);
        let acquire = client.process.wrap(async {
            let guard = client.acquire(key, Kind::Wait).await;
            if let Some(guard) = guard {
                client.release(guard).await;
                return true;
            }
            false
        });
        let acquired = bounded(world, FREE, Check::QueueFree, what, acquire).await;
        if acquired == Some(false) {
            world
                .state()
                .broken(Check::QueueFree, || format!("client {}: an error", client.number));
        }
    }
}
