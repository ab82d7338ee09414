//! Whether there is a way on.

use crate::deliver::Arrival;
use crate::process::Phase;
use crate::world::{Config, World};

/// How many steps a process needs at most from any state until it has the key.
const STEPS: usize = 12;

impl World {
    /// Whether this process wants the key and does not have it.
    fn wants(&self, process: u8) -> bool {
        let acting = self.process(process);
        acting.is_alive() && acting.left.tasks > 0 && acting.left.waits
    }
}

/// Whether a process that wants the key would not get it if all others stopped, everything that
/// may end ended, and each of its requests was answered at once.
pub(crate) fn stuck(config: &Config, world: &World) -> bool {
    let processes = 0..u8::try_from(world.processes.len()).expect("few processes");
    world.broken.is_none()
        && processes.into_iter().any(|at| world.wants(at) && !gets_in(config, world, at))
}

fn gets_in(config: &Config, world: &World, process: u8) -> bool {
    let mut world = world.clone();
    let others: Vec<_> = (0..)
        .zip(&world.processes)
        .filter(|(at, other)| *at != process && other.is_alive())
        .map(|(at, _)| at)
        .collect();
    world.deaths = u8::try_from(others.len()).expect("few processes");
    for other in others {
        world.die(config, other);
    }
    world.network.clear();
    world.time_out(config, process);
    for _ in 0..STEPS {
        world.process_mut(process).left.asks = 1;
        match world.process(process).phase {
            Phase::Holding { believed: true, .. } => return true,
            Phase::Idle | Phase::Napping | Phase::Doubt => world.ask(process, 0),
            Phase::Holding { .. } | Phase::Releasing(_) => world.release(config, process),
            Phase::HandingOver { .. } | Phase::Settling { .. } => world.settle(config, process),
            Phase::Asking { .. } | Phase::Dead => return false,
        }
        answer_at_once(config, &mut world);
        if world.process(process).left.tasks == 0 {
            return true;
        }
    }
    false
}

/// Delivers everything, requests and answers.
fn answer_at_once(config: &Config, world: &mut World) {
    for _ in 0..STEPS {
        let Some(message) = world.network.iter().copied().find(|message| message.awaited) else {
            return;
        };
        let ended = world.store.may_end(&config.rules());
        world.deliver(config, message, Arrival { ended, ..Arrival::default() });
    }
}
