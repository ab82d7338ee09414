//! What may happen.

use std::fmt;

use crate::deliver::Arrival;
use crate::messages::{Body, Message};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// This process asks, with this floor.
    Asks(u8, u8),
    TimesOut(u8),
    /// A task gives up, and others of its process still wait.
    PassesOn(u8),
    Leaves(u8),
    Renews(u8),
    Releases(u8),
    Detaches(u8),
    HandsOver {
        process: u8,
        over: bool,
        floor: u8,
    },
    Settles(u8),
    /// The background sends a release, for the first time or again.
    Undoes(u8, u8),
    /// The ttl since the call began has passed, and nothing was heard.
    LeaseIsLate(u8),
    /// The wait since the call began has passed, and nothing was heard.
    PlaceIsLate(u8),
    DeadlinePasses(u8),
    /// The wait has passed since the last ask that was answered.
    PlaceLapses(u8),
    Dies(u8),
    LosesData,
    Arrives(Message, Arrival),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asks(at, floor) => write!(f, "process {at} asks, floor {floor}"),
            Self::TimesOut(at) => write!(f, "process {at}: its call has no answer in time"),
            Self::PassesOn(at) => write!(f, "process {at}: a task gives up, others still wait"),
            Self::Leaves(at) => write!(f, "process {at}: its last waiting task gives up"),
            Self::Renews(at) => write!(f, "process {at} renews"),
            Self::Releases(at) => write!(f, "process {at} releases its guard"),
            Self::Detaches(at) => write!(f, "process {at} releases on in the background"),
            Self::HandsOver { process, over, .. } => {
                let burst = if *over { "the burst is over" } else { "within the burst" };
                write!(f, "process {process} hands over, {burst}")
            }
            Self::Settles(at) => write!(f, "process {at} settles its hand_over"),
            Self::Undoes(at, number) => write!(f, "process {at} releases holder {at}.{number}"),
            Self::LeaseIsLate(at) => write!(f, "process {at}: the ttl of its call has passed"),
            Self::PlaceIsLate(at) => write!(f, "process {at}: the wait of its call has passed"),
            Self::DeadlinePasses(at) => write!(f, "process {at}: its deadline has passed"),
            Self::PlaceLapses(at) => write!(f, "process {at}: its wait has passed"),
            Self::Dies(at) => write!(f, "process {at} dies"),
            Self::LosesData => write!(f, "the store loses its data"),
            Self::Arrives(message, arrival) => {
                let at = message.process;
                match message.body {
                    Body::Request(request) => {
                        let late = if message.awaited { "" } else { ", late" };
                        write!(f, "store: {request:?}{late}")?;
                    }
                    Body::Answer(answer) => write!(f, "process {at} hears {answer:?}")?,
                    Body::Signal { .. } => write!(f, "process {at} hears its signal")?,
                }
                if arrival.ended != 0 {
                    write!(f, "; ended before: {:#b}", arrival.ended)?;
                }
                if arrival.copied {
                    write!(f, "; a copy is still on its way")?;
                }
                if arrival.deaf {
                    write!(f, "; the first listener seems gone")?;
                }
                Ok(())
            }
        }
    }
}
