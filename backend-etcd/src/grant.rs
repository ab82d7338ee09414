//! The grant: one transaction that puts the key on a lease of etcd's, where the rules of the line
//! allow it.

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, ResponseHeader, Txn, TxnOp};
use lockcore::{BackendError, Claim, HolderId, Incarnation, Lease};

use crate::attempt::Attempt;
use crate::backend::{EtcdBackend, ROUNDS};
use crate::book::Page;
use crate::error;
use crate::keys;
use crate::leases::{EtcdLease, Known, Proof, class};
use crate::line::Sight;
use crate::memory::State;
use crate::moment::Moment;
use crate::record::{Held, Record};
use crate::spot::{self, Line, gets};

/// What a grant is conditional on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// The key is free and nobody is in line.
    Free,
    /// The key is free and the holder first in line, with the place of this revision.
    Turn(i64),
    /// The key is another holder's, as it was seen last, and is taken over from it.
    From(HolderId, Known, Guard),
}

/// What a hand-over is conditional on besides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guard {
    Nothing,
    /// Nobody is in line.
    Nobody,
    /// The holder's place of this revision is the first in line.
    First(i64),
}

/// A request for a grant.
pub(crate) struct Bid<'a> {
    pub(crate) claim: &'a Claim,
    pub(crate) way: Way,
    /// The lease that the holder's place goes on if the key is not granted.
    pub(crate) join: Option<Attempt>,
}

/// What came of it.
pub(crate) enum Outcome {
    Won(Lease),
    Lost(Sight),
}

/// What came of a transaction.
enum Answer {
    Taken(Taken),
    Lost(Sight),
    /// What was put is taken back: the store is in another life.
    Undone,
    /// A lease has ended, so the transaction did nothing.
    LeaseEnded,
}

struct Taken {
    known: Known,
    /// How long the store is known to have kept its data.
    memory: Incarnation,
    /// The raft term that the transaction went through the log in.
    term: u64,
}

impl EtcdBackend {
    /// Asks for the key, on a lease that is ready or on one that is granted now. No lease is
    /// granted where `hold` is, which is ready.
    pub(crate) async fn bid(
        &self,
        mut bid: Bid<'_>,
        hold: Option<Attempt>,
        asked: &Moment,
    ) -> Result<Outcome, BackendError> {
        let claim = bid.claim;
        if let Some(mut attempt) = hold
            && let Some(answer) = self.take_on(&mut bid, &mut attempt).await?
        {
            return self.finish(&bid, attempt, answer, asked).await;
        }
        // No lease is ready, or one that was has ended: nothing has happened.
        bid.join = bid.join.filter(|join| join.lease().is_some());
        let mut attempt = self.fresh(claim, class(claim)).await?;
        match self.take_on(&mut bid, &mut attempt).await? {
            Some(answer) => self.finish(&bid, attempt, answer, asked).await,
            None => Err(ended()),
        }
    }

    /// `None`: a lease has ended, and nothing has happened.
    async fn take_on(
        &self,
        bid: &mut Bid<'_>,
        attempt: &mut Attempt,
    ) -> Result<Option<Answer>, BackendError> {
        let shard = keys::shard(&bid.claim.key);
        for _ in 0..ROUNDS {
            let Some(page) = self.book.page(shard) else {
                self.look_up().await?;
                continue;
            };
            let Some(lease) = attempt.lease().cloned() else { return Ok(None) };
            if lease.is_restored(&page.life) {
                self.found(Some(&page.life)).await?;
                continue;
            }
            if bid.claim.incarnation {
                self.ask_age(&page.life).await;
            }
            match self.attempt(bid, attempt, &lease, &page).await? {
                Answer::Undone => {}
                Answer::LeaseEnded => return Ok(None),
                answer => return Ok(Some(answer)),
            }
        }
        Err(error::unavailable("the store's base changed during every one of 100 attempts"))
    }

    /// What the caller is told. Whatever was not used goes back with the attempt.
    async fn finish(
        &self,
        bid: &Bid<'_>,
        attempt: Attempt,
        answer: Answer,
        asked: &Moment,
    ) -> Result<Outcome, BackendError> {
        let claim = bid.claim;
        let taken = match answer {
            Answer::Taken(taken) => taken,
            Answer::Lost(sight) => return Ok(Outcome::Lost(sight)),
            Answer::Undone | Answer::LeaseEnded => return Err(ended()),
        };
        let lease = attempt.lease().cloned();
        attempt.holds(taken.known);
        // W4: the place went with the grant, and nothing is on its lease.
        if let Some(place) = self.places.lost(claim) {
            self.leases.put_back(place);
        }
        let Some(lease) = lease else { return Err(error::unexpected()) };
        // S11: a keep-alive counts only in the term of a later transaction.
        if matches!(lease.proof, Proof::Kept(term) if term != taken.term) {
            let again = self.take_again(claim).await.map_err(BackendError::into_ambiguous)?;
            return again.map(Outcome::Won).ok_or_else(ended);
        }
        // L3: counted from the start of this call.
        let granted = Lease::new(taken.known.token, lease.left(asked));
        let memory = claim.incarnation.then_some(taken.memory);
        Ok(Outcome::Won(granted.with_incarnation(memory)))
    }

