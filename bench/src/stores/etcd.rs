//! etcd: the backend's transactions by hand, the plain lock, the direct grant, and etcd's own lock.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lockcore_etcd::etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, LockOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, WatchOptions,
};

use super::names::{DIRECT, LOCK_SERVICE, PLAIN, RAW, SWAP, hex, unknown};
use crate::Result;
use crate::contender::{Contender, Fused, Held, Swap};

/// In seconds: for leases that outlive a whole measurement, so that nobody keeps them alive.
const LONG: i64 = 300;

pub(super) async fn connect(name: &str, url: &str) -> Result<Arc<dyn Contender>> {
    let client = open(url).await?;
    Ok(match name {
        RAW => {
            client.clone().put(MEMORY, RECORD, None).await?;
            Arc::new(Raw { client, ready: Arc::default() })
        }
        PLAIN => Arc::new(Plain(Shared::new(client).await?)),
        SWAP => Arc::new(Fused::new(Shared::new(client).await?)),
        DIRECT => Arc::new(Predecessor(Shared::new(client).await?)),
        LOCK_SERVICE => Arc::new(LockService { client, idle: Arc::default() }),
        _ => return Err(unknown(name)),
    })
}

/// The backend's URLs begin with `etcd://`.
pub(crate) async fn open(url: &str) -> Result<Client> {
    let host = url.trim_start_matches("etcd://").trim_end_matches('/');
    Ok(Client::connect([format!("http://{host}")], None).await?)
}

fn done(done: bool) -> Result<()> {
    if done { Ok(()) } else { Err("held, or lost".into()) }
}

const MEMORY: &str = "raw/memory";
const RAISED: &str = "raw/raised/0000";
const RECORD: &str = "1|cdf8181e3bcff2d2|0f0c2f6f6d2f4f0f9f5a6a1d1c3e7b21|1795340000000000";

/// As the backend does it: an acquire puts the key on a lease that is ready, a release deletes the
/// key, and the lease is ready for the next.
struct Raw {
    client: Client,
    ready: Arc<Mutex<Vec<i64>>>,
}

#[async_trait]
impl Contender for Raw {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let (mut client, name) = (self.client.clone(), format!("raw/lease/{key}"));
        let ready = Arc::clone(&self.ready);
        let lease = ready.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lease = match lease {
            Some(lease) => lease,
            None => client.lease_grant(LONG, None).await?.id(),
        };
        let record = format!("1|{}|30|1795340000000000|0|bench", hex(fastrand::u128(..)));
        let on = PutOptions::new().with_lease(lease);
        let txn = Txn::new()
            .when([
                Compare::create_revision(&*name, CompareOp::Equal, 0),
                Compare::value(MEMORY, CompareOp::Equal, RECORD),
                Compare::create_revision(RAISED, CompareOp::Equal, 0),
            ])
            .and_then([TxnOp::put(&*name, record, Some(on))])
            .or_else([
                TxnOp::get(&*name, None),
                TxnOp::get(MEMORY, None),
                TxnOp::get(RAISED, None),
            ]);
        let mut put = client.txn(txn).await?;
        done(put.succeeded())?;
        let put = put.take_header().ok_or("no header")?.revision();
        Ok(Held::new(async move {
            let txn = Txn::new()
                .when([Compare::mod_revision(&*name, CompareOp::Equal, put)])
                .and_then([TxnOp::delete(&*name, None)])
                .or_else([TxnOp::get(&*name, None)]);
            done(client.txn(txn).await?.succeeded())?;
            ready.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
            Ok(())
        }))
    }
}

/// A client and one lease for all of its keys.
#[derive(Clone)]
struct Shared {
    client: Client,
    lease: i64,
}

impl Shared {
    async fn new(mut client: Client) -> Result<Self> {
        let lease = client.lease_grant(LONG, None).await?.id();
        Ok(Self { client, lease })
    }

    async fn create(&self, name: &str, value: String) -> Result<()> {
        let on = PutOptions::new().with_lease(self.lease);
        let txn = Txn::new()
            .when([Compare::create_revision(name, CompareOp::Equal, 0)])
            .and_then([TxnOp::put(name, value, Some(on))]);
        done(self.client.clone().txn(txn).await?.succeeded())
    }
}

struct Plain(Shared);

#[async_trait]
impl Contender for Plain {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let name = format!("plain/{key}");
        self.0.create(&name, hex(fastrand::u128(..))).await?;
        let mut client = self.0.client.clone();
        Ok(Held::new(async move { done(client.delete(name, None).await?.deleted() == 1) }))
    }
}

#[async_trait]
impl Swap for Shared {
    async fn swap(&self, key: &str, last: Option<u128>, next: u128) -> Result<()> {
        let name = format!("swap/{key}");
        let Some(last) = last else { return self.create(&name, hex(next)).await };
        let on = PutOptions::new().with_lease(self.lease);
        let txn = Txn::new()
            .when([Compare::value(&*name, CompareOp::Equal, hex(last))])
            .and_then([TxnOp::put(&*name, hex(next), Some(on))]);
        done(self.client.clone().txn(txn).await?.succeeded())
    }
}

/// A queue of keys, each of whose writers watches the one before its own.
struct Predecessor(Shared);

#[async_trait]
impl Contender for Predecessor {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let mut client = self.0.client.clone();
        let queue = format!("queue/{key}/");
        let own = format!("{queue}{}", hex(fastrand::u128(..)));
        let on = PutOptions::new().with_lease(self.0.lease);
        let mut put = client.put(&*own, "", Some(on)).await?;
        let created = put.take_header().ok_or("no header")?.revision();
        let before = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_max_create_revision(created - 1)
            .with_limit(1);
        let mut found = client.get(&*queue, Some(before)).await?;
        let seen = found.take_header().ok_or("no header")?.revision();
        if let Some(before) = found.kvs().first() {
            let from = WatchOptions::new().with_start_revision(seen + 1);
            let mut events = client.watch(before.key(), Some(from)).await?;
            'until_gone: while let Some(answer) = events.message().await? {
                for event in answer.events() {
                    if event.event_type() == EventType::Delete {
                        break 'until_gone;
                    }
                }
            }
        }
        Ok(Held::new(async move { done(client.delete(own, None).await?.deleted() == 1) }))
    }
}

/// etcd's lock service. Two acquisitions on one lease do not exclude each other, so each of those
/// that are under way has a lease of its own, which is used again afterwards.
struct LockService {
    client: Client,
    idle: Arc<Mutex<Vec<i64>>>,
}

#[async_trait]
impl Contender for LockService {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let (mut client, idle) = (self.client.clone(), Arc::clone(&self.idle));
        let lease = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lease = match lease {
            Some(lease) => lease,
            None => client.lease_grant(LONG, None).await?.id(),
        };
        let options = LockOptions::new().with_lease(lease);
        let own = client.lock(format!("lock/{key}"), Some(options)).await?.key().to_vec();
        Ok(Held::new(async move {
            client.unlock(own).await?;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
            Ok(())
        }))
    }
}
