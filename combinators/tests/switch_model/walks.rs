//! Long ways through the world, drawn at random.

use fastrand::Rng;

use crate::flaw::Flaw;
use crate::store::{Key, Side, Verb};
use crate::world::{Act, At, Bounds, World};

/// All that goes on in a walk.
const ALL: Bounds = Bounds {
    processes: 3,
    late: 3,
    ticks: 90,
    starts: 60,
    both: true,
    wipe: false,
    finish: false,
    plain: 0,
};

const STEPS: usize = 800;

/// How many walks at most.
fn most() -> u64 {
    if std::env::var("LOCKCORE_MODEL").is_ok_and(|much| much == "full") { 1_000_000 } else { 2_000 }
}

struct Walk {
    wrong: Option<&'static str>,
    locked: u64,
    acts: Vec<(u8, Act)>,
}

fn walk(seed: u64, bounds: &Bounds, flaw: Option<Flaw>) -> Walk {
    let mut random = Rng::with_seed(seed);
    let mut world = World::new(bounds);
    let (mut acts, mut trace) = (Vec::new(), Vec::new());
    // How often things go wrong, and time goes on, differs from walk to walk.
    let (mishap, tick) = (random.f32().powi(3) * 0.5, 0.03 + random.f32().powi(2) * 0.5);
    let late: f32 = [0.01, 0.05, 0.3][random.usize(..3)];
    let silent = random.u8(..4) == 0;
    // Where the fleet goes, and how long it stays.
    let (first, stays) = (random.usize(..4), 4 + random.u8(..10));
    let phases = [Some(Side::Old), None, Some(Side::New), None];
    let (mut paused, mut hung) = ([0; 8], false);
    for _ in 0..STEPS {
        acts.clear();
        world.acts(bounds, &mut acts);
        if random.f32() < 0.02 {
            // A process stands still for any time.
            paused[random.usize(..bounds.processes)] = world.now + random.u8(..14);
        }
        let now = world.now;
        let of = |act: &Act| match act {
            Act::Starts(n, _) | Act::Renews(n) | Act::Locks(n) | Act::Unlocks(n) => Some(*n),
            Act::Leaves(n) | Act::Hears(n) | Act::GivesUp(n) => Some(*n),
            _ => None,
        };
        acts.retain(|act| of(act).is_none_or(|n| paused[n] <= now));
        let target = phases[(first + usize::from(now / stays)) % 4];
        let target = match (bounds.both, bounds.finish) {
            (true, _) => target,
            // To the new store, and there it stays.
            (_, true) => phases[if now < stays { 0 } else { 2 }],
            _ => target.or(phases[first & 2]),
        };
        let first_one = &world.processes[0];
        let comes_back = first_one.at == At::FindsPhase && first_one.good.is_some();
        if bounds.finish && paused[0] <= now && comes_back && random.f32() < 0.2 {
            paused[0] = now + 8 + random.u8(..12);
        }
        if bounds.finish && now == stays && !hung {
            hung = true;
            paused[0] = now + 4 + random.u8(..30);
        }
        let weight = |act: &Act| match act {
            Act::Tick => tick,
            // The new store is silent to who looks there.
            Act::GivesUp(n)
                if silent && matches!(world.processes[*n].at, At::LooksFirst | At::Looks) =>
            {
                2.0
            }
            Act::GivesUp(n) if world.processes[*n].at == At::Registers => mishap * 4.0,
            Act::GivesUp(_) => mishap,
            Act::Doubles(n) => {
                let ask = world.processes[*n].ask;
                let begins =
                    ask.is_some_and(|ask| ask.verb == Verb::Take && ask.key != Key::Locked);
                if begins { mishap } else { mishap * 0.05 }
            }
            // It comes when it does most harm.
            Act::Late(index) => match world.late[*index].key {
                Key::Phase(side) if world.stands(side.other()) => 0.3,
                Key::Phase(_) => 0.002,
                _ => late,
            },
            Act::Dies(_) | Act::Wipes(_) => 0.02,
            Act::Leaves(n) if !world.finished && world.processes[*n].phase == target => 0.03,
            Act::Leaves(_) => 0.5,
            Act::Starts(_, phase) if *phase == target || silent && now < 2 => 0.6,
            Act::Starts(..) => 0.1,
            _ => 1.0,
        };
        let total: f32 = acts.iter().map(weight).sum();
        let mut drawn = random.f32() * total;
        let Some(act) = acts.iter().find(|act| {
            drawn -= weight(act);
            drawn <= 0.0
        }) else {
            break;
        };
        trace.push((now, *act));
        world.act(*act, flaw, bounds);
        if world.wrong.is_some() {
            break;
        }
        for process in &mut world.processes {
            if process.at == At::Out && random.f32() < 0.1 {
                // It is started anew.
                (process.at, process.good, process.floor) = (At::Idle, None, 0);
            }
        }
    }
    Walk { wrong: world.wrong, locked: u64::from(world.locked), acts: trace }
}