    async fn attempt(
        &self,
        bid: &mut Bid<'_>,
        attempt: &mut Attempt,
        lease: &EtcdLease,
        page: &Page,
    ) -> Result<Answer, BackendError> {
        let claim = bid.claim;
        let name = self.names.lease(&claim.key);
        // Before the transaction, which proves that the store is still in this life.
        let (memory, reached) = (self.book.memory(&page.life), self.book.reached());
        let record = Record {
            holder: claim.holder,
            seconds: lease.seconds,
            base: page.base(),
            floor: bid.way.floor(claim),
            label: claim.label.clone(),
        };
        let on = PutOptions::new().with_lease(lease.id);
        let mut puts = vec![TxnOp::put(name.as_str(), record.write(), Some(on))];
        // What is taken over has a floor above the base, and needs no raise: see `Way::floor`.
        let raise = page.raise(&self.names, claim.min_token, lease.revision);
        let raise = raise.map(|(put, base)| {
            puts.push(put);
            base
        });
        puts.extend(self.besides(bid));
        let mut compares = self.conditions(bid);
        compares.extend(page.compares(&self.names));
        let txn = Txn::new().when(compares).and_then(puts).or_else(self.otherwise(bid, page));
        attempt.sending();
        if let Some(join) = &mut bid.join {
            join.sending();
        }
        let done = match self.route.txn(txn).await {
            Ok(done) => done,
            Err(trouble) => {
                let joins = bid.join.iter_mut();
                return attempt.failed(trouble, joins).map(|()| Answer::LeaseEnded);
            }
        };
        if !done.succeeded() {
            attempt.decided();
            return self.lost(bid, page, &done).map(Answer::Lost);
        }
        if let Some(join) = &mut bid.join {
            join.decided();
        }
        let state = State::of(done.header())?;
        let revision = state.revision.unwrap_or(0);
        let modified = i64::try_from(revision).map_err(|_| error::unexpected())?;
        if reached.is_restored(&page.life, state) {
            // L5: a token counted from here might be smaller than one of before the backup.
            self.undo(&name, modified).await?;
            attempt.decided();
            self.found(Some(&page.life)).await?;
            if matches!(bid.way, Way::From(..)) {
                // What was handed over has gone.
                return Err(error::unexpected());
            }
            return Ok(Answer::Undone);
        }
        if let Some(base) = raise {
            self.book.note_raise(page.shard, Some(base));
        }
        self.book.note_revision(&page.life, revision);
        let token = self.won(bid, &record, revision, &done)?;
        let known = Known { lease: lease.id, seconds: lease.seconds, modified, token };
        let term = done.header().map_or(0, ResponseHeader::raft_term);
        Ok(Answer::Taken(Taken { known, memory, term }))
    }

    /// What must hold for the grant, besides the page.
    fn conditions(&self, bid: &Bid<'_>) -> Vec<Compare> {
        let (names, key) = (&self.names, &bid.claim.key);
        let name = names.lease(key);
        let first = |created| {
            let place = names.place(key, bid.claim.holder);
            // W2: a place that has ended is gone.
            let stands = Compare::create_revision(place, CompareOp::Equal, created);
            [stands, spot::nobody_ahead(names, key, created)]
        };
        let mut all = match bid.way {
            // L1: only where no lease of the key stands.
            Way::Free | Way::Turn(_) => {
                vec![Compare::create_revision(name, CompareOp::Equal, 0)]
            }
            // W9: only while the other's lease stands.
            Way::From(_, known, _) => {
                vec![Compare::mod_revision(name, CompareOp::Equal, known.modified)]
            }
        };
        // W3: nobody is passed.
        match bid.way {
            Way::Free | Way::From(_, _, Guard::Nobody) => all.push(spot::nobody(names, key)),
            Way::Turn(created) | Way::From(_, _, Guard::First(created)) => {
                all.extend(first(created));
            }
            Way::From(_, _, Guard::Nothing) => {}
        }
        all
    }

