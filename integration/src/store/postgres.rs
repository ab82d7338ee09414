//! A look at Postgres past the locks.

use leaselock::postgres::tokio_postgres::{Client, NoTls};

/// A connection of the driver's.
///
/// # Panics
///
/// If the server cannot be reached.
pub async fn client(url: &str) -> Client {
    let (client, connection) =
        leaselock::postgres::tokio_postgres::connect(url, NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

pub(super) async fn leases(url: &str) -> Vec<String> {
    const STANDING: &str = "SELECT convert_from(key, 'UTF8') FROM leaselock \
        WHERE key <> '' AND holder IS NOT NULL AND expires_at > clock_timestamp()";
    let rows = client(url).await.query(STANDING, &[]).await.expect("the format");
    rows.iter().map(|row| row.get(0)).collect()
}

pub(super) async fn is_watched(url: &str) -> bool {
    // Who listens only the listener's own session can tell: that somebody began to is counted.
    const LISTENED: &str = "query LIKE 'LISTEN%'";
    calls(url, LISTENED).await > 0
}

pub(super) async fn requests(url: &str) -> u64 {
    calls(url, "query LIKE '%leaselock%' AND query LIKE '%WITH %'").await
}

/// How often statements have been executed, of those that fit.
async fn calls(url: &str, which: &str) -> u64 {
    let client = client(url).await;
    let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
    client.batch_execute(create).await.expect("the extension");
    let count = format!(
        "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
         WHERE {which} AND query NOT LIKE '%pg_stat_statements%'"
    );
    let row = client.query_one(&count, &[]).await.expect("a view");
    u64::try_from(row.get::<_, i64>(0)).expect("a count")
}
