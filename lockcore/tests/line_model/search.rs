//! What may happen next, for the model checker.

use stateright::{Model, Property};

use crate::deliver::Arrival;
use crate::event::Event;
use crate::flaw::Flaw;
use crate::laws::Law;
use crate::liveness::stuck;
use crate::messages::{Body, Holder, Message, Request};
use crate::process::{Ending, Late, Phase, Process};
use crate::promises::Promises;
use crate::world::{Config, Wipe, World};

pub(crate) const EXCLUSION: &str = "one believer at a time";
pub(crate) const PROMISE: &str = "a place stands as long as its process counts on it";
pub(crate) const PROGRESS: &str = "if all others stop, whoever waits gets in";

/// A property cannot capture anything, so each law needs a function of its own.
macro_rules! law {
    ($law:ident) => {
        Property::always(name(Law::$law), |_: &Config, world: &World| world.keeps(Law::$law))
    };
}

impl Model for Config {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        if world.broken.is_some() {
            return;
        }
        let begins = |process: &&Process| {
            process.phase == Phase::Idle && process.left.tasks > 0 && process.left.asks > 0
        };
        if let Some(at) = world.processes.iter().position(|process| begins(&process)) {
            // A request may be on its way for any time, so it may as well be sent at once.
            let at = u8::try_from(at).expect("few processes");
            events.extend(self.floors.iter().map(|&floor| Event::Asks(at, floor)));
            return;
        }
        for (at, process) in (0..).zip(&world.processes) {
            self.talks(at, process, events);
            self.counts(world, at, process, events);
            if world.deaths > 0 && process.is_alive() {
                events.push(Event::Dies(at));
            }
        }
        for (at, message) in world.network.iter().enumerate() {
            if at == 0 || world.network[at - 1] != *message {
                self.arrivals(world, *message, events);
            }
        }
        if self.wipe != Wipe::Never && !world.wiped {
            events.push(Event::LosesData);
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        let mut next = world.clone();
        next.step(self, event);
        next.tidy(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(PROMISE, |_: &Self, world: &World| world.promises_are_kept()),
            law!(AskingAgain),
            law!(Time),
            law!(HoldersOnly),
            law!(Tokens),
            law!(Place),
            law!(Order),
            law!(FirstCome),
            law!(Grant),
            law!(Release),
            law!(NoWait),
            law!(Gone),
            law!(HandOver),
            law!(Stranded),
            law!(ReleasedMeansHeld),
        ];
        if self.wipe == Wipe::Never {
            // A store that forgot a lease grants it again. Fencing tokens are for that.
            properties.push(Property::always(EXCLUSION, |_: &Self, world: &World| {
                world.believers() <= 1
            }));
        }
        if self.liveness {
            properties.push(Property::always(PROGRESS, |config: &Self, world: &World| {
                !stuck(config, world)
            }));
        }
        self.happens(&mut properties);
        properties
    }
}

/// What a broken law is called in a report.
pub(crate) fn name(law: Law) -> &'static str {
    match law {
        Law::AskingAgain => "L2: asking again is granted again",
        Law::Time => "L3, W2: nothing ends before its time",
        Law::HoldersOnly => "L4: renew and release change nothing of others",
        Law::Tokens => "L5: tokens rise",
        Law::Place => "W1: a contended holder that waits has one place",
        Law::Order => "W2: places keep their order",
        Law::FirstCome => "W3: a free key goes to the first in line",
        Law::Grant => "W4: a grant takes the place away",
        Law::Release => "W6: a release leaves the line and answers the token",
        Law::NoWait => "W7: contended without a wait leaves nothing",
        Law::Gone => "W8: only a listener is passed over",
        Law::HandOver => "W9: hand_over in one step, while the lease of from stands",
        Law::Stranded => "W6, W10: nothing stands for nobody",
        Law::ReleasedMeansHeld => "a guard told that it was released had held all the time",
    }
}

impl Config {
    /// What should happen somewhere, or the rest would say little.
    fn happens(&self, properties: &mut Vec<Property<Self>>) {
        properties.push(Property::sometimes("the line is used", |config: &Self, world: &World| {
            world.store.line.len() >= config.cap.min(config.scripts.len() - 1)
        }));
        if self.scripts.iter().any(|script| script.hand_overs > 0) {
            properties.push(Property::sometimes(
                "a lease is handed over",
                |config: &Self, world: &World| config.second(world, Process::believes),
            ));
            properties.push(Property::sometimes(
                "a holder yields",
                |config: &Self, world: &World| {
                    config.second(world, |process| process.phase == Phase::Napping)
                },
            ));
        }
        if self.late_answers {
            properties.push(Property::sometimes(
                "a grant comes too late",
                |_: &Self, world: &World| {
                    let late = Late { lease: true, place: true };
                    world.processes.iter().any(|process| process.phase == Phase::Asking { late })
                },
            ));
        }
    }

    /// Whether a process that has asked once acts as its second holder.
    fn second(&self, world: &World, such: impl Fn(&Process) -> bool) -> bool {
        self.scripts.iter().zip(&world.processes).any(|(script, process)| {
            script.hand_overs > process.left.hand_overs
                && process.left.asks + 1 == script.asks
                && process.me == 1
                && such(process)
        })
    }

