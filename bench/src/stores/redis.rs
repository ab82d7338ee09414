//! Redis: our scripts on the bare driver, the plain lock, the direct grant, and the peers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use distributed_lock_core::{DistributedLock, LockHandle, LockProvider};
use distributed_lock_redis::RedisLockProvider;
use lockcore::LockManager;
use lockcore_redis::RedisBackend;
use lockcore_redis::redis::aio::MultiplexedConnection;
use lockcore_redis::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Value, cmd};

use super::names::{DIRECT, DISTRIBUTED_LOCK, PLAIN, POLLING, RAW, RSLOCK, SWAP, hex, unknown};
use crate::contender::{Contender, Fused, Held, Leaselock, Swap, TTL};
use crate::{Failure, Result};

/// A script as the backend puts it together.
macro_rules! ours {
    ($file:literal) => {
        include_str!(concat!("../../../backend-redis/src/lua/", $file))
    };
}

fn made_out(script: &str) -> String {
    script.replace("-- @line", ours!("line.lua")).replace("-- @foreign", ours!("foreign.lua"))
}

const COMPARE_AND_DELETE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
const COMPARE_AND_SET: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1 end return 0";

/// For how long the backend keeps a token, in ms: as a number, and as the record has it.
const RETENTION: u64 = 3_600_000;
const PADDED: &str = "0000003600000";
/// How often `distributed-lock` is asked again: it does not wait by itself.
const ASK_AGAIN: Duration = Duration::from_millis(10);

pub(super) async fn connect(name: &str, url: &str) -> Result<Arc<dyn Contender>> {
    Ok(match name {
        RAW => Arc::new(Raw(Scripts::connect(url).await?)),
        PLAIN => Arc::new(Plain(Scripts::connect(url).await?)),
        SWAP => Arc::new(Fused::new(Scripts::connect(url).await?)),
        DIRECT => Arc::new(List { waits: open(url).await?, tells: open(url).await? }),
        POLLING => {
            let backend = RedisBackend::from_connection(open(url).await?);
            Arc::new(Leaselock(LockManager::builder(backend).ttl(TTL).build()?))
        }
        RSLOCK => Arc::new(Rslock::new(vec![url.to_owned()])),
        DISTRIBUTED_LOCK => {
            let provider = RedisLockProvider::builder().url(url).expiry(TTL).build().await;
            Arc::new(Other(provider?))
        }
        _ => return Err(unknown(name)),
    })
}

/// A connection as the backend opens it.
pub(crate) async fn open(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// A connection, and the hashes of the scripts.
#[derive(Clone)]
pub(super) struct Scripts {
    connection: MultiplexedConnection,
    acquire: Arc<str>,
    release: Arc<str>,
    delete: Arc<str>,
    swap: Arc<str>,
}

impl Scripts {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let mut connection = open(url).await?;
        let mut hashes = Vec::new();
        let [acquire, release] = [ours!("acquire.lua"), ours!("release.lua")].map(made_out);
        for script in [&*acquire, &*release, COMPARE_AND_DELETE, COMPARE_AND_SET] {
            let mut load = cmd("SCRIPT");
            let hash: String = load.arg("LOAD").arg(script).query_async(&mut connection).await?;
            hashes.push(Arc::from(hash));
        }
        let [acquire, release, delete, swap] =
            <[Arc<str>; 4]>::try_from(hashes).map_err(|_| "four scripts")?;
        Ok(Self { connection, acquire, release, delete, swap })
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        Ok(command.query_async(&mut self.connection.clone()).await?)
    }

    /// Sends what the backend sends to acquire a key.
    pub(super) async fn acquire(&self, key: &str, holder: &str) -> Result<()> {
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg(&*self.acquire).arg(1).arg(format!("raw:{{{key}}}"));
        call.arg(format!("2|{holder}")).arg(millis()).arg(PADDED).arg(millis() + RETENTION);
        call.arg("bench").arg("");
        granted(&self.run::<Value>(&call).await?)
    }

    /// Sends what the backend sends to release it.
    pub(super) async fn release(&self, key: &str, holder: &str) -> Result<()> {
        let mut call = Cmd::new();
        call.arg("EVALSHA").arg(&*self.release).arg(1).arg(format!("raw:{{{key}}}"));
        call.arg(format!("2|{holder}")).arg(PADDED).arg(RETENTION).arg("");
        granted(&self.run::<Value>(&call).await?)
    }
}

