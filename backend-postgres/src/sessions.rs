//! Several sessions on the server, so that commits share what it takes to reach the disk.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{BackendError, HolderId, ReleaseSignal};
use tokio::runtime::Handle;
use tokio_postgres::Row;

use crate::connected::Connected;
use crate::connection::{Link, Servers};
use crate::error::Failed;
use crate::exchange::Subject;
use crate::params::Param;
use crate::release_signals::Topic;
use crate::statements::Query;

/// As many statements under way on each session, and another session is opened.
const BUSY: usize = 4;

/// How long to wait after another session could not be opened.
const PAUSE: Duration = Duration::from_secs(1);

/// So many unanswered statements are remembered before those that have ended are forgotten.
const MANY: usize = 64;

/// The sessions of one backend. The first one listens as well.
///
/// A session carries out what it is sent in order. So a holder one of whose statements was given
/// up is bound to that statement's session until the statement has ended for sure: a release must
/// not overtake its acquire. Everyone else takes the session with the least to do.
pub(crate) struct Sessions {
    slots: Vec<Slot>,
    /// Holders with a statement that was given up.
    bound: Mutex<HashMap<HolderId, Bound>>,
    any_bound: AtomicBool,
    is_opening: AtomicBool,
}

struct Slot {
    link: Link,
    under_way: AtomicUsize,
    /// How many statements were sent.
    sent: AtomicU64,
    /// The greatest number of those that were answered.
    answered: AtomicU64,
}

#[derive(Clone, Copy)]
struct Bound {
    slot: usize,
    /// An answer to a later one shows that the statement has ended.
    sent: u64,
}

impl Sessions {
    pub(crate) fn new(servers: impl IntoIterator<Item = Servers>) -> Arc<Self> {
        let slot = |servers| Slot {
            link: Link::new(servers),
            under_way: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        };
        Arc::new(Self {
            slots: servers.into_iter().map(slot).collect(),
            bound: Mutex::default(),
            any_bound: AtomicBool::new(false),
            is_opening: AtomicBool::new(false),
        })
    }

    fn bound(&self) -> MutexGuard<'_, HashMap<HolderId, Bound>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self, bound: &Bound) -> bool {
        self.slots[bound.slot].answered.load(Ordering::Acquire) > bound.sent
    }

    /// The session that the holders are bound to, if any is.
    fn bound_to(&self, subject: &Subject) -> Option<usize> {
        if !self.any_bound.load(Ordering::Acquire) {
            return None;
        }
        let mut all = self.bound();
        for holder in subject.holders.iter().flatten() {
            match all.get(holder) {
                Some(bound) if self.has_ended(bound) => drop(all.remove(holder)),
                Some(bound) => return Some(bound.slot),
                None => {}
            }
        }
        self.any_bound.store(!all.is_empty(), Ordering::Release);
        None
    }

    fn bind(&self, slot: usize, subject: &Subject) {
        let mut all = self.bound();
        if all.len() >= MANY {
            all.retain(|_, bound| !self.has_ended(bound));
        }
        // Whatever is sent from here on is sent after the statement that was given up.
        let sent = self.slots[slot].sent.load(Ordering::Acquire);
        for holder in subject.holders.iter().flatten() {
            all.insert(*holder, Bound { slot, sent });
            self.any_bound.store(true, Ordering::Release);
        }
    }

    /// The open session with the least to do; the first if there is none.
    fn least_busy(self: &Arc<Self>) -> usize {
        let mut best: Option<(usize, usize)> = None;
        let mut unopened = None;
        for (number, slot) in self.slots.iter().enumerate() {
            if slot.link.usable().is_none() {
                unopened = unopened.or(Some(number));
                continue;
            }
            let under_way = slot.under_way.load(Ordering::Relaxed);
            if under_way == 0 {
                return number;
            }
            if best.is_none_or(|(_, least)| under_way < least) {
                best = Some((number, under_way));
            }
        }
        if let (Some((_, BUSY..)), Some(unopened)) = (best, unopened) {
            self.open_another(unopened);
        }
        best.map_or(0, |(number, _)| number)
    }

    /// Opens a session in the background.
    fn open_another(self: &Arc<Self>, slot: usize) {
        let Ok(runtime) = Handle::try_current() else { return };
        if self.is_opening.swap(true, Ordering::AcqRel) {
            return;
        }
        let opening = Opening(self.clone());
        runtime.spawn(async move {
            if opening.0.slots[slot].link.connected().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }

    pub(crate) async fn send(
        self: &Arc<Self>,
        subject: &Subject,
        query: &Query,
        params: &[Param<'_>],
    ) -> Result<Result<Vec<Row>, Failed>, BackendError> {
        let number = self.bound_to(subject).unwrap_or_else(|| self.least_busy());
        let slot = &self.slots[number];
        slot.under_way.fetch_add(1, Ordering::Relaxed);
        let under_way = UnderWay(slot);
        let connected = slot.link.connected().await?;
        let sent = slot.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let mut sending = Sending { sessions: self, slot: number, subject, is_answered: false };
        let done = connected.exchange(subject, query, params).await;
        if !matches!(done, Err(Failed::Unanswered(_))) {
            slot.answered.fetch_max(sent, Ordering::AcqRel);
            sending.is_answered = true;
        }
        drop((sending, under_way));
        Ok(done)
    }

    /// Sends a statement of no consequence, if there is a session, and does not wait for it.
    pub(crate) fn send_only(self: &Arc<Self>, query: &Query, params: &[Param<'_>]) -> bool {
        let connected = self.slots[self.least_busy()].link.usable();
        if let Some(connected) = connected.as_ref().filter(|connected| !connected.is_pooled()) {
            connected.send_only(query, params);
        }
        connected.is_none_or(|connected| !connected.is_pooled())
    }

    /// The session that listens, if it is open.
    pub(crate) fn listening(&self) -> Option<Arc<Connected>> {
        self.slots.first()?.link.usable()
    }

    pub(crate) async fn watch(&self, topic: Topic) -> Result<ReleaseSignal, BackendError> {
        self.slots[0].link.connected().await?.watch(topic).await
    }

    pub(crate) async fn ready(&self) -> Result<(), BackendError> {
        Ok(self.slots[0].link.connected().await.map(drop)?)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slots.first() {
            Some(slot) => fmt::Debug::fmt(&slot.link, f),
            None => f.write_str("no session"),
        }
    }
}

/// Counts a statement as under way until it is dropped.
struct UnderWay<'a>(&'a Slot);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A statement that was sent. Dropped without an answer, it binds its holders to its session.
struct Sending<'a> {
    sessions: &'a Sessions,
    slot: usize,
    subject: &'a Subject,
    is_answered: bool,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.sessions.bind(self.slot, self.subject);
        }
    }
}

/// Another session is being opened, until this is dropped, at the latest with the runtime.
struct Opening(Arc<Sessions>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.is_opening.store(false, Ordering::Release);
    }
}
