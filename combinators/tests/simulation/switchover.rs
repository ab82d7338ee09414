//! Processes that go from phase to phase and back, over stores whose tokens are of any two kinds.

use std::time::Duration;

use lockcore::{ErrorKind, LockManager};
use lockcore_combinators::{Phase, Switchover};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::common::{Mood, Node, Tokens};
use crate::history::{History, Stretch};
use crate::simulate;

const MAX_TTL: Duration = Duration::from_secs(6);
const TTL: Duration = Duration::from_secs(3);

/// Where everybody goes, one after the other.
const WAY: [Phase; 7] =
    [Phase::Old, Phase::Both, Phase::New, Phase::Both, Phase::Old, Phase::Both, Phase::New];

/// Two guards are never valid at once, and tokens rise, for a key that is always taken and for one
/// that nobody takes while both stores are used.
#[test]
fn locks_move_to_and_fro() {
    simulate(60, run);
}

async fn run(seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let kinds = [
        Tokens::Clock(0),
        Tokens::Clock(-2000),
        Tokens::Clock(2000),
        Tokens::PerKey,
        Tokens::Revision,
    ];
    let nodes = [0, 1].map(|n| {
        let node = Node::new(kinds[random.usize(..kinds.len())]);
        node.delays(2 * seed + n, 0, random.u64(1..30));
        node
    });
    let (history, target) = (History::default(), watch::Sender::new(WAY[0]));
    let mut processes = JoinSet::new();
    for who in 0..3 {
        let random = fastrand::Rng::with_seed(seed * 3 + who);
        let who = usize::try_from(who).expect("few");
        processes.spawn(process(who, nodes.clone(), target.subscribe(), history.clone(), random));
    }
    for phase in WAY {
        target.send_replace(phase);
        let end = Instant::now() + Duration::from_secs(random.u64(25..60));
        while Instant::now() < end {
            sleep(Duration::from_millis(random.u64(..6000))).await;
            let node = &nodes[random.usize(..2)];
            node.be(Mood::Paused);
            sleep(Duration::from_millis(random.u64(..2000))).await;
            node.be(Mood::Well);
        }
    }
    drop(target);
    let mut phases = 0;
    while let Some(process) = processes.join_next().await {
        phases += process.map_err(|error| error.to_string())??;
    }
    history.check()?;
    if phases < 12 || history.len() < 20 {
        return Err(format!("only {phases} phases were entered, {} locks held", history.len()));
    }
    Ok(())
}

/// A process is in the phase that everybody goes to, as soon as it may. How many it was in.
async fn process(
    who: usize,
    nodes: [Node; 2],
    mut target: watch::Receiver<Phase>,
    history: History,
    mut random: fastrand::Rng,
) -> Result<u32, String> {
    let mut entered = 0;
    loop {
        // Not all at once.
        sleep(Duration::from_millis(random.u64(..8000))).await;
        let phase = *target.borrow_and_update();
        let [old, new] = nodes.clone();
        let builder = Switchover::builder(old, new, phase).max_ttl(MAX_TTL).assume_alone();
        let started = builder.start().await;
        let switch = match started {
            Ok(switch) => switch,
            // Somebody is still in the opposite phase, or a store is paused.
            Err(error) if error.kind() != ErrorKind::InvalidInput => {
                if target.has_changed().is_err() {
                    return Ok(entered);
                }
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        entered += 1;
        let locks = LockManager::builder(switch.clone()).ttl(TTL).build().expect("settings");
        while let Ok(false) = target.has_changed() {
            sleep(Duration::from_millis(random.u64(..300))).await;
            let idle = phase != Phase::Both && random.bool();
            let key = if idle { "idle" } else { "busy" };
            let lock = locks.lock(key).expect("a key");
            let Ok(guard) = lock.acquire_timeout(Duration::from_secs(3)).await else { continue };
            let (began, first) = (Instant::now(), guard.fencing_token());
            tokio::select! {
                _ = guard.lost() => {}
                () = sleep(Duration::from_millis(random.u64(..1500))) => {}
            }
            let (ended, tokens) = (Instant::now(), (first, guard.fencing_token()));
            history.add(Stretch { who, key, tokens, began, ended });
            drop(guard);
        }
        // Some leave, and some are stopped. The phase ends when it is not renewed, either way.
        if random.bool() {
            switch.leave().await;
        }
        drop((switch, locks));
        if target.has_changed().is_err() {
            return Ok(entered);
        }
    }
}
