//! Many leases at a glance.

use std::collections::BTreeMap;

use lockcore::{BackendError, LeaseInfo, LockBackend, LockKey};
use redis::{Cmd, Pipeline};

use crate::answers::Answers;
use crate::backend::RedisBackend;
use crate::call::Call;
use crate::error;
use crate::join::join_all;
use crate::route::Route;
use crate::scripts::INSPECT;
use crate::server::text;

/// Names a server goes through in one step of a scan, so that it serves others in between.
const STEP: usize = 512;

impl RedisBackend {
    pub(crate) async fn all(
        &self,
        prefix: &str,
        after: Option<&LockKey>,
        limit: usize,
    ) -> Result<Vec<LeaseInfo>, BackendError> {
        self.shows_all(prefix).await?;
        let mut leases = BTreeMap::new();
        if limit == 0 {
            return Ok(Vec::new());
        }
        let pattern = self.names.record_pattern(prefix);
        let mut cursor = 0_u64;
        loop {
            let mut scan = Cmd::new();
            scan.arg("SCAN").arg(cursor);
            scan.arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
            let page = self.ready().await?.ask(&scan).await.map_err(error::of_question)?;
            let page = redis::from_redis_value::<(u64, Vec<Vec<u8>>)>(page);
            let (next, names) = page.map_err(|_| error::unexpected("SCAN"))?;
            let mut keys: Vec<_> =
                names.iter().filter_map(|name| self.names.key_of_record(name)).collect();
            // Only the first `limit` count: what comes after them is not looked at.
            let last = leases.last_key_value().filter(|_| leases.len() == limit);
            let last = last.map(|(key, _): (&LockKey, &LeaseInfo)| key.clone());
            keys.retain(|key| {
                key.as_str().starts_with(prefix)
                    && after.is_none_or(|after| key > after)
                    && last.as_ref().is_none_or(|last| key < last)
                    && !leases.contains_key(key)
            });
            for lease in self.look(&keys).await? {
                leases.insert(lease.key.clone(), lease);
                if leases.len() > limit {
                    leases.pop_last();
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(leases.into_values().collect());
            }
        }
    }

    /// Refuses a server that shows a part of the keys for all of them: each of a cluster has the
    /// keys of its own slots, and nobody may take those for all.
    async fn shows_all(&self, prefix: &str) -> Result<(), BackendError> {
        let mut ready = self.ready().await?;
        let in_cluster = match &ready.connected {
            Some(connected) if connected.is_clustered() => true,
            _ => {
                // Records of two slots in one call, which a server of a cluster refuses. Unlike what
                // tells of clusters, that needs no right.
                let mut call = Call::new(&INSPECT, 2, 0);
                for end in ["0", "1"] {
                    call.text(&self.names.stem_of(prefix, end));
                }
                let answer = ready.run(&INSPECT, &call.done()).await;
                answer.is_err_and(|error| error::is_crossslot(&error))
            }
        };
        if !in_cluster {
            return Ok(());
        }
        let mut ask = Cmd::new();
        ask.arg("CLUSTER").arg("INFO");
        let told = ready.ask(&ask).await.map_err(error::of_question)?;
        // A cluster of one has all keys.
        let is_alone = text(&told)
            .is_some_and(|told| told.lines().any(|line| line.trim() == "cluster_size:1"));
        if is_alone {
            return Ok(());
        }
        Err(BackendError::rejected(error::Failure::new(
            "a server of a Redis Cluster shows the keys of its own slots alone, so not all locks can \
             be listed; they can be inspected, key by key",
        )))
    }

    /// The leases that stand on these keys. Other records are left out: they must not hide the
    /// leases of others.
    async fn look(&self, keys: &[LockKey]) -> Result<Vec<LeaseInfo>, BackendError> {
        let looked = match &self.route {
            // A connection that follows a cluster takes the calls of one slot at a time.
            Route::Lent(_) => join_all(keys.iter().map(|key| self.inspect(key))).await,
            Route::Own(_) if keys.is_empty() => return Ok(Vec::new()),
            Route::Own(_) => {
                let mut calls = Pipeline::with_capacity(keys.len());
                for key in keys {
                    calls.add_command(self.inspect_call(key));
                }
                let answers = self.ready().await?.run_all(&calls).await;
                let answers = answers.map_err(error::of_question)?;
                let read =
                    |(key, answer)| Answers::question("a list", &self.names, key).inspect(answer);
                keys.iter().zip(answers).map(read).collect()
            }
        };
        let mut leases = Vec::with_capacity(keys.len());
        for (key, info) in keys.iter().zip(looked) {
            match info {
                Ok(info) => leases.extend(info),
                Err(BackendError::Rejected(reason)) => {
                    tracing::debug!(lock.key = %key, %reason, "not listed");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(leases)
    }
}
