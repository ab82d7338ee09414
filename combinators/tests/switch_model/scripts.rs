//! Ways that are too long and narrow for a walk to find: each goes wrong with its mistake, and not
//! without.

use crate::flaw::Flaw;
use crate::store::Side;
use crate::world::{Act, At, Bounds, OVERLAP, World};

const BOUNDS: Bounds = Bounds {
    processes: 2,
    late: 1,
    ticks: 200,
    starts: 9,
    both: false,
    wipe: false,
    finish: true,
    plain: 0,
};

struct Script {
    world: World,
    flaw: Option<Flaw>,
}

impl Script {
    fn act(&mut self, act: Act) {
        self.world.act(act, self.flaw, &BOUNDS);
    }

    fn ticks(&mut self, ticks: u8) {
        (0..ticks).for_each(|_| self.act(Act::Tick));
    }

    /// It is answered until it comes there, or to its end.
    fn goes(&mut self, n: usize, to: At) {
        for _ in 0..99 {
            let at = self.world.processes[n].at;
            if at == to || matches!(at, At::Running | At::Out) {
                return;
            }
            self.act(Act::Arrives(n));
            self.act(Act::Hears(n));
        }
    }

    fn starts(&mut self, n: usize, side: Side) {
        self.act(Act::Starts(n, Some(side)));
    }

    fn locks(&mut self, n: usize) {
        if self.world.processes[n].at == At::Running {
            self.act(Act::Locks(n));
            self.goes(n, At::Running);
        }
    }
}

fn goes_wrong(flaw: Flaw, way: impl Fn(&mut Script)) {
    for flaw in [None, Some(flaw)] {
        let mut script = Script { world: World::new(&BOUNDS), flaw };
        way(&mut script);
        assert_eq!(script.world.wrong, flaw.map(|_| OVERLAP), "{flaw:?} {:#?}", script.world);
    }
}

/// A late double of an old acquire revives the phase, and its process takes it for its own.
#[test]
fn token_not_compared() {
    goes_wrong(Flaw::TokenNotCompared, |script| {
        script.starts(0, Side::Old);
        script.goes(0, At::Registers);
        script.act(Act::Doubles(0));
        script.act(Act::Hears(0));
        script.goes(0, At::Running);
        script.ticks(3);
        script.starts(1, Side::New);
        script.goes(1, At::Running);
        script.act(Act::Late(0));
        script.act(Act::Renews(0));
        script.goes(0, At::Running);
        script.locks(0);
        script.locks(1);
    });
}

/// The new store is silent to who goes back to the old one, while another begins on it.
#[test]
fn mark_after_look() {
    goes_wrong(Flaw::MarkAfterLook, |script| {
        script.starts(1, Side::New);
        script.goes(1, At::Marks);
        script.starts(0, Side::Old);
        for at in [At::LooksFirst, At::Looks] {
            script.goes(0, at);
            script.act(Act::GivesUp(0));
        }
        script.goes(0, At::Running);
        script.goes(1, At::Running);
        script.locks(0);
        script.locks(1);
    });
}

/// It stands still while all move on, and comes back when nobody knows of the old store any more.
#[test]
fn comes_back_for_ever() {
    goes_wrong(Flaw::ComesBackForEver, |script| {
        script.starts(0, Side::Old);
        script.goes(0, At::Running);
        script.ticks(3);
        script.starts(1, Side::New);
        script.goes(1, At::Running);
        for _ in 3..16 {
            script.ticks(1);
            script.act(Act::Renews(1));
            script.goes(1, At::FindsPhase);
        }
        script.act(Act::Finishes);
        assert!(script.world.finished);
        script.act(Act::Leaves(1));
        script.ticks(3);
        script.act(Act::Renews(0));
        script.goes(0, At::Running);
        script.act(Act::Plain);
        script.locks(0);
    });
}

/// It begins to come back just before it is too late, and has come back when all have moved on.
#[test]
fn away_before_only() {
    goes_wrong(Flaw::AwayBeforeOnly, |script| {
        script.starts(0, Side::Old);
        script.goes(0, At::Running);
        script.ticks(3);
        script.starts(1, Side::New);
        script.goes(1, At::Running);
        for now in 3..16 {
            if now == 12 {
                script.act(Act::Renews(0));
                script.goes(0, At::FindsPhase);
            }
            script.ticks(1);
            script.act(Act::Renews(1));
            script.goes(1, At::FindsPhase);
        }
        script.act(Act::Finishes);
        assert!(script.world.finished);
        script.act(Act::Leaves(1));
        script.ticks(3);
        script.goes(0, At::Running);
        script.act(Act::Plain);
        script.locks(0);
    });
}
