//! Renew: keep the lease alive, then prove that the key is still on it.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp};
use lockcore::{BackendError, Claim, Lease, Renew};

use crate::attempt::Attempt;
use crate::backend::{EtcdBackend, ROUNDS};
use crate::book;
use crate::error;
use crate::keys;
use crate::leases::{Known, class};
use crate::memory::{Memory, State, seen_from};
use crate::moment::Moment;
use crate::record::{Held, Life, Record, seconds};
use crate::trouble::Trouble;

/// How often a keep-alive may be answered in another raft term than the proof after it. The
/// server that answers learns of the new term soon.
const TERMS: usize = 5;

/// What a transaction that went through the log showed.
pub(crate) struct Proof {
    pub(crate) found: Option<KeyValue>,
    /// How long the store is known to have kept its data, where that was asked for.
    memory: Option<Memory>,
    term: u64,
}

impl EtcdBackend {
    pub(crate) async fn extend(&self, claim: &Claim) -> Result<Renew, BackendError> {
        if claim.incarnation {
            self.get_to_know().await?;
        }
        let Some((held, memory)) = self.keep(claim).await? else { return Ok(Renew::NotHeld) };
        let incarnation = match memory {
            Some(memory) => Some(self.told(memory).await),
            None => None,
        };
        if claim.min_token <= held.token {
            return Ok(Renew::Renewed(held.granted(incarnation)));
        }
        Ok(match self.raise(claim, held).await? {
            // The store may have lost its data meanwhile, and taken a late acquire of this holder.
            Some((held, life)) => {
                let seen = incarnation.map(|memory| seen_from(memory, life.as_ref()));
                Renew::Renewed(held.granted(seen))
            }
            None => Renew::NotHeld,
        })
    }

    /// The lease that the holder has already, with all of its ttl before it.
    pub(crate) async fn take_again(&self, claim: &Claim) -> Result<Option<Lease>, BackendError> {
        if claim.incarnation {
            self.get_to_know().await?;
        }
        let Some((held, memory)) = self.keep(claim).await? else { return Ok(None) };
        let incarnation = match memory {
            Some(memory) => Some(self.told(memory).await),
            None => None,
        };
        // The place went with the grant.
        self.places.lost(claim);
        Ok(Some(held.granted(incarnation)))
    }

    /// Begins the ttl of the holder's lease anew, and sees to it that it is long enough. `None`:
    /// no lease of this holder stands.
    pub(crate) async fn keep(
        &self,
        claim: &Claim,
    ) -> Result<Option<(Held, Option<Memory>)>, BackendError> {
        let name = self.names.lease(&claim.key);
        let wanted = seconds(claim.ttl);
        let mut terms = 0;
        for _ in 0..ROUNDS {
            let Some(known) = self.known(claim, &name).await? else { return Ok(None) };
            // L3: in this order the lease has all of its ttl when the key is seen on it.
            let began = Moment::now();
            let kept = self.route.keep_alive(known.lease).await.map_err(Trouble::of_command)?;
            let proof = self.proof(&name, claim.incarnation).await?;
            let Some(held) = self.mine(claim, proof.found)? else {
                self.leases.forget(claim);
                return Ok(None);
            };
            self.leases.saw(claim, Known::from(&held));
            if held.lease != known.lease {
                // Another process has moved it, for a longer ttl.
                continue;
            }
            if !kept.alive {
                return Ok(None);
            }
            // S11: a leader that was stopped answers in its old term, and renews nothing.
            if kept.term != proof.term {
                terms += 1;
                if terms == TERMS {
                    return Err(error::other_term());
                }
                continue;
            }
            self.leases.kept(claim, known.lease, began, kept.term);
            if held.record.seconds >= wanted {
                return Ok(Some((held, proof.memory)));
            }
            // A lease's ttl cannot be changed. When the key is on the longer one, it is looked at
            // once more, as after any other change.
            self.move_over(claim, &name, &held).await?;
        }
        Err(error::unavailable("the key or its lease changed during every one of 100 attempts"))
    }

    /// The holder's key as it was seen last, or as it is now.
    async fn known(&self, claim: &Claim, name: &str) -> Result<Option<Known>, BackendError> {
        let known = match self.leases.known(claim) {
            Some(known) => Some(known),
            None => {
                let proof = self.proof(name, false).await?;
                let held = self.mine(claim, proof.found)?;
                if held.is_none() {
                    self.leases.forget(claim);
                }
                held.map(|held| {
                    let known = Known::from(&held);
                    self.leases.saw(claim, known);
                    known
                })
            }
        };
        // S1: it may end at any time, and counts for nothing any more.
        Ok(known.filter(|known| !self.leases.is_revoked(known.lease)))
    }

    /// What stands under a name, and how long the store has kept its data. It is asked by way of
    /// the log, as a writer would: some versions of etcd answer a mere reader with what was so
    /// before a pause.
    pub(crate) async fn proof(&self, name: &str, incarnation: bool) -> Result<Proof, BackendError> {
        let before = self.book.before();
        let mut questions = vec![TxnOp::get(name, None)];
        if incarnation {
            questions.push(TxnOp::get(self.names.memory(), None));
        }
        // Nothing is compared, so the second branch is never taken. It is what makes a writer.
        let txn = Txn::new().and_then(questions).or_else([TxnOp::delete(self.names.never(), None)]);
        let done = match self.route.txn(txn).await {
            Ok(done) => done,
            Err(trouble) if trouble.no_space() => return self.look_only(name, incarnation).await,
            Err(trouble) => return Err(trouble.of_command()),
        };
        let term = done.header().map_or(0, ResponseHeader::raft_term);
        if !incarnation {
            let [found] = book::found(&done)?;
            return Ok(Proof { found, memory: None, term });
        }
        let [found, life] = book::found(&done)?;
        let state = State::of(done.header())?;
        let life = self.book.learn_life(&self.names, life.as_ref())?;
        let memory = before.judge(life.clone(), state);
        if let (Memory::Of(_), Some(life), Some(revision)) = (&memory, life, state.revision) {
            self.book.note_revision(&life, revision);
        }
        Ok(Proof { found, memory: Some(memory), term })
    }

