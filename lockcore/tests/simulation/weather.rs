//! What happens to the network, the store and the processes.

use std::sync::Arc;
use std::time::Duration;

use lockcore::simulation::Process;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::millis;
use crate::plan::CLIENTS;
use crate::sometimes::Sometimes;
use crate::storm::{Cut, Mood};
use crate::world::World;

/// One run in so many may lose the store's data.
const WIPES: u8 = 6;

const SOON: Duration = Duration::from_secs(4);

/// Brings trouble until it is aborted.
///
/// `stalls`: of so many troubles in twenty a runtime stalls.
pub(crate) async fn change(world: Arc<World>, mut random: fastrand::Rng, stalls: u8) {
    let wipes = random.u8(..WIPES) == 0;
    let mut troubles = JoinSet::new();
    loop {
        sleep(millis(&mut random, 500, 25_000)).await;
        let client = random.usize(..CLIENTS);
        let world = world.clone();
        match random.u8(..20) {
            dice if dice < stalls => {
                let long = millis(&mut random, 1_000, 60_000);
                troubles.spawn(stall(world, client, long));
            }
            0..7 => {
                let cut = [Cut::Requests, Cut::Answers, Cut::Both][random.usize(..3)];
                let most = if random.bool() { 30_000 } else { 6_000 };
                let long = millis(&mut random, 100, most);
                troubles.spawn(cut_off(world, client, cut, long));
            }
            7..10 => {
                let mood = if random.bool() { Mood::Refusing } else { Mood::Silent };
                let long = millis(&mut random, 100, 20_000);
                troubles.spawn(take_down(world, mood, long));
            }
            10..15 => {
                let long = still(&mut random);
                troubles.spawn(stop(world, client, long, false));
            }
            15..18 => {
                let long = still(&mut random);
                troubles.spawn(stop(world, client, long, true));
            }
            _ if wipes => {
                troubles.spawn(wipe(world));
            }
            _ => {}
        }
    }
}

/// How long a process stands still: every other time about as long as a lease lives.
fn still(random: &mut fastrand::Rng) -> Duration {
    let most = if random.bool() { 40_000 } else { 12_000 };
    millis(random, 10, most)
}

/// Ends all trouble: connections work, the store is up, and every process runs.
pub(crate) fn clear(world: &World) {
    world.state().network.calm();
    for client in 0..CLIENTS {
        go_on(world, client);
        resume(world, client, false);
    }
}

async fn cut_off(world: Arc<World>, client: usize, cut: Cut, long: Duration) {
    set_cut(&world, client, cut);
    sleep(long).await;
    set_cut(&world, client, Cut::None);
}

fn set_cut(world: &World, client: usize, cut: Cut) {
    let mut state = world.state();
    state.note(|| format!("client {client} is cut off: {cut:?}"));
    state.network.cuts[client] = cut;
}

async fn take_down(world: Arc<World>, mood: Mood, long: Duration) {
    set_mood(&world, mood);
    sleep(long).await;
    set_mood(&world, Mood::Up);
}

fn set_mood(world: &World, mood: Mood) {
    let mut state = world.state();
    state.note(|| format!("the store is {mood:?}"));
    state.network.mood = mood;
}

/// A store that restarts without its data. It takes a moment, so that its clock, which dates the
/// tokens, has gone on.
async fn wipe(world: Arc<World>) {
    set_mood(&world, Mood::Refusing);
    world.state().wiped();
    sleep(Duration::from_millis(20)).await;
    set_mood(&world, Mood::Up);
}

/// A runtime that nobody runs, while the rest of its process goes on.
async fn stall(world: Arc<World>, client: usize, long: Duration) {
    {
        let mut state = world.state();
        state.note(|| format!("a runtime of client {client} stalls"));
        state.clients[client].stalls = true;
        state.clients[client].side.stop();
    }
    sleep(long).await;
    go_on(&world, client);
}

fn go_on(world: &World, client: usize) {
    let mut state = world.state();
    let there = &mut state.clients[client];
    if !std::mem::take(&mut there.stalls) || there.stops {
        return;
    }
    let side = there.side.resume();
    state.note(|| format!("all of client {client} runs"));
    drop(state);
    side.iter().for_each(Process::resume);
}

async fn stop(world: Arc<World>, client: usize, long: Duration, suspended: bool) {
    // Every other time while a renewal is under way, if one is sent soon.
    if long.as_millis().is_multiple_of(2) {
        let renewing = world.state().clients[client].renewing.clone();
        let _ = tokio::time::timeout(SOON, renewing.notified()).await;
    }
    {
        let mut state = world.state();
        let there = &mut state.clients[client];
        if std::mem::replace(&mut there.stops, true) {
            return;
        }
        there.main.stop();
        there.side.stop();
        state.note(|| format!("client {client} stops; suspended: {suspended}"));
    }
    let since = Instant::now();
    sleep(long).await;
    if suspended {
        // One that goes on already was not.
        let state = world.state();
        let there = &state.clients[client];
        if there.stops {
            there.main.process.was_suspended(since.elapsed());
        }
    }
    resume(&world, client, suspended);
}

fn resume(world: &World, client: usize, suspended: bool) {
    let mut state = world.state();
    let there = &mut state.clients[client];
    if !std::mem::take(&mut there.stops) {
        return;
    }
    let main = there.main.resume();
    let side = if there.stalls { None } else { there.side.resume() };
    state.note(|| format!("client {client} goes on"));
    let (valid, lost) = state.beliefs(client);
    let (holding, lost_one) = if suspended {
        (Sometimes::SuspendedHolding, Sometimes::SuspendedLost)
    } else {
        (Sometimes::ResumedHolding, Sometimes::ResumedLost)
    };
    if valid > 0 {
        state.hit(holding);
    }
    if lost > 0 {
        state.hit(lost_one);
    }
    state.look();
    drop(state);
    main.iter().chain(&side).for_each(Process::resume);
}