/// Both scripts answer the token where they did what they are for.
fn granted(answer: &Value) -> Result<()> {
    match answer {
        Value::BulkString(token) if token.len() == 16 => Ok(()),
        other => Err(format!("a script answered {other:?}").into()),
    }
}

fn millis() -> u64 {
    u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)
}

struct Raw(Scripts);

#[async_trait]
impl Contender for Raw {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let holder = hex(fastrand::u128(..));
        self.0.acquire(key, &holder).await?;
        let (scripts, key) = (self.0.clone(), key.to_owned());
        Ok(Held::new(async move { scripts.release(&key, &holder).await }))
    }
}

/// SET NX PX, and a script that deletes the key if the value is still ours.
struct Plain(Scripts);

#[async_trait]
impl Contender for Plain {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let (name, holder) = (format!("plain:{key}"), hex(fastrand::u128(..)));
        let mut set = cmd("SET");
        set.arg(&name).arg(&holder).arg("NX").arg("PX").arg(millis());
        if self.0.run::<Option<String>>(&set).await?.is_none() {
            return Err("held".into());
        }
        let scripts = self.0.clone();
        Ok(Held::new(async move {
            let mut delete = cmd("EVALSHA");
            delete.arg(&*scripts.delete).arg(1).arg(name).arg(holder);
            done(scripts.run(&delete).await?)
        }))
    }
}

fn done(changed: u32) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err("the lock was lost".into()) }
}

#[async_trait]
impl Swap for Scripts {
    async fn swap(&self, key: &str, last: Option<u128>, next: u128) -> Result<()> {
        let name = format!("swap:{key}");
        let Some(last) = last else {
            let mut set = cmd("SET");
            set.arg(name).arg(hex(next)).arg("PX").arg(millis());
            return self.run::<()>(&set).await;
        };
        let mut swap = cmd("EVALSHA");
        swap.arg(&*self.swap).arg(1).arg(name).arg(hex(last)).arg(hex(next)).arg(millis());
        done(self.run(&swap).await?)
    }
}

/// A list with one element, which the holder has. Redis itself wakes the first who waits.
struct List {
    waits: MultiplexedConnection,
    tells: MultiplexedConnection,
}

#[async_trait]
impl Contender for List {
    async fn prepare(&self, key: &str) -> Result<()> {
        Ok(cmd("RPUSH").arg(key).arg(1).query_async(&mut self.tells.clone()).await?)
    }

    async fn acquire(&self, key: &str) -> Result<Held> {
        let mut waits = self.waits.clone();
        let _: Value = cmd("BLPOP").arg(key).arg(0).query_async(&mut waits).await?;
        let (mut tells, key) = (self.tells.clone(), key.to_owned());
        Ok(Held::new(
            async move { Ok(cmd("RPUSH").arg(key).arg(1).query_async(&mut tells).await?) },
        ))
    }
}

/// `rslock`, also on several servers.
pub(super) struct Rslock(rslock::LockManager);

impl Rslock {
    pub(super) fn new(urls: Vec<String>) -> Self {
        Self(rslock::LockManager::new(urls))
    }
}

#[async_trait]
impl Contender for Rslock {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let guard = self.0.acquire(&*format!("rslock:{key}"), TTL).await?;
        Ok(Held::new(async move {
            guard.release().await;
            Ok(())
        }))
    }
}

struct Other(RedisLockProvider);

#[async_trait]
impl Contender for Other {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let lock = self.0.create_lock(&format!("dl:{key}"));
        loop {
            if let Some(handle) = lock.try_acquire().await? {
                return Ok(Held::new(async move { handle.release().await.map_err(Failure::from) }));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
