//! Postgres: our statements on the bare driver, the plain lock, the direct grant, and a peer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::BytesMut;
use distributed_lock_core::{DistributedLock, LockHandle, LockProvider};
use distributed_lock_postgres::PostgresLockProvider;
use lockcore::LockManager;
use lockcore_postgres::PostgresBackend;
use lockcore_postgres::tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};
use lockcore_postgres::tokio_postgres::{Client, NoTls, Statement, connect as dial};

use super::names::{DIRECT, DISTRIBUTED_LOCK, PLAIN, POLLING, RAW, SWAP, hex, unknown};
use crate::contender::{Contender, Fused, Held, Leaselock, Swap, TTL};
use crate::{Failure, Result};

macro_rules! ours {
    ($file:literal) => {
        include_str!(concat!("../../../backend-postgres/src/sql/", $file))
    };
}

const TABLE: &str = "bench_raw";
const NOW_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const PLAIN_TABLE: &str = "CREATE TABLE IF NOT EXISTS bench_plain \
    (key bytea PRIMARY KEY, holder uuid NOT NULL, ends timestamptz NOT NULL)";
const UPSERT: &str = "INSERT INTO bench_plain AS lease (key, holder, ends) \
    VALUES ($1, $2::text::uuid, clock_timestamp() + $3 * interval '1 microsecond') \
    ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, ends = excluded.ends \
    WHERE lease.ends < clock_timestamp()";
const DELETE: &str = "DELETE FROM bench_plain WHERE key = $1 AND holder = $2::text::uuid";
const REPLACE: &str =
    "UPDATE bench_plain SET holder = $3::text::uuid WHERE key = $1 AND holder = $2::text::uuid";

pub(super) async fn connect(name: &str, url: &str) -> Result<Arc<dyn Contender>> {
    Ok(match name {
        RAW => Arc::new(Raw(Arc::new(Statements::connect(url).await?))),
        PLAIN => Arc::new(Plain(Arc::new(Rows::connect(url).await?))),
        SWAP => Arc::new(Fused::new(Rows::connect(url).await?)),
        DIRECT => Arc::new(Advisory(Arc::new(open(url).await?))),
        POLLING => {
            let backend = PostgresBackend::from_client(open(url).await?);
            backend.ensure_schema().await?;
            Arc::new(Leaselock(LockManager::builder(backend).ttl(TTL).build()?))
        }
        DISTRIBUTED_LOCK => {
            let provider = PostgresLockProvider::builder().connection_string(url).build().await;
            Arc::new(Other(provider?))
        }
        _ => return Err(unknown(name)),
    })
}