    /// The same of a store that is full: it takes no transactions, but keeps leases alive and
    /// answers questions.
    async fn look_only(&self, name: &str, incarnation: bool) -> Result<Proof, BackendError> {
        let before = self.book.before();
        let mut read = self.route.get(name, None).await.map_err(Trouble::of_command)?;
        let term = read.header().map_or(0, ResponseHeader::raft_term);
        let found = read.take_kvs().into_iter().next();
        if !incarnation {
            return Ok(Proof { found, memory: None, term });
        }
        // After the lease: a life that has not ended by then was there for the lease too.
        let life = self.route.get(self.names.memory(), None).await;
        let mut life = life.map_err(Trouble::of_command)?;
        let state = State { revision: None, ..State::of(life.header())? };
        let life = life.take_kvs().into_iter().next();
        let life = self.book.learn_life(&self.names, life.as_ref())?;
        Ok(Proof { found, memory: Some(before.judge(life, state)), term })
    }

    /// Puts the key on a longer lease, unless it was changed meanwhile.
    async fn move_over(&self, claim: &Claim, name: &str, held: &Held) -> Result<(), BackendError> {
        let mut attempt = Attempt::with_new(&self.leases, claim, class(claim));
        let (began, reached) = (Moment::now(), self.book.reached());
        let grant = self.route.grant(attempt.id(), class(claim)).await;
        let grant = grant.map_err(Trouble::of_grant)?;
        attempt.granted(grant.seconds, began, grant.state, reached);
        let record = Record { seconds: grant.seconds, ..held.record.clone() };
        let on = PutOptions::new().with_lease(attempt.id());
        let txn = Txn::new()
            .when([Compare::mod_revision(name, CompareOp::Equal, held.modified)])
            .and_then([TxnOp::put(name, record.write(), Some(on))])
            .or_else([TxnOp::get(name, None)]);
        attempt.sending();
        match self.route.txn(txn).await {
            Ok(done) if done.succeeded() => {
                let modified = done.header().map_or(0, ResponseHeader::revision);
                let (lease, seconds) = (attempt.id(), grant.seconds);
                attempt.holds(Known { lease, seconds, modified, token: held.token });
                Ok(())
            }
            Ok(done) => {
                attempt.decided();
                let [found] = book::found(&done)?;
                match self.mine(claim, found)? {
                    Some(held) => self.leases.saw(claim, Known::from(&held)),
                    None => self.leases.forget(claim),
                }
                Ok(())
            }
            Err(trouble) if trouble.lease_not_found() => {
                attempt.ended();
                Ok(())
            }
            Err(trouble) => Err(trouble.of_command()),
        }
    }

    /// Raises the token of a lease to the claim's floor, and the base with it, so that what comes
    /// later is greater. The life that it then was in; `None`: the lease has gone.
    async fn raise(
        &self,
        claim: &Claim,
        held: Held,
    ) -> Result<Option<(Held, Option<Life>)>, BackendError> {
        let name = self.names.lease(&claim.key);
        let shard = keys::shard(&claim.key);
        let mut held = held;
        for _ in 0..ROUNDS {
            let Some(page) = self.book.page(shard) else {
                self.look_up().await?;
                continue;
            };
            let record = Record { floor: claim.min_token, ..held.record.clone() };
            let same = PutOptions::new().with_ignore_lease();
            let mut puts = vec![TxnOp::put(name.as_str(), record.write(), Some(same))];
            let raise = page.raise(&self.names, claim.min_token, held.created);
            let raise = raise.map(|(put, base)| {
                puts.push(put);
                base
            });
            let [life, raised] = page.compares(&self.names);
            let [get_memory, get_raised] = page.questions(&self.names);
            let unchanged = Compare::mod_revision(name.as_str(), CompareOp::Equal, held.modified);
            let txn = Txn::new().when([unchanged, life, raised]).and_then(puts).or_else([
                TxnOp::get(name.as_str(), None),
                get_memory,
                get_raised,
            ]);
            let done = self.route.txn(txn).await.map_err(Trouble::of_command)?;
            if done.succeeded() {
                if let Some(base) = raise {
                    self.book.note_raise(shard, Some(base));
                }
                let modified = done.header().map_or(0, ResponseHeader::revision);
                let raised = Held { token: claim.min_token, record, modified, ..held };
                self.leases.saw(claim, Known::from(&raised));
                return Ok(Some((raised, Some(page.life))));
            }
            let [found, life, raised] = book::found(&done)?;
            let life = self.book.learn(&self.names, &page, life.as_ref(), raised.as_ref())?;
            let Some(changed) = self.mine(claim, found)? else {
                self.leases.forget(claim);
                return Ok(None);
            };
            self.leases.saw(claim, Known::from(&changed));
            if changed.token >= claim.min_token {
                return Ok(Some((changed, life)));
            }
            held = changed;
        }
        Err(error::unavailable("the key or its base changed during every one of 100 attempts"))
    }
}
