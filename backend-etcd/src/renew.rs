//! Renew: keep the lease alive, then prove that the key is still on it.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use lockcore::{BackendError, Claim, Renew};

use crate::acquire::ROUNDS;
use crate::backend::{EtcdBackend, seconds};
use crate::book;
use crate::error::{self, Trouble};
use crate::keys;
use crate::memory::{Memory, State, seen_from};
use crate::record::{Held, Life, Record};

impl EtcdBackend {
    pub(crate) async fn extend(&self, claim: &Claim) -> Result<Renew, BackendError> {
        self.get_to_know().await?;
        let Some((held, memory)) = self.keep(claim).await? else { return Ok(Renew::NotHeld) };
        let memory = self.told(memory).await;
        if claim.min_token <= held.token {
            return Ok(Renew::Renewed(held.granted(memory)));
        }
        Ok(match self.raise(claim, held).await? {
            // The store may have lost its data meanwhile, and taken a late acquire of this holder.
            Some((held, life)) => Renew::Renewed(held.granted(seen_from(memory, life.as_ref()))),
            None => Renew::NotHeld,
        })
    }

    /// Begins the ttl of the holder's lease anew, and sees to it that it is long enough. `None`:
    /// no lease of this holder stands.
    pub(crate) async fn keep(&self, claim: &Claim) -> Result<Option<(Held, Memory)>, BackendError> {
        let name = self.names.lease(&claim.key);
        let wanted = seconds(claim.ttl);
        let mut lease = self.names.lease_id(claim.holder, wanted);
        for _ in 0..ROUNDS {
            // In this order: the lease has all of its ttl when the key is seen on it.
            let alive = self.route.keep_alive(lease).await.map_err(Trouble::of_command)?;
            let (found, memory) = self.proof(&name).await?;
            let Some(held) = self.mine(claim, found)? else { return Ok(None) };
            if held.lease != lease {
                // On the lease of another ttl, by an earlier call of this holder.
                lease = held.lease;
                continue;
            }
            if !alive {
                return Ok(None);
            }
            if held.record.seconds >= wanted {
                return Ok(Some((held, memory)));
            }
            // A lease's ttl cannot be changed. When the key is on the longer one, it is looked at
            // once more, as after any other change.
            self.move_over(claim, &name, &held).await?;
            lease = self.names.lease_id(claim.holder, wanted);
        }
        Err(error::unavailable("others were faster, again and again"))
    }

    /// What stands under a name, and how long the store has forgotten nothing. It is asked by way
    /// of the log, as a writer would: some versions of etcd answer a mere reader with what was so
    /// before a pause.
    async fn proof(&self, name: &str) -> Result<(Option<KeyValue>, Memory), BackendError> {
        let before = self.book.before();
        // Nothing is compared, so the second branch is never taken. It is what makes a writer.
        let txn = Txn::new()
            .and_then([TxnOp::get(name, None), TxnOp::get(self.names.memory(), None)])
            .or_else([TxnOp::delete(self.names.never(), None)]);
        let (found, life, state) = match self.route.txn(txn).await {
            Ok(done) => {
                let [found, life] = book::found(&done)?;
                (found, life, State::of(done.header())?)
            }
            // A full store takes no transactions, but still keeps leases alive and answers.
            Err(trouble) if trouble.no_space() => {
                let mut read = self.route.get(name, None).await.map_err(Trouble::of_command)?;
                let found = read.take_kvs().into_iter().next();
                // After the lease: a life that has not ended by then was there for the lease too.
                let life = self.route.get(self.names.memory(), None).await;
                let mut life = life.map_err(Trouble::of_command)?;
                let state = State { revision: None, ..State::of(life.header())? };
                (found, life.take_kvs().into_iter().next(), state)
            }
            Err(trouble) => return Err(trouble.of_command()),
        };
        let life = self.book.learn_life(&self.names, life.as_ref())?;
        let memory = before.judge(life.clone(), state);
        if let (Memory::Of(_), Some(life), Some(revision)) = (&memory, life, state.revision) {
            self.book.note_revision(&life, revision);
        }
        Ok((found, memory))
    }

    /// What was found, if it is a lease of the claim's holder.
    pub(crate) fn mine(
        &self,
        claim: &Claim,
        found: Option<KeyValue>,
    ) -> Result<Option<Held>, BackendError> {
        let Some(found) = found else { return Ok(None) };
        let held = Held::read(&found);
        let held = held.ok_or_else(|| error::foreign(&self.names.lease(&claim.key)))?;
        Ok(Some(held).filter(|held| held.record.holder == claim.holder))
    }

    /// Puts the key on a longer lease, unless it was changed meanwhile.
    async fn move_over(&self, claim: &Claim, name: &str, held: &Held) -> Result<(), BackendError> {
        let seconds = seconds(claim.ttl);
        let id = self.names.lease_id(claim.holder, seconds);
        let seconds = match self.route.grant(id, seconds).await {
            Ok(grant) => grant.seconds,
            Err(trouble) if trouble.lease_exists() => seconds,
            Err(trouble) => return Err(trouble.of_grant()),
        };
        let record = Record { seconds, ..held.record.clone() };
        let on = PutOptions::new().with_lease(id);
        let txn = Txn::new()
            .when([Compare::mod_revision(name, CompareOp::Equal, held.modified)])
            .and_then([TxnOp::put(name, record.write(), Some(on))]);
        match self.route.txn(txn).await {
            Err(trouble) if !trouble.lease_not_found() => Err(trouble.of_command()),
            _ => Ok(()),
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
                let raised = Held { token: claim.min_token, record, ..held };
                return Ok(Some((raised, Some(page.life))));
            }
            let [found, life, raised] = book::found(&done)?;
            let life = self.book.learn(&self.names, &page, life.as_ref(), raised.as_ref())?;
            match self.mine(claim, found)? {
                Some(changed) if changed.token >= claim.min_token => {
                    return Ok(Some((changed, life)));
                }
                Some(changed) => held = changed,
                None => return Ok(None),
            }
        }
        Err(error::unavailable("others were faster, again and again"))
    }
}
