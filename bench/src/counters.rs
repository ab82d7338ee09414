//! The work of a store, by its own counters.

use std::collections::BTreeMap;
use std::ops::Sub;

use lockcore_postgres::tokio_postgres::Client;
use lockcore_redis::redis::aio::MultiplexedConnection;
use lockcore_redis::redis::{InfoDict, cmd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;
use crate::stores::{self, DISTRIBUTED_LOCK, PLAIN, RSLOCK, Store};

/// Counts since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Commands of clients, statements, or requests. A command in a script is not counted.
    pub(crate) commands: f64,
    /// The time that the store spent on them, in microseconds.
    pub(crate) micros: f64,
    /// etcd: entries of its log.
    pub(crate) proposals: f64,
    /// etcd: messages in both directions on streams that stay open.
    pub(crate) messages: f64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            commands: self.commands - before.commands,
            micros: self.micros - before.micros,
            proposals: self.proposals - before.proposals,
            messages: self.messages - before.messages,
        }
    }
}

/// Reads the counters of one server.
pub(crate) enum Counter {
    Redis(MultiplexedConnection),
    Postgres(Client),
    /// Its host and port.
    Etcd(String),
}

/// Commands that clients send to Redis. Redis also counts the commands that scripts call.
const SENT: [&str; 15] = [
    "evalsha",
    "eval",
    "fcall",
    "script|load",
    "subscribe",
    "unsubscribe",
    "ssubscribe",
    "sunsubscribe",
    "psubscribe",
    "ping",
    "hello",
    "blpop",
    "rpush",
    "client|setinfo",
    "auth",
];
/// Contenders that send SET. Our scripts call it, so there it is not counted.
const SETTERS: [&str; 3] = [PLAIN, RSLOCK, DISTRIBUTED_LOCK];

/// Commands of the bench itself are not among those that it counts, but for Postgres, where its
/// own question is left out.
const STATEMENTS: &str = "SELECT coalesce(sum(calls), 0)::float8, \
    coalesce(sum(total_exec_time), 0)::float8 FROM pg_stat_statements \
    WHERE query NOT LIKE '%pg_stat_statements%'";

impl Counter {
    pub(crate) async fn open(store: Store, urls: &[String]) -> Result<Self> {
        let url = &urls[0];
        match store {
            Store::Redis | Store::Quorum => Ok(Self::Redis(stores::redis::open(url).await?)),
            Store::Postgres => {
                let client = stores::postgres::open(url).await?;
                client.batch_execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").await?;
                Ok(Self::Postgres(client))
            }
            Store::Etcd => {
                Ok(Self::Etcd(url.trim_start_matches("etcd://").trim_end_matches('/').to_owned()))
            }
            Store::Memory => Err("the memory store counts nothing".into()),
        }
    }

    /// The counts up to now. The contender decides which commands are those of clients.
    pub(crate) async fn read(&self, contender: &str) -> Result<Counts> {
        match self {
            Self::Redis(connection) => {
                let mut connection = connection.clone();
                let info: InfoDict =
                    cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
                let mut counts = Counts::default();
                let set = SETTERS.contains(&contender).then_some("set");
                for name in SENT.into_iter().chain(set) {
                    let line: Option<String> = info.get(&format!("cmdstat_{name}"));
                    counts.commands += field(line.as_deref(), "calls");
                    counts.micros += field(line.as_deref(), "usec");
                }
                Ok(counts)
            }
            Self::Postgres(client) => {
                let row = client.query_one(STATEMENTS, &[]).await?;
                let (calls, millis): (f64, f64) = (row.try_get(0)?, row.try_get(1)?);
                Ok(Counts { commands: calls, micros: millis * 1e3, ..Counts::default() })
            }
            Self::Etcd(host) => Ok(of_metrics(&metrics(host).await?)),
        }
    }
}

/// A number in a line such as `calls=21,usec=175,usec_per_call=8.33`.
fn field(line: Option<&str>, name: &str) -> f64 {
    let fields = line.into_iter().flat_map(|line| line.split(','));
    let mut values = fields.filter_map(|field| field.split_once('='));
    values.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0.0)
}

fn of_metrics(text: &str) -> Counts {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let value: f64 = value.parse().unwrap_or(0.0);
        let unary = name.contains("grpc_type=\"unary\"");
        let kind = match name.split('{').next().unwrap_or_default() {
            "etcd_server_proposals_applied_total" => "proposals",
            "grpc_server_started_total" if unary => "unary",
            "grpc_server_msg_received_total" | "grpc_server_msg_sent_total" if !unary => "stream",
            _ => continue,
        };
        *sums.entry(kind).or_default() += value;
    }
    let sum = |kind| sums.get(kind).copied().unwrap_or(0.0);
    Counts {
        commands: sum("unary"),
        micros: 0.0,
        proposals: sum("proposals"),
        messages: sum("stream"),
    }
}

async fn metrics(host: &str) -> Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read() {
        let line = Some("calls=21,usec=175,usec_per_call=8.33");
        assert_eq!(
            (field(line, "calls"), field(line, "usec"), field(None, "calls")),
            (21.0, 175.0, 0.0)
        );
        let counts = of_metrics(
            "# HELP x\netcd_server_proposals_applied_total 7\n\
             grpc_server_started_total{grpc_method=\"Txn\",grpc_type=\"unary\"} 3\n\
             grpc_server_msg_sent_total{grpc_method=\"Txn\",grpc_type=\"unary\"} 3\n\
             grpc_server_msg_sent_total{grpc_method=\"Watch\",grpc_type=\"bidi_stream\"} 2\n\
             grpc_server_msg_received_total{grpc_method=\"Watch\",grpc_type=\"bidi_stream\"} 1\n",
        );
        assert_eq!((counts.commands, counts.proposals, counts.messages), (3.0, 7.0, 3.0));
    }
}
