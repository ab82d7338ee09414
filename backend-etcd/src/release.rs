//! Release: delete the key if it is on the holder's lease, and revoke that lease.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use lockcore::{BackendError, Claim, Release};

use crate::acquire::ROUNDS;
use crate::backend::{EtcdBackend, seconds};
use crate::book;
use crate::error::{self, Trouble};

impl EtcdBackend {
    pub(crate) async fn give_back(&self, claim: &Claim) -> Result<Release, BackendError> {
        let name = self.names.lease(&claim.key);
        let own = self.names.lease_id(claim.holder, seconds(claim.ttl));
        let mut lease = own;
        for _ in 0..ROUNDS {
            let txn = Txn::new()
                .when([Compare::lease(name.as_str(), CompareOp::Equal, lease)])
                .and_then([TxnOp::delete(name.as_str(), None)])
                .or_else([TxnOp::get(name.as_str(), None)]);
            let done = match self.route.txn(txn).await {
                Ok(done) => done,
                Err(trouble) if trouble.no_space() => {
                    return self.end(claim, &name, lease, trouble).await;
                }
                Err(trouble) => return Err(trouble.of_command()),
            };
            let held = if done.succeeded() {
                None
            } else {
                let [found] = book::found(&done)?;
                self.mine(claim, found)?
            };
            match held {
                // On the lease of another ttl, by an earlier call of this holder.
                Some(held) if held.lease != lease => lease = held.lease,
                Some(_) => {}
                None => {
                    // Whether there was a key or not: an acquire of this holder that is still
                    // under way finds its lease revoked, and takes nothing.
                    self.route.revoke_behind(lease);
                    if lease != own {
                        self.route.revoke_behind(own);
                    }
                    let released = done.succeeded();
                    return Ok(if released { Release::Released } else { Release::NotHeld });
                }
            }
        }
        Err(error::unavailable("the key changed again and again"))
    }

    /// In a store that is full: revoking the lease ends the key too. The transaction may have been
    /// carried out all the same.
    async fn end(
        &self,
        claim: &Claim,
        name: &str,
        lease: i64,
        full: Trouble,
    ) -> Result<Release, BackendError> {
        // Behind a transaction in doubt no failure is a definite answer.
        let Ok(found) = self.route.get(name, None).await else { return Err(full.of_command()) };
        let held = self.mine(claim, found.kvs().first().cloned())?;
        let revoked = self.route.revoke(held.as_ref().map_or(lease, |held| held.lease)).await;
        let own = self.names.lease_id(claim.holder, seconds(claim.ttl));
        if lease != own {
            self.route.revoke_behind(own);
        }
        match revoked {
            Ok(()) if held.is_some() => Ok(Release::Released),
            Err(trouble) if trouble.lease_not_found() => Ok(Release::NotHeld),
            // Until now there was a lease, which the key may have been on; or no answer came.
            _ => Err(full.of_command()),
        }
    }
}
