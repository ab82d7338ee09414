//! The line of a key: joining it, keeping a place, leaving it, and telling who comes next.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, DeleteOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use lockcore::{BackendError, Claim, HolderId};

use crate::attempt::Attempt;
use crate::backend::EtcdBackend;
use crate::error;
use crate::leases::class_of;
use crate::moment::Moment;
use crate::places::Place;
use crate::record::{Held, seconds};
use crate::spot::{self, Line, Spot, gets};
use crate::trouble::Trouble;

/// How many places a line has room for. Those who join at once may be a few more.
pub(crate) const ROOM: usize = 256;

/// What stands on a key: the lease, and the places in its line.
pub(crate) struct Sight {
    pub(crate) held: Option<KeyValue>,
    pub(crate) line: Line,
}

/// What a holder may do next.
pub(crate) enum Verdict {
    /// It has the key.
    Mine,
    /// The key is free, and it is first in line.
    Turn,
    /// The key is free, and nobody is in line.
    Free,
    /// Others have the key, or are ahead.
    Wait,
}

/// What a holder left behind that gave up its place.
pub(crate) enum Left {
    /// The key is free, or another's.
    Nothing,
    /// It has the key.
    Held(Box<Held>),
    /// What is under the key's name is none of ours.
    Foreign,
}

impl EtcdBackend {
    /// Reads what the questions of a transaction about a key found.
    pub(crate) fn sight(
        &self,
        claim: &Claim,
        held: Vec<KeyValue>,
        line: &[KeyValue],
    ) -> Result<Sight, BackendError> {
        let line = Line::read(&self.names, &claim.key, line)?;
        Ok(Sight { held: held.into_iter().next(), line })
    }

    /// What stands on a key. A mere reader: what it is shown may be old, and costs a wait then.
    pub(crate) async fn survey(&self, claim: &Claim) -> Result<Sight, BackendError> {
        let name = self.names.lease(&claim.key);
        let questions = [TxnOp::get(name, None), spot::everybody(&self.names, &claim.key)];
        let done = self.route.txn(Txn::new().and_then(questions)).await;
        let done = done.map_err(Trouble::of_question)?;
        let [held, line] = gets(&done)?;
        self.sight(claim, held, &line)
    }

    /// Notes what was seen, and says what follows for the claim's holder.
    pub(crate) fn judge(&self, claim: &Claim, sight: &Sight) -> Result<Verdict, BackendError> {
        self.note(claim, sight);
        if let Some(found) = &sight.held {
            let held = Held::read(found);
            let held = held.ok_or_else(|| error::foreign(&self.names.lease(&claim.key)))?;
            let mine = held.record.holder == claim.holder;
            return Ok(if mine { Verdict::Mine } else { Verdict::Wait });
        }
        Ok(match sight.line.first() {
            None => Verdict::Free,
            Some(first) if first.holder == claim.holder => Verdict::Turn,
            Some(_) => Verdict::Wait,
        })
    }

    fn note(&self, claim: &Claim, sight: &Sight) {
        let known = self.places.of(claim).map(|known| (known.lease, known.created));
        match sight.line.of(claim.holder) {
            Some(spot) if known != Some((spot.lease, spot.created)) => {
                // Another process's, or of a request that had no answer.
                self.places.lost(claim);
                self.places.took(claim, Place::found(spot));
            }
            Some(_) => {}
            // It has ended, and its lease with it.
            None => drop(self.places.lost(claim)),
        }
    }

    /// Sees to it that the holder's place stands for so long from now on. `false`: it is gone.
    pub(crate) async fn keep_place(
        &self,
        claim: &Claim,
        place: &Place,
        wait: Duration,
    ) -> Result<bool, BackendError> {
        if place.seconds < seconds(wait) {
            // A lease's ttl cannot be changed. The place keeps its position on another one.
            self.join(claim, wait).await?;
        } else if !place.lasts(wait) {
            let began = Moment::now();
            let kept = self.route.keep_alive(place.lease).await.map_err(Trouble::of_command)?;
            if !kept.alive {
                self.places.lost(claim);
                return Ok(false);
            }
            self.places.kept(claim, place.lease, began, kept.term);
        }
        Ok(true)
    }

    /// A lease for a place that is to stand for so long.
    pub(crate) async fn wait_lease(
        &self,
        claim: &Claim,
        wait: Duration,
    ) -> Result<Attempt, BackendError> {
        let now = Moment::now();
        match self.ready(claim, wait, &now).await? {
            Some(attempt) => Ok(attempt),
            None => self.fresh(claim, class_of(wait)).await,
        }
    }

    /// Puts the holder's place on a lease: at the tail, unless it has one. Whether the key is free
    /// shows afterwards, so no lease is granted for losing.
    pub(crate) async fn join(&self, claim: &Claim, wait: Duration) -> Result<Sight, BackendError> {
        let attempt = self.wait_lease(claim, wait).await?;
        if let Some(sight) = self.join_on(claim, attempt).await? {
            return Ok(sight);
        }
        // The one that was ready has ended.
        let attempt = self.fresh(claim, class_of(wait)).await?;
        self.join_on(claim, attempt).await?.ok_or_else(ended)
    }

