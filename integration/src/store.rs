//! A look at Redis past the locks.

use std::time::{Duration, Instant};

use leaselock::redis::redis::aio::MultiplexedConnection;
use leaselock::redis::redis::{self, FromRedisValue, RedisResult};
use lockcore_conformance::Fault;
use lockcore_conformance::servers::{RedisOptions, RedisServer};

use crate::SLACK;

/// A server of the test's own that keeps nothing on disk.
///
/// # Panics
///
/// If there is none to be had.
pub async fn server() -> RedisServer {
    start(RedisOptions::new()).await
}

/// A server of the test's own.
///
/// # Panics
///
/// If there is none to be had.
pub async fn start(options: RedisOptions) -> RedisServer {
    RedisServer::start(options.private()).await.expect("a server")
}

/// Breaks or mends a server.
///
/// # Panics
///
/// If it cannot be done.
pub async fn inflict(server: &RedisServer, fault: Fault) {
    assert!(server.inflict(fault).await, "{fault}: {} is not ours", server.about());
}

/// A connection of the driver's.
///
/// # Panics
///
/// If the server cannot be reached.
pub async fn connection(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a URL");
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    connection.await.expect("a server")
}

/// Asks one command of words.
///
/// # Errors
///
/// The driver's, which has the server's words.
pub async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> RedisResult<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command.query_async(connection).await
}

/// How many scripts the server has been asked to run, as it counts.
///
/// # Panics
///
/// If it does not say.
pub async fn scripts(connection: &mut MultiplexedConnection) -> u64 {
    let info: String = ask(connection, &["INFO", "commandstats"]).await.expect("INFO");
    let counts = ["eval", "evalsha", "fcall"].map(|command| {
        let start = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&*start));
        let count = line.and_then(|line| line.split(',').next());
        count.map_or(0, |count| count.parse().expect("a number"))
    });
    counts.iter().sum()
}

/// How many connections wait for the release of a key.
///
/// # Panics
///
/// If the server does not say.
pub async fn waiting(connection: &mut MultiplexedConnection, key: &str) -> u64 {
    let channel = format!("leaselock:{{{key}}}:released");
    let reply = ask::<(String, u64)>(connection, &["PUBSUB", "NUMSUB", &channel]).await;
    reply.expect("NUMSUB").1
}

/// The Redis keys of all leases that stand.
///
/// # Panics
///
/// If the server does not say.
pub async fn leases(connection: &mut MultiplexedConnection) -> Vec<String> {
    let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
    loop {
        let words = ["SCAN", &cursor, "MATCH", "leaselock:*:lease", "COUNT", "1000"];
        let page: Vec<String>;
        (cursor, page) = ask(connection, &words).await.expect("SCAN");
        all.extend(page);
        if cursor == "0" {
            return all;
        }
    }
}

/// Waits until no lease is left, and says how long that took.
///
/// # Panics
///
/// If that takes longer than a ttl.
pub async fn nothing_left(connection: &mut MultiplexedConnection, ttl: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let left = leases(connection).await;
        if left.is_empty() {
            return start.elapsed();
        }
        assert!(start.elapsed() < ttl + SLACK, "left behind: {left:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A value in Redis that only the latest holder may write: the recipe of `docs/guarantees.md`, as
/// it stands there.
#[derive(Clone, Debug)]
pub struct Fence {
    script: redis::Script,
    name: String,
}

impl Fence {
    /// The fence of this name; it exists from its first use on.
    ///
    /// # Panics
    ///
    /// If the recipe is no longer in the document.
    #[must_use]
    pub fn new(name: &str) -> Self {
        const RECIPES: &str = include_str!("../../docs/guarantees.md");
        let script = RECIPES.split_once("```lua\n").and_then(|(_, rest)| rest.split_once("```"));
        let (script, _) = script.expect("a recipe");
        Self { script: redis::Script::new(script), name: name.to_owned() }
    }

    /// Writes for the holder of this token; `false` if a newer one was here.
    ///
    /// # Panics
    ///
    /// If Redis answers anything else.
    pub async fn write(
        &self,
        connection: &mut MultiplexedConnection,
        token: u64,
        value: &str,
    ) -> bool {
        let mut call = self.script.key(&self.name);
        let written = call.arg(token).arg(value).invoke_async::<String>(connection).await;
        match written {
            Ok(now) => {
                assert_eq!(now, value);
                true
            }
            Err(error) => {
                assert_eq!(error.code(), Some("STALE"), "{error}");
                false
            }
        }
    }
}