    /// What the grant does besides putting the key.
    fn besides(&self, bid: &Bid<'_>) -> Vec<TxnOp> {
        let (names, key) = (&self.names, &bid.claim.key);
        let leaves = |holder| TxnOp::delete(names.place(key, holder), None);
        // The release has to know who is next.
        let next = spot::first(names, key);
        match bid.way {
            Way::Free => Vec::new(),
            Way::Turn(_) => vec![leaves(bid.claim.holder), next],
            Way::From(from, ..) => vec![
                leaves(bid.claim.holder),
                leaves(from),
                next,
                TxnOp::get(names.lease(key), None),
            ],
        }
    }

    /// What happens where the key is not granted.
    fn otherwise(&self, bid: &Bid<'_>, page: &Page) -> Vec<TxnOp> {
        let (names, key) = (&self.names, &bid.claim.key);
        let mut all = Vec::new();
        all.extend(bid.join.as_ref().and_then(|join| self.place_on(bid.claim, join)));
        all.push(TxnOp::get(names.lease(key), None));
        if bid.claim.wait.is_some() || matches!(bid.way, Way::From(..)) {
            all.extend([spot::everybody(names, key), TxnOp::get(names.never(), None)]);
        } else {
            // Who does not wait needs no more than its own place and the first.
            let own = TxnOp::get(names.place(key, bid.claim.holder), None::<GetOptions>);
            all.extend([spot::first(names, key), own]);
        }
        all.extend(page.questions(names));
        all
    }

    fn lost(
        &self,
        bid: &mut Bid<'_>,
        page: &Page,
        done: &etcd_client::TxnResponse,
    ) -> Result<Sight, BackendError> {
        let [held, mut line, own, life, raised] = gets(done)?;
        line.extend(own);
        let sight = self.sight(bid.claim, held, &line)?;
        if let Some(join) = bid.join.take() {
            self.joined(bid.claim, join, &sight.line);
        }
        self.book.learn(&self.names, page, life.first(), raised.first())?;
        Ok(sight)
    }

    /// The token of what was granted. Notes who is next.
    fn won(
        &self,
        bid: &Bid<'_>,
        record: &Record,
        created: u64,
        done: &etcd_client::TxnResponse,
    ) -> Result<u64, BackendError> {
        let (names, key) = (&self.names, &bid.claim.key);
        // L5, L9.
        let counted = created.saturating_add(record.base).max(record.floor);
        let (token, next) = match bid.way {
            Way::Free => (counted, Vec::new()),
            Way::Turn(_) => {
                let [next] = gets(done)?;
                (counted, next)
            }
            Way::From(..) => {
                // What was put over another's key was created with that.
                let [next, found] = gets(done)?;
                let held = found.first().and_then(Held::read).ok_or_else(error::unexpected)?;
                (held.token, next)
            }
        };
        match Line::read(names, key, &next) {
            Ok(line) => self.places.saw_first(key, line.first().cloned()),
            // Told by the next who asks.
            Err(_) => self.places.forget_first(key),
        }
        Ok(token)
    }

    /// Takes back a key that was put in a store which was restored from a backup.
    async fn undo(&self, name: &str, modified: i64) -> Result<(), BackendError> {
        let txn = Txn::new()
            .when([Compare::mod_revision(name, CompareOp::Equal, modified)])
            .and_then([TxnOp::delete(name, None)]);
        let done = self.route.txn(txn).await;
        // The key was put, so no error may say that nothing has happened (L7).
        done.map(drop).map_err(|trouble| trouble.of_command().into_ambiguous())
    }
}

impl Way {
    /// The floor of what is granted.
    ///
    /// A key that is handed over keeps the revision that created it, so its token rises by its
    /// floor: one more than the token before. That passes nobody who comes later. Let a key's token
    /// be t, the last revision that wrote the key r, and the base b. A grant leaves t <= r + b: it
    /// is r + b, or a floor, for which the base is raised in the same transaction. A hand-over is a
    /// revision of its own, r' >= r + 1, and t + 1 <= r' + b. So the next grant, at a revision
    /// above r', has a token above t + 1. Bases never fall.
    fn floor(&self, claim: &Claim) -> u64 {
        match self {
            Self::Free | Self::Turn(_) => claim.min_token,
            Self::From(_, known, _) => claim.min_token.max(known.token.saturating_add(1)),
        }
    }
}

/// The holder's lease has ended during its acquire, and its key with it.
pub(crate) fn ended() -> BackendError {
    error::unavailable("the lease ended while the key was asked for")
}
