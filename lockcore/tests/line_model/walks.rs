//! Random walks through configurations that are too large to search.

use std::time::Instant;

use fastrand::Rng;
use stateright::Model;

use crate::liveness::stuck;
use crate::process::Script;
use crate::searches::{PAIR, TASK, TRIES, base, full};
use crate::world::{Config, Wipe, World};

/// Everything at once.
fn crowd(scripts: &[Script]) -> Config {
    Config {
        floors: &[0, 5],
        clocks: &[0, 4],
        listeners: 0b0101,
        copies: 4,
        deaths: 1,
        deaf: 2,
        late_answers: true,
        liveness: false,
        ..base(scripts)
    }
}

/// Why a state is wrong.
fn wrong(config: &Config, world: &World) -> Option<String> {
    if world.believers() > 1 && !world.wiped {
        return Some("two believe".to_owned());
    }
    if !world.promises_are_kept() {
        return Some("a place is gone".to_owned());
    }
    if stuck(config, world) {
        return Some("no way on".to_owned());
    }
    world.broken.map(|law| format!("{law:?}"))
}

fn walk(config: &Config, seed: u64, most: usize) -> usize {
    let mut rng = Rng::with_seed(seed);
    let mut world = World::new(config);
    let mut trail = Vec::new();
    let mut events = Vec::new();
    while trail.len() < most {
        events.clear();
        config.actions(&world, &mut events);
        let Some(event) = rng.choice(&events).copied() else {
            break;
        };
        trail.push(event);
        world.step(config, event);
        world.tidy(config);
        if let Some(wrong) = wrong(config, &world) {
            for (step, event) in trail.iter().enumerate() {
                println!("{:>3}. {event}", step + 1);
            }
            panic!("seed {seed}: {wrong}: {world:#?}");
        }
    }
    trail.len()
}

fn walks(name: &str, config: &Config) {
    let began = Instant::now();
    let number = if full() { 200_000 } else { 2_000 };
    let steps: usize = (0..number).map(|seed| walk(config, seed, 120)).sum();
    println!("{name}: {number} walks, {steps} steps, in {:.1?}", began.elapsed());
}

const BUSY: Script = Script { tasks: 3, asks: 6, renewals: 2, hand_overs: 3, waits: true };

#[test]
fn three_processes_walk() {
    walks("three processes", &crowd(&[BUSY, BUSY, BUSY]));
}

#[test]
fn four_processes_walk() {
    let tries = Script { tasks: 3, asks: 3, ..TRIES };
    let few = Script { asks: 5, ..PAIR };
    walks("four processes", &crowd(&[BUSY, few, Script { asks: 4, ..TASK }, tries]));
}

#[test]
fn a_short_line_walks() {
    walks("short line", &Config { cap: 1, ..crowd(&[BUSY, BUSY, BUSY]) });
}

#[test]
fn a_wipe_walks() {
    walks("wipe", &Config { wipe: Wipe::Once, ..crowd(&[BUSY, BUSY, BUSY]) });
}