    /// What a process may do by itself.
    fn talks(&self, at: u8, process: &Process, events: &mut Vec<Event>) {
        let left = process.left;
        let floors = || self.floors.iter().copied();
        let ask = |events: &mut Vec<Event>| {
            if left.tasks > 0 && left.asks > 0 {
                events.extend(floors().map(|floor| Event::Asks(at, floor)));
            }
        };
        let hand = |events: &mut Vec<Event>| {
            for over in [false, true] {
                events.extend(floors().map(|floor| Event::HandsOver { process: at, over, floor }));
            }
        };
        match process.phase {
            Phase::Idle => {}
            Phase::Asking { .. } => events.push(Event::TimesOut(at)),
            Phase::Napping | Phase::Doubt => {
                ask(events);
                events.push(Event::Leaves(at));
            }
            Phase::Holding { renewing, believed, .. } => {
                if renewing {
                    events.push(Event::TimesOut(at));
                } else if left.renewals > 0 {
                    events.push(Event::Renews(at));
                }
                // What came after the deadline may be another lease of the same holder.
                let hands = believed || self.has(Flaw::HandOverPastTheDeadline);
                if hands && left.tasks > 0 && left.hand_overs > 0 {
                    hand(events);
                }
                events.push(Event::Releases(at));
            }
            Phase::Releasing(Ending { sent: false, .. }) => {
                events.extend([Event::Releases(at), Event::Detaches(at)]);
            }
            Phase::HandingOver { ending: Ending { sent: false, .. }, .. } => {
                if left.hand_overs > 0 && left.tasks > 0 {
                    hand(events);
                }
                events.push(Event::Settles(at));
            }
            Phase::Settling { ending: Ending { sent: false, .. }, .. } => {
                events.push(Event::Settles(at));
            }
            Phase::Releasing(_) | Phase::HandingOver { .. } | Phase::Settling { .. } => {
                events.push(Event::TimesOut(at));
            }
            Phase::Dead => return,
        }
        let head_remains = if process.is_in_line() { 1 } else { 0 };
        let ends_a_guard =
            matches!(process.phase, Phase::HandingOver { .. } | Phase::Settling { .. });
        if left.tasks > head_remains && (process.is_in_line() || ends_a_guard) {
            events.push(Event::PassesOn(at));
        }
    }

    /// Time passes for a process.
    fn counts(&self, world: &World, at: u8, process: &Process, events: &mut Vec<Event>) {
        let asked = Promises::asked(at);
        if let Phase::Asking { .. } | Phase::HandingOver { .. } = process.phase {
            let lease = world.store.lease.is_some_and(|lease| lease.stands.contains(asked));
            let place = world.store.line.iter().any(|place| place.stands.contains(asked));
            if lease {
                events.push(Event::LeaseIsLate(at));
            }
            if place {
                events.push(Event::PlaceIsLate(at));
            }
        }
        if process.believes() {
            events.push(Event::DeadlinePasses(at));
        }
        if process.placed {
            events.push(Event::PlaceLapses(at));
        }
        for number in 0..process.me {
            let holder = Holder { process: at, number };
            let release = Body::Request(Request::Release { holder });
            if process.undoes(number) && !world.network.iter().any(|m| m.body == release) {
                events.push(Event::Undoes(at, number));
            }
        }
    }

    /// A message may arrive, in one of several ways.
    fn arrivals(&self, world: &World, message: Message, events: &mut Vec<Event>) {
        let Body::Request(request) = message.body else {
            let asking = matches!(world.process(message.process).phase, Phase::Asking { .. });
            let signal = matches!(message.body, Body::Signal { .. });
            if message.awaited || asking || signal {
                events.push(Event::Arrives(message, Arrival::default()));
            }
            return;
        };
        let may_end = self.minds(world, &request);
        let copies = world.copies > 0 && !matches!(request, Request::Release { .. });
        for ended in (0..=may_end).filter(|ended| ended & !may_end == 0) {
            for copied in [false, true] {
                for deaf in [false, true] {
                    if copied && !copies || deaf && !may_be_deaf(world, &request) {
                        continue;
                    }
                    let mints =
                        matches!(request, Request::Acquire { .. } | Request::HandOver { .. });
                    let clocks: &[u8] = if mints { self.clocks } else { &[0] };
                    events.extend(clocks.iter().map(|&clock| {
                        Event::Arrives(message, Arrival { ended, copied, deaf, clock })
                    }));
                }
            }
        }
    }

    /// What may have ended by now and matters to a request, as bits.
    fn minds(&self, world: &World, request: &Request) -> u8 {
        let may_end = world.store.may_end(&self.rules());
        let holder = request.holder();
        let lease = |holder| u8::from(world.store.lease_of(holder).is_some());
        let mine = lease(holder);
        match *request {
            Request::Acquire { .. } => may_end,
            Request::Renew { .. } => may_end & mine,
            Request::Release { .. } => {
                let place = world.store.line.iter().position(|place| place.holder == holder);
                may_end & (mine | place.map_or(0, |at| 2 << at))
            }
            Request::HandOver { from, over, .. } => {
                may_end & (mine | lease(from) | if over { !1 } else { 0 })
            }
        }
    }
}

/// Whether a request may make the store signal.
fn may_be_deaf(world: &World, request: &Request) -> bool {
    let may = matches!(request, Request::Release { .. } | Request::HandOver { .. });
    world.deaf > 0 && may && world.store.first().is_some()
}

impl World {
    pub(crate) fn believers(&self) -> usize {
        self.processes.iter().filter(|process| process.believes()).count()
    }

    pub(crate) fn keeps(&self, law: Law) -> bool {
        self.broken != Some(law)
    }

    pub(crate) fn promises_are_kept(&self) -> bool {
        (0..).zip(&self.processes).all(|(at, process)| {
            let me = self.me(at);
            let stands = self.store.place_of(me).is_some() || self.store.lease_of(me).is_some();
            !process.placed || stands
        })
    }
}
