//! Where attempts have their leases of etcd's from: those that are ready, and new ones.

use std::time::Duration;

use lockcore::{BackendError, Claim};

use crate::attempt::Attempt;
use crate::backend::EtcdBackend;
use crate::leases::class_of;
use crate::moment::Moment;
use crate::trouble::Trouble;

impl EtcdBackend {
    /// With a lease that is ready, and has as much of its ttl before it as is wanted.
    pub(crate) async fn ready(
        &self,
        claim: &Claim,
        wanted: Duration,
        asked: &Moment,
    ) -> Result<Option<Attempt>, BackendError> {
        let attempt = Attempt::with_ready(&self.leases, claim, class_of(wanted));
        let Some(mut attempt) = attempt else { return Ok(None) };
        if attempt.lease().is_some_and(|lease| lease.left(asked) >= wanted) {
            return Ok(Some(attempt));
        }
        let began = Moment::now();
        let kept = self.route.keep_alive(attempt.id()).await.map_err(Trouble::of_question)?;
        if !kept.alive {
            attempt.ended();
            return Ok(None);
        }
        attempt.kept(began, kept.term);
        Ok(Some(attempt))
    }

    /// With a lease that is granted now.
    pub(crate) async fn fresh(&self, claim: &Claim, class: u32) -> Result<Attempt, BackendError> {
        let mut attempt = Attempt::with_new(&self.leases, claim, class);
        let (began, reached) = (Moment::now(), self.book.reached());
        match self.route.grant(attempt.id(), class).await {
            Ok(grant) => attempt.granted(grant.seconds, began, grant.state, reached),
            Err(trouble) => {
                let error = trouble.of_grant();
                if !matches!(error, BackendError::Ambiguous(_)) {
                    attempt.decided();
                }
                return Err(error);
            }
        }
        Ok(attempt)
    }
}
