//! Every way through a small world.

use stateright::{Checker, Model, Property};

use crate::flaw::Flaw;
use crate::world::{Act, Bounds, World};

struct Search {
    bounds: Bounds,
    flaw: Option<Flaw>,
}

const SMALL: Bounds = Bounds {
    processes: 2,
    late: 1,
    ticks: 4,
    starts: 2,
    both: false,
    wipe: false,
    finish: false,
    plain: 0,
};

impl Model for Search {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, state: &World, acts: &mut Vec<Act>) {
        if state.wrong.is_none() {
            state.acts(&self.bounds, acts);
            // One of each phase, and the first to begin is the first.
            acts.retain(|act| match act {
                Act::Starts(n, side) => {
                    *n == usize::from(state.starts)
                        && state.processes.iter().all(|other| other.phase != *side)
                }
                Act::Dies(_) => false,
                _ => true,
            });
        }
    }

    fn next_state(&self, state: &World, act: Act) -> Option<World> {
        let mut next = state.clone();
        next.act(act, self.flaw, &self.bounds);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_: &Self, state: &World| state.wrong.is_none()),
            Property::sometimes("both had it", |_: &Self, state: &World| state.locked > 1),
        ]
    }

    fn within_boundary(&self, state: &World) -> bool {
        state.locked < 3 && state.holders < 6
    }
}

#[test]
fn every_way_of_two_is_right() {
    let checker = Search { bounds: SMALL, flaw: None }
        .checker()
        .threads(2)
        .target_state_count(1_000_000)
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} of them different",
        checker.state_count(),
        checker.unique_state_count()
    );
    checker.assert_no_discovery("nothing is wrong");
}
