//! A look at Redis past the locks.

use leaselock::redis::redis::aio::MultiplexedConnection;
use leaselock::redis::redis::{self, FromRedisValue, RedisResult};

/// A connection of the driver's.
///
/// # Panics
///
/// If the server cannot be reached.
pub async fn connection(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
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
pub async fn requests(url: &str) -> u64 {
    let info: String =
        ask(&mut connection(url).await, &["INFO", "commandstats"]).await.expect("INFO");
    let counts = ["eval", "evalsha", "fcall"].map(|command| {
        let start = format!("cmdstat_{command}:calls=");
        let line = info.lines().find_map(|line| line.strip_prefix(&*start));
        let count = line.and_then(|line| line.split(',').next());
        count.map_or(0, |count| count.parse().expect("a number"))
    });
    counts.iter().sum()
}

/// Whether somebody waits for the release of a key.
///
/// # Panics
///
/// If the server does not say.
pub(super) async fn is_watched(url: &str, key: &str) -> bool {
    let channel = format!("leaselock:{{{key}}}:released");
    let words = ["PUBSUB", "NUMSUB", &channel];
    let reply = ask::<(String, u64)>(&mut connection(url).await, &words).await;
    reply.expect("NUMSUB").1 > 0
}

/// The keys of all leases that stand.
///
/// # Panics
///
/// If the server does not say.
pub async fn leases(url: &str) -> Vec<String> {
    let mut connection = connection(url).await;
    let (mut cursor, mut all) = ("0".to_owned(), Vec::new());
    loop {
        let words = ["SCAN", &cursor, "MATCH", "leaselock:*:lease", "COUNT", "1000"];
        let page: Vec<String>;
        (cursor, page) = ask(&mut connection, &words).await.expect("SCAN");
        all.extend(page.iter().map(|name| {
            let key = name.strip_prefix("leaselock:{").and_then(|key| key.strip_suffix("}:lease"));
            key.expect("the format").to_owned()
        }));
        if cursor == "0" {
            return all;
        }
    }
}
