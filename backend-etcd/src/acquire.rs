//! Acquire: one transaction that takes the key, or a place in its line.

use std::time::Duration;

use lockcore::{Acquire, BackendError, Claim, Contention};

use crate::backend::{EtcdBackend, ROUNDS};
use crate::error;
use crate::grant::{Bid, Outcome, Way, ended};
use crate::line::{ROOM, Sight, Verdict};
use crate::moment::Moment;
use crate::places::Place;
use crate::record::{Held, ttl};
use crate::trouble::Trouble;

/// What a round of an acquire came to.
enum Round {
    Done(Acquire),
    /// What stands is known.
    Seen(Sight),
    /// What was known is out of date.
    Again,
}

impl EtcdBackend {
    pub(crate) async fn take(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let had_place = self.places.has(claim);
        self.take_or_wait(claim).await.map_err(|error| match error {
            // L7: it has one now, so no error may say that nothing has happened.
            BackendError::Unavailable(_) if !had_place && self.places.has(claim) => {
                error.into_ambiguous()
            }
            other => other,
        })
    }

    async fn take_or_wait(&self, claim: &Claim) -> Result<Acquire, BackendError> {
        let asked = Moment::now();
        let name = self.names.lease(&claim.key);
        // Who watches the key asks again and again. As long as its release is not signalled a look
        // costs the store less than a write that does nothing.
        if claim.wait.is_none()
            && !self.places.has(claim)
            && self.route.is_watched_in_vain(&name)
            && self.is_others(claim, &name).await?
        {
            return Ok(Acquire::Contended(Contention::default()));
        }
        // L2: this holder asks again, and an earlier attempt of its may have worked.
        if self.leases.may_hold(claim)
            && let Some(lease) = self.take_again(claim).await?
        {
            return Ok(Acquire::Acquired(lease));
        }
        let mut turn = self.route.was_told(claim.holder);
        for _ in 0..ROUNDS {
            let round = match self.places.of(claim) {
                Some(place) if turn => self.take_turn(claim, &place, &asked).await?,
                Some(place) => self.look_again(claim, &place).await?,
                None => self.ask(claim, &asked).await?,
            };
            let mut sight = match round {
                Round::Done(answer) => return Ok(answer),
                Round::Seen(sight) => sight,
                Round::Again => continue,
            };
            turn = false;
            loop {
                match self.judge(claim, &sight)? {
                    Verdict::Mine => return self.is_mine(claim, &sight).await,
                    Verdict::Turn => turn = true,
                    Verdict::Free => {}
                    Verdict::Wait => match self.wait(claim, sight).await? {
                        Round::Done(answer) => return Ok(answer),
                        Round::Seen(joined) => {
                            sight = joined;
                            continue;
                        }
                        Round::Again => {}
                    },
                }
                break;
            }
        }
        Err(error::unavailable("the key or its line changed during every one of 100 attempts"))
    }

    async fn is_others(&self, claim: &Claim, name: &str) -> Result<bool, BackendError> {
        let found = self.route.get(name, None).await.map_err(Trouble::of_question)?;
        let held = found.kvs().first().and_then(Held::read);
        Ok(held.is_some_and(|held| held.record.holder != claim.holder))
    }

    /// The key is the holder's by an earlier request.
    async fn is_mine(&self, claim: &Claim, sight: &Sight) -> Result<Acquire, BackendError> {
        if sight.line.of(claim.holder).is_some() {
            // W4: of a late copy.
            self.leave(claim).await.map_err(Trouble::of_command)?;
        }
        self.take_again(claim).await?.map(Acquire::Acquired).ok_or_else(ended)
    }

    /// A holder that has no place asks for the key.
    async fn ask(&self, claim: &Claim, asked: &Moment) -> Result<Round, BackendError> {
        // Who listens already expects to wait, and joins by the same request.
        let joins = claim.wait.filter(|_| self.route.listens(claim.holder));
        let hold = self.ready(claim, claim.ttl, asked).await?;
        if let (None, Some(wait)) = (&hold, joins) {
            return self.join(claim, wait).await.map(Round::Seen);
        }
        let join = match joins {
            Some(wait) => Some(self.wait_lease(claim, wait).await?),
            None => None,
        };
        let bid = Bid { claim, way: Way::Free, join };
        self.bid(bid, hold, asked).await.map(Round::of)
    }

