//! One step of the model.

use crate::event::Event;
use crate::flaw::Flaw;
use crate::laws::Law;
use crate::messages::{Body, Holder, Message, Request};
use crate::process::{Late, Phase};
use crate::promises::Promises;
use crate::world::{Config, World};

impl World {
    pub(crate) fn step(&mut self, config: &Config, event: Event) {
        match event {
            Event::Asks(at, floor) => self.ask(at, floor),
            Event::TimesOut(at) => self.time_out(config, at),
            Event::PassesOn(at) => self.pass_on(config, at),
            Event::Leaves(at) => self.leave(config, at),
            Event::Renews(at) => self.renew(at),
            Event::Releases(at) => self.release(config, at),
            Event::Detaches(at) => self.detach(at),
            Event::HandsOver { process, over, floor } => {
                self.hand_over(config, process, over, floor);
            }
            Event::Settles(at) => self.settle(config, at),
            Event::Undoes(at, number) => self.undo(at, number),
            Event::LeaseIsLate(at) => {
                // A wait is never longer than a ttl.
                self.call_is_over(at);
                self.mark_late(at, |late| *late = Late { lease: true, place: true });
            }
            Event::PlaceIsLate(at) => {
                self.recount_places(|stands| stands.without(Promises::asked(at)));
                self.mark_late(at, |late| late.place = true);
            }
            Event::DeadlinePasses(at) => {
                self.belief_is_over(at);
                if let Phase::Holding { believed, .. } = &mut self.process_mut(at).phase {
                    *believed = false;
                }
            }
            Event::PlaceLapses(at) => self.place_is_over(at),
            Event::Dies(at) => self.die(config, at),
            Event::LosesData => self.wipe(config),
            Event::Arrives(message, arrival) => self.deliver(config, message, arrival),
        }
        self.look_for_stranded(config);
    }

    fn mark_late(&mut self, process: u8, mark: impl Fn(&mut Late)) {
        match &mut self.process_mut(process).phase {
            Phase::Asking { late } | Phase::HandingOver { late, .. } => mark(late),
            _ => {}
        }
    }

    /// What stands in the store is known to its process, or came by a request that arrived too
    /// late: that ends by itself.
    fn look_for_stranded(&mut self, config: &Config) {
        let leases = self.store.lease.iter().map(|lease| (lease.holder, lease.stray));
        let places = self.store.line.iter().map(|place| (place.holder, place.stray));
        let stranded = leases.chain(places).any(|(holder, stray)| {
            let process = self.process(holder.process);
            let done = process.is_spent(holder.number) && !process.undoes(holder.number);
            process.is_alive() && done && !stray
        });
        self.note(config, stranded.then_some(Law::Stranded));
    }

    /// Drops what cannot do anything any more.
    pub(crate) fn tidy(&mut self, config: &Config) {
        let brings = |message: &Message, holder: Holder| match message.body {
            Body::Request(Request::Acquire { holder: other, .. }) => other == holder,
            Body::Request(Request::HandOver { to, .. }) => to == holder,
            _ => false,
        };
        let network = self.network.clone();
        let may_be_there = |holder: Holder| {
            self.store.lease_of(holder).is_some()
                || self.store.place_of(holder).is_some()
                || network.iter().any(|message| brings(message, holder))
        };
        let any_hand_over_counts = config.has(Flaw::HandOverNeedsNoFrom);
        self.network.retain(|message| {
            message.awaited
                || match message.body {
                    Body::Request(Request::Release { holder } | Request::Renew { holder }) => {
                        may_be_there(holder)
                    }
                    Body::Request(Request::HandOver { from, .. }) => {
                        any_hand_over_counts || may_be_there(from)
                    }
                    Body::Request(Request::Acquire { .. }) | Body::Answer(_) => true,
                    Body::Signal { holder, .. } => {
                        self.processes[usize::from(holder.process)].is_alive()
                    }
                }
        });
        // A release that arrives twice does no more than one that arrives once.
        self.network.dedup_by(|one, other| {
            one == other && matches!(one.body, Body::Request(Request::Release { .. }))
        });
        for (process, acting) in (0..).zip(&mut self.processes) {
            for number in 0..acting.me {
                if !may_be_there(Holder { process, number }) {
                    acting.undone(number);
                }
            }
        }
    }
}
