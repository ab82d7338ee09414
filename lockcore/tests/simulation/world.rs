//! A run: clients, a network, a store, and what happens to them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::LockManager;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::checks::Check;
use crate::client::Client;
use crate::ending;
use crate::link::Link;
use crate::plan::{CLIENTS, Plan, Settings, Shape, TTL};
use crate::state::State;
use crate::storm::Network;
use crate::weather;

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    /// The end has come. (A `watch` wakes those who wait for it in random order.)
    ending: AtomicBool,
    ended: Notify,
}

impl World {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Sleeps, unless the run comes to its end first.
    pub(crate) async fn nap(&self, duration: Duration) {
        let ended = self.ended.notified();
        if self.is_ending() {
            return;
        }
        tokio::select! {
            biased;
            () = ended => {}
            () = sleep(duration) => {}
        }
    }
}

/// Runs the plan to its end; the state tells what came out.
pub(crate) async fn run(plan: Plan) -> Arc<World> {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let network = Network::draw(&mut random, &plan);
    let settings: Vec<_> = (0..CLIENTS).map(|_| Settings::draw(&mut random, &plan)).collect();
    let state = State::new(&plan, network, settings.clone());
    let world = Arc::new(World {
        state: Mutex::new(state),
        ending: AtomicBool::new(false),
        ended: Notify::new(),
    });
    let clients: Vec<_> = settings
        .into_iter()
        .enumerate()
        .map(|(number, settings)| {
            let process = world.state().clients[number].main.process.clone();
            let link = Link { world: world.clone(), client: number };
            let locks = manager(link, settings);
            Client {
                world: world.clone(),
                number,
                process,
                main: true,
                locks,
                kept: Arc::default(),
            }
        })
        .collect();

    // Seeds differ in how many want a key at once.
    let (tasks_each, pause) = (random.usize(1..4), [500, 4_000, 15_000][random.usize(..3)]);
    // One run in four: each process has another runtime, which stalls now and then.
    let stalls = random.u8(..4) == 0 || plan.shape == Shape::Stalls;
    let mut tasks = JoinSet::new();
    for client in &clients {
        for _ in 0..tasks_each {
            let work = client.clone().work(pause, random.fork());
            tasks.spawn(client.process.wrap(work));
        }
        if stalls {
            let process = world.state().clients[client.number].side.process.clone();
            let aside = Client { process: process.clone(), main: false, ..client.clone() };
            tasks.spawn(process.wrap(aside.work(pause, random.fork())));
        }
    }
    let chance = match plan.shape {
        Shape::Stalls => 16,
        _ if stalls => 4,
        _ => 0,
    };
    let watching = tokio::spawn(look(world.clone(), random.fork()));
    let weather = tokio::spawn(weather::change(world.clone(), random.fork(), chance));
    sleep(Duration::from_secs(plan.seconds)).await;

    weather.abort();
    let _ = weather.await;
    weather::clear(&world);
    world.ending.store(true, Ordering::Relaxed);
    world.ended.notify_waiters();
    ending::end(&world, &clients, tasks).await;
    watching.abort();
    world.state().over = true;
    world
}

fn manager(link: Link, settings: Settings) -> LockManager {
    let mut builder = LockManager::builder(link).ttl(TTL).label("");
    if !settings.renews {
        builder = builder.no_renewal();
    }
    if let Some(max) = settings.max_hold {
        builder = builder.max_hold(max);
    }
    builder.build().expect("settings that fit each other")
}

/// Looks at all beliefs from time to time; after each step of the store they are looked at anyway.
async fn look(world: Arc<World>, mut random: fastrand::Rng) {
    loop {
        sleep(Duration::from_millis(random.u64(200..1_200))).await;
        let mut state = world.state();
        state.look();
        state.look_at_operations();
        state.look_at_turns();
        state.look_at_releases();
    }
}

/// Waits for something that must end; a limit that is reached is a broken promise.
pub(crate) async fn bounded<T>(
    world: &World,
    limit: Duration,
    check: Check,
    what: impl FnOnce() -> String,
    work: impl Future<Output = T>,
) -> Option<T> {
    let ended = tokio::time::timeout(limit, work).await;
    if ended.is_err() {
        world.state().broken(check, what);
    }
    ended.ok()
}

/// An instant far enough for leases to have ended.
pub(crate) fn after_leases(world: &World) -> Instant {
    Instant::now() + world.state().network.scaled(TTL) + Duration::from_millis(10)
}
