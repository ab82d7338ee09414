//! Release: delete the key if it is the holder's, and tell the next in line. Its lease is then
//! ready for the next key.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use lockcore::{BackendError, Claim, Release};

use crate::backend::{EtcdBackend, ROUNDS};
use crate::error;
use crate::leases::Known;
use crate::line::Left;
use crate::spot::{self, Line, Spot, gets};
use crate::trouble::Trouble;

/// Who is first in line.
enum Next {
    Nobody,
    Is(Spot),
    /// The line holds what is none of ours. A release is not refused for that.
    Foreign,
}

impl Next {
    fn of(next: Option<Spot>) -> Self {
        next.map_or(Self::Nobody, Self::Is)
    }
}

impl EtcdBackend {
    pub(crate) async fn give_back(&self, claim: &Claim) -> Result<Release, BackendError> {
        let name = self.names.lease(&claim.key);
        let mut known = self.leases.known(claim);
        let mut next = Next::of(self.next_but(claim, claim.holder));
        for _ in 0..ROUNDS {
            let Some(it) = known else {
                match self.leave(claim).await {
                    Ok(Left::Held(held)) => known = Some(Known::from(&*held)),
                    Ok(Left::Nothing) => {
                        self.see_off(claim, None);
                        return Ok(Release::NotHeld);
                    }
                    Ok(Left::Foreign) => return Err(error::foreign(&name)),
                    Err(full) if full.no_space() => {
                        return self.end(claim, &name, None, full).await;
                    }
                    Err(trouble) => return Err(trouble.of_command()),
                }
                continue;
            };
            let done = match self.route.txn(self.deletion(claim, &name, it, &next)).await {
                Ok(done) => done,
                // A release is never refused for its message.
                Err(trouble) if trouble.no_space() => {
                    return self.end(claim, &name, known, trouble).await;
                }
                Err(trouble) if trouble.lease_not_found() => {
                    next = Next::Nobody;
                    continue;
                }
                Err(trouble) => return Err(trouble.of_command()),
            };
            if done.succeeded() {
                self.places.forget_first(&claim.key);
                if let Some(lease) = self.places.lost(claim) {
                    self.leases.put_back(lease);
                }
                self.see_off(claim, known);
                return Ok(Release::Released { token: it.token });
            }
            let [held, line] = gets(&done)?;
            // It was raised or moved since, or the first in line is another.
            known = self.mine(claim, held.into_iter().next())?.as_ref().map(Known::from);
            let Ok(line) = Line::read(&self.names, &claim.key, &line) else {
                next = Next::Foreign;
                continue;
            };
            next = Next::of(line.first_but(claim.holder).cloned());
            if line.of(claim.holder).is_some() {
                // Of a late copy, ahead of others; or the key has gone, and the place has not.
                known = None;
            } else if known.is_none() {
                // L4: by others nothing is changed.
                self.places.lost(claim);
                self.see_off(claim, None);
                return Ok(Release::NotHeld);
            }
        }
        Err(error::unavailable("the key or its line changed during every one of 100 attempts"))
    }

    /// Deletes the key if it is as it was seen last, and tells the next in line if that is who it
    /// was taken for.
    fn deletion(&self, claim: &Claim, name: &str, known: Known, next: &Next) -> Txn {
        let (names, key) = (&self.names, &claim.key);
        let mut compares = vec![Compare::mod_revision(name, CompareOp::Equal, known.modified)];
        let mut ops =
            vec![TxnOp::delete(name, None), TxnOp::delete(names.place(key, claim.holder), None)];
        match next {
            Next::Is(next) => {
                compares.push(spot::nobody_ahead(names, key, next.created));
                compares.push(next.stands(names, key));
                ops.push(next.mail(names));
            }
            Next::Nobody => compares.push(spot::nobody(names, key)),
            Next::Foreign => {}
        }
        let questions = [TxnOp::get(name, None), spot::everybody(names, key)];
        Txn::new().when(compares).and_then(ops).or_else(questions)
    }

    /// The holder is spent. Its lease is ready for the next key, or of no more use. The leases of
    /// attempts that are in doubt are revoked: such an attempt then takes nothing.
    pub(crate) fn see_off(&self, claim: &Claim, known: Option<Known>) {
        for id in self.leases.released(claim, known) {
            self.revoke_behind(id);
        }
    }

    /// In a store that is full: revoking the lease ends the key too, and that of the place ends the
    /// place. Nobody is told. The transaction may have been carried out all the same.
    async fn end(
        &self,
        claim: &Claim,
        name: &str,
        known: Option<Known>,
        full: Trouble,
    ) -> Result<Release, BackendError> {
        self.places.forget_first(&claim.key);
        let place = self.names.place(&claim.key, claim.holder);
        let Ok(place) = self.route.get(place, None).await else { return Err(full.of_command()) };
        if let Some(place) = place.kvs().first().filter(|place| place.lease() != 0) {
            self.places.lost(claim);
            self.leases.revoking(place.lease());
            match self.route.revoke(place.lease()).await {
                Err(trouble) if !trouble.lease_not_found() => return Err(full.of_command()),
                _ => self.leases.revoked(place.lease()),
            }
        }
        // Behind a transaction in doubt no failure is a definite answer.
        let Ok(found) = self.route.get(name, None).await else { return Err(full.of_command()) };
        let held = self.mine(claim, found.kvs().first().cloned())?;
        let Some(lease) = held.as_ref().map(|held| held.lease).or(known.map(|known| known.lease))
        else {
            self.see_off(claim, None);
            return Ok(Release::NotHeld);
        };
        self.leases.revoking(lease);
        let revoked = self.route.revoke(lease).await;
        let gone = match &revoked {
            Ok(()) => true,
            Err(trouble) => trouble.lease_not_found(),
        };
        if !gone {
            return Err(full.of_command());
        }
        self.leases.revoked(lease);
        match (held, revoked) {
            (Some(held), Ok(())) => {
                self.see_off(claim, None);
                Ok(Release::Released { token: held.token })
            }
            (_, Err(_)) => {
                self.see_off(claim, None);
                Ok(Release::NotHeld)
            }
            // Until now there was a lease, which the key may have been on.
            (None, Ok(())) => Err(full.of_command()),
        }
    }
}