    /// `None`: the attempt's lease has ended, and nothing has happened.
    async fn join_on(
        &self,
        claim: &Claim,
        mut attempt: Attempt,
    ) -> Result<Option<Sight>, BackendError> {
        let Some(put) = self.place_on(claim, &attempt) else { return Ok(None) };
        let name = self.names.lease(&claim.key);
        let all = [put, TxnOp::get(name, None), spot::everybody(&self.names, &claim.key)];
        attempt.sending();
        let done = match self.route.txn(Txn::new().and_then(all)).await {
            Ok(done) => done,
            Err(trouble) => return attempt.failed(trouble, []).map(|()| None),
        };
        let [held, line] = gets(&done)?;
        let sight = self.sight(claim, held, &line)?;
        self.joined(claim, attempt, &sight.line);
        Ok(Some(sight))
    }

    /// What gives the holder its place on the lease of an attempt.
    pub(crate) fn place_on(&self, claim: &Claim, attempt: &Attempt) -> Option<TxnOp> {
        let lease = attempt.lease()?;
        Some(spot::put(&self.names, claim, &self.channel, (lease.id, lease.seconds)))
    }

    /// The place is on the attempt's lease. The one before, if there was one, has nothing on it.
    pub(crate) fn joined(&self, claim: &Claim, attempt: Attempt, line: &Line) {
        let lease = attempt.into_lease();
        let before = self.places.of(claim);
        if let Some(old) = self.places.lost(claim) {
            self.leases.put_back(old);
        }
        if let (Some(lease), Some(spot)) = (lease, line.of(claim.holder)) {
            let asked = before.map_or(0, |place| place.asked);
            self.places.took(claim, Place::on(lease, spot.created).asked(asked));
        }
    }

    /// Ends the holder's place. If it was the first and the key is free, the next is told (W6).
    pub(crate) async fn leave(&self, claim: &Claim) -> Result<Left, Trouble> {
        let name = self.names.lease(&claim.key);
        let old = DeleteOptions::new().with_prev_key();
        let delete = TxnOp::delete(self.names.place(&claim.key, claim.holder), Some(old));
        let next = spot::first(&self.names, &claim.key);
        // The delete makes a writer of it: some versions of etcd answer a mere reader with what was
        // so before a pause.
        let txn = Txn::new()
            .when([Compare::create_revision(name.as_str(), CompareOp::Equal, 0)])
            .and_then([delete.clone(), next.clone()])
            .or_else([delete, next, TxnOp::get(name, None)]);
        let done = self.route.txn(txn).await?;
        let (mut gone, mut found) = (Vec::new(), Vec::<Vec<KeyValue>>::new());
        for answer in done.op_responses() {
            match answer {
                TxnOpResponse::Delete(mut deleted) => gone = deleted.take_prev_kvs(),
                TxnOpResponse::Get(mut get) => found.push(get.take_kvs()),
                _ => {}
            }
        }
        if let Some(lease) = self.places.lost(claim) {
            self.leases.put_back(lease);
        }
        let mut found = found.into_iter();
        let next = Line::read(&self.names, &claim.key, &found.next().unwrap_or_default());
        if done.succeeded() {
            // A line that cannot be read is told by the next who asks.
            if let (Some(gone), Ok(line)) = (gone.first(), next)
                && let Some(next) = line.first()
                && gone.create_revision() < next.created
            {
                self.signal(claim, next).await;
            }
            return Ok(Left::Nothing);
        }
        let held = found.next().unwrap_or_default();
        Ok(match held.first().map(Held::read) {
            Some(Some(held)) if held.record.holder == claim.holder => Left::Held(Box::new(held)),
            Some(None) => Left::Foreign,
            _ => Left::Nothing,
        })
    }

    /// Tells the first in line of a free key, if it still is. Only a hint: who is not told asks
    /// by itself.
    async fn signal(&self, claim: &Claim, next: &Spot) {
        let name = self.names.lease(&claim.key);
        let txn = Txn::new()
            .when([
                Compare::create_revision(name, CompareOp::Equal, 0),
                spot::nobody_ahead(&self.names, &claim.key, next.created),
                next.stands(&self.names, &claim.key),
            ])
            .and_then([next.mail(&self.names)]);
        if let Err(trouble) = self.route.txn(txn).await {
            tracing::debug!(?trouble, "the next in line was not told");
        }
    }

    /// Who is first in a key's line besides this holder, as far as is known.
    pub(crate) fn next_but(&self, claim: &Claim, holder: HolderId) -> Option<Spot> {
        self.places.first(&claim.key).flatten().filter(|spot| spot.holder != holder)
    }
}

/// The lease ended right after it was granted.
fn ended() -> BackendError {
    error::unavailable("the lease of a place ended while it was taken")
}
