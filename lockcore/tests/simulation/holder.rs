//! Holders: acquisitions as the store sees them.

use lockcore::HolderId;
use tokio::time::Instant;

/// One holder: an acquisition as the store sees it.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) client: usize,
    pub(crate) key: usize,
    /// Requests whose caller waits, by verb.
    pub(crate) in_flight: [usize; 4],
    /// It must not ask again.
    pub(crate) spent: bool,
    /// The last answer to acquire left the outcome open.
    pub(crate) ambiguous: bool,
    /// The store has said that another holds the key, and gave it no place.
    pub(crate) contended: bool,
    /// Its place in the key's line, as the last answer told: until when it stands at least.
    pub(crate) place: Option<Instant>,
    /// The last answer gave it a place.
    pub(crate) in_line: bool,
    /// When the store last gave it a place, or kept it.
    pub(crate) queued: Option<Instant>,
    /// The last request to acquire began then.
    pub(crate) asked: Instant,
    pub(crate) release_sent: bool,
    pub(crate) release_executed: bool,
    pub(crate) release_ambiguous: bool,
    pub(crate) release_answered: bool,
    /// When its end was asked for: by a hand-over, or else by the guard.
    pub(crate) released_at: Option<Instant>,
    /// A hand-over of its lease was sent.
    pub(crate) hands_over: bool,
    /// It is to be given the lease of that holder, and nobody knows whether it was.
    pub(crate) heir_of: Option<HolderId>,
    /// When its guard, valid until then, was let go of, or a release failed after that.
    pub(crate) releasing: Option<Instant>,
    /// A guard was made of it.
    pub(crate) guarded: bool,
    /// The token of its lease.
    pub(crate) token: u64,
    /// When its lease began in the store, and after how many wipes.
    pub(crate) granted: Option<(Instant, usize)>,
    /// Its lease began, or was extended, by a late request: it may stand when the holder has gone.
    pub(crate) stray: bool,
    /// Until when its answers allow it to believe.
    pub(crate) deadline: Option<Instant>,
    pub(crate) hold_end: Option<Instant>,
    pub(crate) not_held: bool,
    pub(crate) renewed_at: Option<Instant>,
    pub(crate) renewal_failed: Option<Trouble>,
}

/// What went on when a renewal failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Cut,
    Outage,
    Other,
}

impl Holder {
    pub(crate) fn new(client: usize, key: usize) -> Self {
        Self {
            client,
            key,
            in_flight: [0; 4],
            spent: false,
            ambiguous: false,
            contended: false,
            place: None,
            in_line: false,
            queued: None,
            asked: Instant::now(),
            release_sent: false,
            release_executed: false,
            release_ambiguous: false,
            release_answered: false,
            released_at: None,
            hands_over: false,
            heir_of: None,
            releasing: None,
            guarded: false,
            token: 0,
            granted: None,
            stray: false,
            deadline: None,
            hold_end: None,
            not_held: false,
            renewed_at: None,
            renewal_failed: None,
        }
    }

    /// The instant at which its guard must be lost, unless it is renewed.
    pub(crate) fn end(&self) -> Option<Instant> {
        match (self.deadline, self.hold_end) {
            (Some(deadline), Some(end)) => Some(deadline.min(end)),
            (deadline, end) => deadline.or(end),
        }
    }
}
