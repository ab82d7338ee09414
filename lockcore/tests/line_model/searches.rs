//! The bounded configurations: each is searched to its end.

use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::flaw::Flaw;
use crate::laws::Law;
use crate::process::Script;
use crate::search::{PROGRESS, name};
use crate::world::{Config, Watch, Wipe};

/// A task that waits.
pub(crate) const TASK: Script =
    Script { tasks: 1, asks: 2, renewals: 0, hand_overs: 0, waits: true };
const ASKS_ONCE: Script = Script { asks: 1, ..TASK };
const RENEWS: Script = Script { renewals: 1, ..TASK };
pub(crate) const TRIES: Script = Script { asks: 1, waits: false, ..TASK };
/// Two tasks of one process.
pub(crate) const PAIR: Script = Script { tasks: 2, hand_overs: 1, ..TASK };
const PAIR_ONCE: Script = Script { asks: 1, ..PAIR };

/// Whether the larger search was asked for.
pub(crate) fn full() -> bool {
    std::env::var("LOCKCORE_MODEL").is_ok_and(|value| value == "full")
}

pub(crate) fn base(scripts: &[Script]) -> Config {
    Config {
        scripts: scripts.to_vec(),
        floors: &[0],
        clocks: &[0],
        cap: 8,
        listeners: 0,
        copies: 0,
        deaths: 0,
        deaf: 0,
        wipe: Wipe::Never,
        late_answers: false,
        liveness: true,
        flaw: None,
        watch: Watch::All,
    }
}

/// Three processes want the key. Requests are late or lost.
pub(crate) fn line() -> Config {
    Config { liveness: false, ..base(&[TASK, TASK, TASK]) }
}

/// Answers are late too, and a guard is renewed.
pub(crate) fn late() -> Config {
    Config { late_answers: true, ..base(&[RENEWS, TASK]) }
}

/// A request arrives once more, at any time.
pub(crate) fn copies() -> Config {
    Config { copies: 1, liveness: false, ..base(&[RENEWS, TASK]) }
}

/// A process with two tasks, and another that waits.
pub(crate) fn tasks() -> Config {
    Config { late_answers: true, ..base(&[PAIR, ASKS_ONCE]) }
}

/// The same with requests that arrive once more.
pub(crate) fn hand_over_copies() -> Config {
    let twice = Script { hand_overs: 2, ..PAIR };
    Config { copies: 1, liveness: false, ..base(&[twice, ASKS_ONCE]) }
}

/// Processes listen, signals are late or lost, and a listener is taken for gone.
pub(crate) fn signals() -> Config {
    Config { listeners: 0b001, deaf: 1, ..base(&[PAIR, TASK]) }
}

/// Some try and do not wait, and the line has one place.
pub(crate) fn full_line() -> Config {
    let twice = Script { asks: 2, tasks: 2, ..TRIES };
    Config { cap: 1, liveness: false, ..base(&[PAIR, TASK, twice]) }
}

/// A process dies.
pub(crate) fn deaths() -> Config {
    Config { deaths: 1, ..base(&[TASK, TASK, ASKS_ONCE]) }
}

/// Tokens have floors, and the clock shows anything.
pub(crate) fn tokens() -> Config {
    Config { floors: &[0, 3], clocks: &[0, 2], ..base(&[PAIR, ASKS_ONCE]) }
}

/// The store loses its data. Its clock does not go back.
pub(crate) fn wipe() -> Config {
    Config { wipe: Wipe::Once, ..base(&[PAIR, TASK]) }
}

/// Searches the whole configuration: nothing is broken, and everything that should happen does.
/// The processes are fewer or do less, unless the larger search was asked for.
fn holds(name: &str, config: Config, fewer: &[Script]) {
    let scripts = if full() { config.scripts.clone() } else { fewer.to_vec() };
    let liveness = config.liveness || full();
    let config = Config { scripts, liveness, ..config };
    let found = search(name, config, HasDiscoveries::AnyFailures);
    let properties = found.model().properties();
    for property in properties.iter().filter(|p| p.expectation == Expectation::Always) {
        trail(&found, property.name);
    }
    found.assert_properties();
}

/// What a flaw breaks: a law of a step, or a property of all that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broken {
    Law(Law),
    Property(&'static str),
}

/// The flaw breaks this.
pub(crate) fn breaks(broken: Broken, flaw: Flaw, config: Config) {
    let (property, law) = match broken {
        Broken::Law(law) => (name(law), Some(law)),
        Broken::Property(property) => (property, None),
    };
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let liveness = property == PROGRESS;
    let config = Config { flaw: Some(flaw), watch: Watch::Only(law), liveness, ..config };
    let found = search(&format!("{flaw:?}"), config, until);
    assert!(found.discovery(property).is_some(), "{flaw:?} does not break: {property}");
    trail(&found, property);
}

fn search(name: &str, config: Config, until: HasDiscoveries) -> impl Checker<Config> + use<> {
    let began = Instant::now();
    let found = config.checker().finish_when(until).spawn_bfs().join();
    let (states, depth) = (found.unique_state_count(), found.max_depth());
    println!("{name}: {states} states, depth {depth}, in {:.1?}", began.elapsed());
    found
}

/// Prints the way to a failure.
fn trail(found: &impl Checker<Config>, property: &'static str) {
    let Some(path) = found.discovery(property) else {
        return;
    };
    println!("broken: {property}");
    for (step, event) in path.into_actions().iter().enumerate() {
        println!("{:>3}. {event}", step + 1);
    }
}

#[test]
fn a_line_of_three_holds() {
    holds("line", line(), &[TASK, ASKS_ONCE, ASKS_ONCE]);
}

#[test]
fn late_answers_hold() {
    holds("late", late(), &[RENEWS, ASKS_ONCE]);
}

#[test]
fn copies_hold() {
    holds("copies", copies(), &[RENEWS, ASKS_ONCE]);
}

#[test]
fn tasks_of_one_process_hold() {
    holds("tasks", tasks(), &[PAIR, ASKS_ONCE]);
}

#[test]
fn copies_of_a_hand_over_hold() {
    holds(
        "hand_over copies",
        hand_over_copies(),
        &[Script { hand_overs: 2, ..PAIR_ONCE }, ASKS_ONCE],
    );
}

#[test]
fn signals_hold() {
    holds("signals", signals(), &[PAIR, ASKS_ONCE]);
}

#[test]
fn a_full_line_holds() {
    holds("full line", full_line(), &[PAIR_ONCE, ASKS_ONCE, TRIES]);
}

#[test]
fn deaths_hold() {
    holds("deaths", deaths(), &[TASK, TASK]);
}

#[test]
fn tokens_hold() {
    holds("tokens", tokens(), &[PAIR_ONCE, ASKS_ONCE]);
}

#[test]
fn a_wiped_line_is_joined_again() {
    holds("wipe", wipe(), &[PAIR_ONCE, ASKS_ONCE]);
}

/// An assumption is not met: the clock goes back while the store loses its data.
#[test]
fn tokens_need_a_clock_that_does_not_go_back() {
    let config = Config { wipe: Wipe::OnceWithTheClock, ..wipe() };
    let property = name(Law::Tokens);
    let until = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let found = search("wipe with the clock", config, until);
    assert!(found.discovery(property).is_some(), "tokens rose");
}
