//! How long a process keeps a key to itself.

use std::time::Duration;

use crate::clock::Moment;

/// How long a burst of hand-overs inside the process lasts before others are let in: at first,
/// and on a store without lines at most.
const SHORT_BURST: Duration = Duration::from_millis(50);
const LONG_BURST: Duration = Duration::from_millis(200);

/// The shortest and the longest pause in which others are let in on a store without lines.
pub(super) const SHORT_PAUSE: Duration = Duration::from_millis(2);
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// Turns of a key inside this process, one right after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    /// When the process got the key otherwise than by passing it on, and when the last turn ended.
    span: Option<(Moment, Moment)>,
    longest: Duration,
    round_trip: Duration,
    /// Others had the key when it was asked for last.
    others: Others,
}

/// What is known of other processes, on a store without lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// They were not met.
    Unseen,
    /// They had the key before this process got it, and may want it still.
    Wait,
    /// They were let in first, if they still wanted it.
    LetIn,
}

impl Default for Burst {
    fn default() -> Self {
        let (longest, round_trip) = (SHORT_BURST, Duration::ZERO);
        Self { span: None, longest, round_trip, others: Others::Unseen }
    }
}

impl Burst {
    /// Whether it still matters at this moment.
    pub(super) fn is_recent(&self, now: Moment) -> bool {
        self.span.is_some_and(|(_, left)| now.since(left) < LONG_BURST)
    }

    /// The process got the key from the store, and not from a task of its own.
    pub(super) fn begins(&mut self, at: Moment) {
        self.span = Some((at, at));
    }

    /// A turn ended now.
    pub(super) fn turn_ended(&mut self) {
        if let Some((_, left)) = &mut self.span {
            *left = Moment::now();
        }
    }

    /// Whether the process has passed the key on to itself for long enough.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.span.is_some_and(|(began, _)| now.since(began) >= SHORT_BURST)
    }

    /// On a store without lines: how long to let others in first, if it is time to. A burst is for
    /// several tasks: one that comes back by itself would win over those who had to wait for a
    /// signal, each time. `wanted`: other tasks of this process wait.
    pub(super) fn give_way(&mut self, now: Moment, wanted: bool) -> Option<Duration> {
        let pause = (self.round_trip * 2).clamp(SHORT_PAUSE, LONG_PAUSE);
        if let (Some((_, left)), Others::Wait) = (self.span, self.others)
            && !wanted
            && now.since(left) < pause
        {
            (self.span, self.others) = (None, Others::LetIn);
            return Some(pause);
        }
        match self.span {
            // The key was free for long enough already.
            Some((_, left)) if now.since(left) >= pause => {}
            Some((began, _)) if now.since(began) >= self.longest => {
                self.span = None;
                self.longest = (self.longest * 2).min(LONG_BURST);
                return Some(pause);
            }
            Some(_) => return None,
            None => {}
        }
        self.span = Some((now, now));
        None
    }

    /// On a store without lines: it answered after `round_trip`; `contended`: someone else has
    /// the key.
    pub(super) fn answered(&mut self, round_trip: Duration, contended: bool) {
        if contended {
            *self = Self { others: Others::Wait, ..Self::default() };
        } else if self.others == Others::LetIn {
            self.others = Others::Unseen;
        }
        self.round_trip = round_trip;
    }
}