/// What goes on where a mistake can be seen.
fn where_found(flaw: Flaw) -> Bounds {
    match flaw {
        Flaw::ComesBackForEver | Flaw::FinishesAtOnce | Flaw::AwayBeforeOnly => {
            Bounds { finish: true, both: false, ..ALL }
        }
        Flaw::PlainUnseen => Bounds { plain: 8, both: false, ..ALL },
        Flaw::FloorKept | Flaw::CeilingForgotten | Flaw::NoFloor | Flaw::JoinsWithoutFloor => ALL,
        _ => Bounds { both: false, ..ALL },
    }
}

#[test]
fn the_protocol_is_right() {
    for (name, bounds) in [
        ("all phases", ALL),
        ("old and new alone", Bounds { both: false, ..ALL }),
        ("a loss of data", Bounds { wipe: true, ..ALL }),
        ("plain processes before", Bounds { plain: 8, both: false, ..ALL }),
        ("plain processes after", Bounds { finish: true, both: false, ..ALL }),
    ] {
        let mut locked = 0;
        for seed in 0..most() {
            let walk = walk(seed, &bounds, None);
            if let Some(wrong) = walk.wrong {
                let way: Vec<_> = walk.acts.iter().map(|act| format!("{act:?}")).collect();
                panic!("{name}, seed {seed}: {wrong}\n{}", way.join("\n"));
            }
            locked += walk.locked;
        }
        println!("{name}: {} walks, {locked} locks, nothing wrong", most());
        assert!(locked > most(), "{name}: {locked}");
    }
}

/// `from` is where it was found last: the search begins there.
fn found(flaw: Flaw, wrong: &str, from: u64) {
    let bounds = where_found(flaw);
    let seen = (from..from + 10 * most())
        .find(|seed| walk(*seed, &bounds, Some(flaw)).wrong == Some(wrong));
    let seed = seen.unwrap_or_else(|| panic!("{flaw:?} was not found"));
    println!("{flaw:?}: {wrong}, in walk {seed}");
}

macro_rules! flaws {
    ($($name:ident: $flaw:ident, $wrong:ident, from $from:literal;)*) => {$(
        #[test]
        fn $name() {
            found(Flaw::$flaw, crate::world::$wrong, $from);
        }
    )*};
}

flaws! {
    leaving_releases: LeavingReleases, OVERLAP, from 1466;
    last_out_releases: LastOutReleases, OVERLAP, from 1466;
    refused_releases: RefusedReleases, OVERLAP, from 11445;
    unanswered_is_taken_back: UnansweredIsTakenBack, OVERLAP, from 7234;
    looks_before_only: LooksBeforeOnly, OVERLAP, from 0;
    joins_unconfirmed: JoinsUnconfirmed, OVERLAP, from 0;
    confirmation_not_tied: ConfirmationNotTied, OVERLAP, from 20498;
    belief_from_answer: BeliefFromAnswer, OVERLAP, from 7991;
    locks_outlive: LocksOutlive, OVERLAP, from 2171;
    acquires_without_look: AcquiresWithoutLook, OVERLAP, from 2507;
    no_floor: NoFloor, FALLS, from 0;
    joins_without_floor: JoinsWithoutFloor, FALLS, from 0;
    floor_kept: FloorKept, FALLS, from 53710;
    ceiling_forgotten: CeilingForgotten, FALLS, from 0;
    ceiling_before_look: CeilingBeforeLook, FALLS, from 0;
    silence_is_gone: SilenceIsGone, OVERLAP, from 0;
    partial_sight: PartialSight, OVERLAP, from 0;
    plain_unseen: PlainUnseen, OVERLAP, from 0;
    finishes_at_once: FinishesAtOnce, OVERLAP, from 11553;
}