pub(crate) async fn open(url: &str) -> Result<Client> {
    let (client, connection) = dial(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A statement as the backend makes it out: on one line, without comments.
fn made_out(sql: &str) -> String {
    let lines = sql.lines().map(str::trim).filter(|line| !line.starts_with("--"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    words
        .join(" ")
        .replace("{hears}", "place.listener >= 0")
        .replace("{incarnation}", "")
        .replace("{incarnation_columns}", "")
        .replace("{now_us}", NOW_US)
        .replace("{table}", TABLE)
}

/// A uuid, in binary.
#[derive(Debug)]
struct Uuid(u128);

impl ToSql for Uuid {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

fn micros() -> i64 {
    i64::try_from(TTL.as_micros()).unwrap_or(i64::MAX)
}

/// The backend's statements, prepared on one connection.
struct Statements {
    client: Client,
    acquire: Statement,
    release: Statement,
}

impl Statements {
    async fn connect(url: &str) -> Result<Self> {
        let client = open(url).await?;
        create(&client, &made_out(ours!("create.sql"))).await?;
        let acquire = made_out(ours!("acquire.sql"));
        let types = [Type::BYTEA, Type::UUID, Type::INT8, Type::INT8, Type::BYTEA];
        let acquire = client.prepare_typed(&acquire, &types).await?;
        let release = made_out(ours!("release.sql"));
        let release = client.prepare_typed(&release, &[Type::BYTEA, Type::UUID]).await?;
        Ok(Self { client, acquire, release })
    }

    async fn acquire(&self, key: &[u8], holder: &Uuid) -> Result<()> {
        let params: [&(dyn ToSql + Sync); 5] = [&key, holder, &micros(), &0_i64, &&b"bench"[..]];
        let row = self.client.query_one(&self.acquire, &params).await?;
        let token: Option<i64> = row.try_get("token")?;
        token.map(drop).ok_or_else(|| "held".into())
    }

    async fn release(&self, key: &[u8], holder: &Uuid) -> Result<()> {
        let row = self.client.query_one(&self.release, &[&key, holder]).await?;
        let token: Option<i64> = row.try_get("token")?;
        done(token.is_some())
    }
}

/// Several processes that create a table at once may hinder each other even with IF NOT EXISTS.
async fn create(client: &Client, sql: &str) -> Result<()> {
    let transaction = format!("BEGIN; SELECT pg_advisory_xact_lock(7); {sql}; COMMIT");
    Ok(client.batch_execute(&transaction).await?)
}

fn done(done: bool) -> Result<()> {
    if done { Ok(()) } else { Err("the lock was lost".into()) }
}

struct Raw(Arc<Statements>);

#[async_trait]
impl Contender for Raw {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let (key, holder) = (key.as_bytes().to_vec(), Uuid(fastrand::u128(..)));
        self.0.acquire(&key, &holder).await?;
        let statements = Arc::clone(&self.0);
        Ok(Held::new(async move { statements.release(&key, &holder).await }))
    }
}

/// The plain lock's statements.
struct Rows {
    client: Client,
    upsert: Statement,
    delete: Statement,
    replace: Statement,
}

impl Rows {
    async fn connect(url: &str) -> Result<Self> {
        let client = open(url).await?;
        create(&client, PLAIN_TABLE).await?;
        let types = [Type::BYTEA, Type::TEXT, Type::INT8];
        let upsert = client.prepare_typed(UPSERT, &types).await?;
        let delete = client.prepare(DELETE).await?;
        let replace = client.prepare(REPLACE).await?;
        Ok(Self { client, upsert, delete, replace })
    }

    async fn take(&self, key: &[u8], holder: &str) -> Result<()> {
        done(self.client.execute(&self.upsert, &[&key, &holder, &micros()]).await? == 1)
    }
}

struct Plain(Arc<Rows>);

#[async_trait]
impl Contender for Plain {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let (key, holder) = (key.as_bytes().to_vec(), hex(fastrand::u128(..)));
        self.0.take(&key, &holder).await?;
        let rows = Arc::clone(&self.0);
        Ok(Held::new(async move {
            done(rows.client.execute(&rows.delete, &[&key, &holder]).await? == 1)
        }))
    }
}

#[async_trait]
impl Swap for Rows {
    async fn swap(&self, key: &str, last: Option<u128>, next: u128) -> Result<()> {
        let (key, next) = (key.as_bytes(), hex(next));
        let Some(last) = last else { return self.take(key, &next).await };
        let params: [&(dyn ToSql + Sync); 3] = [&key, &hex(last), &next];
        done(self.client.execute(&self.replace, &params).await? == 1)
    }
}

/// A blocking advisory lock: Postgres itself wakes the first who waits. One session per process.
struct Advisory(Arc<Client>);

#[async_trait]
impl Contender for Advisory {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let key = key.to_owned();
        self.0.execute("SELECT pg_advisory_lock(hashtext($1))", &[&key]).await?;
        let client = Arc::clone(&self.0);
        Ok(Held::new(async move {
            client.execute("SELECT pg_advisory_unlock(hashtext($1))", &[&key]).await?;
            Ok(())
        }))
    }
}

struct Other(PostgresLockProvider);

#[async_trait]
impl Contender for Other {
    async fn acquire(&self, key: &str) -> Result<Held> {
        let handle = self.0.create_lock(key).acquire(None).await?;
        Ok(Held::new(async move { handle.release().await.map_err(Failure::from) }))
    }
}
