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

/// Whether somebody waits for the release of a key: in its line, or by a watch.
///
/// # Panics
///
/// If the server does not say.
pub(super) async fn is_watched(url: &str, key: &str) -> bool {
    let mut connection = connection(url).await;
    let name = format!("leaselock:{{{key}}}");
    let record = ask::<Option<String>>(&mut connection, &["GET", &name]).await.expect("GET");
    let places = record.and_then(|record| record.split('|').nth(4)?.parse::<u32>().ok());
    let channel = format!("{name}:released");
    let words = ["PUBSUB", "NUMSUB", &channel];
    let watches = ask::<(String, u64)>(&mut connection, &words).await.expect("NUMSUB").1;
    places > Some(0) || watches > 0
}

/// The record under a key with a lease that stands.
///
/// # Panics
///
/// If the server does not say, or says what is no record.
pub async fn standing(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let record = ask::<Option<String>>(connection, &["GET", name]).await.expect("GET")?;
    let mut fields = record.split('|').skip(1);
    // A token alone: the lease was released.
    let holder = fields.next()?;
    let keep: i64 = fields.nth(1)?.parse().expect("a number");
    let left = ask::<i64>(connection, &["PTTL", name]).await.expect("PTTL") - keep;
    (left > 0 && holder.bytes().any(|digit| digit != b'0')).then_some(record)
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
        let words = ["SCAN", &cursor, "MATCH", "leaselock:{*}", "COUNT", "1000"];
        let page: Vec<String>;
        (cursor, page) = ask(&mut connection, &words).await.expect("SCAN");
        for name in page {
            if standing(&mut connection, &name).await.is_some() {
                let key = name.strip_prefix("leaselock:{").and_then(|key| key.strip_suffix('}'));
                all.push(key.expect("the format").to_owned());
            }
        }
        if cursor == "0" {
            return all;
        }
    }
}
