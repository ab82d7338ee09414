//! A majority of five Redis: all five at once on bare drivers, the library's quorum, and `rslock`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use lockcore::LockManager;
use lockcore_combinators::Quorum;
use lockcore_redis::RedisBackend;

use super::names::{RAW, RSLOCK, hex, unknown};
use super::redis::{Rslock, Scripts};
use crate::Result;
use crate::contender::{Contender, Held};

/// A server counts only when it has been up for the longest ttl: kept short, so that a new one
/// does soon.
const MAX_TTL: Duration = Duration::from_secs(2);
const UP_LIMIT: Duration = Duration::from_secs(15);

pub(super) async fn connect(name: &str, urls: &[String]) -> Result<Arc<dyn Contender>> {
    match name {
        RSLOCK => Ok(Arc::new(Rslock::new(urls.to_vec()))),
        RAW => {
            let mut nodes = Vec::new();
            for url in urls {
                nodes.push(Scripts::connect(url).await?);
            }
            Ok(Arc::new(All(nodes)))
        }
        _ => Err(unknown(name)),
    }
}

/// The library's quorum, once its servers count.
pub(super) async fn manager(urls: &[String]) -> Result<LockManager> {
    let mut quorum = Quorum::builder().max_ttl(MAX_TTL);
    for (n, url) in urls.iter().enumerate() {
        quorum = quorum.node(format!("node {n}"), RedisBackend::connect(url).await?);
    }
    let quorum = LockManager::builder(quorum.build()?).ttl(MAX_TTL).label("bench").build()?;
    let first = tokio::time::timeout(UP_LIMIT, async {
        loop {
            if let Ok(guard) = quorum.lock("first")?.acquire().await {
                return guard.release().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    first.await??;
    Ok(quorum)
}

/// Sends to all five at once and waits for all of them.
///
/// Not for a majority: a request that is dropped may not have been sent yet, and the release of the
/// same key would then come before its acquire.
struct All(Vec<Scripts>);

#[async_trait]
impl Contender for All {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let holder = hex(fastrand::u128(..));
        try_join_all(self.0.iter().map(|node| node.acquire(key, &holder))).await?;
        let (nodes, key) = (self.0.clone(), key.to_owned());
        Ok(Held::new(async move {
            try_join_all(nodes.iter().map(|node| node.release(&key, &holder))).await?;
            Ok(())
        }))
    }
}