    /// A holder that is told, or has seen, that it is its turn.
    async fn take_turn(
        &self,
        claim: &Claim,
        place: &Place,
        asked: &Moment,
    ) -> Result<Round, BackendError> {
        let hold = self.ready(claim, claim.ttl, asked).await?;
        let bid = Bid { claim, way: Way::Turn(place.created), join: None };
        self.bid(bid, hold, asked).await.map(Round::of)
    }

    /// A holder that waits looks whether it is its turn: nothing is written for who is not.
    async fn look_again(&self, claim: &Claim, place: &Place) -> Result<Round, BackendError> {
        // W2: before it looks, so that what it sees stands for that long.
        if let Some(wait) = claim.wait
            && !self.keep_place(claim, place, wait).await?
        {
            return Ok(Round::Again);
        }
        self.survey(claim).await.map(Round::Seen)
    }

    /// It is not the holder's turn.
    async fn wait(&self, claim: &Claim, sight: Sight) -> Result<Round, BackendError> {
        let ahead = sight.line.ahead(claim.holder);
        let Some(wait) = claim.wait else {
            if ahead.is_some() {
                // W7: who does not wait leaves nothing.
                self.leave(claim).await.map_err(Trouble::of_command)?;
            }
            let contention = Contention::new(retry_after(&sight));
            return Ok(Round::Done(Acquire::Contended(contention)));
        };
        let Some(place) = self.places.of(claim).filter(|_| ahead.is_some()) else {
            if sight.line.len() < ROOM {
                return self.join(claim, wait).await.map(Round::Seen);
            }
            // W11: a full line still answers.
            let contention = Contention::new(retry_after(&sight));
            return Ok(Round::Done(Acquire::Contended(contention)));
        };
        let asked_before = self.places.asked(claim);
        if asked_before == 0 && ahead.is_some_and(|ahead| ahead as usize >= ROOM) {
            // Many joined at once.
            self.leave(claim).await.map_err(Trouble::of_command)?;
            let contention = Contention::new(retry_after(&sight));
            return Ok(Round::Done(Acquire::Contended(contention)));
        }
        if !place.lasts(wait) && !self.keep_place(claim, &place, wait).await? {
            return Ok(Round::Again);
        }
        // The first asks again when the lease may have ended, since nobody tells it then.
        let mut after = retry_after(&sight);
        if ahead == Some(0) && asked_before > 0 {
            after = self.left(claim, &sight, wait).await.or(after);
        }
        Ok(Round::Done(Acquire::Contended(Contention::new(after).with_ahead(ahead))))
    }

    /// What is left of the lease that stands. It is asked for only where it may be less than the
    /// holder waits anyway: nothing shortens a lease, and its release is told.
    async fn left(&self, claim: &Claim, sight: &Sight, wait: Duration) -> Option<Duration> {
        let lease = sight.held.as_ref().and_then(Held::read)?.lease;
        let known = self.places.busy(claim, lease);
        if known.is_some_and(|left| left > wait) {
            return known;
        }
        let told = self.route.time_to_live(lease).await.ok()?;
        // What is left is cut to seconds.
        let left = told.ttl().min(told.granted_ttl()).saturating_add(1);
        let left = Duration::from_secs(left.try_into().unwrap_or(0));
        self.places.saw_busy(claim, lease, left.saturating_sub(Duration::from_secs(1)));
        Some(left)
    }
}

impl Round {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Won(lease) => Self::Done(Acquire::Acquired(lease)),
            Outcome::Lost(sight) => Self::Seen(sight),
        }
    }
}

/// When asking again is worth it at the latest: what stands may just have begun.
pub(crate) fn retry_after(sight: &Sight) -> Option<Duration> {
    if let Some(found) = &sight.held {
        return Held::read(found).map(|held| ttl(held.record.seconds));
    }
    sight.line.first().map(crate::spot::Spot::wait)
}
