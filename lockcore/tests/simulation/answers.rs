//! What a client hears, and what follows for its holders.

use std::time::Duration;

use lockcore::{Acquire, Contention, HandOver, Release, Renew};
use tokio::time::Instant;

use crate::calls::{Made, Outcome};
use crate::holder::Trouble;
use crate::plan::useful;
use crate::requests::{Answer, Reply};
use crate::sometimes::Sometimes;
use crate::state::State;
use crate::storm::{Cut, Mood};

const SOON: Duration = Duration::from_millis(250);

impl State {
    pub(crate) fn acquire_ends(&mut self, made: Made, outcome: Outcome) {
        let holder = self.holder(made.holder);
        let was_ambiguous = std::mem::replace(&mut holder.ambiguous, false);
        holder.spent = true;
        match outcome {
            Outcome::Answered(Answer::Acquire(Acquire::Acquired(lease)), fresh) => {
                holder.deadline = Some(made.started + useful());
                holder.token = lease.token;
                holder.place = None;
                if was_ambiguous {
                    let free = Sometimes::AskedAgainFree;
                    self.hit(if fresh { free } else { Sometimes::AskedAgainGranted });
                }
                if Instant::now() >= made.started + useful() {
                    self.hit(Sometimes::LateGrantRefused);
                }
                let slot = self.slot(made.client, made.key);
                let (waited, signalled) = (slot.waited, slot.signalled);
                (slot.waited, slot.signalled) = (false, false);
                match (waited, signalled) {
                    (true, true) => self.hit(Sometimes::WokenBySignal),
                    (true, false) => self.hit(Sometimes::WokenByPolling),
                    (false, _) => {}
                }
            }
            Outcome::Answered(Answer::Acquire(Acquire::Contended(contention)), _) => {
                self.is_in_line(made, contention);
                let slot = self.slot(made.client, made.key);
                slot.contended += 1;
                (slot.waited, slot.signalled) = (true, false);
                if was_ambiguous {
                    self.hit(Sometimes::AskedAgainTaken);
                }
            }
            Outcome::Unavailable => {
                // Nothing has happened: the place stands.
                let stands = holder.in_line && !was_ambiguous;
                holder.spent = !stands;
                holder.place = None;
                if !made.doubtful {
                    let slot = self.slot(made.client, made.key);
                    slot.doubtful.retain(|other| *other != made.holder);
                }
            }
            _ => {
                holder.ambiguous = true;
                holder.spent = false;
                holder.place = None;
            }
        }
    }

    /// Contended: the holder is spent unless it has a place.
    fn is_in_line(&mut self, made: Made, contention: Contention) {
        let stands = self.network.scaled(made.wait.unwrap_or_default());
        let ends = made.started + stands;
        // An answer that comes near the end of the place may be of no use.
        let place = (Instant::now() + SOON < ends).then_some(ends);
        let id = made.to.unwrap_or(made.holder);
        let slot = self.slot(made.client, made.key);
        slot.doubtful.retain(|other| *other != id);
        if contention.ahead.is_some() {
            slot.doubtful.push(id);
        }
        let holder = self.holder(id);
        holder.contended = contention.ahead.is_none();
        holder.spent = holder.contended;
        holder.in_line = contention.ahead.is_some();
        holder.place = contention.ahead.and(place);
        holder.asked = made.started;
        if holder.place.is_some() && !self.placed.contains(&id) {
            self.placed.push(id);
        }
    }

    pub(crate) fn hand_over_ends(&mut self, made: Made, outcome: Outcome) {
        let Some(to) = made.to else { return };
        let now = Instant::now();
        self.holder(made.holder).releasing = None;
        match outcome {
            Outcome::Answered(Answer::HandOver(answer), _) => {
                self.holder(made.holder).release_answered = true;
                match answer {
                    HandOver::Granted(lease) => {
                        let heir = self.holder(to);
                        heir.deadline = Some(made.started + useful());
                        heir.token = lease.token;
                        self.hit(Sometimes::HandedOver);
                    }
                    HandOver::Yielded(contention) => {
                        self.is_in_line(made, contention);
                        self.hit(Sometimes::Yielded);
                    }
                    HandOver::NotHeld => self.hit(Sometimes::HandedOverNothing),
                }
            }
            Outcome::Unavailable => {
                // It is released as any other.
                let from = self.holder(made.holder);
                (from.hands_over, from.releasing) = (false, Some(now));
            }
            _ => {
                let from = self.holder(made.holder);
                (from.release_ambiguous, from.releasing) = (true, Some(now));
                self.hit(Sometimes::HandOverAmbiguous);
            }
        }
    }

    pub(crate) fn renew_ends(&mut self, made: Made, outcome: Outcome, now: Instant) {
        let network = &self.network;
        let trouble = match (network.mood, network.cuts[made.client]) {
            (Mood::Refusing | Mood::Silent, _) => Trouble::Outage,
            (Mood::Up, Cut::None) => Trouble::Other,
            (Mood::Up, _) => Trouble::Cut,
        };
        let holder = self.holder(made.holder);
        match outcome {
            Outcome::Answered(Answer::Renew(Renew::Renewed(lease)), _) => {
                // Once the deadline has passed, or the guard has gone, there is no way back.
                let in_time = holder.end().is_some_and(|end| now < end);
                // Nobody believes in what it has extended, and nobody is bound to end it.
                holder.stray |= !in_time;
                if holder.releasing.is_none() && in_time {
                    holder.deadline = holder.deadline.max(Some(made.started + useful()));
                    // A store that has lost its data may have granted it anew to a late request.
                    holder.token = holder.token.max(lease.token);
                    if let Some(trouble) = holder.renewal_failed.take() {
                        self.hit(Sometimes::RenewalRetried);
                        match trouble {
                            Trouble::Cut => self.hit(Sometimes::CutSurvived),
                            Trouble::Outage => self.hit(Sometimes::OutageSurvived),
                            Trouble::Other => {}
                        }
                    }
                }
            }
            Outcome::Answered(..) => holder.not_held = true,
            _ => holder.renewal_failed = Some(trouble),
        }
    }

    pub(crate) fn release_ends(&mut self, made: Made, outcome: Outcome) {
        let holder = self.holder(made.holder);
        holder.releasing = holder.releasing.map(|_| Instant::now());
        match outcome {
            Outcome::Answered(Answer::Release(answer), _) => {
                holder.release_answered = true;
                let another =
                    matches!(answer, Release::Released { token } if token != holder.token);
                let guarded = holder.guarded;
                if std::mem::take(&mut holder.release_ambiguous) {
                    self.hit(match answer {
                        Release::Released { .. } => Sometimes::ReleaseArrivedLater,
                        Release::NotHeld => Sometimes::ReleaseHadWorked,
                    });
                }
                if another && guarded {
                    self.hit(Sometimes::ReleasedAnother);
                }
            }
            Outcome::Unavailable => {}
            _ => holder.release_ambiguous = true,
        }
    }

    /// A request about several leases was answered.
    pub(crate) fn batch_heard(&mut self, reply: &Reply) {
        if reply.len() < 2 {
            return;
        }
        self.hit(Sometimes::Batch);
        let renewed = |answer: &Answer| matches!(answer, Answer::Renew(Renew::Renewed(_)));
        let good = reply.iter().flatten().filter(|(answer, _)| renewed(answer)).count();
        if good > 0 && good < reply.len() {
            self.hit(Sometimes::MixedBatch);
        }
    }
}
