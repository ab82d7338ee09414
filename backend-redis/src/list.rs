//! Many leases at a glance.

use std::collections::BTreeSet;

use lockcore::{BackendError, LeaseInfo, LockKey};
use redis::{Cmd, Pipeline};

use crate::backend::{RedisBackend, info};
use crate::error;
use crate::route::Reply;
use crate::scripts::INSPECT;

/// Leases looked up in one round trip of a list.
const PAGE: usize = 256;
/// Names a server goes through in one step of a scan, so that it serves others in between.
const STEP: usize = 512;

impl RedisBackend {
    pub(crate) async fn all(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut leases = Vec::new();
        let mut after = after.cloned();
        // What ended or is foreign makes room: scan on from the last key seen.
        while leases.len() < limit {
            let wanted = limit - leases.len();
            let found = self.scan(prefix, after.as_ref(), wanted).await?;
            let found: Vec<LockKey> = found.into_iter().collect();
            for page in found.chunks(PAGE) {
                leases.extend(self.look(page).await?);
            }
            if found.len() < wanted {
                break;
            }
            after = found.last().cloned();
        }
        Ok(leases)
    }

    /// The `limit` smallest keys greater than `after` that seem to be leased.
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<BTreeSet<LockKey>, BackendError> {
        let pattern = self.names.lease_pattern(prefix);
        let mut found = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = Cmd::new();
            scan.arg("SCAN").arg(cursor);
            scan.arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
            let mut ready = self.ready().await?;
            let page = ready.ask(&scan).await.map_err(error::of_question)?;
            let page = redis::from_redis_value::<(u64, Vec<Vec<u8>>)>(page);
            let (next, names) = page.map_err(|_| error::unexpected("SCAN"))?;
            for key in names.iter().filter_map(|name| self.names.key_of_lease(name)) {
                if key.as_str().starts_with(prefix) && after.is_none_or(|after| key > *after) {
                    found.insert(key);
                    if found.len() > limit {
                        found.pop_last();
                    }
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(found);
            }
        }
    }

    /// The leases that stand on these keys. Foreign values are left out: they must not hide the
    /// leases of others.
    async fn look(&self, keys: &[LockKey]) -> Result<Vec<LeaseInfo>, BackendError> {
        let mut calls = Pipeline::with_capacity(keys.len());
        for key in keys {
            calls.add_command(INSPECT.call(&[&self.names.lease(key)], &[]));
        }
        let mut ready = self.ready().await?;
        let answers = ready.run_all(&INSPECT, &calls).await;
        let answers = answers.map_err(error::of_question)?;
        let mut leases = Vec::with_capacity(keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            match Reply::read(answer, "a list") {
                Ok(Reply::Done(fields)) => leases.push(info(key, &fields)?),
                Ok(Reply::No(_)) | Err(BackendError::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(leases)
    }
}
