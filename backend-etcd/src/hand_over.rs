//! Handing over: the key goes from one holder to another in one transaction.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use lockcore::{BackendError, Claim, Contention, HandOver};

use crate::attempt::Attempt;
use crate::backend::{EtcdBackend, ROUNDS};
use crate::error;
use crate::grant::{Bid, Guard, Outcome, Way, ended};
use crate::leases::{Known, class_of};
use crate::line::{Left, Sight};
use crate::moment::Moment;
use crate::record::Held;
use crate::spot::{self, Spot, gets};

/// What one round came to.
enum Round {
    Done(HandOver),
    /// What was known is out of date, and this is what stands.
    Seen(Sight),
    /// Nothing has happened.
    Again,
}

impl EtcdBackend {
    pub(crate) async fn pass_on(
        &self,
        from: &Claim,
        to: &Claim,
        over: bool,
    ) -> Result<HandOver, BackendError> {
        let asked = Moment::now();
        // L2: the call is repeated, and an earlier one may have worked.
        if self.leases.may_hold(to)
            && let Some(lease) = self.take_again(to).await?
        {
            return Ok(HandOver::Granted(lease));
        }
        let mut known = self.leases.known(from);
        if known.is_none() {
            let found = self.proof(&self.names.lease(&from.key), false).await?.found;
            match self.whose(from, to, found.as_ref())? {
                Whose::Froms(now) => known = Some(now),
                Whose::Tos => return self.again(to).await,
                Whose::Others => return Ok(HandOver::NotHeld),
            }
        }
        for _ in 0..ROUNDS {
            let Some(now) = known else { return Ok(HandOver::NotHeld) };
            let next = self.next_but(to, to.holder).filter(|_| over);
            let round = match next {
                Some(next) => self.yield_to(&next, from, to, now).await?,
                None => self.grant_to(from, to, now, over, &asked).await?,
            };
            let sight = match round {
                Round::Done(answer) => return Ok(answer),
                Round::Seen(sight) => sight,
                Round::Again => continue,
            };
            self.judge(to, &sight)?;
            match self.whose(from, to, sight.held.as_ref())? {
                Whose::Froms(now) => known = Some(now),
                Whose::Tos => return self.again(to).await,
                Whose::Others => return Ok(HandOver::NotHeld),
            }
            if sight.line.of(from.holder).is_some() {
                // Of a late copy. Who has the key is not in its line.
                self.leave(from).await.map(|_: Left| ()).map_err(|it| it.of_command())?;
            }
            let others = sight.line.first_but(from.holder).cloned();
            self.places.saw_first(&from.key, others);
        }
        Err(error::unavailable("the key or its line changed during every one of 100 attempts"))
    }

    async fn again(&self, to: &Claim) -> Result<HandOver, BackendError> {
        self.take_again(to).await?.map(HandOver::Granted).ok_or_else(ended)
    }

    fn whose(
        &self,
        from: &Claim,
        to: &Claim,
        found: Option<&etcd_client::KeyValue>,
    ) -> Result<Whose, BackendError> {
        let Some(found) = found else { return Ok(Whose::Others) };
        let held = Held::read(found);
        let held = held.ok_or_else(|| error::foreign(&self.names.lease(&from.key)))?;
        Ok(match held.record.holder {
            holder if holder == to.holder => Whose::Tos,
            // S1: it may end at any time, and counts for nothing any more.
            holder if holder == from.holder && !self.leases.is_revoked(held.lease) => {
                Whose::Froms(Known::from(&held))
            }
            _ => Whose::Others,
        })
    }

    async fn grant_to(
        &self,
        from: &Claim,
        to: &Claim,
        known: Known,
        over: bool,
        asked: &Moment,
    ) -> Result<Round, BackendError> {
        let guard = match self.places.of(to) {
            _ if !over => Guard::Nothing,
            Some(place) => Guard::First(place.created),
            None => Guard::Nobody,
        };
        let hold = self.ready(to, to.ttl, asked).await?;
        let bid = Bid { claim: to, way: Way::From(from.holder, known, guard), join: None };
        Ok(match self.bid(bid, hold, asked).await? {
            Outcome::Won(lease) => {
                self.places.lost(from);
                self.see_off(from, Some(known));
                Round::Done(HandOver::Granted(lease))
            }
            Outcome::Lost(sight) => Round::Seen(sight),
        })
    }

    /// Ends the lease, tells the first in line, and puts the other holder in line if it waits.
    async fn yield_to(
        &self,
        next: &Spot,
        from: &Claim,
        to: &Claim,
        known: Known,
    ) -> Result<Round, BackendError> {
        let (names, key) = (&self.names, &from.key);
        let mut join = match to.wait {
            Some(wait) => Some(match self.places.of(to) {
                // On a new lease the place keeps its position.
                Some(_) => self.fresh(to, class_of(wait)).await?,
                None => self.wait_lease(to, wait).await?,
            }),
            None => None,
        };
        let name = names.lease(key);
        let questions = [TxnOp::get(name.as_str(), None), spot::everybody(names, key)];
        let mut ops = vec![
            TxnOp::delete(name.as_str(), None),
            TxnOp::delete(names.place(key, from.holder), None),
            next.mail(names),
        ];
        ops.extend(join.as_ref().and_then(|join| self.place_on(to, join)));
        ops.extend(questions.clone());
        let unchanged = Compare::mod_revision(name, CompareOp::Equal, known.modified);
        let first = spot::nobody_ahead(names, key, next.created);
        let txn = Txn::new()
            .when([unchanged, first, next.stands(names, key)])
            .and_then(ops)
            .or_else(questions);
        join.iter_mut().for_each(Attempt::sending);
        let done = match self.route.txn(txn).await {
            Ok(done) => done,
            Err(trouble) if trouble.lease_not_found() => {
                // Of the place, or of the first in line, who is looked for anew.
                join.iter_mut().for_each(Attempt::ended);
                self.places.forget_first(key);
                return Ok(Round::Again);
            }
            Err(trouble) => {
                let error = trouble.of_command();
                if !matches!(error, BackendError::Ambiguous(_)) {
                    join.iter_mut().for_each(Attempt::decided);
                }
                return Err(error);
            }
        };
        let [held, line] = gets(&done)?;
        let sight = self.sight(to, held, &line)?;
        if !done.succeeded() {
            join.iter_mut().for_each(Attempt::decided);
            return Ok(Round::Seen(sight));
        }
        if let Some(join) = join {
            self.joined(to, join, &sight.line);
            // W9: even of a full line. It gives up the key, and does not leave again for room.
            self.places.asked(to);
        }
        self.places.lost(from);
        self.places.forget_first(key);
        self.see_off(from, Some(known));
        let contention = Contention::new(Some(next.wait()));
        let ahead = sight.line.ahead(to.holder).filter(|_| to.wait.is_some());
        Ok(Round::Done(HandOver::Yielded(contention.with_ahead(ahead))))
    }
}

enum Whose {
    Froms(Known),
    Tos,
    Others,
}
