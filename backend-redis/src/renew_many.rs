//! Many renewals in one round trip.

use lockcore::{BackendError, Claim, LockBackend, Renew};
use redis::{Cmd, Pipeline, RedisError, Value};

use crate::backend::{RedisBackend, stored_millis};
use crate::call::Call;
use crate::error;
use crate::join::join_all;
use crate::route::{Ready, Route};
use crate::scripts::RENEW_MANY;

/// Leases renewed by one script: the server does nothing else meanwhile.
const SCRIPT: usize = 100;

/// The server is too full for a renewal that raises a token.
const FULL: Value = Value::Int(-2);

impl RedisBackend {
    pub(crate) async fn renew_all(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        let plain = claims.iter().all(|claim| self.limits().check(claim).is_ok());
        // A connection that follows a cluster takes a call for the keys of one slot.
        let Route::Own(link) = self.route.clone() else { return self.renew_each(claims).await };
        if claims.is_empty() {
            return Vec::new();
        }
        if !plain {
            return self.renew_each(claims).await;
        }
        let mut ready = match link.connected().await {
            Ok(connected) if connected.is_clustered() => return self.renew_each(claims).await,
            Ok(connected) => Ready::new(connected),
            Err(error) => return claims.iter().map(|_| Err(error.clone().into())).collect(),
        };
        match self.renew_together(&mut ready, claims).await {
            Err(refused) if error::is_crossslot(&refused) => {
                if let Some(connected) = &ready.connected {
                    connected.found_clustered();
                }
                self.renew_each(claims).await
            }
            Err(error) => claims.iter().map(|_| Err(error::of_command(error.clone()))).collect(),
            Ok(answers) => answers,
        }
    }

    /// A call each, all at once.
    async fn renew_each(&self, claims: &[Claim]) -> Vec<Result<Renew, BackendError>> {
        join_all(claims.iter().map(|claim| self.renew(claim))).await
    }

    fn renew_many_call(&self, claims: &[Claim]) -> Cmd {
        let mut call = Call::new(&RENEW_MANY, claims.len(), 3 * claims.len() + 1);
        for claim in claims {
            call.record(&self.names, &claim.key);
        }
        for claim in claims {
            call.holder(claim.holder);
        }
        for claim in claims {
            call.number(stored_millis(claim.ttl));
        }
        for claim in claims {
            call.least_token(claim);
        }
        call.text(self.padded_retention());
        call.done()
    }

    /// Few scripts for all of them.
    async fn renew_together(
        &self,
        ready: &mut Ready,
        claims: &[Claim],
    ) -> Result<Vec<Result<Renew, BackendError>>, RedisError> {
        let mut calls = Pipeline::new();
        for claims in claims.chunks(SCRIPT) {
            calls.add_command(self.renew_many_call(claims));
        }
        // In this order: see `RedisBackend::grant`.
        let asks = claims.iter().any(|claim| claim.incarnation);
        let asks = ready.connected.clone().filter(|_| asks).map(|connected| {
            let (question, ask) = connected.memory.question(&self.names.incarnation());
            calls.add_command(ask);
            (connected, question)
        });
        let mut replies = ready.run_all(&calls).await?;
        let incarnation = match asks {
            Some((connected, question)) => {
                let told = replies.pop().unwrap_or(Ok(Value::Nil));
                self.incarnation(ready, &connected, &question, told).await
            }
            None => None,
        };
        let mut renewed = Vec::with_capacity(claims.len());
        for (claims, reply) in claims.chunks(SCRIPT).zip(replies) {
            let mut answers = match reply {
                Ok(Value::Array(answers)) => answers.into_iter(),
                Ok(_) => Vec::new().into_iter(),
                Err(error) if error::is_crossslot(&error) => return Err(error),
                Err(error) => {
                    let failed = || Err(error::of_command(error.clone()));
                    renewed.extend(claims.iter().map(|_| failed()));
                    continue;
                }
            };
            for claim in claims {
                // Without an answer of its own, `Value::Okay`: nothing that the script says.
                let answer = answers.next().unwrap_or(Value::Okay);
                if answer == FULL {
                    renewed.push(self.renew(claim).await);
                    continue;
                }
                let incarnation = incarnation.filter(|_| claim.incarnation);
                renewed.push(self.answers("a renewal", claim).renew(Ok(answer), incarnation));
            }
        }
        Ok(renewed)
    }
}
