//! Release: delete the key if it is on the holder's lease, and revoke that lease.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use lockcore::{BackendError, Claim, Release};

use crate::acquire::ROUNDS;
use crate::backend::{EtcdBackend, seconds};
use crate::book;
use crate::error::{self, Trouble};
use crate::keys;

impl EtcdBackend {
    pub(crate) async fn give_back(&self, claim: &Claim) -> Result<Release, BackendError> {
        let name = self.names.lease(&claim.key);
        let own = keys::lease_id(claim.holder, seconds(claim.ttl));
        let mut lease = own;
        for _ in 0..ROUNDS {
            let txn = Txn::new()
                .when([Compare::lease(name.as_str(), CompareOp::Equal, lease)])
                .and_then([TxnOp::delete(name.as_str(), None)])
                .or_else([TxnOp::get(name.as_str(), None)]);
            let done = match self.route.txn(txn).await {
                Ok(done) => done,
                Err(trouble) if trouble.no_space() => return self.end(claim, &name).await,
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

    /// In a store that is full and takes no transactions: revoking the lease ends the key too.
    async fn end(&self, claim: &Claim, name: &str) -> Result<Release, BackendError> {
        let found = self.route.get(name, None).await.map_err(Trouble::of_question)?;
        let Some(held) = self.mine(claim, found.kvs().first().cloned())? else {
            self.route.revoke_behind(keys::lease_id(claim.holder, seconds(claim.ttl)));
            return Ok(Release::NotHeld);
        };
        match self.route.revoke(held.lease).await {
            Ok(()) => Ok(Release::Released),
            Err(trouble) if trouble.lease_not_found() => Ok(Release::NotHeld),
            Err(trouble) => Err(trouble.of_command()),
        }
    }
}
